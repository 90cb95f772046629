"""A response matrix with texts and rankers to values: reward-model ranking (RMR), what a router is distilled from.

Every model answers and a ranker picks (Zooter's upper rows, Lu et al. 2024, Table 1). A ranker is any `RewardFn`, or a
pairwise one through `WinRate`. It never sees the measured rewards, and all models are paid: `rank_price` says how much.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.errors import InputError
from trimtab.types import Group, Pair, Reward, RewardFn

Array = npt.NDArray[np.float64]
Prefer = Callable[[Sequence[Pair]], Sequence[float]]
"""Pairs to the probability that `chosen` is the better one; which side stands first says nothing."""


def longest(groups: Sequence[Group]) -> list[list[Reward]]:
    """The null of every ranker: the number of characters."""
    return [[Reward(float(len(c.text))) for c in g.completions] for g in groups]


def shortest(groups: Sequence[Group]) -> list[list[Reward]]:
    """Minus the number of characters."""
    return [[Reward(-float(len(c.text))) for c in g.completions] for g in groups]


@dataclass(frozen=True)
class WinRate:
    """A pairwise ranker as a `RewardFn`: a completion's mean probability of being better than each of the others.

    Both orders of every pair are asked and averaged, so a ranker that favours the first place gains nothing by it. A
    completion alone in its group has 0.5; NaN answers are left out.
    """

    prefer: Prefer

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        pairs = [Pair(g.prompt, a, b) for g in groups for a in g.completions for b in g.completions if a is not b]
        said = np.asarray(self.prefer(pairs) if pairs else [], float)
        if len(said) != len(pairs):
            raise InputError(f"the pairwise ranker answered {len(said)} of {len(pairs)} pairs; it must answer each")
        out, start = [], 0
        for g in groups:
            n = len(g.completions)
            win = np.full((n, n), np.nan)
            win[~np.eye(n, dtype=bool)] = said[start : start + n * (n - 1)]
            start += n * (n - 1)
            both = np.stack([win, 1 - win.T], axis=-1).reshape(n, -1)
            out.append([_mean(row) for row in both])
        return out


def rank_pool(matrix: ResponseMatrix, rankers: Mapping[str, RewardFn]) -> dict[str, Array]:
    """Each ranker's values of all models' answers, shape (P, M): rows of `routing_table` beside routers.

    NaN where there is no answer or the ranker could not say. InputError when the matrix has no texts.
    """
    groups = [replace(g, rewards=()) for g in matrix.groups()]
    known = ~np.isnan(matrix.reward_PM)
    out = {}
    for name, ranker in rankers.items():
        value = np.full(matrix.reward_PM.shape, np.nan)
        value[known] = [r.value for row in ranker(groups) for r in row]
        out[name] = value
    return out


def rank_price(matrix: ResponseMatrix, ranker: float = 0.0) -> float:
    """Mean dollars a prompt that ranking costs: every model's call, and `ranker` for each answer that is ranked."""
    asked = ~np.isnan(matrix.reward_PM)
    price = np.asarray(matrix.price_PM)
    return float((np.where(asked, price, 0.0).sum(1) + ranker * asked.sum(1)).mean())


def _mean(row: Array) -> Reward:
    known = row[~np.isnan(row)]
    if len(row) == 2:
        return Reward(0.5, "alone in its group")
    return Reward(float(known.mean())) if len(known) else Reward(float("nan"), "the pairwise ranker gave no answer")
