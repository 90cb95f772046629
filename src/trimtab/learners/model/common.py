"""A reward matrix with holes to what its models have in common: each prompt's level, and models that can be compared.

A model that was asked easy prompts only has a high mean reward and need not be a good model. What it shares with the
others is the prompts they all answered: reward = level of the prompt + merit of the model, fitted by least squares on
the cells that are known, takes out how hard the prompts were. Pure numpy; it knows no prompts, vectors or routers.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
NO_COMMON = "this method compares models on the same prompt: score them on common prompts, or take another method"


class Levels(NamedTuple):
    """A matrix taken apart: `level_P` + `rest_PM` is the reward where it is known, and `rest_PM` is NaN elsewhere."""

    level_P: Array
    rest_PM: Array

    @property
    def mean_M(self) -> Array:
        """Each model's mean reward as if all had answered all prompts."""
        return np.nanmean(self.rest_PM, axis=0) + self.level_P.mean()


def levels(reward_PM: npt.ArrayLike) -> Levels:
    """The level of each prompt and what is left; a whole matrix has level 0 and is left as it is, to the digit.

    Models without any prompt in common, not even by way of third ones, cannot be compared (`apart` names them): their
    prompts then count as equally hard on the average. A prompt without any reward has the mean level.
    """
    reward = np.asarray(reward_PM, float)
    known = ~np.isnan(reward)
    if known.all():
        return Levels(np.zeros(len(reward)), reward)
    merit_M = _merits(np.where(known, reward, 0.0), known)
    for group in components(known):  # a group's level is 0 so far: give all the same mean level of their prompts
        merit_M[group] += np.nanmean(np.nanmean(reward[known[:, group].any(1)][:, group] - merit_M[group], axis=1))
    count_P = known.sum(1)
    level_P = np.where(known, reward - merit_M, 0.0).sum(1) / np.maximum(count_P, 1)
    level_P = np.where(count_P > 0, level_P, level_P[count_P > 0].mean())
    return Levels(level_P, reward - level_P[:, None])


def filled(reward_PM: npt.ArrayLike, tags: Sequence[Sequence[str]], prior: float = 5.0) -> Array:
    """The matrix with its holes at what prompt and model say: the prompt's level plus the model's merit.

    The merit is that within the prompt's tags, drawn towards the model's own as if `prior` more prompts had shown it.
    """
    reward = np.asarray(reward_PM, float)
    level_P, rest_PM = levels(reward)
    known, own_M = ~np.isnan(rest_PM), np.nanmean(rest_PM, axis=0)
    names = sorted({t for row in tags for t in row})
    if known.all() or not names:
        return np.where(known, reward, level_P[:, None] + own_M)
    member_PT = np.array([[t in row for t in names] for row in tags], float)
    merit_TM = (member_PT.T @ np.where(known, rest_PM, 0.0) + prior * own_M) / (member_PT.T @ known + prior)
    count_P = member_PT.sum(1, keepdims=True)
    merit_PM = np.where(count_P > 0, member_PT @ merit_TM / np.maximum(count_P, 1), own_M)
    left_P = np.where(known, reward - merit_PM, 0.0).sum(1)  # the level again, where merits are the tags'
    level_P = np.where(known.any(1), left_P / np.maximum(known.sum(1), 1), level_P)
    return np.where(known, reward, level_P[:, None] + merit_PM)


def _merits(reward_PM: Array, known_PM: Bools) -> Array:
    """Least-squares merits with sum 0 in every group of models that share prompts, shape (M,)."""
    known = known_PM.astype(float)
    count_P = np.maximum(known.sum(1), 1)
    normal_MM = np.diag(known.sum(0)) - known.T @ (known / count_P[:, None])
    rest_PM = known * (reward_PM - (reward_PM.sum(1) / count_P)[:, None])
    return np.linalg.pinv(normal_MM, hermitian=True, rcond=1e-9) @ rest_PM.sum(0)


def components(known_PM: Bools) -> list[list[int]]:
    """Groups of models that share prompts, directly or by way of others; one group when all can be compared."""
    shared_MM = (known_PM.T.astype(float) @ known_PM) > 0
    left, out = list(range(known_PM.shape[1])), []
    while left:
        group, edge = set(), {left[0]}
        while edge:
            group |= edge
            edge = set(np.flatnonzero(shared_MM[sorted(edge)].any(0)).tolist()) - group
        out.append(sorted(group))
        left = [m for m in left if m not in group]
    return out


def apart(groups: Sequence[Sequence[int]], names: Sequence[object]) -> str:
    """The groups of `components` by the models' names: "a, b | c"."""
    return " | ".join(", ".join(str(names[m]) for m in group) for group in groups)


def known_sets(known_PM: Bools) -> Iterator[tuple[Bools, npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Each set of models that some prompt knows: the set (M,), its prompts, and the prompts that know all of it."""
    sets, place_P = np.unique(known_PM, axis=0, return_inverse=True)
    for i, known_M in enumerate(sets):
        if known_M.any():
            yield known_M, np.flatnonzero(place_P == i), np.flatnonzero(known_PM[:, known_M].all(1))
