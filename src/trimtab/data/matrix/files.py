"""Files of response tables to ResponseMatrix: plain wide and long ones, LLMRouter, RouterBench, AlpacaEval, ZeroEval.

Each reader is one function over rows whose docstring shows one real row; `load_matrix` opens the file and picks the
reader by its columns. It opens no pickle and scores nothing: rewards are read as they were published.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.data.cells import number
from trimtab.data.matrix.matrix import COLUMNS, ResponseMatrix, from_cells
from trimtab.data.matrix.wide import long_cells, looks_long, looks_wide, wide_cells
from trimtab.data.rows import read_rows, refuse_name
from trimtab.errors import InputError, unknown

Cells = Callable[[Mapping[str, Any]], list[dict[str, Any]]]
Wide = Callable[[Sequence[Mapping[str, Any]]], tuple[Iterator[list[dict[str, Any]]], str]]
"""A whole table's rows to the cells of each row, and what became of the columns."""


class Row(dict[str, Any]):
    """A row that knows its place in its file."""

    where: str = ""


def from_llmrouter(
    rows: Iterable[Mapping[str, Any]], prices: Mapping[str, Mapping[str, Any]] | None = None
) -> ResponseMatrix:
    """A matrix from LLMRouter's routing rows, one a cell, or one a prompt with all rewards.

        {"task_name": "gsm8k", "query": "...", "model_name": "qwen2.5-7b", "performance": 1.0, "token_num": 210}
        {"task": "gsm8k", "query": "...", "scores": {"qwen2.5-7b": 1.0, "codegemma-7b": 0.0}}

    `prices` is LLMRouter's candidates file: {model: {"output_price": dollars a million tokens, ...}}; a cell with
    tokens then has a price (their `token_num` counts the completion). Their `response_time` is in seconds.
    """

    def cells(row: Mapping[str, Any]) -> list[dict[str, Any]]:
        base = {"prompt": row.get("query"), "tags": row.get("task_name", row.get("task"))}
        base["target"] = {k: row[k] for k in ("ground_truth", "metric", "choices") if row.get(k) is not None} or None
        if isinstance(row.get("scores"), Mapping):
            return [{**base, "model": model, "reward": value} for model, value in row["scores"].items()]
        model, tokens = row.get("model_name"), row.get("output_tokens", row.get("token_num"))
        dollars = (prices or {}).get(str(model), {}).get("output_price")
        price = None
        if tokens is not None and dollars is not None:
            price = number("this row", "tokens", tokens) * number("prices", "output_price", dollars) / 1e6
        cell = {**base, "model": model, "tokens": tokens, "price": price, "text": row.get("response")}
        cell["latency"] = row.get("response_time")
        return [{**cell, **({"reward": row["performance"]} if "performance" in row else {})}]

    return _matrix(rows, cells, "llmrouter")


def from_wide(rows: Iterable[Mapping[str, Any]], models: Sequence[str] = ()) -> ResponseMatrix:
    """A matrix from a table with a row a prompt and a column a model (`data.matrix.wide`); `models` names the columns.

    {"prompt": "What is 2 + 3?", "gpt-4": true, "mixtral": false, "gpt-4_response": "5", "subject": "sums"}
    """
    return _table(rows, lambda given: wide_cells(given, models), "wide")


def from_long(rows: Iterable[Mapping[str, Any]]) -> ResponseMatrix:
    """A matrix from a table with a row a prompt and model, under other names than ours (`data.matrix.wide.NAMES`).

    {"question": "What is 2 + 3?", "model_name": "gpt-4", "score": 1, "task": "sums"}
    """
    return _table(rows, long_cells, "long")


def from_routerbench(rows: Iterable[Mapping[str, Any]], models: Sequence[str] = ()) -> ResponseMatrix:
    """A matrix from RouterBench's wide table: a column a model with its reward, `<model>|total_cost` in dollars.

    {"sample_id": "mmlu.1", "prompt": "...", "eval_name": "mmlu", "gpt-4": 1.0, "gpt-4|total_cost": 0.002,
     "gpt-4|model_response": "B", "oracle_model_to_route_to": "gpt-4"}
    """
    return _table(rows, lambda given: wide_cells(given, models), "routerbench")


def from_alpacaeval(rows: Iterable[Mapping[str, Any]], reward: str = "w") -> ResponseMatrix:
    """A matrix from AlpacaEval annotations, reward = preference - 1: 0 the reference won, 1 the model won.

        {"instruction": "...", "generator_2": "gpt-4", "output_2": "...", "preference": 1.73, "dataset": "koala"}
        {"id": 0, "instruction": "...", "dataset": "koala", "models": {"gpt-4": {"out": "...", "w": 1.73}}}

    In the pooled form `reward` names the annotation to read ("w" or "g4"); models without it are left out. The two
    entries that were made to game the judge (NullModel, gpt4_gamed) are always left out.
    """
    gamed = ("NullModel", "gpt4_gamed")

    def cells(row: Mapping[str, Any]) -> list[dict[str, Any]]:
        base = {"prompt_id": row.get("id"), "prompt": row.get("instruction"), "tags": row.get("dataset")}
        if "models" not in row:
            found = {row.get("generator_2"): {"out": row.get("output_2"), reward: row.get("preference")}}
        else:
            found = {m: a for m, a in row["models"].items() if reward in a}
        return [
            {**base, "model": m, "reward": number("this row", "reward", a[reward]) - 1, "text": a.get("out")}
            for m, a in found.items()
            if m not in gamed
        ]

    return _matrix(rows, cells, "alpacaeval")


def from_zeroeval(rows: Iterable[Mapping[str, Any]], tag: str = "") -> ResponseMatrix:
    """A matrix from graded ZeroEval outputs, reward 0 or 1.

    {"id": "gsm8k-main-test-#0", "question": "...", "gold": "18", "models": {"Athene-70B": {"ok": 1, "out": "..."}}}

    A prompt's tag is `tag`, or else its id up to the "#" ("gsm8k-main-test").
    """

    def cells(row: Mapping[str, Any]) -> list[dict[str, Any]]:
        name = tag or str(row.get("id", "")).partition("#")[0].rstrip("-")
        base = {"prompt_id": row.get("id"), "prompt": row.get("question"), "tags": name, "target": row.get("gold")}
        return [{**base, "model": m, "reward": a.get("ok"), "text": a.get("out")} for m, a in row["models"].items()]

    return _matrix(rows, cells, "zeroeval")


def _trimtab(rows: Iterable[Mapping[str, Any]]) -> ResponseMatrix:
    """Our own long form; columns that it does not have are named in the note."""
    rows = list(rows)
    matrix = _matrix(rows, lambda row: [dict(row)], "trimtab")
    odd = [k for k in dict.fromkeys(k for row in rows for k in row) if k not in (*COLUMNS, "target", "where")]
    return _noted(matrix, f"columns not read: {', '.join(odd)}" if odd else "")


POOL_MATRIX = "matrix.parquet"
"""What `trimtab pool` writes in its run directory."""
FORMATS: dict[str, tuple[Callable[..., ResponseMatrix], Callable[[Mapping[str, Any]], bool]]] = {
    "trimtab": (_trimtab, lambda r: "reward" in r and "model" in r),
    "llmrouter": (from_llmrouter, lambda r: "query" in r and ("performance" in r or "scores" in r)),
    "routerbench": (from_routerbench, lambda r: any(str(k).endswith("|total_cost") for k in r)),
    "alpacaeval": (from_alpacaeval, lambda r: "instruction" in r and ("models" in r or "preference" in r)),
    "zeroeval": (from_zeroeval, lambda r: "question" in r and isinstance(r.get("models"), Mapping)),
    "long": (from_long, looks_long),
    "wide": (from_wide, looks_wide),
}
"""Format to (reader of rows, does this first row look like it); the first that does is taken."""


def load_matrix(path: str | os.PathLike[str], format: str = "", **options: Any) -> ResponseMatrix:
    """A matrix from any file of rows (`data.rows`): JSON lines, JSON, Parquet or CSV, also compressed.

    A run directory of `trimtab pool` stands for the matrix in it. `format` is one of FORMATS; without it the first
    row's columns decide. `options` go to the reader (`prices`, `reward`, `tag`, `models`). InputError names the file,
    the line and what is wrong; pickles are refused (they run code when opened).
    """
    path = Path(path) / POOL_MATRIX if Path(path).is_dir() else Path(path)
    if format and format not in FORMATS:
        raise unknown("matrix format", format, FORMATS)
    if path.suffix in (".pkl", ".pickle"):
        refuse_name(str(path))
    rows = []
    for where, row in read_rows(path, nan=True):
        rows.append(Row(row))
        rows[-1].where = where
    found = format or next((name for name, (_, looks) in FORMATS.items() if looks(rows[0])), "")
    if not found:
        raise InputError(
            f"{path}: cannot tell which format this is (columns {', '.join(map(str, rows[0]))}); a table has a prompt "
            f"and a column a model, or prompt, model and reward, or is one of {', '.join(FORMATS)}"
        )
    try:
        return FORMATS[found][0](rows, **options)
    except InputError as e:
        raise e if str(e).startswith(str(path)) else InputError(f"{path}: {e}") from e


def _matrix(rows: Iterable[Mapping[str, Any]], cells: Cells, name: str) -> ResponseMatrix:
    """A matrix from a reader of one row. InputError with the place of a row that it cannot read."""

    def placed() -> Iterator[dict[str, Any]]:
        for n, row in enumerate(rows, 1):
            place = _place(row, n, name)
            try:
                found = cells(row)
            except (InputError, KeyError, TypeError, ValueError, AttributeError) as e:
                raise InputError(f"{place}: not a row of {name} ({e if isinstance(e, InputError) else repr(e)})") from e
            yield from ({**cell, "where": place} for cell in found)

    return from_cells(placed(), where=name)


def _table(rows: Iterable[Mapping[str, Any]], read: Wide, name: str) -> ResponseMatrix:
    """A matrix from a reader of a whole table: rows to (cells of each row, what became of the columns)."""
    rows = list(rows)
    if not rows:
        raise InputError(f"{name}: no rows")
    cells, note = read(rows)

    def placed() -> Iterator[dict[str, Any]]:
        for n, (row, own) in enumerate(zip(rows, cells, strict=True), 1):
            place = _place(row, n, name)
            yield from ({**cell, "where": f"{place}: {cell['model']}"} for cell in own)

    return _noted(from_cells(placed(), where=name), note)


def _place(row: Mapping[str, Any], n: int, name: str) -> str:
    return row.where if isinstance(row, Row) else f"{name}, row {n}"


def _noted(matrix: ResponseMatrix, note: str) -> ResponseMatrix:
    return replace(matrix, note="; ".join(n for n in (note, matrix.note) if n))
