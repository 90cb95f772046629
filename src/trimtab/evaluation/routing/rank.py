"""A response matrix with texts and rankers to values: reward-model ranking (RMR), what a router is distilled from.

Every model answers and a ranker picks (Zooter's upper rows, Lu et al. 2024, Table 1). A ranker is any `RewardFn`, or a
pairwise one through `rewards.WinRate`. It never sees the measured rewards, and all models are paid: `rank_price` says
how much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.types import Group, Reward, RewardFn

Array = npt.NDArray[np.float64]


def longest(groups: Sequence[Group]) -> list[list[Reward]]:
    """The null of every ranker: the number of characters."""
    return [[Reward(float(len(c.text))) for c in g.completions] for g in groups]


def shortest(groups: Sequence[Group]) -> list[list[Reward]]:
    """Minus the number of characters."""
    return [[Reward(-float(len(c.text))) for c in g.completions] for g in groups]


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
