"""REWARDS to REWARDS: weighted sums, clipping, standardising within a group. NaN stays NaN and keeps its note."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from trimtab.adapters import NAN, Verifier, as_reward
from trimtab.errors import InputError
from trimtab.returned import to_reward
from trimtab.types import Group, Reward, RewardFn, describe


@dataclass(frozen=True)
class Weighted:
    """The sum of weight x reward over `Weighted({reward: weight, ...})`; unscored by one part is unscored.

    `skip_unscored=True` is TRL's rule for several functions: a part that says None or NaN is left out of the sum, and
    only what every part leaves unscored is unscored. The note keeps what the parts said. A part of weight 0 is shown in
    the note and decides nothing.
    """

    parts: tuple[tuple[RewardFn, float], ...]
    skip_unscored: bool = False

    def __init__(self, rewards: Mapping[RewardFn, float], *, skip_unscored: bool = False):
        if not rewards or not all(math.isfinite(w) for w in rewards.values()):
            raise InputError(f"Weighted needs at least one reward and finite weights, got {list(rewards.values())}")
        object.__setattr__(self, "parts", tuple((as_reward(r), float(w)) for r, w in rewards.items()))
        object.__setattr__(self, "skip_unscored", skip_unscored)

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
        counted = [(w, r.value) for _, w, r in named if w and not (self.skip_unscored and math.isnan(r.value))]
        value = sum(w * v for w, v in counted) if counted or not any(w for _, w, _ in named) else NAN
        return to_reward(Reward(value, note))

    def __repr__(self) -> str:
        skipping = ", skip_unscored=True" if self.skip_unscored else ""
        return f"Weighted({', '.join(f'{w:g} * {describe(r)}' for r, w in self.parts)}{skipping})"


@dataclass(frozen=True, repr=False)
class Clip:
    """Another reward, cut to [low, high]."""

    reward: RewardFn
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reward", as_reward(self.reward))
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "reward", as_reward(self.reward))

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
