"""Embedding rows and rewards to the weights of a linear or MLP probe, by AdamW on minibatches.

Two uses. `paper=True` is the protocol of the authors' code (Q-Probe, arXiv 2402.14688): raw rows, AdamW 5e-5 with an
effective weight decay of 0.01, 150 epochs, batches of 1000 rows or of 100 chunks of 10, no early stopping; kept for
fidelity, far slower than `linear.py`. Otherwise MLPs: standardised rows, early stopping on held-out prompts.
Needs random access to the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.learners.completion.probe.data import Labels, Units, fold_of_prompt, make_units
from trimtab.learners.completion.probe.linear import unit_losses
from trimtab.learners.completion.probe.losses import LOSS_UNITS
from trimtab.learners.completion.probe.row_blocks import RowBlocks

Layer = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Schedule:
    """How to walk. The defaults are the paper's code; `weight_decay=0.01` is what its misspelt argument really set."""

    lr: float = 5e-5
    epochs: int = 150
    batch: int = 1000
    """Rows of one step; chunks take batch / chunk of them, pairs batch."""
    weight_decay: float = 0.01
    standardise: bool = False
    patience: int = 0
    """Epochs without a better held-out loss before stopping; 0 never stops and holds no prompts out."""


PAPER = Schedule()
MLP = Schedule(lr=1e-3, batch=200, weight_decay=0.1, standardise=True, patience=10)


@dataclass(frozen=True, eq=False)
class MinibatchFit:
    """Layers (weight (out, in), bias (out,)) on raw rows, and how many steps made them."""

    layers: tuple[Layer, ...]
    steps: int
    epochs: int
    objective: float
    """Held-out loss of the kept epoch with early stopping, else the last epoch's mean training loss."""


def fit_minibatch(
    rows: RowBlocks, labels: Labels, loss: str, schedule: Schedule, *, hidden: Sequence[int] = (),
    settings: dict[str, float], chunk: int = 10, others: int = 0, seed: int = 0,
) -> MinibatchFit:  # fmt: skip
    """AdamW over minibatches of units; every epoch draws new chunks (one permutation shared by all prompts).

    Units are shuffled every epoch; pairs are drawn and shuffled once, as in the paper's preference code. The last,
    smaller batch of an epoch is dropped, unless it is the only one. InputError when the rows are streamed.
    """
    if rows.array is None:
        raise InputError("AdamW and MLP probes visit rows in random order: pass one array or memory map, not blocks")
    mean_D, inverse_D = torch.zeros(rows.dim), torch.ones(rows.dim)
    if schedule.standardise:
        mean_D, std_D = (m.float() for m in rows.moments())
        inverse_D = torch.where(std_D > 1e-6 * mean_D.abs(), 1 / std_D, torch.zeros_like(std_D))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _net([rows.dim, *hidden, 1])
    walk = _Walk(rows.array, labels, loss, settings, net, mean_D if schedule.standardise else None, inverse_D)
    held_P = np.zeros(len(labels.prompts), dtype=bool)
    if schedule.patience:
        held_P = fold_of_prompt(labels.prompts, 5, seed) == 0
    make = {"chunk": chunk, "others": others, "drop_rest": True}
    held_units = make_units(labels, loss, seed=seed, **make).of(held_P)
    if schedule.patience and not len(held_units.index_UK):
        raise InputError("no held-out prompt can be scored for early stopping; give more prompts, or patience=0")
    size = max(schedule.batch // (chunk if LOSS_UNITS[loss] == "chunk" else 1), 1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True)
    rng = np.random.default_rng(seed)
    best, best_epoch, steps, epoch, objective = np.inf, 0, 0, 0, np.nan
    kept = [p.detach().clone() for p in net.parameters()]
    units, order = None, np.arange(0)
    for epoch in range(1, schedule.epochs + 1):
        if units is None or LOSS_UNITS[loss] != "pair":
            units = make_units(labels, loss, seed=int(rng.integers(2**31)), **make).of(~held_P)
            order = rng.permutation(len(units.index_UK))
        width = min(size, len(order))
        starts = range(0, len(order) - width + 1, width)
        losses = [walk.step(optimiser, units, order[s : s + width]) for s in starts]
        steps, objective = steps + len(losses), float(np.mean(losses))
        if not schedule.patience:
            continue
        if (held := walk.loss_of(held_units, size)) < best:
            best, best_epoch, kept = held, epoch, [p.detach().clone() for p in net.parameters()]
        elif epoch - best_epoch >= schedule.patience:
            break
    if schedule.patience:
        objective = best
        for p, value in zip(net.parameters(), kept, strict=True):
            p.data.copy_(value)
    return MinibatchFit(_folded(net, mean_D, inverse_D), steps, epoch, objective)


@dataclass(frozen=True, eq=False)
class _Walk:
    array: Tensor
    labels: Labels
    loss: str
    settings: dict[str, float]
    net: torch.nn.Sequential
    mean_D: Tensor | None
    inverse_D: Tensor

    def losses(self, units: Units, pick: npt.NDArray[np.int64]) -> Tensor:
        index_UK, mask_UK = units.index_UK[pick], units.mask_UK[pick]
        X = self.array.index_select(0, torch.from_numpy(index_UK.reshape(-1))).float()
        if self.mean_D is not None:
            X = (X - self.mean_D) * self.inverse_D
        value_UK = self.net(X).view(index_UK.shape)
        reward_UK = torch.from_numpy(self.labels.reward_R[index_UK]).float()
        return unit_losses(self.loss, value_UK, reward_UK, torch.from_numpy(mask_UK), self.settings)

    def step(self, optimiser: Any, units: Units, pick: npt.NDArray[np.int64]) -> float:
        optimiser.zero_grad()
        loss = self.losses(units, pick).mean()
        loss.backward()
        optimiser.step()
        return loss.item()

    def loss_of(self, units: Units, size: int) -> float:
        with torch.no_grad():
            everything = np.arange(len(units.index_UK))
            parts = [self.losses(units, everything[i : i + size]) for i in range(0, len(everything), size)]
        return torch.cat(parts).mean().item()


def _net(widths: Sequence[int]) -> torch.nn.Sequential:
    modules: list[torch.nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        modules += [torch.nn.ReLU()] * (i > 0) + [torch.nn.Linear(a, b)]
    return torch.nn.Sequential(*modules)


def _folded(net: torch.nn.Sequential, mean_D: Tensor, inverse_D: Tensor) -> tuple[Layer, ...]:
    """The layers with the standardisation moved into the first one, so that a probe reads raw rows."""
    linears = [m for m in net if isinstance(m, torch.nn.Linear)]
    layers = [(m.weight.detach().double(), m.bias.detach().double()) for m in linears]
    weight, bias = layers[0]
    weight = weight * inverse_D.double()
    layers[0] = (weight, bias - weight @ mean_D.double())
    return tuple((w.float().numpy(), b.float().numpy()) for w, b in layers)
