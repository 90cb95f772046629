"""Values of N completions to a choice among them: argmax, softmax(value / beta), votes. Pure functions on (N,) arrays.

NaN is never chosen; ties are shared evenly, and broken by the generator that is passed in. Nothing here samples from
a model or scores.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError

Floats = npt.NDArray[np.float64]


def softmax_weights(values_N: npt.ArrayLike, beta: float) -> Floats:
    """Probabilities softmax(value / beta) along the last axis, shape (N,) or (..., N): Q-Probe's policy (arXiv
    2402.14688, section 4).

    beta = 0 is argmax with ties shared evenly, beta = inf uniform. NaN gets 0; all NaN gives zeros: there is
    nothing to choose. +inf outweighs everything, -inf gets 0 beside anything else. InputError for beta < 0 or NaN.
    """
    if not beta >= 0:
        raise InputError(f"beta must be 0 (argmax) or more, up to inf (uniform), got {beta}")
    values = np.asarray(values_N, dtype=np.float64)
    top = np.fmax.reduce(values, axis=-1, keepdims=True, initial=-np.inf)  # NaN is passed over
    weights = (values == top).astype(np.float64)
    if beta > 0:
        valid = ~np.isnan(values)
        with np.errstate(over="ignore", invalid="ignore"):  # a tiny beta: -inf, weight 0
            soft = valid.astype(np.float64) if np.isinf(beta) else np.exp((values - top) / beta)
        weights = np.where(np.isinf(top), weights, np.where(valid, soft, 0.0))
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1.0)  # the highest weighs 1, or there is none


def draw(weights_N: npt.ArrayLike, rng: np.random.Generator) -> int | None:
    """An index drawn with the given probabilities; None when they are all zero."""
    weights = np.asarray(weights_N, dtype=np.float64)
    total = weights.sum()
    if not total > 0:
        return None
    mass = (weights / total).cumsum()  # as rng.choice does it, which takes five times as long to check its arguments
    return int((mass / mass[-1]).searchsorted(rng.random(), side="right"))


def argmax(values_N: npt.ArrayLike, rng: np.random.Generator) -> int | None:
    """Index of the highest value, one of several equal ones by `rng`; None when all are NaN."""
    return draw(softmax_weights(values_N, 0.0), rng)


def vote_weights(answers_N: Sequence[Hashable | None]) -> Floats:
    """Majority vote as probabilities, shape (N,): even over tied answers, then over the completions that gave them.

    A completion without an answer (None) has no vote and is not chosen; all None gives zeros.
    """
    votes = Counter(a for a in answers_N if a is not None)
    if not votes:
        return np.zeros(len(answers_N))
    most = max(votes.values())
    weights = np.array([float(a is not None and votes[a] == most) for a in answers_N])
    return weights / weights.sum()


def rejection_probs(values_N: npt.ArrayLike, beta: float, log_m: float) -> Floats:
    """Probabilities of acceptance exp(value / beta) / M, shape (N,), with log_m = log M; cut at 1, 0 for NaN.

    Exact when M bounds exp(value / beta); where it does not, the tilt is flattened above M. InputError for beta <= 0.
    """
    if not beta > 0:
        raise InputError(f"rejection sampling needs beta > 0 (beta = 0 would need infinitely many draws), got {beta}")
    values = np.asarray(values_N, dtype=np.float64)
    return np.where(np.isnan(values), 0.0, np.exp(np.minimum(values / beta - log_m, 0.0)))


def expected_draws(values_N: npt.ArrayLike, beta: float, log_m: float) -> float:
    """Draws that rejection sampling needs on average, M / E[exp(value / beta)], estimated from a sample of values."""
    rate = rejection_probs(values_N, beta, log_m).mean()
    return float(1 / rate) if rate > 0 else float("inf")
