"""A response matrix to a router: prompts to the expected reward of every model of a pool. Frozen, numpy at inference.

`fit_router` learns one of METHODS: Zooter's distillation (Lu et al. 2024), or a simple router such as independent
studies found to beat it. Held-out prompts say whether it earns more than the best single model; if not, the constant
is returned, and its card says so. Prices and budgets live outside (decoders/model.py); it never calls a model.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.data.matrix.matrix import ResponseMatrix, from_groups, normal_text
from trimtab.errors import InputError, ModelError, unknown
from trimtab.fitted import load_fitted, save_fitted
from trimtab.intervals import Interval, paired_bootstrap
from trimtab.json_file import Kinds
from trimtab.learners.model.blocks import scaled
from trimtab.learners.model.common import NO_COMMON, apart, components
from trimtab.learners.model.experts import tag_probability
from trimtab.learners.model.fits import HEADS, METHODS, Weights, fit_constant, only
from trimtab.types import Group, Prompt, PromptEmbedder, fingerprint, user_text

Array = npt.NDArray[np.float64]
CARD, WEIGHTS = "router.json", "router.safetensors"
SINGLE = ("cheapest", "always")
"""Methods beside METHODS: the constants that take a model by its price, or by name (option `model`)."""
WITHIN = ("zooter", "routerdc")
"""Methods that learn from comparisons of models on the same prompt alone."""


_NEEDS: Kinds = {
    "models": list, "head": str, "width?": (int, type(None)), "encoder?": (dict, type(None)), "tags?": list,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class RewardRouter:
    """Prompts -> one {model: expected reward} a prompt. `head` names how weights and vectors give rewards (HEADS).

    `embed` turns prompts into vectors; every head but the constant needs it. `card` says what was fitted on what, what
    the held-out prompts said, and why this is the constant when it is.
    """

    models: tuple[str, ...]
    head: str
    weights: Weights
    embed: PromptEmbedder | None
    card: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        if not prompts:
            return []
        vectors = np.zeros((len(prompts), 0)) if self.embed is None else self.embed.embed_prompts(prompts)
        return [dict(zip(self.models, map(float, row), strict=True)) for row in self.reward(vectors)]

    def reward(self, vectors_PD: npt.NDArray[np.floating]) -> Array:
        """Expected rewards from vectors already made by `embed`, shape (P, M), columns in the order of `models`."""
        width = self.card.get("width")
        if self.head != "constant" and width != vectors_PD.shape[1]:
            raise ModelError(f"the router was fitted on vectors of {width} numbers, got {vectors_PD.shape[1]}")
        return HEADS[self.head](self.weights, np.asarray(vectors_PD, np.float32))

    @property
    def constant(self) -> str:
        """The one model this router always prefers, "" unless it is the constant."""
        return self.models[int(np.argmax(self.weights["mean"]))] if self.head == "constant" else ""

    def why(self, vector_D: npt.NDArray[np.floating], top: int = 3) -> list[tuple[str, float]]:
        """The likeliest tags with their probability (head "experts"), or the nearest with cosine similarity; empty when
        fitted without tags."""
        if "tag_centre" not in self.weights:
            return []
        if self.head == "experts":
            p = tag_probability(self.weights, np.asarray(vector_D, np.float32)[None])[0]
            return [(self.card["tags"][i], float(p[i])) for i in np.argsort(-p)[:top]]
        centre = self.weights["tag_centre"]
        x = np.asarray(vector_D, np.float32)[None]
        x = (scaled(self.weights, x) if "x_mean" in self.weights else x)[0] - self.weights["tag_origin"]
        near = centre @ x / np.maximum(np.linalg.norm(centre, axis=1) * np.linalg.norm(x), 1e-9)
        return [(self.card["tags"][i], float(near[i])) for i in np.argsort(-near)[:top]]

    def seen(self, prompts: Sequence[Prompt]) -> npt.NDArray[np.bool_]:
        """Which prompts have the text of one that this router was fitted on; judging it on those would flatter it."""
        return np.isin(_text_hashes(prompts), self.weights.get("seen", np.zeros(0, np.uint64)))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes router.safetensors and router.json to `folder`; the embedder is named by its card, not stored."""
        card = {"models": list(self.models), "head": self.head, **self.card}
        return save_fitted(Path(folder), self.weights, card, WEIGHTS, CARD)


def load_router(folder: str | os.PathLike[str], embed: PromptEmbedder | None = None) -> RewardRouter:
    """The router saved in `folder`, reading prompts with `embed`.

    ModelError when there is none, or when the card of `embed` is not that of the encoder it was fitted with.
    """
    source = Path(folder)
    try:
        card, weights = load_fitted(source, WEIGHTS, CARD, what="router", needs=_NEEDS)
        models, head = tuple(card.pop("models")), card.pop("head")
        tried = HEADS[head](weights, np.zeros((1, int(card.get("width") or 0)), np.float32))
        if tried.shape != (1, len(models)):
            raise ValueError(f"weights for {tried.shape[-1]} models, a card for {len(models)}")
    except (InputError, KeyError, TypeError, ValueError, IndexError, ArithmeticError) as e:
        raise ModelError(f"{source} holds no router ({e}); fit one with `trimtab fit router`") from e
    wanted, given = card.get("encoder"), _card(embed)
    if head != "constant" and embed is None:
        raise ModelError(f"the router in {source} reads prompts with {wanted}; give that encoder")
    if head != "constant" and wanted and wanted != given:
        raise ModelError(f"the router in {source} was fitted with the encoder {wanted}, not {given}")
    return RewardRouter(models, head, weights, embed, card)


def check_pool(router: RewardRouter, pool: Sequence[str]) -> None:
    """ModelError unless `pool` (a server's models) is exactly the router's; names what is missing on either side."""
    gone, new = sorted(set(router.models) - set(pool)), sorted(set(pool) - set(router.models))
    if gone or new:
        raise ModelError(
            f"the router's pool and the server's differ: the server lacks {', '.join(gone) or 'none'}, the router does "
            f"not know {', '.join(new) or 'none'}; fit a router on this pool or start the missing models"
        )


def fit_router(
    matrix: ResponseMatrix | Sequence[Group],
    embed: PromptEmbedder | None = None,
    *,
    vectors: npt.NDArray[np.floating] | None = None,
    method: str = "tags",
    guard: bool = True,
    guard_by: str = "prompts",
    validation: float = 0.25,
    seed: int = 0,
    **options: Any,
) -> RewardRouter:
    """Learns rewards from prompts; scored groups whose completions name their model serve as well as a matrix.

    `vectors` (P, D) are `embed`'s, if they were made before. Same seed, same router.

    `method` is one of METHODS or SINGLE, `options` are its own. With `guard` it is first fitted on 1 - validation of
    the prompts. Its gain over the best single model is measured on the held-out ones whose text is not among the others
    (95 %, paired bootstrap). Unless the lower bound is above zero the constant is returned; `card["guard"]` says so.
    `guard_by` "tags" holds out whole tags instead: does routing help on kinds of prompts that were never seen? The
    models' order never matters.
    InputError: unknown method, no vectors, NaN vectors, a model without rewards, fewer than two prompts.
    """
    if not isinstance(matrix, ResponseMatrix):
        matrix = from_groups(matrix)
    if guard_by not in ("prompts", "tags"):
        raise unknown("way to hold out prompts", guard_by, ("prompts", "tags"))
    if method not in METHODS and method not in SINGLE:
        raise unknown("router method", method, (*METHODS, *SINGLE))
    order = sorted(range(len(matrix.models)), key=lambda m: matrix.models[m])
    models = tuple(matrix.models[m] for m in order)
    reward = matrix.reward_PM[:, order]
    keep = np.asarray((~np.isnan(reward)).any(axis=1))
    _refuse(matrix, keep)
    card: dict[str, Any] = {
        "method": method, "options": options, "seed": seed, "encoder": _card(embed),
        "data": _data_card(matrix, keep) | _apart(reward, models, method),
    }  # fmt: skip
    text = _text_hashes(matrix.prompts)
    single = {"seen": np.unique(text)}
    constant = RewardRouter(models, "constant", fit_constant(reward)[1] | single, None, card)
    card["best_single"] = constant.constant
    if method in SINGLE:
        weights = only(reward, _which(method, models, matrix, options))[1] | single
        return RewardRouter(models, "constant", weights, None, {**card, "guard": "asked for the constant"})
    constant = replace(constant, card=card)
    trivial = _trivial(reward, models)
    if trivial or method == "best_single":
        return replace(constant, card={**card, "guard": trivial or "asked for the constant"})
    X = _vectors(matrix, embed, vectors)[keep]
    reward, tags = reward[keep], [t for t, k in zip(matrix.tags, keep, strict=True) if k]
    blocks = getattr(embed, "blocks", None)
    blocks = tuple(blocks) if blocks and sum(blocks) == X.shape[1] else (X.shape[1],)
    card |= {"width": X.shape[1], "blocks": list(blocks)}
    fit = METHODS[method]
    shared = {"blocks": blocks, "seed": seed, **options}
    if guard and method != "random":
        verdict = _gain(fit, X, reward, tags, text[keep], validation, shared, guard_by)
        card |= {"gain": verdict, "guard_by": guard_by}
        where = "held-out prompts" if guard_by == "prompts" else "prompts of held-out tags"
        if not verdict["lower"] > 0:
            best = constant.constant
            said = f"too few prompts to hold some out, so no gain over {best} was shown: use this one model"
            if not np.isnan(verdict["mean"]):
                said = f"the gain over {best} on {where} is not above zero ({_show(verdict)}): use this one model"
            return replace(constant, card={**card, "guard": said})
        card["guard"] = f"passed: gain over the best single model on {where} {_show(verdict)}"
    head, weights = fit(X, reward, tags, **shared)
    weights, names = _with_tags(weights, X, tags)
    return RewardRouter(models, head, weights | single, embed, {**card, "tags": names})


def _gain(
    fit: Any, X: Any, reward: Array, tags: Any, text: npt.NDArray[np.uint64], share: float,
    shared: Mapping[str, Any], by: str,
) -> dict[str, Any]:  # fmt: skip
    """Held-out gain of one fit over the best single model of its own training prompts, no text on both sides.

    By prompts: a random share is held out. By tags: each of four random quarters of the tags in turn, so that every
    prompt is of a kind that the fit never saw (a prompt belongs to its first tag).
    """
    rng = np.random.default_rng(shared["seed"])
    if by == "tags":
        first = np.array([row[0] if row else "" for row in tags])
        names = rng.permutation(np.unique(first))
        quarters = [np.isin(first, part) for part in np.array_split(names, min(4, len(names)))]
        splits = [(np.flatnonzero(q), np.flatnonzero(~q)) for q in quarters]
    else:
        order = rng.permutation(len(X))
        cut = max(1, round(share * len(X)))
        splits = [(order[:cut], order[cut:])]
    gains, parts = [], len(components(~np.isnan(reward)))
    for held, train in splits:
        rest = held[~np.isin(text[held], text[train])]
        if len(train) < 2 or not len(rest) or np.isnan(reward[train]).all(0).any():
            continue
        if len(components(~np.isnan(reward[train]))) > parts:
            continue  # these prompts compare fewer models than all do
        head, weights = fit(X[train], reward[train], [tags[i] for i in train], **shared)
        best = int(np.argmax(fit_constant(reward[train])[1]["mean"]))
        chosen = HEADS[head](weights, X[rest]).argmax(1)  # of all models: a second choice would flatter the router
        gain = reward[rest, chosen] - reward[rest, best]
        gains.append(gain[~np.isnan(gain)])
    return paired_bootstrap(np.concatenate(gains) if gains else [], draws=2000, seed=shared["seed"])._asdict()


def _which(method: str, models: Sequence[str], matrix: ResponseMatrix, options: Mapping[str, Any]) -> int:
    """The model that a constant router always takes, by its place among `models`."""
    if method == "always":
        if options.get("model") not in models:
            raise unknown("model", str(options.get("model", "")), models)
        return models.index(options["model"])
    price = {m: np.asarray(matrix.pool([m]).price_PM) for m in models}
    if lost := [m for m, p in price.items() if np.isnan(p).all()]:
        raise InputError(f"the cheapest model is unknown: {', '.join(lost)} has no price in the matrix")
    cells = np.column_stack(list(price.values()))
    whole = ~np.isnan(cells).any(axis=1)  # prices of the same prompts, where there are any
    return int(np.argmin(np.nanmean(cells[whole] if whole.any() else cells, axis=0)))


def _text_hashes(prompts: Sequence[Prompt]) -> npt.NDArray[np.uint64]:
    return np.array([int(fingerprint(normal_text(user_text(p)))[:16], 16) for p in prompts], np.uint64)


def _refuse(matrix: ResponseMatrix, keep: npt.NDArray[Any]) -> None:
    empty = sorted(m for m in matrix.models if np.isnan(matrix.pool([m]).reward_PM).all())
    if empty:
        raise InputError(f"no reward for {', '.join(empty)}; score these models or leave them out of the pool")
    if keep.sum() < 2:
        raise InputError(f"{int(keep.sum())} prompts have a reward; a router needs at least two")


def _apart(reward: Array, models: Sequence[str], method: str) -> dict[str, str]:
    """{"apart": which models share no prompt}, with a warning; {} when all can be compared. InputError where a method
    learns from comparisons alone."""
    groups = components(~np.isnan(reward))
    if len(groups) == 1:
        return {}
    said = apart(groups, models)
    if method in WITHIN:
        raise InputError(f"models that share no prompt: {said}; {NO_COMMON}")
    warnings.warn(
        f"models that share no prompt: {said}; their rewards are compared as if their prompts were equally hard. "
        "Score them on common prompts to know which is better",
        stacklevel=3,
    )
    return {"apart": said}


def _trivial(reward: Array, models: Sequence[str]) -> str:
    if len(models) == 1:
        return "the pool has one model: there is nothing to route"
    if np.nanmax(reward) == np.nanmin(reward):
        return f"all rewards equal {np.nanmax(reward):g}: there is nothing to learn"
    return ""


def _vectors(matrix: ResponseMatrix, embed: PromptEmbedder | None, vectors: Any) -> npt.NDArray[np.float32]:
    if vectors is None:
        if embed is None:
            raise InputError(
                "fit_router needs `embed` (prompts to vectors: HashedNgrams, Encoder) or `vectors` already made"
            )
        vectors = embed.embed_prompts(matrix.prompts)
    X = np.asarray(vectors, np.float32)
    if X.ndim != 2 or len(X) != len(matrix):
        raise InputError(f"vectors have shape {X.shape}; the matrix needs ({len(matrix)}, D)")
    if not np.isfinite(X).all():
        bad = matrix.prompts[int(np.argwhere(~np.isfinite(X))[0][0])].id
        raise InputError(f"the vector of prompt {bad} is not finite; embed it again")
    return X


def _with_tags(
    weights: Weights, X: npt.NDArray[np.float32], tags: Sequence[Sequence[str]]
) -> tuple[Weights, list[str]]:
    names = sorted({t for row in tags for t in row})
    if not names:
        return weights, []
    X = scaled(weights, X) if "x_mean" in weights else X
    origin = X.mean(0)
    centre = [X[[t in row for row in tags]].mean(0) - origin for t in names]
    return {**weights, "tag_centre": np.array(centre, np.float32), "tag_origin": origin}, names


def _data_card(matrix: ResponseMatrix, keep: npt.NDArray[Any]) -> dict[str, Any]:
    hashed = fingerprint([[p.id for p in matrix.prompts], np.nan_to_num(matrix.reward_PM, nan=-1e9).sum().item()])
    card = {"prompts": len(matrix), "missing": matrix.missing, "left_out": int((~keep).sum()), "hash": hashed}
    if matrix.missing:
        counts = (~np.isnan(matrix.reward_PM)).sum(0).tolist()
        card |= {"whole": int(matrix.whole_P.sum()), "measured": dict(zip(matrix.models, counts, strict=True))}
    return {**card, "note": matrix.note}


def _card(embed: PromptEmbedder | None) -> dict[str, Any]:
    return json.loads(json.dumps(dict(getattr(embed, "card", None) or {}), default=str))


def _show(gain: Mapping[str, Any]) -> str:
    return f"{Interval(gain['mean'], gain['lower'], gain['upper'], gain['n']).show('+.3f')}, n = {gain['n']}"
