"""A judge's preferences to a win rate, plain and length-controlled, with bootstrap intervals over prompts. Pure numpy.

Length control is AlpacaEval 2's idea (Dubois et al. 2024, arXiv 2404.04475): logit P(win) = theta + phi·tanh(dL / sd)
+ psi·gamma, fitted by maximum likelihood, and the win rate read at equal lengths: the mean over prompts of
sigmoid(theta + psi·gamma). The difficulty gamma of a prompt is an argument, for it needs many models' annotations to
fit. Theirs differs in its penalty (L1, chosen by cross-validation) and in two "gamed" baselines that join its data. It
asks no judge.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.evaluation.metrics import Interval, paired_bootstrap
from trimtab.intervals import check_draws, percentiles

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class WinRates:
    """Win rates of the first over the second; ties count one half, unread verdicts are left out and counted."""

    win_rate: Interval
    length_controlled: Interval
    length_effect: Interval
    """phi: how much one unit of tanh(length difference / its standard deviation) adds to the log-odds of winning."""
    mean_length_difference: float
    unread: int


def win_rates(
    preference_P: npt.ArrayLike, length_P: npt.ArrayLike, other_length_P: npt.ArrayLike, *,
    weight_P: npt.ArrayLike | None = None, difficulty_P: npt.ArrayLike | None = None, draws: int = 2000, seed: int = 0,
    level: float = 0.95,
) -> WinRates:  # fmt: skip
    """Win rate and length-controlled win rate of completions over a baseline's, one entry a prompt.

    preference_P: P(ours is preferred) in [0, 1], NaN = unread. weight_P: how often an entry counts (Arena-Hard's 3).
    difficulty_P: AlpacaEval 2's gamma of each prompt; its slope psi is fitted. The plain win rate is compared with one
    half by the exact test of `paired_bootstrap`. InputError when shapes disagree, when a prompt that was judged has no
    length, weight or difficulty, or when nothing is known.
    """
    check_draws(draws, level)
    p, own, other = (np.asarray(x, float) for x in (preference_P, length_P, other_length_P))
    weight = np.ones_like(p) if weight_P is None else np.asarray(weight_P, float)
    gamma = np.zeros_like(p) if difficulty_P is None else np.asarray(difficulty_P, float)
    if not p.shape == own.shape == other.shape == weight.shape == gamma.shape:
        raise InputError("preferences, lengths, weights and difficulties must be one number a prompt")
    known = np.isfinite(p)
    if not known.any():
        raise InputError("not one verdict could be read: there is no win rate")
    p, weight, gamma, delta = p[known], weight[known], gamma[known], (own - other)[known]
    if not np.isfinite([weight, gamma, delta]).all():
        raise InputError("a prompt that was judged has no length, weight or difficulty; leave it out or give them")
    sd = float(delta.std())
    x = np.tanh(delta / sd) if sd > 0 else np.zeros_like(delta)
    even = bool((weight == 1).all())
    plain = _even(p, draws, seed, level) if even else _weighted(p, weight, draws, seed, level)
    count_DP = np.concatenate([np.ones((1, len(p))), _counts(len(p), draws, seed)]) * weight
    columns = [np.ones_like(x), x, *([gamma] if gamma.any() else [])]
    beta_DK = _logistic(p, np.stack(columns, axis=1), count_DP)
    columns[1] = np.zeros_like(x)  # at equal lengths
    even_DP = 1 / (1 + np.exp(-(beta_DK @ np.stack(columns))))
    rate_D = (count_DP * even_DP).sum(1) / np.maximum(count_DP.sum(1), 1e-12)
    return WinRates(
        plain, _spread(rate_D, len(p), level), _spread(beta_DK[:, 1], len(p), level), float(delta.mean()),
        int((~known).sum()),
    )  # fmt: skip


def _even(p: Floats, draws: int, seed: int, level: float) -> Interval:
    found = paired_bootstrap(p - 0.5, draws=draws, seed=seed, level=level)
    return Interval(float(p.mean()), 0.5 + found.lower, 0.5 + found.upper, found.n)


def _counts(n: int, draws: int, seed: int) -> Floats:
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)


def _weighted(p: Floats, weight: Floats, draws: int, seed: int, level: float) -> Interval:
    count_DP = np.concatenate([np.ones((1, len(p))), _counts(len(p), draws, seed)]) * weight
    with np.errstate(invalid="ignore"):
        return _spread(count_DP @ p / count_DP.sum(1), len(p), level)


def _spread(value_D: Floats, n: int, level: float) -> Interval:
    """The first entry, of the prompts themselves, with the percentiles of the rest."""
    return percentiles(float(value_D[0]), value_D[1:], n, level)


def _logistic(p: Floats, design_PK: Floats, count_DP: Floats, ridge: float = 1e-2) -> Floats:
    """(D, K) coefficients of every row of counts by Newton's method; a slight ridge keeps all-win samples finite."""
    K = design_PK.shape[1]
    square_PK = (design_PK[:, :, None] * design_PK[:, None]).reshape(len(p), K * K)
    beta_DK = np.zeros((len(count_DP), K))
    for _ in range(30):
        mu_DP = 1 / (1 + np.exp(-np.clip(beta_DK @ design_PK.T, -30, 30)))
        grad_DK = (count_DP * (p - mu_DP)) @ design_PK - ridge * beta_DK
        curve_DP = count_DP * mu_DP * (1 - mu_DP)
        hessian = (curve_DP @ square_PK).reshape(-1, K, K) + ridge * np.eye(K)
        step = np.linalg.solve(hessian, grad_DK[..., None])[..., 0]
        beta_DK += np.clip(step, -3, 3)
        if np.abs(step).max() < 1e-9:
            break
    return beta_DK
