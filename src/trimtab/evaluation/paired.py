"""Scored groups of several models or runs to one table: what each earns on the prompts all of them answered.

A prompt's number is the mean reward of its completions, so that runs of other n compare. Each is paired with the first
by prompt id; prompts that one of them lacks are left out of all and counted. It samples and scores nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.choosing import token_count
from trimtab.evaluation.table import plain
from trimtab.intervals import Interval, mean_interval, paired_bootstrap
from trimtab.types import Group


@dataclass(frozen=True)
class Side:
    """One run: its mean reward, its paired difference to the first (None for that one), tokens a completion."""

    name: str
    model: str
    reward: Interval
    difference: Interval | None
    tokens: float
    unscored: int

    @property
    def verdict(self) -> str:
        """Against the first: "better" or "worse" if the interval excludes 0, else "no difference shown"."""
        gap = self.difference
        if gap is None or math.isnan(gap.lower):
            return ""
        return "better" if gap.lower > 0 else "worse" if gap.upper < 0 else "no difference shown"


@dataclass(frozen=True)
class Versus:
    """The sides in the order given, on so many common prompts, and notes on what is left out or unequal."""

    sides: tuple[Side, ...]
    prompts: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = ("", "reward", f"minus {self.sides[0].name}", "", "tokens", "unscored")
        body = [head, *(
            (s.name, s.reward.show(".3f"), s.difference.show("+.3f") if s.difference else "", s.verdict,
             "unknown" if math.isnan(s.tokens) else f"{s.tokens:,.0f}", str(s.unscored)) for s in self.sides
        )]  # fmt: skip
        widths = [max(len(line[i]) for line in body) for i in range(len(head))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(b, widths, strict=True)).rstrip() for b in body]
        return "\n".join([*lines, f"{self.prompts} prompts", *(f"Note: {n}" for n in self.notes)])

    def plain(self) -> dict[str, object]:
        """As JSON takes it."""
        return {**plain(self), "verdicts": {s.name: s.verdict for s in self.sides[1:]}}


def versus(runs: Mapping[str, Sequence[Group]], *, draws: int = 10_000, seed: int = 0) -> Versus:
    """Compares scored groups by name, each with the first, with intervals over the common prompts.

    InputError for fewer than two, for prompts that nobody shares, for an id under which two runs have other text, and
    for a run without a reward.
    """
    if len(runs) < 2:
        raise InputError("give two or more runs or models to compare")
    by_id = {name: {g.prompt.id: g for g in groups} for name, groups in runs.items()}
    first = next(iter(by_id.values()))
    common = [i for i in first if all(i in found for found in by_id.values())]
    if not common:
        raise InputError(f"{' and '.join(by_id)} have no prompt in common: sample them on the same prompts")
    for name, found in by_id.items():
        other = next((i for i in common if found[i].prompt.messages != first[i].prompt.messages), None)
        if other is not None:
            raise InputError(f"prompt {other!r} is another text in {name}: these are not the same prompts")
    left = {name: len(found) - len(common) for name, found in by_id.items()}
    notes = [f"{n} prompts of {name} are not in all: left out" for name, n in left.items() if n]
    values = {name: _means([found[i] for i in common], name) for name, found in by_id.items()}
    base = next(iter(values.values()))
    sides = []
    for name, found in by_id.items():
        groups, settings = [found[i] for i in common], {"draws": draws, "seed": seed}
        difference = None if found is first else paired_bootstrap(values[name], base, **settings)
        size = float(np.mean([np.mean([token_count(c) for c in g.completions]) for g in groups]))
        models = ", ".join(sorted({c.model for g in groups for c in g.completions}))
        unscored = int(sum(np.isnan(g.reward_N).sum() for g in groups))
        sides.append(Side(name, models, mean_interval(values[name], **settings), difference, size, unscored))
    return Versus(tuple(sides), len(common), tuple(notes))


def _means(groups: Sequence[Group], name: str) -> list[float]:
    means = [float(np.nanmean(g.reward_N)) if np.isfinite(g.reward_N).any() else math.nan for g in groups]
    if np.isnan(means).all():
        raise InputError(f"{name}: not one completion of the common prompts has a reward; score them first (--reward)")
    return means
