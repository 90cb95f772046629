"""Scored GROUPS to preference PAIRS, and pairs to TRL's rows. Derived, never stored as a rival truth.

Best against worst of N is West-of-N's construction (arXiv 2401.12086) with a pointwise teacher, and SimPO's on-policy
data. Equal rewards make no pair, an unscored completion (NaN) is in none, and neither are two equal texts.
It does not filter by confidence or likelihood (learners.completion does).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from trimtab.types import Completion, Group, Pair, Prompt, fingerprint


def best_vs_worst(groups: Iterable[Group]) -> list[Pair]:
    """At most one pair a group: the highest reward against the lowest, the first of several equal ones."""
    pairs = []
    for g in groups:
        reward_N = g.reward_N
        if np.isfinite(reward_N).any():
            pairs += _pairs(g, [(int(np.nanargmax(reward_N)), int(np.nanargmin(reward_N)))])
    return pairs


def all_pairs(groups: Iterable[Group], margin: float = 0.0) -> list[Pair]:
    """Every ordered pair of a group whose rewards differ by more than `margin`; up to N(N-1)/2 a group."""
    return [
        p
        for g in groups
        for n in [len(g.completions)]
        for p in _pairs(g, ((i, j) for i in range(n) for j in range(n)), margin)
    ]


def right_vs_wrong(groups: Iterable[Group], threshold: float = 0.5) -> list[Pair]:
    """The i-th completion with reward > threshold against the i-th at or below it; none is in two pairs."""
    pairs = []
    for g in groups:
        reward_N = g.reward_N
        right = np.flatnonzero(reward_N > threshold)
        wrong = np.flatnonzero(reward_N <= threshold)
        pairs += _pairs(g, zip(right.tolist(), wrong.tolist(), strict=False))
    return pairs


def to_trl(pairs: Iterable[Pair], groups: Sequence[Group] = ()) -> list[dict[str, Any]]:
    """Rows for TRL's preference trainers: conversational for chat prompts, plain text for raw ones.

        {"prompt": [{"role": "user", "content": "2 + 3?"}], "chosen": [{"role": "assistant", "content": "5"}],
         "rejected": [{"role": "assistant", "content": "6"}], "margin": 1.0, "chosen_score": 1.0, "rejected_score": 0.0,
         "source": "tasks.jsonl", "prompt_id": "q7", "id": "5b1c..."}

    Rewards come from `groups` (those the pairs were made of) and are None without them. `id` is a hash of the
    prompt's id and of the model, seed and index of both completions.
    """
    scores = {
        _key(g.prompt, c): float(r)
        for g in groups
        for c, r in zip(g.completions, g.reward_N, strict=True)
        if math.isfinite(r)
    }
    rows = []
    for p in pairs:
        raw = p.prompt.messages[0]["role"] == "text"
        chosen, rejected = _key(p.prompt, p.chosen), _key(p.prompt, p.rejected)
        rows.append(
            {
                "prompt": p.prompt.messages[0]["content"] if raw else [dict(m) for m in p.prompt.messages],
                "chosen": p.chosen.text if raw else [{"role": "assistant", "content": p.chosen.text}],
                "rejected": p.rejected.text if raw else [{"role": "assistant", "content": p.rejected.text}],
                "margin": p.margin,
                "chosen_score": scores.get(chosen),
                "rejected_score": scores.get(rejected),
                "source": p.prompt.source,
                "prompt_id": p.prompt.id,
                "id": fingerprint([chosen, rejected]),
            }
        )
    return rows


def _pairs(group: Group, indices: Iterable[tuple[int, int]], margin: float = 0.0) -> Iterator[Pair]:
    """Those (chosen, rejected) whose rewards differ by more than `margin` (NaN: false) and whose texts differ."""
    reward_N = group.reward_N
    for i, j in indices:
        chosen, rejected = group.completions[i], group.completions[j]
        difference = float(reward_N[i] - reward_N[j])
        if difference > margin and chosen.text != rejected.text:
            yield Pair(group.prompt, chosen, rejected, difference)


def _key(prompt: Prompt, c: Completion) -> tuple[str, str, int, int]:
    return (prompt.id, c.model, c.seed, c.index)
