"""Rows that belong to groups to one number a group: sums, means, maxima. Pure numpy; no prompts, rewards or models."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Segments(NamedTuple):
    """Groups whose rows follow each other: where each begins, and how many rows it has."""

    starts: Ints
    sizes: Ints

    @classmethod
    def of(cls, group_R: Ints) -> "Segments":
        """From the group of every row; `group_R` ascends."""
        starts = np.flatnonzero(np.r_[True, np.diff(group_R) > 0])
        return cls(starts, np.diff(np.r_[starts, len(group_R)]))

    @classmethod
    def sized(cls, size_G: Ints) -> "Segments":
        """From the number of rows of every group, none of them 0."""
        return cls(np.r_[0, np.cumsum(size_G)[:-1]], size_G)

    def sum(self, x_R: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(G, ...)"""
        return np.add.reduceat(x_R, self.starts, axis=0)

    def mean(self, x_R: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(G, ...)"""
        return self.sum(x_R) / self.sizes.reshape(-1, *[1] * (x_R.ndim - 1))

    def max(self, x_R: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(G, ...)"""
        return np.maximum.reduceat(x_R, self.starts)

    def min(self, x_R: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(G, ...)"""
        return np.minimum.reduceat(x_R, self.starts)

    def rows(self, x_G: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Each group's entry at every one of its rows."""
        return np.repeat(x_G, self.sizes, axis=0)


def mean_by(value_R: npt.NDArray[Any], group_R: Ints, groups: int) -> Floats:
    """Mean of the finite values of each group, rows in any order, (groups,); NaN for a group without any."""
    known = np.isfinite(value_R)
    total = np.bincount(group_R[known], weights=value_R[known], minlength=groups)
    with np.errstate(invalid="ignore"):
        return total / np.bincount(group_R[known], minlength=groups)
