"""Numbers of prompts to a mean with its interval, and the ONE paired comparison of two sides that every table uses.

Percentile intervals of a bootstrap over prompts. A difference is said to be above or below 0 only where an exact test
agrees: when few prompts differ at all, resampling knows too little of the null. Let m of a hundred prompts differ, each
way by the toss of a coin: percentiles say "better" in 6.2 % (m = 4), 3.1 % (5), 3.5 % (8) of cases at a stated 2.5 %.
BCa intervals do no better (6.2 and 3.1 %, and 5.5 % at m = 10); the exact test keeps to it (29 November 2026).
Pure numpy; NaN is left out and counted by `n`.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError

Array = npt.NDArray[np.float64]
_BLOCK = 4_000_000
"""Resampled prompts held at once by the bootstrap (32 MB)."""
_FLIPS = 10_000
"""Random signs of the sign-flip test, beyond what is enumerated."""


NOT_SCORED = "not scored"


class Interval(NamedTuple):
    """A mean over `n` prompts with its bootstrap interval; the bounds are NaN for fewer than two prompts."""

    mean: float
    lower: float
    upper: float
    n: int = 0

    def __str__(self) -> str:
        return self.show(".3f")

    @property
    def verdict(self) -> str:
        """Of a difference: "better" or "worse" where it excludes 0, else "no difference shown"; "" without bounds."""
        if math.isnan(self.lower):
            return ""
        return "better" if self.lower > 0 else "worse" if self.upper < 0 else "no difference shown"

    def show(self, form: str) -> str:
        """Mean and bounds as people read them; what is unknown is said in words, for "nan" is no figure."""
        if math.isnan(self.mean):
            return NOT_SCORED
        if math.isnan(self.lower):
            return f"{self.mean:{form}} ({'one prompt' if self.n == 1 else 'no interval'})"
        return f"{self.mean:{form}} [{self.lower:{form}}, {self.upper:{form}}]"


def figure(value: float, form: str = ".3f") -> str:
    """A number as people read it; NaN is "not scored"."""
    return NOT_SCORED if math.isnan(value) else f"{value:{form}}"


def check_draws(draws: int, level: float = 0.95) -> None:
    """InputError for a bootstrap that draws nothing, or a level outside 0 to 1."""
    if draws < 1 or not 0 < level < 1:
        raise InputError(f"draws is {draws} (1 or more), level {level:g} (between 0 and 1)")


def mean_interval(a_P: npt.ArrayLike, *, draws: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """Mean over prompts with the percentile interval of a bootstrap over prompts. Same seed, same interval.

    For a level, such as a reward or an accuracy; what is compared with 0 or another side is `paired_bootstrap`'s.
    """
    a = np.asarray(a_P, float)
    return bootstrap(lambda mean: mean[..., 0], a[np.isfinite(a)][:, None], draws=draws, seed=seed, level=level)


def bootstrap(
    statistic: Callable[[Array], Array], columns_PK: Array, *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Statistic of column means (..., K) with its percentile interval: all columns are read at the same resampled
    prompts, so that a ratio's two ends move together."""
    check_draws(draws, level)
    columns_KP = np.ascontiguousarray(columns_PK.T)
    if not columns_KP.size:
        return Interval(math.nan, math.nan, math.nan, 0)
    point = float(statistic(np.array([c.mean() for c in columns_KP])))
    if len(columns_PK) < 2 or math.isnan(point):
        return Interval(point, math.nan, math.nan, len(columns_PK))
    means_DK = resampled(columns_KP, draws, np.random.default_rng(seed))
    return percentiles(point, statistic(means_DK), len(columns_PK), level)


def resampled(columns_KP: Array, draws: int, rng: np.random.Generator) -> Array:
    """(draws, K): means of the columns over prompts drawn with replacement."""
    n = columns_KP.shape[1]
    block = max(1, _BLOCK // n)
    parts = []
    for start in range(0, draws, block):
        at = rng.integers(0, n, (min(block, draws - start), n))
        parts.append(np.stack([c[at].mean(axis=1) for c in columns_KP], axis=1))
    return np.concatenate(parts)


def percentiles(value: float, drawn_D: Array, n: int, level: float = 0.95) -> Interval:
    """`value` between the percentiles of what was drawn; no bounds for fewer than two prompts or no finite draw."""
    known = drawn_D[np.isfinite(drawn_D)]
    if n < 2 or not len(known):
        return Interval(value, math.nan, math.nan, n)
    tail = (1 - level) / 2
    lower, upper = np.quantile(known, [tail, 1 - tail])
    return Interval(value, float(lower), float(upper), n)


def paired_bootstrap(
    a_P: npt.ArrayLike, b_P: npt.ArrayLike | None = None, *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean difference a − b over prompts (of the differences a alone when b is not given), with its interval.

    Under the null either side of a prompt could have been the better: the signs of the m differences that are not 0 are
    m fair coins. P(a sum at least as far out) is then exact, and all one way it is 2^-m: 1/32 for five, 1/64 for six.

    The same resampled prompts enter both sides, so what makes a prompt hard for both cancels. Prompts that are NaN on
    either side are left out. Where the interval of `mean_interval` excludes 0 and the sign-flip test does not
    (`sign_flip_tail` above the interval's tail), the bound on that side is 0: no difference is shown. Five prompts that
    differ, all one way, show nothing at 95 %; six do.
    """
    a = np.asarray(a_P, float)
    if b_P is not None:
        b = np.asarray(b_P, float)
        if a.shape != b.shape:
            raise InputError(f"a paired difference needs the same prompts on both sides, got {len(a)} and {len(b)}")
        a = a - b
    found = mean_interval(a, draws=draws, seed=seed, level=level)
    if not (found.lower > 0 or found.upper < 0) or sign_flip_tail(a, seed=seed) <= (1 - level) / 2:
        return found
    return found._replace(lower=min(found.lower, 0.0), upper=max(found.upper, 0.0))


def sign_flip_tail(gap_P: npt.ArrayLike, *, seed: int = 0, flips: int = _FLIPS) -> float:
    """P(a mean at least as far on its side of 0, if either side of every prompt could have been the better), one-sided.

    Exact up to 14 prompts that differ, and for any number of equal sizes (the sign test, or McNemar's on 0/1 rewards);
    else from `flips` random signs (_FLIPS at least).
    """
    gap = np.asarray(gap_P, float)
    gap = gap[np.isfinite(gap) & (gap != 0)]
    size, m = np.abs(gap), len(gap)
    if not m:
        return 1.0
    total = abs(float(gap.sum()))
    near = total - 1e-9 * float(size.sum())
    if np.ptp(size) <= 1e-9 * size.max():
        wins = max(int((gap > 0).sum()), int((gap < 0).sum()))
        return _binomial_tail(m, wins)
    if m <= 14:
        signs = np.array(list(product((-1.0, 1.0), repeat=m)))
        return float((signs @ size >= near).mean())
    rng, flips = np.random.default_rng(seed), max(flips, _FLIPS)
    hits = done = 0
    while done < flips:
        count = min(max(_BLOCK // m, 1), flips - done)
        hits += int(((2.0 * rng.integers(0, 2, (count, m)) - 1) @ size >= near).sum())
        done += count
    return (1 + hits) / (1 + flips)


def _binomial_tail(m: int, wins: int) -> float:
    """P(at least `wins` of m fair coins), by logarithms so that any m will do."""
    k = np.arange(wins, m + 1)
    logs = np.cumsum(np.r_[0.0, np.log(np.arange(1, m + 1))])
    return float(np.exp(logs[m] - logs[k] - logs[m - k] - m * math.log(2)).sum())
