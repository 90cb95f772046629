"""PAIRS (or scored GROUPS) to token ids, each once, nothing cut: what does not fit is refused, or dropped and counted.

Chat templates and end tokens are `trimtab.lm.chat`'s. It does not judge the pairs (`trimtab.data.lint` does).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.types import Completion, Group, Pair, Prompt


@dataclass(frozen=True)
class Example:
    """One training example as token ids: `completions` is (chosen, rejected) of a pair, or a single completion.

    `desirable` and `mismatched` (another prompt's completion, for KTO's baseline) matter to unpaired losses only;
    `reference` holds log π_ref summed over each completion, `mismatched_reference` over the mismatched one; `features`
    the reference's sparse SAE features of each completion, where a feature leash asks for them; `margin` is the pair's.
    """

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    desirable: bool = True
    mismatched: tuple[int, ...] = ()
    reference: tuple[float, ...] = ()
    mismatched_reference: float = math.nan
    features: tuple[Any, ...] = ()
    margin: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of a row that holds the prompt once and every completion."""
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest completion: what must fit into the context."""
        return len(self.prompt) + max(map(len, (*self.completions, self.mismatched)))


def encode_pairs(pairs: Sequence[Pair], tokenizer: Any, limit: int, *, overlong: str = "refuse") -> list[Example]:
    """Pairs to examples. Over `limit` tokens: InputError with the count (`overlong="refuse"`) or left out ("drop")."""

    def encode(pair: Pair) -> Example:
        completions = (pair.chosen, pair.rejected)
        return replace(_example(pair.prompt, completions, tokenizer), margin=pair.margin)

    return _within(pairs, encode, limit, overlong, lambda p: p.prompt.id)


def one_by_one(
    groups: Sequence[Group], desirable_above: float = 0.5, *, only_desirable: bool = False
) -> list[tuple[Prompt, Completion, bool]]:
    """Every scored completion alone, True when its reward is above `desirable_above`; NaN is left out.

    Groups without any rewards are demonstrations: all desirable. InputError when nothing is left to imitate.
    """
    singles = [
        (g.prompt, c, not g.rewards or bool(r > desirable_above))
        for g in groups
        for c, r in zip(g.completions, g.reward_N, strict=True)
        if not c.failed and (not g.rewards or np.isfinite(r))
    ]
    if only_desirable and not any(good for _, _, good in singles):
        raise InputError(f"no completion has a reward above {desirable_above}: there is nothing to imitate")
    return [s for s in singles if s[2]] if only_desirable else singles


def encode_singles(
    singles: Sequence[tuple[Prompt, Completion, bool]], tokenizer: Any, limit: int, *, overlong: str = "refuse"
) -> list[Example]:
    """Single completions to examples; `overlong` as in `encode_pairs`."""

    def encode(single: tuple[Prompt, Completion, bool]) -> Example:
        return replace(_example(single[0], (single[1],), tokenizer), desirable=single[2])

    return _within(singles, encode, limit, overlong, lambda s: s[0].id)


def with_mismatched(examples: Sequence[Example], seed: int) -> list[Example]:
    """Gives each example a completion of another prompt (a seeded cyclic shift), whose log-ratio estimates KTO's KL.

    InputError when there is only one prompt: nothing is mismatched then.
    """
    order = np.random.default_rng(seed).permutation(len(examples))
    out = list(examples)
    for at, i in enumerate(order):
        others = (examples[order[(at + k) % len(order)]] for k in range(1, len(order)))
        other = next((o for o in others if o.prompt != examples[i].prompt), None)
        if other is None:
            raise InputError("KTO needs completions of at least two different prompts to estimate its KL baseline")
        out[i] = replace(examples[i], mismatched=other.completions[0])
    return out


def _example(prompt: Prompt, completions: Sequence[Completion], tokenizer: Any) -> Example:
    encoded = tuple(tuple(encode_completion(tokenizer, c, prompt)) for c in completions)
    if empty := [c.text for c, ids in zip(completions, encoded, strict=True) if not ids]:
        raise InputError(
            f"prompt {prompt.id!r}: completion {empty[0]!r} has no tokens, so it has no likelihood; drop it"
        )
    return Example(tuple(encode_prompt(tokenizer, prompt)), encoded)


def _within(items: Sequence[Any], encode: Callable, limit: int, overlong: str, name: Callable) -> list[Example]:
    if overlong not in ("refuse", "drop"):
        raise InputError(f'overlong must be "refuse" or "drop", not {overlong!r}')
    examples = [encode(item) for item in items]
    long = [i for i, e in enumerate(examples) if e.longest > limit]
    if long and overlong == "refuse":
        worst = max(examples[i].longest for i in long)
        raise InputError(
            f"{len(long)} of {len(examples)} examples are longer than {limit} tokens (the longest has {worst}; the "
            f'first is prompt {name(items[long[0]])!r}): raise max_tokens, or pass overlong="drop" to leave them out'
        )
    if len(long) == len(examples):
        raise InputError(f"no example to train on ({len(long)} were longer than {limit} tokens)")
    return [e for e in examples if e.longest <= limit]
