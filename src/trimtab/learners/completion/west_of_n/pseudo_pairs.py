"""GROUPS and a teacher to pseudo-labelled PAIRS: best against worst, the two filters, and the mix with labelled pairs.

West-of-N (Pace et al., arXiv 2401.12086, section 4): (best, worst) of N samples by a learned preference, kept where the
teacher is confident and the policy likely to write both. Beside it the paper's nulls: best against a random one, the
first two only, labels of a prompted judge (RLAIF), contrasting prompts (RLCD). It fits nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.errors import InputError, unknown
from trimtab.learners.completion.west_of_n.tournament import Extremes, extremes
from trimtab.types import Group, Pair, Preference, Prompt, Sampler, SamplingParams, completion_seed

PAIRINGS = ("best_vs_worst", "best_vs_random", "first_two")
NORMALISE = ("sum", "mean")


@dataclass(frozen=True)
class PseudoPair:
    """A pair that a teacher made; `pair.margin` is its log-odds of being right in the teacher's eyes.

    `logprob` is log pi(chosen) + log pi(rejected) under the policy that sampled them, `mean_logprob` the sum of the two
    per-token means; both NaN where the sampler gave no log-probs.
    """

    pair: Pair
    confidence: float
    logprob: float
    mean_logprob: float


@dataclass(frozen=True)
class Counts:
    """What became of the groups, and what the tournament cost."""

    groups: int
    undecided: int
    comparisons: int
    unresolved: int


def pseudo_pairs(
    groups: Sequence[Group], teacher: Any, *, pairing: str = "best_vs_worst", how: str = "auto", seed: int = 0
) -> tuple[list[PseudoPair], Counts]:
    """At most one pair a group, by a teacher that is a `RewardFn` or a `Preference` (see `tournament.extremes`).

    "best_vs_worst" is West-of-N, "best_vs_random" the paper's ablation (a seeded draw among the others), "first_two"
    naive self-training (the same as West-of-N with N = 2). A group whose best and worst tie, or have the same text, or
    are not resolved, gives none and is counted as undecided.
    """
    if pairing not in PAIRINGS:
        raise unknown("pairing", pairing, PAIRINGS)
    if pairing == "first_two":
        groups = [_first(g, 2) for g in groups]
    found = extremes(groups, teacher, how, seed=seed)
    if pairing == "best_vs_random":
        found = _against_random(groups, teacher, found, seed)
    out = []
    for g, e in zip(groups, found, strict=True):
        if e.decided and g.completions[e.best].text != g.completions[e.worst].text:
            out.append(_pseudo(g, e.best, e.worst, e))
    counts = Counts(
        len(groups), len(groups) - len(out), sum(e.comparisons for e in found), sum(e.unresolved for e in found)
    )
    return out, counts


def filter_pairs(
    pairs: Sequence[PseudoPair], *, confidence: float = 0.0, logprob: float = 0.0, normalise: str = "mean"
) -> list[PseudoPair]:
    """Pairs at or above both quantiles: of the teacher's confidence, and of the joint log-likelihood of both texts.

    Quantiles in [0, 1) of the given pairs; 0 keeps all. `normalise`: "sum" is the paper's log pi(y+) + log pi(y-),
    which favours short texts; "mean" uses the per-token means. InputError when log-probs are asked for and missing.
    """
    if normalise not in NORMALISE:
        raise unknown("normalisation", normalise, NORMALISE)
    if not (0 <= confidence < 1 and 0 <= logprob < 1):
        raise InputError(f"quantiles must be in [0, 1), they are confidence {confidence:g} and logprob {logprob:g}")
    if not pairs:
        return []
    keep_B = np.ones(len(pairs), dtype=bool)
    if confidence:
        margin_B = np.array([p.pair.margin for p in pairs])  # confidences of 1 - 1e-17 still differ as log-odds
        keep_B &= margin_B >= np.quantile(margin_B, confidence)
    if logprob:
        joint_B = np.array([p.logprob if normalise == "sum" else p.mean_logprob for p in pairs])
        if np.isnan(joint_B).any():
            raise InputError(
                f"{int(np.isnan(joint_B).sum())} of {len(pairs)} pairs have no log-probs, so they cannot be filtered "
                "by likelihood: sample with an engine that gives them, or set the quantile to 0"
            )
        keep_B &= joint_B >= np.quantile(joint_B, logprob)
    return [p for p, keep in zip(pairs, keep_B, strict=True) if keep]


def mix(base: Sequence[Pair], synthetic: Sequence[Pair], ratio: float = 1.0, *, seed: int = 0) -> list[Pair]:
    """Labelled and pseudo-labelled pairs at `ratio` synthetic pairs to one labelled (the paper: 1:1), none left out.

    The side that is short is repeated: whole copies, then a seeded draw for the rest. `ratio` 0 is the base alone.
    """
    if ratio < 0 or not math.isfinite(ratio):
        raise InputError(f"the ratio of synthetic to labelled pairs must be 0 or more, it is {ratio}")
    if ratio == 0 or not synthetic or not base:
        return [*base] if ratio == 0 else [*base, *synthetic]
    wanted = round(ratio * len(base))
    if len(synthetic) < wanted:
        return [*base, *_repeated(synthetic, wanted, seed)]
    return [*_repeated(base, max(round(len(synthetic) / ratio), len(base)), seed), *synthetic]


def judged_pairs(groups: Sequence[Group], judge: Preference) -> tuple[list[Pair], int]:
    """RLAIF's labels: the judge's preference between the first two completions of every group; and how many it left
    undecided (ties, unparsed verdicts)."""
    firsts = [_first(g, 2) for g in groups if len(g.completions) > 1]
    asked = [np.array([[0, 1]], dtype=np.intp) for _ in firsts]
    pairs = []
    for g, p in zip(firsts, judge(firsts, asked) if firsts else [], strict=True):
        if np.isfinite(p[0]) and p[0] != 0.5:
            first = 0 if p[0] > 0.5 else 1
            pairs.append(_pseudo(g, first, 1 - first, Extremes(first, 1 - first, float(max(p[0], 1 - p[0])))).pair)
    return pairs, len(groups) - len(pairs)


def contrast_pairs(
    prompts: Sequence[Prompt], sampler: Sampler, params: SamplingParams, *, good: str, bad: str
) -> list[Pair]:
    """RLCD's pairs (arXiv 2307.12950): a completion asked to be `good` is chosen over one asked to be `bad`.

    The two instructions are put before the prompt's last message; the pair carries the prompt without them.
    """
    sides = []
    for words in (good, bad):
        asked = [replace(p, messages=(*p.messages[:-1], _with(p.messages[-1], words))) for p in prompts]
        sides.append([g.completions[0] for g in sampler(asked, 1, params)])
    return [Pair(p, c, r) for p, c, r in zip(prompts, *sides, strict=True) if c.text != r.text]


def _with(message: Any, words: str) -> dict[str, str]:
    return {**message, "content": f"{words}\n\n{message['content']}"}


def _first(group: Group, n: int) -> Group:
    return replace(group, completions=group.completions[:n], rewards=group.rewards[:n])


def _against_random(groups: Sequence[Group], teacher: Any, found: Sequence[Extremes], seed: int) -> list[Extremes]:
    """The same best, a seeded random other in place of the worst, and the teacher's confidence in that."""
    others = []
    for g, e in zip(groups, found, strict=True):
        rest = [i for i in range(len(g.completions)) if i != e.best]
        rng = np.random.default_rng(completion_seed(seed, g.prompt.id, 1))
        others.append(int(rng.choice(rest)) if rest else e.best)
    if getattr(teacher, "pairwise", False):
        asked = [np.array([[e.best, o]], dtype=np.intp) for e, o in zip(found, others, strict=True)]
        again = [Extremes(0, 1, float(p[0])).log_odds for p in teacher(groups, asked)]
    else:
        again = [row[e.best].value - row[o].value for row, e, o in zip(teacher(groups), found, others, strict=True)]
    return [
        replace(e, worst=o, confidence=1 / (1 + math.exp(-min(gap, 700))) if gap > 0 else 0.5, gap=max(gap, 0.0))
        for e, o, gap in zip(found, others, (0.0 if math.isnan(x) else x for x in again), strict=True)
    ]


def _pseudo(group: Group, best: int, worst: int, found: Extremes) -> PseudoPair:
    chosen, rejected = group.completions[best], group.completions[worst]
    logprobs = [np.array(c.logprobs) if c.logprobs else np.array([math.nan]) for c in (chosen, rejected)]
    return PseudoPair(
        Pair(group.prompt, chosen, rejected, found.log_odds), found.confidence, float(sum(x.sum() for x in logprobs)),
        float(sum(x.mean() for x in logprobs)),
    )  # fmt: skip


def _repeated(pairs: Sequence[Pair], wanted: int, seed: int) -> list[Pair]:
    copies, rest = divmod(wanted, len(pairs))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:rest])
    return [*list(pairs) * copies, *(pairs[i] for i in drawn)]
