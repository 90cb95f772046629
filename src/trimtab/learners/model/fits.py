"""Vectors and rewards of prompts to weights, one function a routing method; and weights to rewards, one a head.

Zooter (Lu et al. 2024), MLC, hard labels, RouterDC (Chen et al. 2024), matrix factorisation, kNN, k-means, constants.
`fit_tags` (in experts.py) is the house's own. A missing reward (NaN) is left out, never read as zero, and models are
compared on prompts they share (common.py). It does not know prompts, encoders or the guard (router.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError, unknown
from trimtab.learners.model.blocks import blockwise, scaled
from trimtab.learners.model.common import NO_COMMON, apart, components, filled, known_sets, levels
from trimtab.learners.model.experts import experts_head, fit_tags, ridge
from trimtab.learners.model.tags import kmeans, nearest, smooth

Array = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Weights = dict[str, npt.NDArray[Any]]
Fitted = tuple[str, Weights]
Tags = Sequence[Sequence[str]]
_TIE = 1e-9


def fit_constant(reward_PM: Array, *_: Any, **__: Any) -> Fitted:
    """Every model's mean reward, whatever the prompt: its argmax is the best single model.

    With rewards missing they are the means that all models would have on all prompts (`common.levels`).
    """
    return "constant", {"mean": levels(reward_PM).mean_M}


def only(reward_PM: Array, model: int) -> Fitted:
    """The constant that always prefers one model: mean rewards, no other model's above that one's."""
    mean = fit_constant(reward_PM)[1]["mean"]
    below = np.minimum(mean, mean[model] - _TIE)
    return "constant", {"mean": np.where(np.arange(len(mean)) == model, mean, below)}


def fit_random(X_PD: Vectors, reward_PM: Array, tags: Tags, *, blocks: tuple[int, ...], seed: int, **_: Any) -> Fitted:
    """The null: every model has the pool's mean reward and the prompt's vector decides the tie, the same each time."""
    level = np.full(reward_PM.shape[1], np.nanmean(reward_PM))
    return "random", {"level": level, "seed": np.array(seed)}


def fit_knn(X_PD: Vectors, reward_PM: Array, tags: Tags, *, blocks: tuple[int, ...], seed: int, k: int = 100) -> Fitted:
    """Mean reward of the k (at most an eighth of the) training prompts with the highest cosine similarity."""
    scale, (level_P, rest_PM) = blockwise(X_PD, blocks), levels(reward_PM)
    X = _unit(scaled(scale, X_PD))
    near = {"k": np.array(max(1, min(k, len(X) // 8))), "mean": _means(rest_PM), "level": level_P}
    return "knn", {**scale, "X": X, "reward": rest_PM, **near}


def fit_clusters(
    X_PD: Vectors, reward_PM: Array, tags: Tags, *, blocks: tuple[int, ...], seed: int, k: int = 32
) -> Fitted:
    """Mean reward of the training prompts in the nearest of k (at most an eighth of the prompts) clusters, k-means."""
    scale, (level_P, rest_PM) = blockwise(X_PD, blocks), levels(reward_PM)
    X = scaled(scale, X_PD)
    centre = kmeans(X.astype(float), max(1, min(k, len(X) // 8)), seed)
    at, mean = nearest(X.astype(float), centre), _means(rest_PM)
    members = [np.flatnonzero(at == c) if (at == c).any() else np.arange(len(X)) for c in range(len(centre))]
    rows = [_means(rest_PM[here], mean) + level_P[here].mean() for here in members]
    return "clusters", {**scale, "centre": centre, "reward": np.array(rows)}


def fit_mf(
    X_PD: Vectors, reward_PM: Array, tags: Tags, *, blocks: tuple[int, ...], seed: int, rank: int = 4, l2: float = 100.0
) -> Fitted:
    """Matrix factorisation over vectors: reward = mean + <A x, v_m>, the best rank-`rank` fit to ridge's predictions.

    Reduced-rank regression (Izenman 1975): ridge, then the leading right singular vectors of the fitted rewards.
    """
    scale = blockwise(X_PD, blocks)
    X, mean = scaled(scale, X_PD), levels(reward_PM).mean_M
    W = ridge(X, filled(reward_PM, tags) - mean, l2).W
    *_, V = np.linalg.svd(X @ W, full_matrices=False)
    V = V[: min(rank, len(V))]
    return "linear", {**scale, "W": (W @ V.T @ V).astype(np.float32), "b": mean}


def fit_zooter(
    X_PD: Vectors, reward_PM: Array, tags: Tags, *, blocks: tuple[int, ...], seed: int,
    temperature: float = 1.0, beta: float = 0.3, form: str = "naacl", loss: str = "kl", l2: float = 1e-3,
) -> Fitted:  # fmt: skip
    """Zooter: a softmax head distils softmax(reward / temperature), smoothed by tags with weight 1 - beta.

    `form` "naacl" smooths the distributions, "v1" the raw rewards. `loss` "kl" is KL(s||Z), "kl_reverse" KL(Z||s),
    "hard" the argmax control. Rewards come back as temperature · (log Z - its mean over models) + the pool's mean.
    Where rewards are missing a prompt's target is a distribution over the models it knows, smoothed with prompts that
    know all of these. Without any tag in the data beta must be 1. InputError for models that share no prompt.
    """
    from trimtab.learners.model.losses import ROUTER_LOSSES

    if form not in ("naacl", "v1"):
        raise unknown("tag smoothing form", form, ("naacl", "v1"))
    if loss not in ("kl", "kl_reverse", "hard"):
        raise unknown("distillation loss", loss, ("kl", "kl_reverse", "hard"))
    known = _comparable(reward_PM)
    target = zooter_targets(reward_PM, tags, temperature, beta, form)
    scale = blockwise(X_PD, blocks)
    W, b = descend(scaled(scale, X_PD), target, known, ROUTER_LOSSES[loss], l2)
    level = np.nanmean(reward_PM) if known.all() else levels(reward_PM).mean_M.mean()
    extra = {"temperature": np.array(temperature), "level": np.array(level)}
    return "softmax", {**scale, "W": W, "b": b, **extra}


def zooter_targets(reward_PM: Array, tags: Tags, temperature: float, beta: float, form: str) -> Array:
    """The distribution that each prompt's row is to give, shape (P, M): sum 1 over the models it knows, 0 elsewhere.

    Smoothing is done once for each set of known models, with the tags' means over prompts that know all of the set:
    means of distributions over different models neither sum to 1 nor rank (three models at 0.2, 0.5 and 0.8, the last
    missing on 70 % of prompts, came out with the second on top).
    """
    import torch

    from trimtab.learners.model.losses import silver

    if not any(tags):
        smooth(reward_PM, tags, beta)  # refuses, unless beta is 1
    target_PM = np.zeros_like(reward_PM, dtype=float)
    for known_M, rows, within in known_sets(~np.isnan(reward_PM)):
        own = [tags[int(i)] for i in within]
        strength = beta if any(own) else 1.0
        raw = reward_PM[np.ix_(within, known_M)]
        raw = smooth(raw, own, strength) if form == "v1" else raw
        label = silver(torch.tensor(raw), temperature).numpy()
        label = smooth(label, own, strength) if form == "naacl" else label
        target_PM[np.ix_(rows, known_M)] = label[np.searchsorted(within, rows)]
    return target_PM


def _comparable(reward_PM: Array) -> npt.NDArray[np.bool_]:
    """Which cells are known. InputError when some models share no prompt: within a prompt nothing compares them."""
    known = ~np.isnan(reward_PM)
    if len(groups := components(known)) > 1:
        raise InputError(f"models number {apart(groups, range(1, known.shape[1] + 1))} share no prompt; {NO_COMMON}")
    return known


def fit_bce(
    X_PD: Vectors, reward_PM: Array, tags: Tags, *, blocks: tuple[int, ...], seed: int, l2: float = 1e-3
) -> Fitted:
    """MLC: a sigmoid a model, binary cross-entropy against the reward scaled to [0, 1] by its training range.

    A hole counts as what its prompt and its model say (`common.filled`): what a model does on kinds of prompts it was
    never asked is not read off the kinds it was.
    """
    from trimtab.learners.model.losses import ROUTER_LOSSES

    _, low, high = _unit_range(reward_PM)
    target = np.clip((filled(reward_PM, tags) - low) / (high - low), 0, 1)
    scale = blockwise(X_PD, blocks)
    W, b = descend(scaled(scale, X_PD), target, np.ones_like(target, bool), ROUTER_LOSSES["bce"], l2)
    return "sigmoid", {**scale, "W": W, "b": b, "low": np.array(low), "high": np.array(high)}


def fit_routerdc(
    X_PD: Vectors, reward_PM: Array, tags: Tags, *, blocks: tuple[int, ...], seed: int,
    width: int = 64, temperature: float = 0.2, top: int = 3, steps: int = 100, lr: float = 0.01, l2: float = 1e-3,
) -> Fitted:  # fmt: skip
    """RouterDC on fixed vectors: a projection and an embedding a model, cosine, sample-to-LLM contrast (Adam).

    The cluster contrast of the paper moves the encoder, which is fixed here, and is left out.
    """
    import torch

    from trimtab.learners.model.losses import contrast

    torch_rng = torch.Generator().manual_seed(seed)
    target, low, high = _unit_range(reward_PM)
    scale = blockwise(X_PD, blocks)
    X = torch.tensor(scaled(scale, X_PD))
    A = (torch.randn(X.shape[1], width, generator=torch_rng) / width**0.5).requires_grad_()
    V = (0.78 * torch.randn(reward_PM.shape[1], width, generator=torch_rng)).requires_grad_()
    y, known = torch.tensor(target, dtype=torch.float32), torch.tensor(_comparable(reward_PM))
    adam = torch.optim.Adam([A, V], lr=lr)
    for _ in range(steps):
        cos = torch.nn.functional.normalize(X @ A, dim=-1) @ torch.nn.functional.normalize(V, dim=-1).T
        value = contrast(cos / temperature, y, known, top).mean() + l2 * A.square().sum()
        adam.zero_grad()
        value.backward()
        adam.step()
    ends = {"low": np.array(low), "high": np.array(high)}
    return "cosine", {**scale, "A": A.detach().numpy(), "V": _unit(V.detach().numpy()), **ends}


def descend(
    X_PD: Vectors, target_PM: Array, known_PM: npt.NDArray[np.bool_], loss: Any, l2: float, steps: int = 60
) -> tuple[Vectors, Vectors]:
    """Linear head (W, b) minimising mean loss + l2/2 · |W|² by L-BFGS from zero; deterministic."""
    import torch

    X, target = torch.tensor(X_PD), torch.tensor(target_PM, dtype=torch.float32)
    known = torch.tensor(known_PM)
    W = torch.zeros(X.shape[1], target.shape[1], requires_grad=True)
    b = torch.zeros(target.shape[1], requires_grad=True)
    search = torch.optim.LBFGS([W, b], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Any:
        search.zero_grad()
        value = loss(X @ W + b, target, known).mean() + l2 / 2 * W.square().sum()
        value.backward()
        return value

    search.step(closure)
    if not (torch.isfinite(W).all() and torch.isfinite(b).all()):
        raise InputError("fitting diverged (weights are not finite); raise l2 or the temperature")
    return W.detach().numpy(), b.detach().numpy()


def _head_constant(w: Weights, X: Vectors) -> Array:
    return np.broadcast_to(w["mean"], (len(X), len(w["mean"]))).copy()


def _head_random(w: Weights, X: Vectors) -> Array:
    rows = np.round(X, 3) + 0.0  # batching moves the last bits; -0.0 is 0.0
    draw = [np.random.default_rng([int(w["seed"]), *row.tobytes()]).random(len(w["level"])) for row in rows]
    return w["level"] + _TIE * np.array(draw).reshape(len(X), -1)


def _head_linear(w: Weights, X: Vectors) -> Array:
    return (scaled(w, X) @ w["W"]).astype(float) + w["b"]


def _head_sigmoid(w: Weights, X: Vectors) -> Array:
    return w["low"] + (w["high"] - w["low"]) / (1 + np.exp(-_head_linear(w, X)))


def _head_softmax(w: Weights, X: Vectors) -> Array:
    logits = _head_linear(w, X)
    return w["temperature"] * (logits - logits.mean(1, keepdims=True)) + w["level"]


def _head_cosine(w: Weights, X: Vectors) -> Array:
    return w["low"] + (w["high"] - w["low"]) * (1 + _unit(scaled(w, X) @ w["A"]) @ w["V"].T.astype(float)) / 2


def _head_knn(w: Weights, X: Vectors) -> Array:
    near = _unit(scaled(w, X)) @ w["X"].T
    k = int(w["k"])
    at = np.argpartition(-near, k - 1, axis=1)[:, :k]
    level_P = w.get("level", np.zeros(len(w["X"])))  # routers saved before there was one
    return np.array([_means(w["reward"][row], w["mean"]) + level_P[row].mean() for row in at])


def _head_clusters(w: Weights, X: Vectors) -> Array:
    return w["reward"][nearest(scaled(w, X).astype(float), w["centre"])]


HEADS: dict[str, Callable[[Weights, Vectors], Array]] = {
    "constant": _head_constant,
    "random": _head_random,
    "linear": _head_linear,
    "sigmoid": _head_sigmoid,
    "softmax": _head_softmax,
    "cosine": _head_cosine,
    "knn": _head_knn,
    "clusters": _head_clusters,
    "experts": experts_head,
}
METHODS: dict[str, Callable[..., Fitted]] = {
    "tags": fit_tags,
    "zooter": fit_zooter,
    "bce": fit_bce,
    "knn": fit_knn,
    "clusters": fit_clusters,
    "mf": fit_mf,
    "routerdc": fit_routerdc,
    "best_single": fit_constant,
    "random": fit_random,
}
"""(X_PD, reward_PM, tags, *, blocks, seed, **options) -> (head, weights)."""


def _means(reward_PM: Array, default: Array | None = None) -> Array:
    known = ~np.isnan(reward_PM)
    count = known.sum(0)
    mean = np.where(known, reward_PM, 0).sum(0) / np.maximum(count, 1)
    return mean if default is None else np.where(count > 0, mean, default)


def _unit_range(reward_PM: Array) -> tuple[Array, float, float]:
    low, high = float(np.nanmin(reward_PM)), float(np.nanmax(reward_PM))
    return np.nan_to_num((reward_PM - low) / (high - low)), low, high


def _unit(X: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-9)
