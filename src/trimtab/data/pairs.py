"""Scored GROUPS to preference PAIRS, and pairs to TRL's rows. Derived, never stored as a rival truth.

Best against worst of N is West-of-N's construction (arXiv 2401.12086) with a pointwise teacher, and SimPO's on-policy
data. Equal rewards make no pair, an unscored completion (NaN) is in none, and neither are two equal texts.
It does not filter by confidence or likelihood (learners.completion does).
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from trimtab.lm.chat import conversation
from trimtab.types import Completion, Group, Pair, Prompt, fingerprint


def best_vs_worst(groups: Iterable[Group]) -> list[Pair]:
    """At most one pair a group: the highest reward against the lowest, the first of several equal ones."""
    pairs, groups = [], list(groups)
    for g in groups:
        reward_N = g.reward_N
        if np.isfinite(reward_N).any():
            pairs += _pairs(g, [(int(np.nanargmax(reward_N)), int(np.nanargmin(reward_N)))])
    return _told(pairs, groups)


def all_pairs(groups: Iterable[Group], margin: float = 0.0) -> list[Pair]:
    """Every ordered pair of a group whose rewards differ by more than `margin`; up to N(N-1)/2 a group."""
    groups = list(groups)
    pairs = [
        p
        for g in groups
        for n in [len(g.completions)]
        for p in _pairs(g, ((i, j) for i in range(n) for j in range(n)), margin)
    ]
    return _told(pairs, groups, margin=margin)


def right_vs_wrong(groups: Iterable[Group], threshold: float = 0.5) -> list[Pair]:
    """The i-th completion with reward > threshold against the i-th at or below it; none is in two pairs.

    Warns where graded rewards all lie on one side of the threshold: they differ, but none is right or none wrong.
    """
    pairs, groups = [], list(groups)
    for g in groups:
        reward_N = g.reward_N
        right = np.flatnonzero(reward_N > threshold)
        wrong = np.flatnonzero(reward_N <= threshold)
        pairs += _pairs(g, zip(right.tolist(), wrong.tolist(), strict=False))
    return _told(pairs, groups, threshold)


def why_none(groups: Sequence[Group], threshold: float | None = None, margin: float = 0.0) -> str:
    """Why no pair can be made of these groups, and what to do. `threshold` and `margin` as the maker was given them."""
    values = [g.reward_N[np.isfinite(g.reward_N)] for g in groups]
    known = np.concatenate(values) if values else np.empty(0)
    if not len(known):
        notes = Counter(r.note for g in groups for r in g.rewards if r.note)
        why = f" (most often: {notes.most_common(1)[0][0]})" if notes else "; score them first, or name the reward"
        return f"not one completion of {len(groups)} groups has a reward{why}"
    if all(np.ptp(v) == 0 for v in values if len(v)):
        return (
            f"within every one of {len(groups)} groups all rewards are equal: sample more completions or other prompts"
        )
    graded = f"the rewards are graded, from {known.min():g} to {known.max():g}"
    if threshold is not None and not known.min() <= threshold < known.max():
        side = "none is above" if known.max() <= threshold else "all are above"
        return f"{graded}, and {side} the threshold {threshold:g}; give another, or use best_vs_worst or all_pairs"
    if threshold is not None:
        return f"no group has rewards on both sides of the threshold {threshold:g}; best_vs_worst takes any difference"
    if margin > 0:
        return f"{graded}, and no two of a group differ by more than the margin {margin:g}; ask a smaller one"
    return "completions of different rewards have the same text"


def to_trl(pairs: Iterable[Pair], groups: Sequence[Group] = ()) -> list[dict[str, Any]]:
    """Rows for TRL's preference trainers: conversational for chat prompts, plain text for raw ones.

        {"prompt": [{"role": "user", "content": "2 + 3?"}], "chosen": [{"role": "assistant", "content": "5"}],
         "rejected": [{"role": "assistant", "content": "6"}], "margin": 1.0, "chosen_score": 1.0, "rejected_score": 0.0,
         "source": "tasks.jsonl", "prompt_id": "q7", "id": "5b1c..."}

    Rewards come from `groups` (those the pairs were made of) and are None without them. `id` is a hash of the
    prompt's id and of the model, seed and index of both completions. Prompts with tools have them in a column `tools`.
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
        messages, tools = conversation(p.prompt)
        rows.append(
            {
                "prompt": p.prompt.messages[0]["content"] if raw else messages,
                "chosen": p.chosen.text if raw else [{"role": "assistant", "content": p.chosen.text}],
                "rejected": p.rejected.text if raw else [{"role": "assistant", "content": p.rejected.text}],
                "margin": p.margin,
                "chosen_score": scores.get(chosen),
                "rejected_score": scores.get(rejected),
                "source": p.prompt.source,
                "prompt_id": p.prompt.id,
                "id": fingerprint([chosen, rejected]),
                **({"tools": tools} if tools else {}),
            }
        )
    return rows


def _told(
    pairs: list[Pair], groups: Sequence[Group], threshold: float | None = None, margin: float = 0.0
) -> list[Pair]:
    """The pairs; a warning where there are none though there were groups to make them of."""
    if groups and not pairs:
        warnings.warn(f"no pairs: {why_none(groups, threshold, margin)}", stacklevel=3)
    return pairs


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
