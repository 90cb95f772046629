"""PAIRS to findings: what would silently spoil preference training, counted before it starts.

A pair whose answers are equal (also only up to the length limit) trains with loss log 2 and no gradient; a tie teaches
noise; a template whose prompt is not a prefix of prompt + answer trains on tokens the model never sees when it serves.
It changes no text; `without` drops whole pairs.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import TrimtabError
from trimtab.lm.chat import encode_completion, encode_prompt, is_raw, render_dialogue
from trimtab.types import Pair, fingerprint

EXPLANATIONS = {
    "empty": "an answer without text",
    "identical": "chosen and rejected are the same text: loss log 2, no gradient",
    "identical_cut": "the same tokens up to the length limit",
    "reversed": "the rejected answer has the higher score",
    "tie": "both answers have the same score (a margin of 0 among pairs that have margins)",
    "prefix": "one answer is the beginning of the other: only the rest is compared",
    "repeated": "the same pair again",
    "contradiction": "the same two answers the other way round elsewhere",
    "overlong": "prompt and answer exceed the length limit",
    "template": "the templated prompt is not a prefix of the templated prompt and answer",
    "double_bos": "two BOS tokens at the start",
}
FATAL = frozenset({"empty", "identical", "identical_cut", "reversed", "tie", "contradiction", "overlong", "double_bos"})
"""What `without` drops by default."""


@dataclass(frozen=True)
class Finding:
    """One kind of trouble and the indices of the pairs that have it."""

    kind: str
    indices: tuple[int, ...]

    @property
    def explanation(self) -> str:
        """What the kind means."""
        return EXPLANATIONS[self.kind]


def lint_pairs(pairs: Sequence[Pair], tokenizer: Any = None, max_tokens: int | None = None) -> list[Finding]:
    """Findings of every kind that occurs, most frequent first. Token-level kinds need a tokenizer, and `overlong` and
    `identical_cut` the limit as well. Nothing is raised for the content of pairs."""
    found: dict[str, list[int]] = {}
    orders = [[fingerprint([p.prompt.messages, *order]) for order in _orders(p)] for p in pairs]
    known, seen = {there for there, _ in orders}, set()
    scored = any(p.margin for p in pairs)
    for i, (pair, (there, back)) in enumerate(zip(pairs, orders, strict=True)):
        kinds = _by_text(pair, scored)
        kinds += ["repeated"] if there in seen else []
        kinds += ["contradiction"] if back in known and back != there else []
        kinds += _by_token(pair, tokenizer, max_tokens) if tokenizer is not None else []
        seen.add(there)
        for kind in kinds:
            found.setdefault(kind, []).append(i)
    findings = [Finding(kind, tuple(indices)) for kind, indices in found.items()]
    return sorted(findings, key=lambda f: (-len(f.indices), f.kind))


def without(pairs: Sequence[Pair], findings: Iterable[Finding], kinds: Collection[str] = FATAL) -> list[Pair]:
    """The pairs that have none of the findings of these kinds."""
    bad = {i for f in findings if f.kind in kinds for i in f.indices}
    return [p for i, p in enumerate(pairs) if i not in bad]


def _orders(pair: Pair) -> list[tuple[str, str]]:
    return [(pair.chosen.text, pair.rejected.text), (pair.rejected.text, pair.chosen.text)]


def _by_text(pair: Pair, scored: bool) -> list[str]:
    chosen, rejected = pair.chosen.text, pair.rejected.text
    kinds = []
    if not chosen.strip() or not rejected.strip():
        kinds.append("empty")
    elif chosen == rejected:
        kinds.append("identical")
    elif chosen.startswith(rejected) or rejected.startswith(chosen):
        kinds.append("prefix")
    if pair.margin < 0:
        kinds.append("reversed")
    elif scored and pair.margin == 0:
        kinds.append("tie")
    return kinds


def _by_token(pair: Pair, tokenizer: Any, max_tokens: int | None) -> list[str]:
    try:
        prompt = encode_prompt(tokenizer, pair.prompt)
    except TrimtabError:
        return ["template"]
    chosen, rejected = (encode_completion(tokenizer, c, pair.prompt) for c in (pair.chosen, pair.rejected))
    kinds = []
    bos = tokenizer.bos_token_id
    if bos is not None and prompt[:2] == [bos, bos]:
        kinds.append("double_bos")
    if max_tokens is not None:
        room = max_tokens - len(prompt)
        if max(len(chosen), len(rejected)) > room:
            kinds.append("overlong")
            if chosen[: max(room, 0)] == rejected[: max(room, 0)] and chosen != rejected:
                kinds.append("identical_cut")
    if not is_raw(pair.prompt):
        for completion in (pair.chosen, pair.rejected):
            whole = render_dialogue(tokenizer, pair.prompt, completion.text)
            if tokenizer(whole, add_special_tokens=False)["input_ids"][: len(prompt)] != prompt:
                return [*kinds, "template"]
    return kinds
