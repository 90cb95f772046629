"""Tags predicted from the prompt, each tag's mean rewards, and what within a tag the prompt still tells. Pure numpy.

The house's own router, grown from Zooter's tag smoothing: reward(q) = Σ_t p(t|q) · (mean_t + W_t (x - mean x_t)).
Zooter mixes each reward with its tag's mean at one beta for all; here every tag has its own strength, chosen by leave
one out, from "only the mean" (its beta = 0) upwards, and the tag of a new prompt is a probability. It needs tags: the
data's task labels, or else clusters of the vectors, made here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.learners.model.blocks import blockwise, scaled
from trimtab.learners.model.common import levels
from trimtab.learners.model.tags import cluster_tags, tag_means

Array = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Weights = dict[str, npt.NDArray[Any]]
_TEMPERATURES = (0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5)
_L2 = (3.0, 10.0, 30.0, 100.0, 300.0)
_LARGE = 1500
"""Above this many prompts of a tag only two strengths are tried: each costs a cubic solve."""


class Ridge(NamedTuple):
    """Weights (D, K) of a centred ridge regression, and its leave-one-out predictions (P, K) of the centred targets."""

    W: npt.NDArray[Any]
    loo: npt.NDArray[Any]


def fit_tags(
    X_PD: Vectors, reward_PM: Array, tags: Sequence[Sequence[str]], *, blocks: tuple[int, ...], seed: int,
    l2: float = 1.0, clusters: int = 16, within: bool = True,
) -> tuple[str, Weights]:  # fmt: skip
    """Head "experts": tag probabilities, tag means and, with `within`, what a prompt tells beyond its tag.

    Probabilities: one-hot tags by ridge with strength `l2`, then a softmax whose temperature maximises the
    leave-one-out likelihood. Within a tag: ridge on the rewards less the tag's mean. Each tag has the strength with the
    smallest leave-one-out error of the differences between models, and none unless that error falls by more than its
    standard error. Means are taken as if all models had answered the same prompts (`common.levels`), and a missing
    reward counts as what they say of it. Without tags `clusters` clusters serve.
    """
    scale = blockwise(X_PD, blocks)
    X = scaled(scale, X_PD)
    if not any(tags):
        tags, _ = cluster_tags(X, clusters, seed)
    level_P, rest_PM = levels(reward_PM)
    names, merit_TM, member = tag_means(rest_PM, tags)
    level_T = (member.T @ level_P) / np.maximum(member.sum(0), 1)
    mean_TM = merit_TM + level_T[:, None]
    share = member / np.maximum(member.sum(1, keepdims=True), 1)
    prior = share.mean(0)
    guess = ridge(X, (share - prior).astype(np.float32), l2)
    loo = prior + guess.loo
    fits = [(share * np.log(_posterior(loo, t) + 1e-12)).sum(1).mean() for t in _TEMPERATURES]
    T, M, D = len(names), reward_PM.shape[1], X.shape[1]
    slope, centre = np.zeros((T, D, M), np.float32), np.zeros((T, D), np.float32)
    for t in range(T):
        at = np.flatnonzero(member[:, t])
        centre[t] = X[at].mean(0)
        if within and len(at) > 10:
            away = reward_PM[at] - mean_TM[t]
            rest = np.where(np.isnan(away), (level_P[at] - level_T[t])[:, None], away)
            slope[t] = within_tag(X[at] - centre[t], rest.astype(np.float32), mean_TM[t])
    bias = mean_TM - np.einsum("td,tdm->tm", centre, slope)
    keep = np.flatnonzero(np.abs(slope).any((1, 2)))
    return "experts", {
        **scale, "W": guess.W, "prior": prior, "temperature": np.array(_TEMPERATURES[int(np.argmax(fits))]),
        "bias": bias, "slope": slope[keep].transpose(1, 0, 2).reshape(D, -1), "slope_tag": keep,
    }  # fmt: skip


def experts_head(w: Weights, X_PD: Vectors) -> Array:
    """Expected rewards (P, M) from the weights of `fit_tags`."""
    X = scaled(w, X_PD)
    p = tag_probability(w, X_PD)
    reward = p @ w["bias"]
    if len(w["slope_tag"]):
        each = (X @ w["slope"]).reshape(len(X), len(w["slope_tag"]), -1)
        reward = reward + np.einsum("pt,ptm->pm", p[:, w["slope_tag"]], each)
    return reward.astype(float)


def tag_probability(w: Weights, X_PD: Vectors) -> npt.NDArray[Any]:
    """p(t|q), shape (P, T), tags in alphabetical order."""
    return _posterior(w["prior"] + scaled(w, X_PD) @ w["W"], float(w["temperature"]))


def ridge(X_PD: Vectors, Y_PK: npt.NDArray[Any], l2: float) -> Ridge:
    """argmin |Y - X W|² + l2 |W|², in the smaller of rows and columns, with exact leave-one-out predictions."""
    P, D = X_PD.shape
    if P <= D:
        inverse = np.linalg.inv(X_PD @ X_PD.T + l2 * np.eye(P, dtype=np.float32))
        dual = inverse @ Y_PK
        return Ridge(X_PD.T @ dual, Y_PK - dual / np.diag(inverse)[:, None])
    inverse = np.linalg.inv(X_PD.T @ X_PD + l2 * np.eye(D, dtype=np.float32))
    W = inverse @ (X_PD.T @ Y_PK)
    leverage = np.einsum("pd,pd->p", X_PD @ inverse, X_PD)
    return Ridge(W, Y_PK - (Y_PK - X_PD @ W) / (1 - leverage)[:, None])


def within_tag(X_PD: Vectors, rest_PM: npt.NDArray[Any], mean_M: Array) -> npt.NDArray[Any]:
    """Slopes (D, M) of a tag's residual rewards, zero unless they predict held-out differences between models.

    Leave one out over the strengths; the error compared is that of rewards less the prompt's mean over models, which is
    all that routing can use.
    """
    mean_loo = mean_M - rest_PM / (len(rest_PM) - 1)
    nothing = _contrast(rest_PM + mean_M - mean_loo)
    plain = _spent(rest_PM + mean_M, mean_loo)
    best, chosen = 0.0, np.zeros((X_PD.shape[1], rest_PM.shape[1]), np.float32)
    for l2 in _L2 if len(X_PD) <= _LARGE else _L2[2:4]:
        fitted = ridge(X_PD, rest_PM, l2)
        saved = nothing - _contrast(rest_PM - fitted.loo)
        error = saved.std() / np.sqrt(len(saved))
        spent = _spent(rest_PM + mean_M, mean_loo + fitted.loo).mean() - plain.mean()
        if saved.mean() > max(best, error) and spent > 0:
            best, chosen = float(saved.mean()), fitted.W
    return chosen


def _contrast(error_PM: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return ((error_PM - error_PM.mean(1, keepdims=True)) ** 2).sum(1)


def _spent(reward_PM: npt.NDArray[Any], value_PM: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.take_along_axis(reward_PM, value_PM.argmax(1)[:, None], 1)[:, 0]


def _posterior(value_PT: npt.NDArray[Any], temperature: float) -> npt.NDArray[Any]:
    z = value_PT / temperature
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)
