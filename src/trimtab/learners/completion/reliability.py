"""P(right) as said, and what was right, to how far it may be believed: calibration error, Brier score, risk-coverage.

One value and one 0 or 1 an answer, each of another prompt. Pure numpy. It fits nothing, and does not know k or scores.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_BLOCK = 2_000_000
"""Simulated answers held at once."""
COVERAGES = tuple(i / 20 for i in range(1, 21))


def reliability(value_R: npt.ArrayLike, right_R: npt.ArrayLike, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """All figures of R answers, R of 1 or more, ready for a card; what cannot be known of so few is NaN.

    "ece": the mean gap between said and right over min(15, R // 60) bins of equal mass, at least one. "ece_band": where
    95 % would lie if the same values were right just as often as they say, simulated. "ece_debiased": the root of the
    squared gaps less what chance adds to them (Ferro and Fricker 2012), 0 where nothing is left.
    """
    order = np.argsort(np.asarray(value_R, float), kind="stable")
    value, right = np.asarray(value_R, float)[order], np.asarray(right_R, float)[order]
    starts = _bins(len(value))
    size = np.diff(np.r_[starts, len(value)])
    said, seen = np.add.reduceat(value, starts) / size, np.add.reduceat(right, starts) / size
    perfect = _perfect(value, starts, size, draws, seed)
    gaps = np.abs(perfect - said) @ (size / len(value))
    brier = _brier(value, right, said, seen, size)
    low, high = np.quantile(perfect, (0.025, 0.975), axis=0)
    return {
        "accuracy": float(right.mean()), "mean_value": float(value.mean()),
        "ece": float(np.abs(seen - said) @ (size / len(value))),
        "ece_band": [float(q) for q in np.quantile(gaps, (0.025, 0.975))],
        "ece_debiased": math.sqrt(max(brier["reliability"], 0.0)) if len(value) > 1 else math.nan,
        "brier": brier, **risk_coverage(value, right),
        "bins": [
            {"value": float(v), "right": float(r), "n": int(n), "perfect": [float(a), float(b)]}
            for v, r, n, a, b in zip(said, seen, size, low, high, strict=True)
        ],
    }  # fmt: skip


def risk_coverage(value_R: Floats, right_R: Floats) -> dict[str, Any]:
    """Share of wrong answers when only the surest are given: "risk" at each of `COVERAGES`, its mean over all coverages
    ("aurc", lower is better), and that of an order which knows what is right ("aurc_oracle"). Ties are shared."""
    n = len(value_R)

    def risk(order: Floats) -> Floats:
        _, tie, count = np.unique(-order, return_inverse=True, return_counts=True)
        wrong = (np.bincount(tie, 1 - right_R) / count)[np.sort(tie)]
        return np.cumsum(wrong) / np.arange(1, n + 1)

    curve = risk(value_R)
    at = [max(1, round(c * n)) - 1 for c in COVERAGES]
    return {
        "aurc": float(curve.mean()), "aurc_oracle": float(risk(right_R).mean()),
        "risk": [[(i + 1) / n, float(curve[i])] for i in dict.fromkeys(at)],
    }  # fmt: skip


def _brier(value: Floats, right: Floats, said: Floats, seen: Floats, size: npt.NDArray[Any]) -> dict[str, float]:
    """score = reliability - resolution + uncertainty + within_bins, exactly.

    The first three lack the bias of finite bins (Bröcker 2012; Ferro and Fricker 2012). A bin's rate r of m answers has
    the variance r (1 - r) / (m - 1): reliability and resolution have too much by its mean over bins, and uncertainty
    and resolution too little by that of the whole rate.
    """
    n, share, rate = len(value), size / len(value), right.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = float((seen * (1 - seen) / (size - 1)) @ share)  # NaN: bins of one answer tell nothing of chance
        whole = float(rate * (1 - rate)) / (n - 1) if n > 1 else math.nan
    score = float(((value - right) ** 2).mean())
    parts = {
        "reliability": float((said - seen) ** 2 @ share) - chance,
        "resolution": float((seen - rate) ** 2 @ share) - chance + whole,
        "uncertainty": float(rate * (1 - rate)) + whole,
    }
    within = score - parts["reliability"] + parts["resolution"] - parts["uncertainty"]
    return {"score": score, **parts, "within_bins": within}


def _bins(n: int) -> npt.NDArray[np.intp]:
    """Where bins of equal mass begin."""
    sizes = [len(part) for part in np.array_split(np.arange(n), max(1, min(15, n // 60)))]
    return np.r_[0, np.cumsum(sizes)[:-1]]


def _perfect(value: Floats, starts: npt.NDArray[np.intp], size: npt.NDArray[Any], draws: int, seed: int) -> Floats:
    """Rates of right answers by bin, (draws, bins), if every value were the chance that it claims."""
    rng, some = np.random.default_rng(seed), max(1, _BLOCK // len(value))
    blocks = [rng.random((min(some, draws - i), len(value))) < value for i in range(0, draws, some)]
    return np.concatenate([np.add.reduceat(b, starts, axis=1, dtype=float) for b in blocks]) / size
