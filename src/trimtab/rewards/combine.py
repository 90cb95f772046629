"""REWARDS to REWARDS: weighted sums, clipping, standardising within a group. NaN stays NaN and keeps its note."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.rewards.adapters import NAN, Verifier
from trimtab.types import Group, Reward, RewardFn, describe


@dataclass(frozen=True)
class Weighted:
    """The sum of weight x reward over `Weighted({reward: weight, ...})`; unscored by one part is unscored."""

    parts: tuple[tuple[RewardFn, float], ...]

    def __init__(self, rewards: Mapping[RewardFn, float]):
        if not rewards or not all(math.isfinite(w) for w in rewards.values()):
            raise InputError(f"Weighted needs at least one reward and finite weights, got {list(rewards.values())}")
        object.__setattr__(self, "parts", tuple((r, float(w)) for r, w in rewards.items()))

    @property
    def by_completion(self) -> bool:
        """See `Verifier`: when every part looks at one completion at a time."""
        return all(isinstance(r, Verifier) and r.by_completion for r, _ in self.parts)

    @property
    def limit_s(self) -> float | None:
        """See `Verifier`: the sum of the parts' limits, None when one must stay in this process."""
        if not all(isinstance(r, Verifier) for r, _ in self.parts):
            return None
        return sum(r.limit_s or 0.0 for r, _ in self.parts if isinstance(r, Verifier)) or None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        columns = [reward(groups) for reward, _ in self.parts]
        return [[self._sum(column) for column in zip(*group, strict=True)] for group in zip(*columns, strict=True)]

    def _sum(self, rewards: Sequence[Reward]) -> Reward:
        named = [(describe(fn), weight, r) for (fn, weight), r in zip(self.parts, rewards, strict=True)]
        note = "; ".join(f"{name}: {r.note}" for name, _, r in named if r.note)
        return Reward(sum(weight * r.value for _, weight, r in named), note)

    def __repr__(self) -> str:
        return f"Weighted({', '.join(f'{w:g} * {describe(r)}' for r, w in self.parts)})"


@dataclass(frozen=True, repr=False)
class Clip:
    """Another reward, cut to [low, high]."""

    reward: RewardFn
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"Clip: low={self.low} must not exceed high={self.high}")

    @property
    def by_completion(self) -> bool:
        """See `Verifier`."""
        return isinstance(self.reward, Verifier) and self.reward.by_completion

    @property
    def limit_s(self) -> float | None:
        """See `Verifier`."""
        return self.reward.limit_s if isinstance(self.reward, Verifier) else None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        def cut(r: Reward) -> Reward:
            return r if math.isnan(r.value) else replace(r, value=min(max(r.value, self.low), self.high))

        return [[cut(r) for r in rewards] for rewards in self.reward(groups)]

    def __repr__(self) -> str:
        return f"Clip({describe(self.reward)}, {self.low:g}, {self.high:g})"


@dataclass(frozen=True, repr=False)
class StandardiseInGroup:
    """Another reward as (r - mean) / standard deviation over the scored completions of its group (population form).

    All equal, or a single one: 0, which is what such a group can teach. Notes are kept; NaN does not enter the mean.
    """

    reward: RewardFn
    by_completion: ClassVar[bool] = False

    @property
    def limit_s(self) -> float | None:
        """See `Verifier`."""
        return self.reward.limit_s if isinstance(self.reward, Verifier) else None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        return [_standardised(rewards) for rewards in self.reward(groups)]

    def __repr__(self) -> str:
        return f"StandardiseInGroup({describe(self.reward)})"


def _standardised(rewards: Sequence[Reward]) -> list[Reward]:
    scored = np.array([r.value for r in rewards if not math.isnan(r.value)])
    if not scored.size:
        return [replace(r, value=NAN) for r in rewards]
    mean, std = scored.mean(), scored.std()
    if std <= 1e-12 * max(1.0, abs(mean)):  # equal up to rounding
        std = math.inf
    return [r if math.isnan(r.value) else replace(r, value=float((r.value - mean) / std)) for r in rewards]
