"""Texts to vectors in microseconds: hashed word and character n-grams and a few marks of form. Pure numpy, no weights.

For routing, what kind of task a text is (code, sums, a multiple choice, a search query) is most of the signal, and the
wording and the format show it. So this is the fast encoder: no window, no tokenizer file, no download. Meaning beyond
the words is what it does not see; a sentence encoder beside it does (`Both`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.embeddings.stored import from_card
from trimtab.errors import InputError, ModelError
from trimtab.types import Completion, Embedder, Group, Prompt, PromptEmbedder, user_text

Array = npt.NDArray[np.float32]


_WORD = np.zeros(256, bool)
_WORD[[*range(48, 58), *range(97, 123), *range(128, 256)]] = True
_SPACE = np.zeros(256, bool)
_SPACE[[9, 11, 12, 13, 32]] = True
_POWERS = np.cumprod(np.full(64, 0x9E3779B97F4A7C15, np.uint64), dtype=np.uint64)
_STARTS = ("what", "who", "when", "where", "which", "how", "why", "write", "if")
_MARKS = (
    b"$",
    b"\\",
    b"\n",
    b".",
    b",",
    b"?",
    b'"',
    b"'",
    b"(",
    b"_",
    b"=",
    b">>>",
    b"def ",
    b"return",
    b"list",
    b"____",
)


@dataclass(frozen=True)
class HashedNgrams:
    """Texts to (P, 2·dim + marks) float32: words and word pairs, then character 3- and 4-grams, then marks of form.

    Counts are signed-hashed into `dim` slots a block, damped by log(1 + count) and each block scaled to length 1, so
    a text's length shows only in the marks. Lower case, UTF-8 bytes. An empty text gives zeros in both blocks.
    """

    dim: int = 1024

    @property
    def card(self) -> dict[str, Any]:
        """What made the vectors."""
        return {"kind": "hashed n-grams", "dim": self.dim, "version": 1, "width": sum(self.blocks)}

    @property
    def blocks(self) -> tuple[int, ...]:
        """Widths of the blocks: words, characters, marks."""
        return self.dim, self.dim, marks("").size

    def embed_prompts(self, prompts: Sequence[Prompt]) -> Array:
        """(P, D) vectors of the users' messages; system messages are not read."""
        return self.embed_texts([user_text(p) for p in prompts])

    def embed_texts(self, texts: Sequence[str]) -> Array:
        """(P, D) vectors of texts."""
        out = np.zeros((len(texts), self.card["width"]), np.float32)
        for row, text in zip(out, texts, strict=True):
            data = np.frombuffer(text.lower().encode("utf-8", "replace"), np.uint8)
            row[: self.dim] = _slots(word_hashes(data), self.dim)
            row[self.dim : 2 * self.dim] = _slots(char_hashes(data), self.dim)
            row[2 * self.dim :] = marks(text)
        return out


@dataclass(frozen=True)
class Both:
    """Two encoders side by side, (P, D1 + D2): a sentence encoder's meaning and the n-grams' form."""

    first: PromptEmbedder
    second: PromptEmbedder

    @property
    def card(self) -> dict[str, Any]:
        """The cards of both."""
        return {"kind": "both", "first": self.first.card, "second": self.second.card}

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks of both; an encoder that declares none is one block."""
        empty = [Prompt("", ({"role": "user", "content": "a"},))]
        parts = [getattr(e, "blocks", None) or (e.embed_prompts(empty).shape[1],) for e in (self.first, self.second)]
        return tuple(w for part in parts for w in part)

    def embed_prompts(self, prompts: Sequence[Prompt]) -> npt.NDArray[np.floating]:
        """(P, D1 + D2) vectors."""
        return np.concatenate([self.first.embed_prompts(prompts), self.second.embed_prompts(prompts)], axis=1)


@dataclass(frozen=True)
class OfPrompts:
    """Any Embedder of completions for prompts: each prompt with an empty answer, (P, D).

    `OfPrompts(HiddenStates("smollm2-135m", layers=(20,)))` reads a small model's state after the prompt, its chat
    template and the end token.
    """

    embed: Embedder

    @property
    def card(self) -> dict[str, Any]:
        """The embedder's card, marked."""
        return {"kind": "of prompts", "embedder": self.embed.card}

    def embed_prompts(self, prompts: Sequence[Prompt]) -> npt.NDArray[np.floating]:
        """(P, D) vectors."""
        empty = (Completion("", "none@0", 0, 0),)
        rows = self.embed([Group(p, empty) for p in prompts])
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def prompts_from_card(card: Mapping[str, Any]) -> PromptEmbedder:
    """The embedder of prompts that a router's card describes. InputError: no built-in one wrote it. ModelError: the
    model that it names has another revision by now."""
    kind = card.get("kind")
    if kind == "both":
        return Both(prompts_from_card(card["first"]), prompts_from_card(card["second"]))
    if kind == "of prompts":
        return OfPrompts(from_card(card["embedder"]))
    if kind != "hashed n-grams":
        embed = from_card(card)
        if isinstance(embed, PromptEmbedder):
            return embed
        raise InputError(f"an embedder of the kind {kind!r} reads completions, not prompts: give the router's own")
    embed = HashedNgrams(card["dim"])
    if embed.card != dict(card):
        raise ModelError(f"hashed n-grams are {embed.card} now and were {dict(card)}; fit again")
    return embed


def word_hashes(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Hashes of the words (runs of letters, digits and non-ASCII bytes; any other mark is a word) and their pairs."""
    keep, word = ~_SPACE[data], _WORD[data]
    at = np.flatnonzero(keep & (~word | np.r_[True, ~word[:-1]])) if len(data) else np.zeros(0, int)
    if not len(at):
        return np.zeros(0, np.uint64)
    data, keep, at = data[at[0] :], keep[at[0] :], at - at[0]
    place = np.arange(len(data)) - np.repeat(at, np.diff(np.r_[at, len(data)]))
    value = np.where(keep, (data.astype(np.uint64) + np.uint64(1)) * _POWERS[place % 64], np.uint64(0))
    one = np.add.reduceat(value, at, dtype=np.uint64)
    two = one[:-1] * np.uint64(0xD1B54A32D192ED03) + one[1:] if len(one) > 1 else one[:0]
    return np.concatenate([one, two])


def char_hashes(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Hashes of the runs of 3 and 4 bytes."""
    value = data.astype(np.uint64) + np.uint64(1)
    parts = []
    for n in (3, 4):
        if len(value) >= n:
            h = np.zeros(len(value) - n + 1, np.uint64)
            for i in range(n):
                h += value[i : len(value) - n + 1 + i] * _POWERS[8 * n + i]
            parts.append(h)
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def marks(text: str) -> Array:
    """Marks of form, about 0 to 1 each: lengths, digits, capitals, counts of marks, how the text starts and ends."""
    data = text.encode("utf-8", "replace")
    n = max(len(data), 1)
    low = data.lower()
    codes = np.frombuffer(data, np.uint8)
    digits = int(((codes >= 48) & (codes <= 57)).sum())
    capitals = int(((codes >= 65) & (codes <= 90)).sum())
    spaces = low.count(b" ") + 1
    begin = low.lstrip()
    values = [
        np.log1p(len(data)) / 8, np.log1p(spaces) / 6, np.log1p(digits) / 4, digits / n, capitals / n * 4,
        n / spaces / 10, float(data[:1].isupper()), float(low.rstrip().endswith(b"?")),
        float(low.rstrip().endswith(b".")),
        *(np.log1p(low.count(m)) / 3 for m in _MARKS),
        *(float(begin.startswith(s.encode())) for s in _STARTS),
    ]  # fmt: skip
    return np.asarray(values, np.float32)


def _slots(hashes: npt.NDArray[np.uint64], dim: int) -> Array:
    mixed = hashes ^ (hashes >> np.uint64(29))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    sign = np.where(mixed & np.uint64(1), 1.0, -1.0)
    count = np.bincount((mixed >> np.uint64(1)).astype(np.int64) % dim, weights=sign, minlength=dim)
    damped = np.sign(count) * np.log1p(np.abs(count))
    return (damped / max(float(np.sqrt((damped**2).sum())), 1e-9)).astype(np.float32)
