"""The same PAIRS through several backends of one reward model: largest difference, rank flips, and why.

Reward models give different numbers in trainer, transformers and servers (templates, padding, the token that is read,
16-bit weights). The first backend is the measure of the others. It loads no model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError
from trimtab.intervals import figure
from trimtab.types import Group, Pair, RewardFn


@dataclass(frozen=True)
class BackendRow:
    """A backend against the first: over `texts` scored by both, the largest and mean |difference|, and the pairs (of
    those that the first does not tie) whose order it turns round."""

    backend: str
    texts: int
    largest: float
    mean: float
    flips: int
    pairs: int
    unscored: int
    worst: str
    """The prompt's id of the largest difference."""
    spread: float
    """Standard deviation of the first backend's rewards: what a difference is to be read against."""


def compare_backends(pairs: Sequence[Pair], backends: Mapping[str, RewardFn]) -> list[BackendRow]:
    """Every backend against the first one on the same pairs. InputError for no pairs or fewer than two backends."""
    if not pairs or len(backends) < 2:
        raise InputError("comparing backends needs pairs and at least two backends")
    groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in pairs]
    values = {
        name: np.array([[r.value for r in row] for row in fn(groups)], dtype=float) for name, fn in backends.items()
    }
    first, *others = values
    base_B2 = values[first]
    out = []
    for name in others:
        difference = np.abs(values[name] - base_B2)
        both = np.isfinite(difference)
        gaps = [v[:, 0] - v[:, 1] for v in (base_B2, values[name])]
        told = np.isfinite(gaps[0]) & np.isfinite(gaps[1]) & (gaps[0] != 0)
        flips = int((np.sign(gaps[0][told]) != np.sign(gaps[1][told])).sum())
        worst = pairs[int(np.nanmax(np.where(both, difference, -1), axis=1).argmax())].prompt.id if both.any() else ""
        out.append(
            BackendRow(
                name, int(both.sum()), float(difference[both].max()) if both.any() else math.nan,
                float(difference[both].mean()) if both.any() else math.nan, flips, int(told.sum()),
                int(np.isnan(values[name]).sum()), worst, float(np.nanstd(base_B2)),
            )
        )  # fmt: skip
    return out


def table(first: str, rows: Sequence[BackendRow]) -> str:
    """The comparison as text."""
    lines = [f"against {first} (standard deviation of its rewards {figure(rows[0].spread, '.4g')})"]
    for r in rows:
        lines.append(
            f"  {r.backend:20} largest difference {figure(r.largest, '.3g')} (prompt {r.worst}), "
            f"mean {figure(r.mean, '.3g')}, "
            f"{r.flips} of {r.pairs} pairs turned round, {r.unscored} unscored"
        )
    return "\n".join(lines)
