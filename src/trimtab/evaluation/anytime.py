"""Comparisons that stay true however often one looks and whenever one stops: e-values and confidence sequences.

A fixed-n interval that is looked at five times is wrong in 14 % of cases instead of 5 %. These are valid at all sizes
at once, and so are wider: 3.04 standard errors instead of 1.96 where they are narrowest. Pure numpy.

For 0/1 values only the prompts that differ say which side is better: w wins and l losses are tosses of a coin θ. With a
uniform prior on θ, E = 2^(w+l) B(w+1, l+1) is the bet against a fair coin; P(E ever reaches 1/α) ≤ α (Ville 1939). It
is McNemar's test made sequential, and exact. For other values: the asymptotic sequence of Robbins' normal mixture
(Waudby-Smith et al. 2021, arXiv 2103.06476).
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.intervals import Interval

PLANNED = 100
"""Prompts at which a sequence is narrowest, unless said otherwise; it must not depend on the data."""
_SIDES = 0.8
"""Share of α that goes to which side wins; the rest goes to how often they differ."""


def log_mcnemar(wins: int, losses: int) -> float:
    """ln E of the sequential McNemar test. E ≥ 1/α is a difference at level α, whenever one looks."""
    return (wins + losses) * math.log(2) + _log_beta(wins + 1, losses + 1)


def confidence_sequence(gap_P: npt.ArrayLike, *, alpha: float = 0.05, planned: int = PLANNED) -> Interval:
    """Mean difference with the asymptotic sequence σ √((nρ² + 1)/(n²ρ²) · ln((nρ² + 1)/α²)), narrowest at `planned`.

    σ² is the variance of the differences plus 2/n: without that, ties make it collapse and the truth is missed. So
    differences must be on a scale where one prompt is worth at most 1.
    """
    _check(alpha, planned)
    gap = np.asarray(gap_P, float)
    gap = gap[np.isfinite(gap)]
    n = len(gap)
    if n < 2:
        return Interval(float(gap.mean()) if n else math.nan, math.nan, math.nan, n)
    rho2 = (_peak(alpha) - 1) / planned
    spread = float(gap.var()) + 2 / n
    half = math.sqrt(spread * (n * rho2 + 1) / (n * n * rho2) * math.log((n * rho2 + 1) / alpha**2))
    mean = float(gap.mean())
    return Interval(mean, mean - half, mean + half, n)


def win_sequence(wins: int, losses: int, n: int, *, alpha: float = 0.05) -> Interval:
    """Mean difference of 0/1 values with its exact sequence; it excludes 0 exactly where E ≥ 1/(0.8 α).

    The difference is π(2θ − 1): π is how often they differ, θ how often the first wins then. θ is bounded at 0.8 α by
    E's own bet, π at 0.2 α by the same bet on a coin of n tosses.
    """
    _check(alpha)
    mean = (wins - losses) / n if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    side = [2 * x - 1 for x in _coin(wins, losses, _SIDES * alpha)]
    often = _coin(wins + losses, n - wins - losses, (1 - _SIDES) * alpha)
    ends = [s * o for s in side for o in often]
    return Interval(mean, min(ends), max(ends), n)


def _coin(heads: int, tails: int, alpha: float) -> tuple[float, float]:
    """Chances θ that the mixture's bet B(h+1, t+1) / (θ^h (1−θ)^t) has not yet ruled out at level α."""
    best = heads / (heads + tails) if heads + tails else 0.5
    mixed = _log_beta(heads + 1, tails + 1) + math.log(alpha)

    def kept(p: float) -> bool:
        return mixed <= (heads * math.log(p) if heads else 0.0) + (tails * math.log1p(-p) if tails else 0.0)

    lower = 0.0 if not heads else _edge(kept, best, 0.0)
    return lower, 1.0 if not tails else _edge(kept, best, 1.0)


def _edge(kept: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where `kept` ends between a chance that it holds and one that it does not, from the outside; by bisection."""
    for _ in range(60):
        middle = (inside + outside) / 2
        if middle in (inside, outside):
            break
        inside, outside = (middle, outside) if 0 < middle < 1 and kept(middle) else (inside, middle)
    return outside


def _peak(alpha: float) -> float:
    """u > 1 with u e^−u = α²/e, that is −W₋₁(−α²/e): the sequence at `planned` is √u standard errors."""
    u = 1 - 2 * math.log(alpha)
    for _ in range(100):
        u = 1 - 2 * math.log(alpha) + math.log(u)
    return u


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _check(alpha: float, planned: int = PLANNED) -> None:
    if not 0 < alpha < 1 or planned < 1:
        raise InputError(f"alpha is {alpha:g} (between 0 and 1), planned {planned} (1 or more)")
