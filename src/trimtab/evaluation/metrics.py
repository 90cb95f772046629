"""Values and rewards of a prompt's completions to expected rewards. Pure numpy.

The estimators of Q-Probe's evaluation (Li et al. 2024, arXiv 2402.14688) and of pass@k (Chen et al. 2021, arXiv
2107.03374). Whatever is chosen at random is integrated out, never drawn: softmax selection has the exact expected
reward of each chunk, ties are shared evenly. Unscored is not zero: a NaN value is never chosen, and a choice that falls
on a NaN reward is left out of the mean and reported as `unscored`. It does not know prompts, texts, models or tables.
Intervals over prompts are in `trimtab.intervals` and named here too.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.decoders.select import softmax_weights
from trimtab.errors import InputError
from trimtab.intervals import Interval, mean_interval, paired_bootstrap

Array = npt.NDArray[np.float64]
__all__ = [
    "Expected", "Interval", "chosen_reward", "chunks", "expected_max", "expected_reward", "mean_interval",
    "mean_known",    "paired_bootstrap", "pass_at_k", "ranking_accuracy",
]  # fmt: skip


def mean_known(values: npt.ArrayLike) -> float:
    """The mean of what is finite; NaN where nothing is."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else math.nan


class Expected(NamedTuple):
    """An expected reward (NaN when nothing scored could be chosen) and the share of the choice that was unscored."""

    reward: float
    unscored: float


def chunks(n: int, k: int, rng: np.random.Generator, permutations: int = 1) -> npt.NDArray[np.intp]:
    """Disjoint chunks of k out of n completions, shape (permutations · floor(n/k), k): indices.

    One permutation is the paper's protocol; more of them estimate the same expectation with less noise.
    InputError when k is not in 1..n.
    """
    if not 1 <= k <= n:
        raise InputError(f"cannot choose among k = {k} of {n} completions; k must be between 1 and {n}")
    if permutations < 1:
        raise InputError(f"permutations is {permutations}; it must be 1 or more")
    if k in (1, n):  # every order gives the same
        return np.arange(n).reshape(-1, k)
    orders = [rng.permutation(n)[: n // k * k].reshape(-1, k) for _ in range(permutations)]
    return np.concatenate(orders)


def chosen_reward(weight_CN: npt.ArrayLike, reward_CN: npt.ArrayLike) -> Expected:
    """The mean reward of what is chosen, given that it was scored.

    Row c holds the probabilities with which a strategy takes each completion of chunk c; they sum to 1, or to 0
    where it could choose nothing. Σ w·r / Σ w over the scored entries; `unscored` is the rest of the probability.
    """
    weight, reward = np.atleast_2d(np.asarray(weight_CN, float)), np.atleast_2d(np.asarray(reward_CN, float))
    scored = np.isfinite(reward)
    mass = float(weight[scored].sum())
    if mass <= 0:
        return Expected(math.nan, 1.0)
    lost = float(weight[~scored].sum() + (weight.sum(axis=1) == 0).sum())
    return Expected(float((weight[scored] * reward[scored]).sum()) / mass, lost / len(weight))


def expected_reward(
    value_N: npt.ArrayLike, reward_N: npt.ArrayLike, k: int, *, beta: float = 0.0, rng: np.random.Generator,
    permutations: int = 1,
) -> Expected:  # fmt: skip
    """Expected reward of softmax(value/β) selection among k completions, over disjoint chunks of a random permutation.

    Q-Probe's evaluation: Σ softmax weight × reward in every chunk, averaged over floor(N/k) chunks. β = 0 takes the
    highest value and shares ties evenly. InputError when k is not in 1..N or the lengths differ.
    """
    value, reward = np.asarray(value_N, float), np.asarray(reward_N, float)
    if value.shape != reward.shape or value.ndim != 1:
        raise InputError(f"{value.shape} values but {reward.shape} rewards; both must be one number a completion")
    index = chunks(len(value), k, rng, permutations)
    return chosen_reward(softmax_weights(value[index], beta), reward[index])


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k completions drawn without replacement from n, c of them right, is right.

    Unbiased for the pass rate of k fresh completions: 1 − C(n−c, k)/C(n, k) (arXiv 2107.03374, eq. 1).
    """
    if not all(isinstance(x, int | float | np.integer | np.floating) and float(x).is_integer() for x in (n, c, k)):
        raise InputError(f"pass@k needs whole numbers, got n = {n!r}, c = {c!r}, k = {k!r}")
    n, c, k = int(n), int(c), int(k)
    if not (0 <= c <= n and 1 <= k <= n):
        raise InputError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n = {n}, c = {c}, k = {k}")
    draws = math.comb(n, k)
    return (draws - math.comb(n - c, k)) / draws  # in whole numbers, so that 3 of 10 is 0.3


def expected_max(reward_N: npt.ArrayLike, k: int) -> Expected:
    """Expected highest reward among k of the N completions, over every subset: pass@k for rewards that are not 0 or 1.

    The j-th smallest (j = 1..N) is the maximum of C(j−1, k−1) of the C(N, k) subsets. NaN ranks below everything; a
    subset without a scored completion counts as unscored.
    """
    reward = np.asarray(reward_N, float)
    n = len(reward)
    if not 1 <= k <= n:
        raise InputError(f"cannot choose among k = {k} of {n} completions; k must be between 1 and {n}")
    ordered = np.sort(np.where(np.isfinite(reward), reward, -np.inf))
    share = np.array([math.comb(j, k - 1) / math.comb(n, k) for j in range(n)])
    return chosen_reward(share, np.where(np.isinf(ordered), np.nan, ordered))


def ranking_accuracy(value_N: npt.ArrayLike, reward_N: npt.ArrayLike) -> float:
    """Share of a prompt's completion pairs with different rewards that the values order rightly (ties count half).

    The area under the ROC curve for 0/1 rewards. NaN when no two scored completions differ in reward.
    """
    value, reward = np.asarray(value_N, float), np.asarray(reward_N, float)
    keep = np.isfinite(value) & np.isfinite(reward)
    gap = np.sign(reward[keep][:, None] - reward[keep][None, :])
    better = gap > 0
    if not better.any():
        return math.nan
    order = np.sign(value[keep][:, None] - value[keep][None, :])[better]
    return float((order + 1).mean() / 2)
