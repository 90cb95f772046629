"""Routers' values and measured rewards to numbers that cannot flatter: each beside its null, each with an interval.

MTR and %Uplift of Zooter (Lu et al. 2024) with pool, subsets and tie rule explicit; the normalised gap of Lookahead
Routing (0 = random, 100 = the oracle); AIQ (RouterBench, Hu et al. 2024), the RouterArena score (2025), APGR and
CPT (RouteLLM, Ong et al. 2024). Intervals are paired bootstraps over prompts. Where rewards are missing, everything is
computed on the prompts that all models were measured on, with a warning that counts them. It fits nothing.
"""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.decoders.model import choose, utility
from trimtab.errors import InputError, unknown
from trimtab.evaluation.table import Row, Table, row, tabulate
from trimtab.intervals import Interval, bootstrap, paired_bootstrap

Array = npt.NDArray[np.float64]
BEST = "best single"


def common(reward_PM: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Mask of the prompts with a reward of every model; a warning counts the others. InputError when there is none.

    A model that was asked easy prompts only would look like the best. A router that sends prompts to a model which was
    not measured there would be judged by another one.
    """
    reward = np.asarray(reward_PM, float)
    whole = np.asarray(~np.isnan(reward).any(axis=1))
    if not whole.any():
        raise InputError(
            f"no prompt of {len(reward)} has a reward of all {reward.shape[1]} models (they have "
            f"{', '.join(map(str, (~np.isnan(reward)).sum(0)))}), so they cannot be compared; take fewer models, or "
            "measure them on the same prompts"
        )
    if not whole.all():
        warnings.warn(
            f"models are compared on the {whole.sum()} of {len(whole)} prompts that all {reward.shape[1]} have a "
            "reward on",
            stacklevel=3,
        )
    return whole


def route(value_PM: npt.ArrayLike, reward_PM: npt.ArrayLike) -> Array:
    """Reward of the model each row of values prefers, shape (P,). Models without a reward there cannot be chosen."""
    value, reward = np.asarray(value_PM, float), np.asarray(reward_PM, float)
    if value.shape != reward.shape:
        raise InputError(f"values have shape {value.shape}, rewards {reward.shape}; same prompts and pool are needed")
    chosen = choose(np.where(np.isnan(reward), np.nan, value))
    return reward[np.arange(len(reward)), chosen]


def gap(routed_P: npt.ArrayLike, reward_PM: npt.ArrayLike, *, draws: int = 2000, seed: int = 0) -> Interval:
    """Normalised gap 100 · (routed - random) / (oracle - random), its ends resampled together with the routed rewards.

    NaN when random and oracle agree (every model earned the same on every prompt). On `common` prompts.
    """
    at, reward = common(reward_PM), np.asarray(reward_PM, float)
    columns = np.stack([np.asarray(routed_P, float), reward.mean(axis=1), reward.max(axis=1)], axis=1)[at]

    def statistic(mean: Array) -> Array:
        spread = mean[..., 2] - mean[..., 1]
        return 100 * (mean[..., 0] - mean[..., 1]) / np.where(spread > 0, spread, np.nan)

    return bootstrap(statistic, columns, draws=draws, seed=seed)


def routing_table(
    values: Mapping[str, npt.ArrayLike], matrix: ResponseMatrix, *, best: int | npt.NDArray[np.intp],
    price_M: npt.ArrayLike | None = None, exchange: float = 0.0, ranked: Collection[str] = (), always: bool = False,
    draws: int = 10_000,
) -> Table:  # fmt: skip
    """A row a router, then the nulls: random, best single (the baseline), every model alone with `always`, oracle.

    `values` maps names to (P, M) expected rewards of the matrix's prompts and models; `best` is the column of the best
    single model *of the training prompts*, or one column a prompt when several splits are joined. Rows have `more`: the
    `share` of prompts on which a model with the highest reward was chosen, the normalised `gap`, and a mean `price`
    (NaN without `price_M`). Choices maximise reward - exchange · price; the values named in `ranked` come from rankers
    (RMR), which pay every model. Every row is over the same, `common` prompts; its intervals say how many (`n`).
    """
    at, reward = common(matrix.reward_PM), matrix.reward_PM
    ids = [p.id for p, here in zip(matrix.prompts, at, strict=True) if here]
    best = np.broadcast_to(best, len(reward))[at]
    values = {name: np.asarray(value, float)[at] for name, value in values.items()}
    reward = reward[at]
    P, M = reward.shape
    price = np.full(M, math.nan) if price_M is None else np.asarray(price_M, float)
    single = reward[np.arange(P), best]
    top = reward.max(axis=1)

    def made(name: str, routed: Array, cost: float, share: float) -> Row:
        figures = {"price": cost, "share": share, "gap": gap(routed, reward)}
        return row(name, dict(zip(ids, routed.tolist(), strict=True)), more=figures, draws=draws)

    rows = []
    for name, value in values.items():
        paid = name in ranked
        chosen = choose(utility(value, price, exchange) if exchange and not paid else value)
        routed = reward[np.arange(P), chosen]
        cost = float(price.sum() if paid else price[chosen].mean())
        rows.append(made(name, routed, cost, float((routed == top).mean())))
    rows.append(made("random", reward.mean(axis=1), float(price.mean()), float((reward == top[:, None]).mean())))
    rows.append(made(BEST, single, float(price[best].mean()), float((single == top).mean())))
    for m, name in enumerate(matrix.models if always else ()):
        rows.append(made(f"always {name}", reward[:, m], float(price[m]), float((reward[:, m] == top).mean())))
    rows.append(made("oracle", top, float(price[reward.argmax(1)].mean()), 1.0))
    return tabulate(rows, baseline=BEST, draws=draws)


def per_tag(
    routed_P: npt.ArrayLike, reward_PM: npt.ArrayLike, tags: Sequence[Sequence[str]], best: int | npt.NDArray[np.intp]
) -> list[dict]:
    """A row a tag: prompts, routed reward, best single's, the oracle's, the gain with its interval. Sorted by tag.

    On `common` prompts; a tag without any is left out.
    """
    whole, routed, reward = common(reward_PM), np.asarray(routed_P, float), np.asarray(reward_PM, float)
    single = reward[np.arange(len(reward)), np.broadcast_to(best, len(reward))]
    rows = []
    for tag in sorted({t for own, here in zip(tags, whole, strict=True) for t in own if here}):
        at = whole & np.array([tag in own for own in tags])
        gain = paired_bootstrap(routed[at], single[at])
        ends = {"best_single": float(single[at].mean()), "oracle": float(reward[at].max(1).mean())}
        rows.append({"tag": tag, "n": int(at.sum()), "reward": float(routed[at].mean()), **ends, "gain": gain})
    return rows


def confusion(value_PM: npt.ArrayLike, reward_PM: npt.ArrayLike) -> Array:
    """(M, M): share of `common` prompts by oracle model (row, ties shared evenly) and chosen model (column); sum 1."""
    at = common(reward_PM)
    reward = np.asarray(reward_PM, float)[at]
    chosen = choose(np.asarray(value_PM, float)[at])
    top = (reward == reward.max(axis=1, keepdims=True)).astype(float)
    out = np.zeros((reward.shape[1],) * 2)
    np.add.at(out.T, chosen, top / top.sum(1, keepdims=True))
    return out / len(reward)


def mean_rank(score_SK: npt.ArrayLike, *, pool: Sequence[int] | None = None, ties: str = "average") -> Array:
    """MTR, shape (K,): mean over subsets of a system's rank, 1 = best.

    `pool` None ranks all systems against each other. Otherwise a model of the pool is ranked among the pool and
    every other system alone against them, as the paper's tables must have been made (its ensembles all may be 1st).
    `ties` "average" gives tied systems their mean rank, "min" the best one. On subsets that every system has a score on
    (`common`).
    """
    score = np.asarray(score_SK, float)
    score = score[common(score)]
    if ties not in ("average", "min"):
        raise unknown("tie rule", ties, ("average", "min"))
    out = np.zeros(score.shape[1])
    for k in range(score.shape[1]):
        rivals = [c for c in (range(score.shape[1]) if pool is None else pool) if c != k]
        better = (score[:, rivals] > score[:, [k]]).sum(1)
        same = (score[:, rivals] == score[:, [k]]).sum(1)
        out[k] = (1 + better + (same / 2 if ties == "average" else 0)).mean()
    return out


def uplift(score_SK: npt.ArrayLike, *, pool: Sequence[int] | None = None, ties: str = "any") -> Array:
    """%Uplift, shape (K,): share of subsets where a system is the best of its field (as in `mean_rank`).

    `ties` "any" counts a shared first place for each, "none" for nobody, "share" splits it. On subsets that every
    system has a score on (`common`).
    """
    score = np.asarray(score_SK, float)
    score = score[common(score)]
    if ties not in ("any", "none", "share"):
        raise unknown("tie rule", ties, ("any", "none", "share"))
    out = np.zeros(score.shape[1])
    for k in range(score.shape[1]):
        rivals = [c for c in (range(score.shape[1]) if pool is None else pool) if c != k]
        behind = (score[:, rivals] > score[:, [k]]).any(1)
        same = (score[:, rivals] == score[:, [k]]).sum(1)
        credit = {"any": np.ones(len(score)), "none": same == 0, "share": 1 / (1 + same)}[ties]
        out[k] = np.where(behind, 0, credit).mean()
    return out


def frontier(
    value_PM: npt.ArrayLike, reward_PM: npt.ArrayLike, price_M: npt.ArrayLike, exchanges: Sequence[float]
) -> list[dict[str, float]]:
    """Mean price and reward of routing by reward - exchange · price on `common` prompts, one point an exchange rate."""
    whole = common(reward_PM)
    reward, value = np.asarray(reward_PM, float)[whole], np.asarray(value_PM, float)[whole]
    price = np.broadcast_to(np.asarray(price_M, float), np.shape(reward_PM))[whole]
    points = []
    for rate in exchanges:
        at = choose(utility(value, price, rate))
        p = np.arange(len(reward))
        points.append(
            {"exchange": float(rate), "price": float(price[p, at].mean()), "reward": float(reward[p, at].mean())}
        )
    return points


def aiq(price_K: npt.ArrayLike, quality_K: npt.ArrayLike, *, max_price: float | None = None) -> float:
    """AIQ: area under the non-decreasing convex hull of (price, quality), over the largest price (RouterBench's code).

    `max_price` is the largest over all routers compared (each hull is extended flat to it); by default these points'.
    The area begins at the cheapest point, as theirs does: routers that cannot be cheap lose that part.
    """
    points = sorted(zip(np.asarray(price_K, float), np.asarray(quality_K, float), strict=True))
    if np.isnan(points).any():
        raise InputError("AIQ needs the price and the quality of every point; one is NaN")
    if not points or points[-1][0] <= 0:
        raise InputError("AIQ needs at least one point with a positive price")
    hull: list[tuple[float, float]] = []
    for x, y in points:
        if hull and x == hull[-1][0]:
            if y <= hull[-1][1]:
                continue
            hull.pop()
        if hull and y <= hull[-1][1]:
            continue  # dearer and no better: the hull does not fall
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], (x, y)):
            hull.pop()
        hull.append((x, y))
    end = max(points[-1][0] if max_price is None else max_price, hull[-1][0])
    x, y = np.array([*hull, (end, hull[-1][1])]).T
    return float(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2) / end)


def arena_score(
    accuracy: float, price: float, *, beta: float = 0.1, least: float = 0.0044, most: float = 200.0
) -> float:
    """RouterArena's S = (1 + beta) A C / (beta A + C), C = log2(most / price) / log2(most / least).

    `price`: US dollars for 1,000 prompts, clipped to [least, most]; accuracy in [0, 1].
    """
    cheap = math.log2(most / min(max(price, least), most)) / math.log2(most / least)
    return 0.0 if accuracy * cheap == 0 else (1 + beta) * accuracy * cheap / (beta * accuracy + cheap)


class TwoModels(NamedTuple):
    """RouteLLM's numbers: `apgr` of the recovered gap, `cpt` share of strong calls for a part of it (NaN: never)."""

    apgr: float
    cpt: dict[float, float]


def two_models(
    gain_P: npt.ArrayLike, weak_P: npt.ArrayLike, strong_P: npt.ArrayLike, levels: Sequence[float] = (0.2, 0.5, 0.8)
) -> TwoModels:
    """APGR and CPT of a router between a weak and a strong model; `gain_P` is the expected gain of calling the strong.

    The curve: quality when the q prompts with the highest gain go to the strong model, q = 0..P.
    APGR = (area under it - weak) / (strong - weak). NaN when the strong model is not better on average. On prompts that
    both were measured on.
    """
    at, gain = common(np.column_stack([weak_P, strong_P])), np.asarray(gain_P, float)
    weak, strong = np.asarray(weak_P, float)[at], np.asarray(strong_P, float)[at]
    if np.isnan(gain[at]).any():
        raise InputError("an expected gain is NaN; give one for every prompt")
    order = np.argsort(-gain[at], kind="stable")
    curve = np.concatenate([[0.0], np.cumsum((strong - weak)[order])]) / len(weak)
    span = curve[-1]
    if span <= 0:
        return TwoModels(math.nan, dict.fromkeys(levels, math.nan))
    recovered = curve / span
    area = float(((recovered[1:] + recovered[:-1]) / 2).mean())
    return TwoModels(area, {level: _first(recovered, level) for level in levels})


def _first(curve: Array, level: float) -> float:
    at = int(np.argmax(curve >= level))
    if curve[at] < level:
        return math.nan
    before = (level - curve[at - 1]) / (curve[at] - curve[at - 1]) - 1 if at else 0.0
    return float((at + before) / (len(curve) - 1))


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])
