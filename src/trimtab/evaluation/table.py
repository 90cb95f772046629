"""Per-prompt rewards of strategies to one table: reward, paired difference to greedy, tokens spent, unscored.

Every number has a 95 % interval from a bootstrap over prompts; differences are paired. A row whose interval against
greedy holds 0 says so in words. It does not choose or score anything.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from trimtab.errors import unknown
from trimtab.evaluation.metrics import Interval, mean_interval, paired_bootstrap
from trimtab.terminal import markdown

GREEDY = "greedy"


@dataclass(frozen=True)
class Row:
    """What one strategy bought. `tokens` is the mean generated a prompt (NaN: unknown), `unscored` the expected
    number of prompts (of `n`) whose choice had no reward, `reward_P` the rewards behind it (NaN: unscored)."""

    name: str
    reward: Interval
    versus_greedy: Interval | None
    tokens: float
    unscored: float
    n: int
    reward_P: tuple[float, ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        """Against greedy: "better" or "worse" if the interval excludes 0, else "no difference shown"; "" if unknown."""
        gap = self.versus_greedy
        if gap is None or math.isnan(gap.lower):
            return ""
        return "better" if gap.lower > 0 else "worse" if gap.upper < 0 else "no difference shown"

    def __str__(self) -> str:
        return "  ".join(cell for cell in _cells(self) if cell)


@dataclass(frozen=True)
class Table:
    """Rows in the order they were given, notes on what is left out and why, and where the numbers come from."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown("row", name, [r.name for r in self.rows])

    def __str__(self) -> str:
        body = [HEAD, *map(_cells, self.rows)]
        widths = [max(len(line[i]) for line in body) for i in range(len(HEAD))]
        lines = [
            "  ".join(c.rjust(w) if i in _RIGHT else c.ljust(w) for i, (c, w) in enumerate(zip(b, widths, strict=True)))
            for b in body
        ]
        lines.insert(1, "─" * len(lines[0]))
        return "\n".join([line.rstrip() for line in lines] + [f"Note: {n}" for n in self.notes])

    def to_markdown(self) -> str:
        """The table as GitHub Markdown, notes below it."""
        rule = ["---:" if i in _RIGHT else "---" for i in range(len(HEAD))]
        body = [HEAD, tuple(rule), *((markdown(name), *rest) for name, *rest in map(_cells, self.rows))]
        lines = ["| " + " | ".join(b) + " |" for b in body]
        return "\n".join([*lines, "", *(f"- {markdown(n)}" for n in self.notes)]).rstrip() + "\n"

    def to_json(self) -> str:
        """The table as JSON, per-prompt rewards included; what is NaN here is null there."""
        return json.dumps(plain(self), ensure_ascii=False, indent=1)


HEAD = ("", "reward", "minus greedy", "against greedy", "tokens", "unscored")
_RIGHT = {4, 5}


def row(
    name: str, reward_P: Sequence[float], *, greedy: Row | None = None, tokens: float = math.nan,
    unscored: float | None = None, draws: int = 10_000, seed: int = 0,
) -> Row:  # fmt: skip
    """One row from per-prompt rewards, shape (P,), in the same order of prompts as `greedy`'s. `unscored` defaults to
    the number of NaN among them."""
    values = np.asarray(reward_P, float)
    versus = None if greedy is None else paired_bootstrap(values, greedy.reward_P, draws=draws, seed=seed)
    missing = float(np.isnan(values).sum()) if unscored is None else unscored
    interval = mean_interval(values, draws=draws, seed=seed)
    return Row(name, interval, versus, tokens, missing, len(values), tuple(values.tolist()))


def tabulate(rows: Sequence[Row], *, greedy: str = GREEDY, draws: int = 10_000, seed: int = 0) -> Table:
    """A table of rows made one by one (`evaluate` makes them), each paired with the one called `greedy` if present.

    The rows must be about the same prompts in the same order; InputError when their numbers differ.
    """
    base = next((r for r in rows if r.name == greedy), None)
    if base is None:
        return Table(tuple(rows), (f"no row is called {greedy!r}: no difference column",))
    paired = [
        replace(r, versus_greedy=paired_bootstrap(r.reward_P, base.reward_P, draws=draws, seed=seed))
        for r in rows
        if r is not base
    ]
    rest = iter(paired)
    return Table(tuple(r if r is base else next(rest) for r in rows))


def plain(value: Any) -> Any:
    """Dataclasses, intervals and arrays as what JSON can hold; NaN and infinities become None."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Interval):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _cells(r: Row) -> tuple[str, ...]:
    return (
        r.name,
        r.reward.show(".3f"),
        "" if r.versus_greedy is None else r.versus_greedy.show("+.3f"),
        r.verdict,
        "unknown" if math.isnan(r.tokens) else f"{r.tokens:,.0f}",
        f"{r.unscored:.3g} of {r.n}" if r.unscored > 5e-4 else "0",
    )
