"""Held-out PAIRS, gold-scored GROUPS and rankers to an honest report on a reward model, null rankers beside it.

Accuracy, also on the pairs the labels are sure of; best-of-N under a gold reward that is independent of the labels;
calibration; length bias: whether the model prefers the longer answer more often than the labels do (on some public
subsets a ruler is right in 100 %). Intervals are bootstraps over prompts. It trains nothing and judges nothing itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.evaluation.choosing import ByValue, Values, aligned, chunk_index, lengths, logprob_values, rewards_of
from trimtab.evaluation.curves import Curve, Figure, doublings
from trimtab.evaluation.metrics import (
    Interval,
    expected_max,
    mean_interval,
    mean_known,
    paired_bootstrap,
)
from trimtab.intervals import figure
from trimtab.segments import mean_by
from trimtab.types import Group, Pair, Reward, RewardFn, completion_seed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankerReport:
    """What one ranking is worth. Accuracies count ties half; NaN intervals where there is nothing to measure."""

    name: str
    null: bool
    accuracy: Interval
    confident: Interval
    """Accuracy on the pairs whose label margin is at or above the quantile asked for."""
    over_null: Interval
    """Accuracy minus that of the best null ranker, paired."""
    prefers_longer: Interval
    """Share of pairs in which it takes the longer completion, minus the same share of the labels."""
    chosen_longer: float
    """Accuracy where the chosen completion is the longer one; `chosen_shorter` where it is the shorter one."""
    chosen_shorter: float
    best_of_n: Interval
    calibration_error: float
    """Expected calibration error of sigmoid(difference), ten bins of equal size; NaN for nulls."""
    log_loss: float
    unscored: int

    @property
    def length_biased(self) -> bool:
        """Whether it prefers longer completions more often than the labels do, beyond the interval."""
        return self.prefers_longer.lower > 0


@dataclass(frozen=True)
class RewardReport:
    """The rows, nulls included, and what they were measured on."""

    rows: tuple[RankerReport, ...]
    pairs: int
    prompts: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        head = f"{'ranking':16} {'accuracy':>22} {'sure pairs':>22} {'best of N':>22} {'longer than labels':>24}  ECE"
        lines = [head]
        for r in self.rows:
            flag = "  prefers the longer answer" if r.length_biased and not r.null else ""
            lines.append(
                f"{r.name:16} {r.accuracy!s:>22} {r.confident!s:>22} {r.best_of_n!s:>22} {r.prefers_longer!s:>24}  "
                f"{figure(r.calibration_error)}{flag}"
            )
        return "\n".join([*lines, f"{self.pairs} pairs of {self.prompts} prompts", *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        rows = [{**asdict(r), "length_biased": r.length_biased} for r in self.rows]
        return {"rows": rows, "pairs": self.pairs, "prompts": self.prompts, "notes": list(self.notes)}


def reward_report(
    pairs: Sequence[Pair], rankers: Mapping[str, RewardFn], *, gold: Sequence[Group] = (), n: int | None = None,
    confident: float = 0.5, draws: int = 10_000, seed: int = 0,
) -> RewardReport:  # fmt: skip
    """Report on `rankers` by held-out preference pairs, and best-of-n on `gold` groups if there are any.

    gold groups carry rewards of an independent oracle; `n` defaults to the smallest group's size. `confident` is the
    quantile of the pairs' |margin| from which a pair counts as sure (all pairs when margins are unknown). Pairs of one
    prompt are averaged before the bootstrap. InputError when there are no pairs.
    """
    if not pairs:
        raise InputError("no held-out pairs to judge a reward model by")
    groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in pairs]
    label, prompt_B = _prompts(pairs)
    margin_B = np.array([abs(p.margin) for p in pairs])
    sure_B = margin_B >= np.quantile(margin_B, confident)
    length_B = np.array([x[0] - x[1] for x in lengths(groups)[0]])
    nulls, notes = null_values(groups, seed)
    scored = {name: _values(fn, groups) for name, fn in rankers.items()}
    gold_nulls = null_values(gold, seed)[0] if gold else {}
    right = {k: _right(v) for k, v in {**scored, **nulls}.items()}
    best_null = max(nulls, key=lambda k: float(np.nanmean(right[k])))
    by_prompt = partial(mean_by, group_R=prompt_B, groups=len(label))
    over_prompts = partial(mean_interval, draws=draws, seed=seed)
    difference = partial(paired_bootstrap, draws=draws, seed=seed)
    rows = []
    for name, value in {**scored, **nulls}.items():
        gold_values = gold_nulls.get(name) if name in nulls else _gold_values(rankers[name], gold)
        longer_B = np.where(length_B == 0, np.nan, _right(value * np.sign(length_B)[:, None]) - (length_B > 0))
        mine, sure = by_prompt(right[name]), by_prompt(np.where(sure_B, right[name], np.nan))
        gap_B, null = value[:, 0] - value[:, 1], name in nulls
        rows.append(
            RankerReport(
                name, null, over_prompts(mine), over_prompts(sure), difference(mine, by_prompt(right[best_null])),
                difference(by_prompt(longer_B)), mean_known(right[name][length_B > 0]),
                mean_known(right[name][length_B < 0]),
                _NOTHING if gold_values is None else best_of_n(gold, gold_values, n, draws=draws, seed=seed),
                math.nan if null else calibration_error(gap_B),
                math.nan if null else _log_loss(gap_B), int(np.isnan(gap_B).sum()),
            )
        )  # fmt: skip
    notes += [] if margin_B.any() else ["the pairs carry no margins, so every pair counts as sure"]
    return RewardReport(tuple(rows), len(pairs), len(label), tuple(notes))


_NOTHING = Interval(math.nan, math.nan, math.nan)


def null_values(groups: Sequence[Group], seed: int = 0) -> tuple[dict[str, Any], list[str]]:
    """What needs no learning: longest, shortest, random, mean and sum log-prob; and notes on what is left out.

    An array (B, 2) for groups of two, else one array a group.
    """
    length, unit = lengths(groups)
    found: dict[str, Any] = {"longest": length, "shortest": [-x for x in length]}
    found["random"] = [
        np.random.default_rng(completion_seed(seed, g.prompt.id, i)).random(len(g.completions))
        for i, g in enumerate(groups)
    ]
    notes = [] if unit == "tokens" else ["lengths are in characters: token counts are unknown"]
    for name, mean in (("mean log-prob", True), ("sum log-prob", False)):
        values = logprob_values(groups, mean=mean)
        if values is None:
            notes.append(f"{name} is left out: the completions carry no log-probs")
        else:
            found[name] = values
    if all(len(g.completions) == 2 for g in groups):
        found = {k: np.array(v, dtype=float) for k, v in found.items()}
    return found, notes


def best_of_n(
    gold: Sequence[Group], values: Values, n: int | None = None, *, draws: int = 10_000, seed: int = 0,
    permutations: int = 16,
) -> Interval:  # fmt: skip
    """Gold reward of the completion of highest value among n, mean over prompts with its interval."""
    k = n or min(len(g.completions) for g in gold)
    ranking = ByValue("ranking", aligned(gold, "ranking", values))
    taken = rewards_of(ranking, gold, chunk_index(gold, k, permutations, seed))
    return mean_interval([e.reward for e in taken], draws=draws, seed=seed)


def overoptimisation(
    gold: Sequence[Group], rankers: Mapping[str, Values], *, ks: Sequence[int] | None = None, permutations: int = 16,
    draws: int = 10_000, seed: int = 0,
) -> Figure:  # fmt: skip
    """Proxy against gold as N grows: the ranking's own value of what it takes and the gold reward of the same.

    Both in standard deviations from the mean of all completions of a prompt, so that they share an axis; a proxy that
    rises while gold falls is being over-optimised (Gao et al. 2022, arXiv 2210.10760). The KL of best-of-N from the
    sampler is log N - (N - 1)/N.
    """
    largest = min(len(g.completions) for g in gold)
    ks = doublings(largest) if ks is None else list(ks)
    standard = [replace(g, rewards=tuple(Reward(r) for r in _standard(g.reward_N))) for g in gold]
    x, settings, curves = tuple(map(float, ks)), {"draws": draws, "seed": seed}, []
    for name, values in rankers.items():
        arrays = aligned(gold, name, values)
        own = [[expected_max(_standard(v), k).reward for v in arrays] for k in ks]
        real = tuple(best_of_n(standard, arrays, k, permutations=permutations, **settings) for k in ks)
        proxy = tuple(mean_interval(tops, **settings) for tops in own)
        curves += [Curve(f"{name}, its own value", x, proxy), Curve(f"{name}, gold reward", x, real)]
    return Figure(
        "Over-optimisation", "N, completions to choose from", "standard deviations above the mean", tuple(curves), {},
        True, "A gap that widens is reward that only the proxy sees.",
    )  # fmt: skip


def calibration_error(gap_B: npt.ArrayLike, bins: int = 10) -> float:
    """Expected calibration error of P = sigmoid(|r_chosen - r_rejected|) as the chance of being right: bins of equal
    size by confidence, mean |confidence - share right|. Ties count half right; NaN is left out."""
    gap = np.asarray(gap_B, float)
    gap = gap[np.isfinite(gap)]
    if not len(gap):
        return math.nan
    order = np.argsort(np.abs(gap), kind="stable")
    sure, right = 1 / (1 + np.exp(-np.abs(gap[order]))), (np.sign(gap[order]) + 1) / 2
    parts = np.array_split(np.arange(len(gap)), min(bins, len(gap)))
    return float(sum(len(p) * abs(sure[p].mean() - right[p].mean()) for p in parts) / len(gap))


def _log_loss(gap_B: Floats) -> float:
    gap = gap_B[np.isfinite(gap_B)]
    return float(np.logaddexp(0, -gap).mean()) if len(gap) else math.nan


def _standard(value_N: npt.ArrayLike) -> Floats:
    value = np.asarray(value_N, float)
    sd = np.nanstd(value)
    return (value - np.nanmean(value)) / sd if sd > 0 else value * 0.0


def _values(fn: RewardFn, groups: Sequence[Group]) -> Floats:
    return np.array([[r.value for r in row] for row in fn(groups)], dtype=float)


def _gold_values(fn: RewardFn, gold: Sequence[Group]) -> list[Floats] | None:
    return [np.array([r.value for r in row]) for row in fn(gold)] if gold else None


def _right(value_B2: Floats) -> Floats:
    """1 where the first value is higher, 0.5 for equal ones, NaN where one is missing; shape (B,)."""
    return (np.sign(value_B2[:, 0] - value_B2[:, 1]) + 1) / 2


def _prompts(pairs: Sequence[Pair]) -> tuple[list[str], npt.NDArray[np.intp]]:
    label = sorted({p.prompt.id for p in pairs})
    place = {name: i for i, name in enumerate(label)}
    return label, np.array([place[p.prompt.id] for p in pairs])
