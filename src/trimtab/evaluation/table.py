"""Rewards by prompt to one table: mean reward, paired difference to a baseline, tokens spent, unscored.

Every number has a 95 % interval from a bootstrap over prompts. Rows are joined by prompt id, never by position, and a
row whose difference holds 0 says so in words. It does not choose or score anything.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.errors import InputError, unknown
from trimtab.evaluation.metrics import Interval, mean_interval, paired_bootstrap
from trimtab.json_file import read_json
from trimtab.terminal import markdown

GREEDY = "greedy"
FILE = "table.json"
"""What a run directory keeps of its table."""
_RIGHT = {4, 5}


@dataclass(frozen=True)
class Row:
    """What one strategy, model or router bought. `difference` is to the table's baseline (None: it is the baseline, or
    there is none), `tokens` the mean generated a prompt (NaN: unknown), `unscored` the expected number of prompts whose
    choice had no reward, `rewards` what is behind it, by prompt id (NaN: unscored)."""

    name: str
    reward: Interval
    difference: Interval | None
    tokens: float
    unscored: float
    rewards: Mapping[str, float] = field(default_factory=dict, repr=False)
    more: Mapping[str, Any] = field(default_factory=dict)
    """Figures of one kind of table only, such as a router's price."""

    @property
    def n(self) -> int:
        """How many prompts it is about."""
        return len(self.rewards)

    @property
    def verdict(self) -> str:
        """Against the baseline: "better" or "worse" if the interval excludes 0, else "no difference shown"; "" if
        unknown."""
        return "" if self.difference is None else self.difference.verdict

    def __str__(self) -> str:
        return "  ".join(cell for cell in _cells(self) if cell)


@dataclass(frozen=True)
class Table:
    """Rows in the order they were given, notes on what is left out and why, and where the numbers come from."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = GREEDY
    """The row that the others are set against."""

    @classmethod
    def load(cls, path: str | Path) -> "Table":
        """The table that `to_json` wrote: the file, or a run directory with its table.json. InputError when broken."""
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        do = "run `trimtab eval` again"
        kinds = {"rows": list, "notes": list, "meta": dict, "baseline": str}
        found = read_json(file, "a table of trimtab", kinds, do=do)
        try:
            rows = tuple(map(_row_of, found["rows"]))
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise InputError(f"{file}: is not a table of trimtab: a row cannot be read ({e!r}); {do}") from e
        return cls(rows, tuple(found["notes"]), found["meta"], found["baseline"])

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown("row", name, [r.name for r in self.rows])

    def __str__(self) -> str:
        head = self._head()
        body = [head, *map(_cells, self.rows)]
        widths = [max(len(line[i]) for line in body) for i in range(len(head))]
        lines = [
            "  ".join(c.rjust(w) if i in _RIGHT else c.ljust(w) for i, (c, w) in enumerate(zip(b, widths, strict=True)))
            for b in body
        ]
        lines.insert(1, "─" * len(lines[0]))
        return "\n".join([line.rstrip() for line in lines] + [f"Note: {n}" for n in self.notes])

    def to_markdown(self) -> str:
        """The table as GitHub Markdown, notes below it."""
        head = self._head()
        rule = ["---:" if i in _RIGHT else "---" for i in range(len(head))]
        body = [head, tuple(rule), *((markdown(name), *rest) for name, *rest in map(_cells, self.rows))]
        lines = ["| " + " | ".join(b) + " |" for b in body]
        return "\n".join([*lines, "", *(f"- {markdown(n)}" for n in self.notes)]).rstrip() + "\n"

    def to_json(self) -> str:
        """The table as JSON, rewards by prompt included; what is NaN here is null there."""
        return json.dumps(self.plain(), ensure_ascii=False, indent=1)

    def plain(self, *, rewards: bool = True) -> dict[str, Any]:
        """As JSON takes it, each row with its verdict and number of prompts; without the rewards behind it if asked."""
        rows = [{**plain(r), "verdict": r.verdict, "n": r.n} for r in self.rows]
        return {
            **plain(self),
            "rows": rows if rewards else [{k: v for k, v in r.items() if k != "rewards"} for r in rows],
        }

    def _head(self) -> tuple[str, ...]:
        return ("", "reward", f"minus {self.baseline}", f"against {self.baseline}", "tokens", "unscored")


def row(
    name: str, rewards: Mapping[str, float], *, baseline: Row | None = None, tokens: float = math.nan,
    unscored: float | None = None, more: Mapping[str, Any] | None = None, draws: int = 10_000, seed: int = 0,
) -> Row:  # fmt: skip
    """One row from rewards by prompt id; with its difference to `baseline`, a row about the same prompts. `unscored`
    defaults to the number of NaN among them."""
    values = np.fromiter(rewards.values(), float, len(rewards))
    missing = float(np.isnan(values).sum()) if unscored is None else unscored
    made = Row(name, mean_interval(values, draws=draws, seed=seed), None, tokens, missing, dict(rewards), more or {})
    return made if baseline is None else _against(made, baseline, draws, seed)


def tabulate(rows: Sequence[Row], *, baseline: str = GREEDY, draws: int = 10_000, seed: int = 0) -> Table:
    """A table of rows made one by one (`evaluate` makes them, `Table.load` has them), each paired with the one called
    `baseline` if present. InputError names a prompt that only one of two rows is about."""
    base = next((r for r in rows if r.name == baseline), None)
    if base is None:
        return Table(tuple(rows), (f"no row is called {baseline!r}: no difference column",), baseline=baseline)
    return Table(tuple(r if r is base else _against(r, base, draws, seed) for r in rows), baseline=baseline)


def _against(mine: Row, base: Row, draws: int, seed: int) -> Row:
    """The row with its difference to another, paired by prompt id."""
    if odd := mine.rewards.keys() ^ base.rewards.keys():
        raise InputError(
            f"{mine.name!r} and {base.name!r} are not about the same prompts ({min(odd)!r} is in one only), "
            "so they cannot be paired"
        )
    pairs = np.array([(mine.rewards[i], r) for i, r in base.rewards.items()]).reshape(-1, 2)
    return replace(mine, difference=paired_bootstrap(*pairs.T, draws=draws, seed=seed))


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


def _row_of(found: Mapping[str, Any]) -> Row:
    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    def interval(value: Mapping[str, Any]) -> Interval:
        return Interval(number(value["mean"]), number(value["lower"]), number(value["upper"]), value["n"])

    def figure(value: Any) -> Any:
        return interval(value) if isinstance(value, dict) else math.nan if value is None else value

    gap = found["difference"]
    return Row(
        found["name"], interval(found["reward"]), None if gap is None else interval(gap), number(found["tokens"]),
        number(found["unscored"]), {k: number(v) for k, v in found["rewards"].items()},
        {k: figure(v) for k, v in found["more"].items()},
    )  # fmt: skip


def _cells(r: Row) -> tuple[str, ...]:
    return (
        r.name,
        r.reward.show(".3f"),
        "" if r.difference is None else r.difference.show("+.3f"),
        r.verdict,
        "unknown" if math.isnan(r.tokens) else f"{r.tokens:,.0f}",
        f"{r.unscored:.3g} of {r.n}" if r.unscored > 5e-4 else "0",
    )
