"""Values of several systems by prompt id to which of them can be told apart, with intervals that hold for all pairs.

Prompts are the unit: samples of a prompt are averaged first, never counted as independent. Systems are joined by id;
prompts that one of them lacks, or has no value for, are left out of all and counted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.evaluation.anytime import PLANNED, confidence_sequence, log_mcnemar, win_sequence
from trimtab.evaluation.metrics import Interval, mean_interval, mean_known, paired_bootstrap
from trimtab.evaluation.simultaneous import all_differences
from trimtab.evaluation.table import plain

SIMULTANEOUS, EACH, ANYTIME = "simultaneous", "each", "anytime"
KINDS = {
    SIMULTANEOUS: "intervals hold for all pairs at once (95 %, max-t bootstrap over prompts)",
    EACH: "each interval holds by itself (95 %, paired bootstrap over prompts): among many pairs some err",
    ANYTIME: "intervals hold for all pairs at once, however often one looks (95 %)",
}
_SHOWN = 30
"""Pairs that are printed; `plain` has all."""


@dataclass(frozen=True)
class Difference:
    """Mean difference first − second with its interval. `e_value`: the exact sequential McNemar's, 0/1 values only."""

    first: str
    second: str
    interval: Interval
    e_value: float | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval.verdict in ("better", "worse")

    def __str__(self) -> str:
        said = f"{self.first} minus {self.second}: {self.interval.show('+.3f')}  {self.interval.verdict}"
        return said if self.e_value is None else f"{said} (e-value {self.e_value:.3g})"


@dataclass(frozen=True)
class Comparison:
    """Systems from the best mean down, all pairs of them (the better-ranked first), and notes on what was left out."""

    means: Mapping[str, Interval]
    """Mean over the common prompts with a 95 % interval of its own."""
    pairs: tuple[Difference, ...]
    kind: str = SIMULTANEOUS
    notes: tuple[str, ...] = ()

    def __getitem__(self, pair: tuple[str, str]) -> Interval:
        """The difference of two systems, in either order."""
        for p in self.pairs:
            if (p.first, p.second) == pair:
                return p.interval
            if (p.second, p.first) == pair:
                return Interval(-p.interval.mean, -p.interval.upper, -p.interval.lower, p.interval.n)
        raise InputError(f"no pair {pair[0]!r}, {pair[1]!r}; there are {', '.join(self.means)}")

    @property
    def verdict(self) -> str:
        """One sentence: which pairs can be told apart."""
        apart = [p for p in self.pairs if p.told_apart]
        if not apart:
            return "No pair can be told apart."
        best = next(iter(self.means))
        beaten = [p.second for p in apart if p.first == best]
        rest = [name for name in self.means if name not in (best, *beaten)]
        if not beaten:
            return f"{len(apart)} of {len(self.pairs)} pairs can be told apart; the best, {best}, from none."
        told = f"{best} is better than {', '.join(beaten)}" + (
            f"; not told apart from {', '.join(rest)}" if rest else ""
        )
        many = f"{len(apart)} of {len(self.pairs)} pairs can be told apart. " if len(self.pairs) > 1 else ""
        return f"{many}{told}."

    def __str__(self) -> str:
        width = max(map(len, self.means))
        lines = [f"{i}  {name.ljust(width)}  {mean}" for i, (name, mean) in enumerate(self.means.items(), 1)]
        shown = [p for p in self.pairs if p.told_apart or len(self.pairs) <= 10][:_SHOWN]
        if shown:
            lines += ["", *map(str, shown)]
        if len(shown) < len(self.pairs):
            lines.append(f"... {len(shown)} of {len(self.pairs)} pairs shown; --json has all")
        return "\n".join([*lines, "", self.verdict, *(f"Note: {n}" for n in (KINDS[self.kind], *self.notes))])

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        pairs = [{**plain(p), "verdict": p.interval.verdict} for p in self.pairs]
        return {**plain(self), "pairs": pairs, "verdict": self.verdict}


def compare_values(
    values: Mapping[str, Mapping[str, float | Sequence[float]]], *, kind: str = SIMULTANEOUS, planned: int = PLANNED,
    draws: int = 10_000, seed: int = 0,
) -> Comparison:  # fmt: skip
    """Systems by name, each a value or several samples by prompt id, compared pair by pair.

    `kind`: "simultaneous" (all intervals hold together), "each" (by itself) or "anytime" (however often one looks;
    exact for 0/1 values, else asymptotic and narrowest at `planned` prompts). InputError for fewer than two systems and
    for systems without a common prompt.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}; known are {', '.join(KINDS)}")
    if len(values) < 2:
        raise InputError("give two or more systems to compare")
    average = {name: {i: mean_known(np.atleast_1d(v)) for i, v in of.items()} for name, of in values.items()}
    names, ids, notes = _common(average)
    value_PK = np.array([[average[name][i] for name in names] for i in ids])
    order = sorted(range(len(names)), key=lambda k: -value_PK[:, k].mean())  # stable: ties stay as they were given
    names, value_PK = [names[k] for k in order], value_PK[:, order]
    means = {name: mean_interval(value_PK[:, k], draws=draws, seed=seed) for k, name in enumerate(names)}
    where = list(combinations(range(len(names)), 2))
    if kind == ANYTIME:
        pairs, how = _anytime(names, value_PK, planned)
        return Comparison(means, pairs, kind, (*notes, how))
    if kind == EACH:
        found = {(i, j): paired_bootstrap(value_PK[:, i], value_PK[:, j], draws=draws, seed=seed) for i, j in where}
    else:
        found = all_differences(value_PK, draws=draws, seed=seed)
    return Comparison(means, tuple(Difference(names[i], names[j], found[i, j]) for i, j in where), kind, notes)


def _common(average: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[str], tuple[str, ...]]:
    """(systems, ids that all have a value for, notes on the others)."""
    names = list(average)
    shared = [i for i in average[names[0]] if all(i in of for of in average.values())]
    ids = [i for i in shared if all(math.isfinite(of[i]) for of in average.values())]
    if not shared:
        raise InputError(f"{' and '.join(names)} have no prompt id in common: compare results on the same prompts")
    if not ids:
        raise InputError(f"{' and '.join(names)} have no prompt for which all have a value: score them first")
    notes = [f"{len(of) - len(shared)} prompts of {n} are not in all: left out" for n, of in average.items()
             if len(of) > len(shared)]  # fmt: skip
    notes += [f"{lost} prompts of {n} have no value: left out of all" for n, of in average.items()
              if (lost := sum(not math.isfinite(of[i]) for i in shared))]  # fmt: skip
    return names, ids, (*notes, f"{len(ids)} prompts in common")


def _anytime(
    names: Sequence[str], value_PK: npt.NDArray[np.float64], planned: int
) -> tuple[tuple[Difference, ...], str]:
    """All pairs at 0.05 over their number each, and how it was done."""
    n, where = len(value_PK), list(combinations(range(len(names)), 2))
    alpha = 0.05 / len(where)
    if np.isin(value_PK, (0.0, 1.0)).all():
        pairs = []
        for i, j in where:
            gap = value_PK[:, i] - value_PK[:, j]
            wins, losses = int((gap > 0).sum()), int((gap < 0).sum())
            e = math.exp(min(log_mcnemar(wins, losses), 700.0))
            pairs.append(Difference(names[i], names[j], win_sequence(wins, losses, n, alpha=alpha), e))
        return tuple(
            pairs
        ), f"0/1 values: exact sequential McNemar test, apart from an e-value of {1.25 / alpha:.4g} on"
    low, high = min(0.0, float(value_PK.min())), max(1.0, float(value_PK.max()))
    size = high - low
    found = [confidence_sequence((value_PK[:, i] - value_PK[:, j]) / size, alpha=alpha, planned=planned)
             for i, j in where]  # fmt: skip
    pairs = [
        Difference(names[i], names[j], Interval(c.mean * size, c.lower * size, c.upper * size, c.n))
        for (i, j), c in zip(where, found, strict=True)
    ]
    scaled = f"; values from {low:g} to {high:g} scaled to 0 to 1 for it" if size > 1 else ""
    return tuple(pairs), f"not 0/1: asymptotic confidence sequence, narrowest at {planned} prompts{scaled}"
