"""Preferences to REWARDS, and reward models to preferences: the bridge between the two shapes.

A reward from a preference is the mean probability of beating the other completions of the group (N(N - 1)/2
comparisons, asked once each); a preference from a reward is Bradley-Terry's sigmoid(r_i - r_j). It knows no model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from trimtab.segments import mean_by
from trimtab.types import Group, Preference, Reward, RewardFn


@dataclass(frozen=True)
class WinRate:
    """Mean P(preferred) against the other completions of the group; a `RewardFn` from a `Preference`.

    Comparisons that gave NaN are left out of the mean; a completion that has none left is NaN with a note.
    """

    prefer: Preference
    by_completion: ClassVar[bool] = False
    limit_s: ClassVar[float | None] = None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward in [0, 1] a completion."""
        asked = [np.stack(np.triu_indices(len(g.completions), 1), axis=1) for g in groups]
        out = []
        for g, pairs, p in zip(groups, asked, self.prefer(groups, asked), strict=True):
            n, first = len(g.completions), np.asarray(p, float)
            won_N = mean_by(np.r_[first, 1 - first], pairs.T.reshape(-1), n)
            note = "a group of one has nothing to compare" if n < 2 else "no comparison could be read"
            out.append([Reward(float(w), note if math.isnan(w) else "") for w in won_N])
        return out


@dataclass(frozen=True)
class FromReward:
    """P(i is preferred over j) = sigmoid(r_i - r_j); a `Preference` from a `RewardFn`. Unscored gives NaN."""

    reward: RewardFn
    pairwise: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group], asked: Sequence[npt.NDArray[np.intp]]) -> list[npt.NDArray[np.float64]]:
        """One probability a pair asked."""
        out = []
        for row, pairs in zip(self.reward(groups), asked, strict=True):
            value_N, pairs_M2 = np.array([r.value for r in row], dtype=float), np.asarray(pairs, dtype=np.intp)
            gap_M = value_N[pairs_M2[:, 0]] - value_N[pairs_M2[:, 1]]
            out.append(1 / (1 + np.exp(-np.clip(gap_M, -700, 700))))
        return out
