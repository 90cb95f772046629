"""Embedding rows and rewards to the weights of a linear probe: full-batch, deterministic, without a copy of the rows.

Minimises mean loss + l2/2 |w|^2 in standardised space (Q-Probe, arXiv 2402.14688, has neither the standardisation nor
the penalty; see docs/methods/q_probe.md). One iteration is two passes over the rows, X d and X^T g: values are linear
in the weights, so the line search moves along X d and reads no row again. L-BFGS starts from the inverse of a low-rank
sketch of the covariance, which saves some twenty iterations in the leading directions of hidden states (30 became 8 for
CE on 22,272 x 1,024 synthetic rows). It does not choose loss or layer.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab.errors import InputError, unknown
from trimtab.learners.completion.probe.data import (
    Labels,
    Units,
    check_labels,
    chosen_reward,
    fold_of_prompt,
    make_labels,
    make_units,
)
from trimtab.learners.completion.probe.losses import LOSS_UNITS, PROBE_LOSSES
from trimtab.learners.completion.probe.row_blocks import RowBlocks, row_blocks

CV = tuple[tuple[float, float], ...]
L2_GRID = (1.0, 0.1, 0.01, 0.001)
CURVATURE = {"mse": 2.0, "ce": 0.2, "pg": 0.1, "bt": 0.5, "ratio": 0.5}
"""Rough second derivative of a loss in the value; only steers the preconditioner, never the solution."""
CHUNK_DRAWS = 2
"""Cuttings into chunks that PG averages over (the paper draws new ones every epoch); no pass over the rows is added."""
SKETCH_ROWS = 512
"""Rows of the covariance sketch, at most; a 64th of all rows when those are fewer. Its rank is half of them. On 23,200
x 1,024 synthetic rows MSE took 20, 17, 12, 9 iterations with 256, 384, 512, 1,024; the last costs more than it saves.
"""


@dataclass(frozen=True)
class Stop:
    """When the solver stops; see `fit_linear`."""

    max_iter: int = 100
    tol: float = 1e-3
    min_gain: float = 3e-3


STOP = Stop()
PRECISE = Stop(400, 1e-5, 1e-6)
WEAK = 0.01
"""Below this l2 a last fit goes on to the minimum (`PRECISE`), to about 1e-6: there `STOP` left PG and ratio 1 to 3 %
of their decrease short (29 November 2026). Cross-validation, which compares, stays with `STOP`."""


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Q = X weight_D + bias on raw (unstandardised) rows, and how it was found."""

    weight_D: npt.NDArray[np.float32]
    bias: float
    loss: str
    l2: float
    objective: float
    iterations: int
    passes: int
    """Passes over the rows, the one for mean and standard deviation included, cross-validation not."""
    converged: bool
    cv: CV = ()
    """(l2, held-out reward of the completion of highest value) for every l2 tried."""


@dataclass(frozen=True, eq=False)
class Objective:
    """Mean loss over units as a function of the values of all rows, with its gradient; sees no vectors."""

    loss: str
    labels: Labels
    units: Units
    settings: dict[str, float]

    def __post_init__(self) -> None:
        tensors = (
            torch.from_numpy(self.units.index_UK), torch.from_numpy(self.units.mask_UK),
            torch.from_numpy(self.labels.reward_R[self.units.index_UK]),
        )  # fmt: skip
        object.__setattr__(self, "_tensors", tensors)

    def __call__(self, value_R: Tensor) -> tuple[float, Tensor]:
        """Loss and its gradient in the values, float64, shape (R,)."""
        index_UK, mask_UK, reward_UK = self._tensors  # pyright: ignore[reportAttributeAccessIssue]
        value_UK = value_R[index_UK].requires_grad_()
        loss = unit_losses(self.loss, value_UK, reward_UK, mask_UK, self.settings).mean()
        (grad_UK,) = torch.autograd.grad(loss, value_UK)
        # by hand, for autograd's own scatter is several times slower
        return loss.item(), torch.zeros_like(value_R).index_add_(0, index_UK.view(-1), grad_UK.view(-1))


def unit_losses(loss: str, value_UK: Tensor, reward_UK: Tensor, mask_UK: Tensor, settings: dict[str, float]) -> Tensor:
    """The loss of every unit, shape (U,), from values in the layout of `data.Units`."""
    fn, unit = PROBE_LOSSES[loss], LOSS_UNITS[loss]
    if unit == "row":
        return fn(value_UK[:, 0], reward_UK[:, 0]).loss_B
    if unit == "chunk":
        return fn(value_UK, reward_UK, mask_UK, beta=settings["beta"]).loss_B
    if loss != "ratio":
        return fn(value_UK[:, 0], value_UK[:, 1], beta=settings["beta"]).loss_B
    others_UK = torch.where(mask_UK[:, 2:], value_UK[:, 2:], torch.nan) if value_UK.shape[1] > 2 else None
    return fn(value_UK[:, 0], value_UK[:, 1], others_UK, alpha=settings["alpha"], beta=settings["beta"]).loss_B


def fit_linear(
    X: Any, reward: npt.ArrayLike, prompt_index: npt.ArrayLike, *, loss: str = "ce",
    l2: float | Sequence[float] | None = 0.1, beta: float = 1.0, alpha: float = 1.0, chunk: int = 10, others: int = 0,
    pairs: npt.ArrayLike | None = None, folds: int = 5, max_iter: int | None = None, tol: float | None = None,
    min_gain: float | None = None, seed: int = 0,
) -> LinearFit:  # fmt: skip
    """Fit a linear probe to embedding rows, in memory or streamed.

    X (rows, D): float16, float32 or float64 array, memory map, list of row blocks, or a function that opens an
    iterator of row blocks; reward (rows,) finite; prompt_index (rows,) any labels; pairs (B, 2) row numbers (chosen,
    rejected) for "bt" and "ratio". l2 is the penalty on weights of standardised columns; several (None: 1, 0.1, 0.01,
    0.001) are chosen from by cross-validation over prompts. Stops when the gradient has fallen to `tol` of its first
    norm or three iterations brought less than `min_gain` of the whole decrease: by default 1e-3 and 3e-3 (and 100
    iterations), below an l2 of 0.01 1e-5 and 1e-6 (and 400), which is the minimum to about 1e-6. PG is not convex: its
    minimum is one of several.
    Memory beside X: about 10 MB + 200 bytes a row + 6 KB a column; "vector bytes" are rows * D * bytes a number, and
    float16 or streamed rows are converted 2 MB at a time. InputError as `data.check_labels` says.
    """
    if loss not in PROBE_LOSSES:
        raise unknown("loss", loss, PROBE_LOSSES)
    if beta <= 0 or alpha <= 0 or chunk < 2:
        raise InputError(f"beta {beta:g} and alpha {alpha:g} must be above 0 and chunk {chunk} at least 2")
    labels = make_labels(reward, prompt_index, pairs)
    check_labels(labels, loss)
    grid = l2_grid(l2)
    units = make_units(labels, loss, chunk=chunk, others=others, seed=seed, draws=CHUNK_DRAWS)
    problem = Problem.of(row_blocks(X, len(labels.reward_R)), labels, loss, units, {"beta": beta, "alpha": alpha})
    given = {"max_iter": max_iter, "tol": tol, "min_gain": min_gain}
    asked = {k: v for k, v in given.items() if v is not None}
    cv: CV = cross_validate(problem, grid, folds, seed, replace(STOP, **asked)) if len(grid) > 1 else ()
    strength = best_l2(cv, max(grid))
    return problem.fit(strength, replace(stop_for(strength), **asked), cv)


def stop_for(l2: float) -> Stop:
    """When the last fit stops: at the minimum where the penalty is weak and the way there long."""
    return PRECISE if l2 < WEAK else STOP


def l2_grid(l2: float | Sequence[float] | None) -> tuple[float, ...]:
    """The strengths to try, strongest first. InputError for none, or one that is not positive and finite."""
    grid = L2_GRID if l2 is None else (l2,) if isinstance(l2, int | float) else tuple(l2)
    if not grid or not all(np.isfinite(x) and x > 0 for x in grid):
        raise InputError(f"l2 must be one or more finite numbers above 0, not {l2!r}")
    return tuple(sorted(map(float, grid), reverse=True))


def best_l2(cv: CV, only: float) -> float:
    """The l2 of the highest held-out reward; of equals the strongest (simplest); `only` when none was tried."""
    return max(cv, key=lambda row: (row[1], row[0]))[0] if cv else only


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows, labels and units of one fit, with the column moments and the sketch that every fold and l2 share."""

    rows: RowBlocks
    labels: Labels
    loss: str
    units: Units
    settings: dict[str, float]
    mean_D: Tensor
    inverse_D: Tensor
    """1 / standard deviation, 0 for a constant column, whose weight therefore stays 0."""
    sketch: tuple[Tensor, Tensor, float] = field(repr=False)

    @classmethod
    def of(cls, rows: RowBlocks, labels: Labels, loss: str, units: Units, settings: dict[str, float]) -> "Problem":
        """Reads the rows once for moments and takes a sketch of the standardised covariance."""
        mean_D, std_D = rows.moments()
        constant_D = std_D <= 1e-6 * mean_D.abs()
        inverse_D = torch.where(constant_D, 0.0, 1 / std_D.where(~constant_D, torch.ones_like(std_D)))
        sketch = _sketch(rows, units, LOSS_UNITS[loss] != "row", mean_D, inverse_D)
        return cls(rows, labels, loss, units, settings, mean_D, inverse_D, sketch)

    def fit(self, l2: float, stop: Stop = STOP, cv: CV = ()) -> LinearFit:
        """The probe of all units."""
        units = self.units
        state = self.solve(Objective(self.loss, self.labels, units, self.settings), l2, None, stop)
        weight_D = state.theta[:-1] * self.inverse_D
        bias = (state.theta[-1] - weight_D @ self.mean_D).item()
        return LinearFit(
            weight_D.float().numpy(), bias, self.loss, l2, state.objective, state.iterations,
            2 * state.iterations + 2, state.converged, cv,
        )  # fmt: skip

    def solve(self, objective: Objective, l2: float, start: "State | None", stop: Stop) -> "State":
        """L-BFGS from `start` (from the best constant when None) to the minimum of objective + l2/2 |w|^2."""
        theta = torch.zeros(self.rows.dim + 1, dtype=torch.float64)
        value_R = torch.zeros(self.rows.rows, dtype=torch.float64)
        if start is not None:
            theta, value_R = start.theta, start.value_R
        elif (constant := _best_constant(objective)) != 0:
            theta[-1] = constant
            value_R += constant
        return _lbfgs(self, objective, l2, theta, value_R, stop)

    def forward(self, direction: Tensor) -> Tensor:
        """Change of all values along a direction in (weights, bias), shape (R,). One pass."""
        v_D = direction[:-1] * self.inverse_D
        return self.rows.times(v_D) + (direction[-1] - self.mean_D @ v_D)

    def backward(self, grad_R: Tensor) -> Tensor:
        """Gradient in (weights, bias) from the gradient in the values. One pass."""
        total = grad_R.sum()
        return torch.cat([(self.rows.transposed_times(grad_R) - self.mean_D * total) * self.inverse_D, total[None]])

    def precondition(self, l2: float) -> Callable[[Tensor], Tensor]:
        """v to about (c C + l2)^-1 v with the sketched covariance C and the loss's rough curvature c."""
        vectors_DK, eigen_K, rest = self.sketch
        c = CURVATURE[self.loss] / (self.settings["beta"] ** 2 if LOSS_UNITS[self.loss] != "row" else 1.0)
        base = 1 / (c * rest + l2)
        gain_K = 1 / (c * eigen_K + l2) - base

        def apply(v: Tensor) -> Tensor:
            weights = base * v[:-1] + vectors_DK @ (gain_K * (vectors_DK.T @ v[:-1]))
            return torch.cat([weights, v[-1:] / c])

        return apply


def cross_validate(problem: Problem, grid: Sequence[float], folds: int, seed: int, stop: Stop) -> CV:
    """(l2, mean held-out reward of each prompt's completion of highest value) over folds of prompts.

    Every fold goes from the strongest l2 to the weakest, each from the last one's solution. Mean and standard deviation
    of the columns are those of all training rows; they hold no rewards.
    """
    fold_P = fold_of_prompt(problem.labels.prompts, folds, seed)
    held_out = {l2: np.full(len(fold_P), np.nan) for l2 in grid}
    for fold in range(fold_P.max() + 1):
        units = problem.units.of(fold_P != fold)
        if not len(units.index_UK):
            continue
        objective = Objective(problem.loss, problem.labels, units, problem.settings)
        state = None
        for l2 in grid:
            state = problem.solve(objective, l2, state, stop)
            reward_P = chosen_reward(state.value_R.numpy(), problem.labels)
            held_out[l2][fold_P == fold] = reward_P[fold_P == fold]
    return tuple((l2, float(np.nanmean(reward_P))) for l2, reward_P in held_out.items())


@dataclass(frozen=True, eq=False)
class State:
    """Where the solver ended: weights and bias in standardised space, and the values of all rows."""

    theta: Tensor
    value_R: Tensor
    objective: float
    iterations: int
    converged: bool


def _best_constant(objective: Objective) -> float:
    """The best probe without vectors: where a loss sees the level of the values, else 0."""
    mean = float(objective.labels.reward_R[objective.units.index_UK[:, 0]].mean())
    if objective.loss == "mse":
        return mean
    return float(np.log(mean / (1 - mean))) if objective.loss == "ce" and 0 < mean < 1 else 0.0


def _sketch(
    rows: RowBlocks, units: Units, centred: bool, mean_D: Tensor, inverse_D: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Leading eigenvectors (D, K) and eigenvalues (K,) of the covariance, and the mean of the eigenvalues left over.

    From SKETCH_ROWS rows or fewer in evenly spread units. Losses that compare within a unit see only differences, so
    there the rows are centred within it.
    """
    width = max(min(units.index_UK.shape[1], 8), 1)
    size = min(SKETCH_ROWS, max(rows.rows // 64, 64))
    count = max(min(size // width, len(units.index_UK)), 1)
    pick_U = np.arange(count) * len(units.index_UK) // count
    index_UK = units.index_UK[pick_U, :width]
    unique, place = np.unique(index_UK, return_inverse=True)
    Z = rows.take(unique).sub_(mean_D.float()).mul_(inverse_D.float())
    Z = Z[torch.from_numpy(place.reshape(-1))].view(count, width, -1)
    if centred:
        mask = torch.from_numpy(units.mask_UK[pick_U, :width]).float()[..., None]
        Z = (Z - (Z * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)).mul_(mask)
    Z = Z.view(count * width, -1)
    eigen, U = torch.linalg.eigh((Z @ Z.T).double() / len(Z))
    rank = int(min(max(len(eigen) // 2, 1), (eigen > 1e-9 * eigen[-1]).sum()))
    eigen_K, U = eigen.flip(0)[:rank], U.flip(1)[:, :rank]
    vectors_DK = (Z.T @ U.float()).double() / (len(Z) * eigen_K).sqrt()
    rest = (eigen.clamp(min=0).sum() - eigen_K.sum()).item() / max(Z.shape[1] - rank, 1)
    return vectors_DK, eigen_K, max(rest, 1e-3)


def _lbfgs(problem: Problem, objective: Objective, l2: float, theta: Tensor, value_R: Tensor, stop: Stop) -> State:
    precondition = problem.precondition(l2)
    loss, grad_R = objective(value_R)
    loss += l2 / 2 * (theta[:-1] @ theta[:-1]).item()
    grad = _with_penalty(problem.backward(grad_R), theta, l2)
    first, losses = grad.norm().item(), [loss]
    memory: deque[tuple[Tensor, Tensor]] = deque(maxlen=20)
    for iteration in range(stop.max_iter):
        if grad.norm() <= stop.tol * first or _stalled(losses, stop.min_gain):
            return State(theta, value_R, loss, iteration, True)
        direction = _two_loop(grad, memory, precondition)
        if direction @ grad >= 0:  # a non-convex loss can spoil the memory: start it again
            memory.clear()
            direction = -precondition(grad)
        move_R = problem.forward(direction)
        slope = (direction @ grad).item()
        step, loss, grad_R = _line_search(objective, l2, theta, value_R, direction, move_R, loss, slope)
        if step == 0:
            return State(theta, value_R, loss, iteration + 1, True)
        new, value_R = theta + step * direction, value_R + step * move_R
        new_grad = _with_penalty(problem.backward(grad_R), new, l2)
        s, y = new - theta, new_grad - grad
        if s @ y > 1e-8 * s.norm() * y.norm():
            memory.append((s, y))
        theta, grad = new, new_grad
        losses.append(loss)
    return State(theta, value_R, loss, stop.max_iter, False)


def _stalled(losses: list[float], min_gain: float) -> bool:
    return len(losses) > 3 and losses[-4] - losses[-1] <= min_gain * (losses[0] - losses[-1])


def _with_penalty(grad: Tensor, theta: Tensor, l2: float) -> Tensor:
    return torch.cat([grad[:-1] + l2 * theta[:-1], grad[-1:]])


def _two_loop(grad: Tensor, memory: deque[tuple[Tensor, Tensor]], precondition: Callable[[Tensor], Tensor]) -> Tensor:
    """Minus the L-BFGS inverse Hessian times the gradient (Nocedal and Wright, algorithm 7.4)."""
    q, alphas = -grad, []
    for s, y in reversed(memory):
        alphas.append((s @ q) / (s @ y))
        q = q - alphas[-1] * y
    r = precondition(q)
    if memory:
        s, y = memory[-1]
        r = r * ((s @ y) / (y @ precondition(y)))
    for (s, y), a in zip(memory, reversed(alphas), strict=True):
        r = r + s * (a - (y @ r) / (s @ y))
    return r


def _line_search(
    objective: Objective, l2: float, theta: Tensor, value_R: Tensor, direction: Tensor, move_R: Tensor, loss0: float,
    slope0: float,
) -> tuple[float, float, Tensor]:  # fmt: skip
    """A step whose slope is at most a quarter of the first one's and whose loss is lower; (0, ...) when there is none.

    Reads no vectors: the loss along the line is a function of `value_R + t move_R`. Brackets by doubling, then by the
    secant of the slope kept inside the bracket.
    """
    w, d = theta[:-1], direction[:-1]
    ww, wd, dd = (w @ w).item(), (w @ d).item(), (d @ d).item()

    def along(t: float) -> tuple[float, float, Tensor]:
        loss, grad_R = objective(value_R + t * move_R)
        return loss + l2 / 2 * (ww + 2 * t * wd + t * t * dd), (grad_R @ move_R).item() + l2 * (wd + t * dd), grad_R

    low, slope_low, high, slope_high, t = 0.0, slope0, np.inf, 0.0, 1.0
    best = (0.0, loss0, torch.empty(0))
    for _ in range(25):
        loss, slope, grad_R = along(t)
        if loss < best[1]:
            best = (t, loss, grad_R)
        if loss < loss0 and abs(slope) <= 0.25 * abs(slope0):
            return t, loss, grad_R
        if slope > 0 or loss >= loss0 or not np.isfinite(loss):
            high, slope_high = t, slope
        else:
            low, slope_low = t, slope
        if np.isinf(high):
            t *= 4
        elif slope_high > 0:
            t = low + (high - low) * float(np.clip(slope_low / (slope_low - slope_high), 0.1, 0.9))
        else:
            t = (low + high) / 2
    return best
