"""Within-prompt ROWS to weights in closed form or a few Newton steps: the two small solvers of a reranker.

States: ridge regression of the reward on the state, both centred within their prompt, so that nothing is spent on how
hard a prompt is; sums by fold are made once, and leaving folds out is a small solve. Cues: a listwise logit (ListNet,
Cao et al. 2007) on few numbers, convex, by Newton's method. Pure numpy; no groups, files or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.segments import Floats, Ints, Segments


def centre(x_RD: npt.NDArray[np.floating], group_R: Ints) -> npt.NDArray[np.floating]:
    """Rows minus the mean of their group; `group_R` ascends."""
    groups = Segments.of(group_R)
    return x_RD - groups.rows(groups.mean(x_RD))


@dataclass(frozen=True, eq=False)
class Ridge:
    """Sums over the rows of each fold, from which the ridge solution without any folds costs one solve a strength."""

    gram_FDD: npt.NDArray[np.float32]
    cross_FD: Floats
    rows_F: Floats

    @classmethod
    def of(cls, x_RD: npt.NDArray[np.float32], y_R: Floats, fold_R: Ints) -> "Ridge":
        """x and y are centred within their prompts; a row of fold -1 counts for no fold."""
        folds = range(int(fold_R.max(initial=0)) + 1)
        parts = [(x_RD[fold_R == f], y_R[fold_R == f]) for f in folds]
        return cls(
            np.stack([x.T @ x for x, _ in parts]), np.stack([(x.T @ y).astype(np.float64) for x, y in parts]),
            np.array([len(y) for _, y in parts], dtype=np.float64),
        )  # fmt: skip

    def weights(self, l2s: Sequence[float], *leave_out: int) -> Floats:
        """(len(l2s), D): argmin mean (y - x.w)^2 + l2 |w|^2 over all folds but those left out; 0 where none is left."""
        keep = [f for f in range(len(self.rows_F)) if f not in leave_out]
        rows = max(float(self.rows_F[keep].sum()), 1.0)
        gram_DD = self.gram_FDD[keep].sum(0) / np.float32(rows)
        return _solve(gram_DD, (self.cross_FD[keep].sum(0) / rows).astype(np.float32), np.asarray(l2s, np.float32))


def _solve(gram_DD: npt.NDArray[np.float32], target_D: npt.NDArray[np.float32], l2_S: npt.NDArray[Any]) -> Floats:
    """(S, D): (gram + l2)^-1 target for every l2 by conjugate gradients, all strengths in one product a step.

    A ridge's matrix is well conditioned, so that twenty to a hundred steps reach 1e-6 (1,024 columns: 6 to 20 ms, where
    one eigendecomposition took 150). What has not got there in 500 steps, or was no number, is solved directly.
    """
    rest_DS = np.repeat(target_D[:, None], len(l2_S), axis=1)
    weight_DS, way_DS = np.zeros_like(rest_DS), rest_DS.copy()
    square_S = np.einsum("ds,ds->s", rest_DS, rest_DS)
    enough_S = 1e-12 * square_S
    for _ in range(500):
        if (square_S <= enough_S).all():
            return weight_DS.T.astype(np.float64)
        image_DS = gram_DD @ way_DS + l2_S * way_DS
        step_S = square_S / np.maximum(np.einsum("ds,ds->s", way_DS, image_DS), 1e-30)
        weight_DS += step_S * way_DS
        rest_DS -= step_S * image_DS
        before_S, square_S = square_S, np.einsum("ds,ds->s", rest_DS, rest_DS)
        way_DS = rest_DS + square_S / np.maximum(before_S, 1e-30) * way_DS
    eye_DD = np.eye(len(target_D))
    return np.stack([np.linalg.solve(gram_DD + l2 * eye_DD, target_D) for l2 in l2_S.astype(float)])


def listwise(z_RC: Floats, reward_R: Floats, group_R: Ints, l2: float = 1e-2, steps: int = 25) -> Floats:
    """Weights (C,) that minimise the mean over prompts of -sum_i t_i log softmax(z w)_i, plus l2/2 |w|^2.

    t is the reward within the prompt, from 0 (its lowest) to 1, divided by its sum. Prompts whose rewards are all equal
    say nothing and are left out; with no other, or no columns, the weights are 0. `group_R` ascends.
    """
    if not len(reward_R) or not z_RC.shape[1]:
        return np.zeros(z_RC.shape[1])
    everything = Segments.of(group_R)
    low, high = everything.min(reward_R), everything.max(reward_R)
    if not (high > low).any():
        return np.zeros(z_RC.shape[1])
    keep_R, groups = everything.rows(high > low), Segments.sized(everything.sizes[high > low])
    z, t = z_RC[keep_R], (reward_R - everything.rows(low))[keep_R]
    t /= groups.rows(groups.sum(t))
    w, prompts, C = np.zeros(z.shape[1]), len(groups.sizes), z.shape[1]

    def objective(w: Floats) -> tuple[float, Floats]:
        v = z @ w
        v -= groups.rows(groups.max(v))
        e = np.exp(v)
        total = groups.sum(e)
        loss = float((np.log(total).sum() - t @ v) / prompts + l2 / 2 * w @ w)
        return loss, e / groups.rows(total)

    loss, p = objective(w)
    for _ in range(steps):
        gradient = z.T @ (p - t) / prompts + l2 * w
        means = groups.sum(z * p[:, None])
        hessian = (z.T @ (z * p[:, None]) - means.T @ means) / prompts + l2 * np.eye(C)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while scale > 1e-6:  # Newton's step, shortened until it goes down
            new_loss, new_p = objective(w - scale * step)
            if new_loss <= loss:
                break
            scale /= 2
        else:
            break
        w, gain, loss, p = w - scale * step, loss - new_loss, new_loss, new_p
        if gain < 1e-10:
            break
    return w
