"""The index: `index.toml` names every benchmark, with its floors; the page is made of it and of the result files.

`make docs` writes README.md; a test fails when it is stale.
"""

import ast
import operator
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import data, neighbours, results

HERE = Path(__file__).resolve().parent
HOW = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "==": operator.eq}
SIGNS = {">=": "≥", "<=": "≤", ">": ">", "==": "="}


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. `floors`: figure -> ">= number" that it must keep; `figures`: others worth a place in the index;
    `quoted`: label -> the way to a value in the rows; `results`: result file -> the words that make it; `data`: inputs
    that it cannot run without; `neighbours`: environments that it makes; `page`: where it is discussed.
    """

    name: str
    module: str
    peer: str
    floors: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    quoted: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    results: Mapping[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    page: str = ""

    @property
    def file(self) -> Path:
        return HERE / f"{self.module.replace('.', '/')}.py"

    @property
    def heading(self) -> str:
        """The first line of the module's docstring, read without importing it."""
        return (ast.get_docstring(ast.parse(self.file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def benchmarks() -> dict[str, Benchmark]:
    """Every benchmark by name, in the order of the page."""
    table = tomllib.loads((HERE / "index.toml").read_text(encoding="utf-8"))
    return {
        k: Benchmark(k, **{x: tuple(y) if isinstance(y, list) else y for x, y in v.items()}) for k, v in table.items()
    }


def kept(floor: str, value: Any) -> bool:
    """Whether a figure is at its floor or better; what was not measured is not."""
    sign, number = floor.split()
    return value is not None and HOW[sign](value, float(number))


INTRO = """# Benchmarks

<!-- made by `make docs` from index.toml, data.toml, neighbours.toml and results/: do not edit -->

    make bench NAME=embed               SMALL=1: a quick one, to see that it runs; ARGS="rounds=1": settings
    python -m benchmarks NAME [--small] [--device cpu|cuda] [--model NAME] [--out FOLDER] [name=value ...]
    python -m benchmarks                lists them

The last line that a benchmark prints is its result as a JSON object. A full run is kept in `results/`, in one shape:
name, command, commit, date, machine, versions, settings, figures, rows (what was not recorded is null; long tables are
Parquet). A benchmark that lacks its data or a package is skipped with a word and status 77. Both sides of a comparison
run in one call and take turns. A floor is what the figure must keep; what misses it is said.
"""


def page() -> str:
    """benchmarks/README.md."""
    known = benchmarks().values()
    speed = [b for b in known if b.module.startswith("speed.")]
    claims = [b for b in known if not b.module.startswith("speed.")]
    parts = [INTRO, "## Speed\n", _table(speed), "## Papers' claims and quality\n", _table(claims), _inputs(), _envs()]
    return "\n".join(parts)


def _table(some: list[Benchmark]) -> str:
    rows = [row for b in some for row in _rows(b)]
    return results.markdown(["benchmark", "figure", "floor", "peer", "date, machine", "command", "result"], rows)


def _rows(b: Benchmark) -> list[list[str]]:
    rows = []
    for name, words in (b.results or {"": ""}).items():
        found = results.read(name) if name else None
        figures, floors = [], []
        for key in (*b.floors, *b.figures):
            value = found["figures"].get(key) if found else None
            figures.append(f"`{key}` {_number(value)}")
            if floor := b.floors.get(key):
                sign, number = floor.split()
                missed = "" if kept(floor, value) else ", not measured" if value is None else ", **missed**"
                floors.append(f"{SIGNS[sign]} {number}{missed}")
        figures += [f"{k}: {_number(followed(found['rows'], way))}" for k, way in b.quoted.items() if found]
        where = f"{found['date'] or 'not recorded'}, {_machine(found['machine'])}" if found else ""
        link = f"[{name}](results/{name}.json)" if name else ""
        link += f"{', ' * bool(link)}[page](../{b.page})" if b.page else ""
        what = f"{b.name}, also" if rows else f"**{b.name}** {b.heading}"
        command = f"`python -m benchmarks {b.name}{words and ' ' + words}`"
        rows.append([what, "<br>".join(figures), "<br>".join(floors), b.peer, where, command, link])
    return rows


def followed(rows: Any, way: Sequence[Any]) -> Any:
    """What stands at the end of a way: a table picks the first row that has its values, a word a row's value."""
    for step in way:
        if isinstance(step, Mapping):
            rows = next((r for r in rows or () if all(r.get(k) == v for k, v in step.items())), None)
        else:
            rows = rows.get(step) if rows else None
    return rows


def _number(value: Any) -> str:
    if isinstance(value, Mapping) and {"mean", "lower", "upper"} <= value.keys():
        value = [value["mean"], value["lower"], value["upper"]]
    if isinstance(value, list) and len(value) == 3:
        mean, low, high = map(_number, value)
        return f"{mean} [{low}, {high}]"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "not measured" if value is None else str(value)


def _machine(machine: Mapping[str, Any]) -> str:
    cores = machine.get("cores")
    parts = [machine.get("accelerator"), machine.get("cpu"), cores and f"{cores} cores"]
    return ", ".join(p for p in parts if p) or "machine not recorded"


def _inputs() -> str:
    rows = [
        [f"`{k}`", i.what, f"`{i.file}`", f"<{i.source}>", i.licence, "fetched" if i.fetch else "by hand"]
        for k, i in data.inputs().items()
    ]
    head = ["input", "what", "place under TRIMTAB_DATA", "source", "licence", "where it is not"]
    return "## Inputs\n\nNone is in the repository; checksums are in `data.toml`.\n\n" + results.markdown(head, rows)


def _envs() -> str:
    rows = [[f"`{k}`", ", ".join(f"`{r}`" for r in n.requires), n.what] for k, n in neighbours.neighbours().items()]
    return (
        "## Neighbours\n\nPackages that are compared with or checked against, and are no part of trimtab, live in "
        "environments of their own,\nmade on demand under `.make/neighbours`. Tests that need one are marked "
        "`neighbours` and run by `pytest -m neighbours`.\n\n" + results.markdown(["name", "packages", "what for"], rows)
    )
