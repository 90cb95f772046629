"""Files of published response tables to ResponseMatrix: LLMRouter, RouterBench, AlpacaEval, ZeroEval, and our own.

Each reader is one function over rows whose docstring shows one real row; `load_matrix` opens the file and picks the
reader by its columns. It opens no pickle and grades nothing: rewards are read as they were published.
"""

import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trimtab.data.matrix import ResponseMatrix, from_cells
from trimtab.errors import InputError, unknown


def from_llmrouter(
    rows: Iterable[Mapping[str, Any]], prices: Mapping[str, Mapping[str, Any]] | None = None
) -> ResponseMatrix:
    """A matrix from LLMRouter's routing rows, one a cell, or one a query with all scores.

        {"task_name": "gsm8k", "query": "...", "model_name": "qwen2.5-7b", "performance": 1.0, "token_num": 210}
        {"task": "gsm8k", "query": "...", "scores": {"qwen2.5-7b": 1.0, "codegemma-7b": 0.0}}

    `prices` is LLMRouter's candidates file: {model: {"output_price": dollars a million tokens, ...}}; a cell with
    tokens then has a price (their `token_num` counts the completion). Their `response_time` is in seconds.
    """

    def cells() -> Iterator[dict[str, Any]]:
        for row in rows:
            base = {"prompt": row.get("query"), "tags": row.get("task_name", row.get("task"))}
            base["target"] = {
                k: row[k] for k in ("ground_truth", "metric", "choices") if row.get(k) is not None
            } or None
            if isinstance(row.get("scores"), Mapping):
                for model, value in row["scores"].items():
                    yield {**base, "model": model, "reward": value}
                continue
            model, tokens = row.get("model_name"), row.get("output_tokens", row.get("token_num"))
            dollars = (prices or {}).get(str(model), {}).get("output_price")
            price = None if tokens is None or dollars is None else float(tokens) * float(str(dollars)) / 1e6
            cell = {**base, "model": model, "tokens": tokens, "price": price, "text": row.get("response")}
            cell["latency"] = row.get("response_time")
            yield {**cell, **({"reward": row["performance"]} if "performance" in row else {})}

    return from_cells(cells(), where="llmrouter")


def from_routerbench(rows: Iterable[Mapping[str, Any]]) -> ResponseMatrix:
    """A matrix from RouterBench's wide table: a column a model with its reward, `<model>|total_cost` in dollars.

    {"sample_id": "mmlu.1", "prompt": "...", "eval_name": "mmlu", "gpt-4": 1.0, "gpt-4|total_cost": 0.002,
     "gpt-4|model_response": "B", "oracle_model_to_route_to": "gpt-4"}
    """

    def cells() -> Iterator[dict[str, Any]]:
        for row in rows:
            models = [k.removesuffix("|total_cost") for k in row if k.endswith("|total_cost")]
            base = {"prompt_id": row.get("sample_id"), "prompt": row.get("prompt"), "tags": row.get("eval_name")}
            for m in models:
                text = row.get(f"{m}|model_response")
                yield {**base, "model": m, "reward": row.get(m), "price": row[f"{m}|total_cost"], "text": text}

    return from_cells(cells(), where="routerbench")


def from_alpacaeval(rows: Iterable[Mapping[str, Any]], reward: str = "w") -> ResponseMatrix:
    """A matrix from AlpacaEval annotations, reward = preference - 1: 0 the reference won, 1 the model won.

        {"instruction": "...", "generator_2": "gpt-4", "output_2": "...", "preference": 1.73, "dataset": "koala"}
        {"id": 0, "instruction": "...", "dataset": "koala", "models": {"gpt-4": {"out": "...", "w": 1.73}}}

    In the pooled form `reward` names the annotation to read ("w" or "g4"); models without it are left out. The two
    entries that were made to game the judge (NullModel, gpt4_gamed) are always left out.
    """
    gamed = ("NullModel", "gpt4_gamed")

    def cells() -> Iterator[dict[str, Any]]:
        for row in rows:
            base = {"prompt_id": row.get("id"), "prompt": row.get("instruction"), "tags": row.get("dataset")}
            base["prompt_id"] = None if base["prompt_id"] is None else str(base["prompt_id"])
            if "models" not in row:
                found = {row.get("generator_2"): {"out": row.get("output_2"), reward: row.get("preference")}}
            else:
                found = {m: a for m, a in row["models"].items() if reward in a}
            for m, a in found.items():
                if m not in gamed:
                    value = None if a[reward] is None else float(str(a[reward])) - 1
                    yield {**base, "model": m, "reward": value, "text": a.get("out")}

    return from_cells(cells(), where="alpacaeval")


def from_zeroeval(rows: Iterable[Mapping[str, Any]], tag: str = "") -> ResponseMatrix:
    """A matrix from graded ZeroEval outputs, reward 0 or 1.

    {"id": "gsm8k-main-test-#0", "question": "...", "gold": "18", "models": {"Athene-70B": {"ok": 1, "out": "..."}}}

    A prompt's tag is `tag`, or else its id up to the "#" ("gsm8k-main-test").
    """

    def cells() -> Iterator[dict[str, Any]]:
        for row in rows:
            name = tag or str(row.get("id", "")).partition("#")[0].rstrip("-")
            base = {"prompt_id": row.get("id"), "prompt": row.get("question"), "tags": name, "target": row.get("gold")}
            for m, answer in row["models"].items():
                yield {**base, "model": m, "reward": answer.get("ok"), "text": answer.get("out")}

    return from_cells(cells(), where="zeroeval")


POOL_MATRIX = "matrix.parquet"
"""What `trimtab pool` writes in its run directory."""
FORMATS: dict[str, tuple[Callable[..., ResponseMatrix], Callable[[Mapping[str, Any]], bool]]] = {
    "trimtab": (from_cells, lambda r: "reward" in r and "model" in r),
    "llmrouter": (from_llmrouter, lambda r: "query" in r and ("performance" in r or "scores" in r)),
    "routerbench": (from_routerbench, lambda r: any(str(k).endswith("|total_cost") for k in r)),
    "alpacaeval": (from_alpacaeval, lambda r: "instruction" in r and ("models" in r or "preference" in r)),
    "zeroeval": (from_zeroeval, lambda r: "question" in r and "models" in r),
}
"""Format to (reader of rows, does this first row look like it)."""


def load_matrix(path: str | os.PathLike[str], format: str = "", **options: Any) -> ResponseMatrix:
    """A matrix from a file: .jsonl, .json (a list), .parquet or .csv, the first three also gzipped.

    A run directory of `trimtab pool` stands for the matrix in it. `format` is one of FORMATS; without it the first
    row's columns decide. `options` go to the reader (`prices`,
    `reward`, `tag`). InputError names the file and what is wrong; pickles are refused (they run code when opened).
    """
    path = Path(path) / POOL_MATRIX if Path(path).is_dir() else Path(path)
    rows = list(_rows(path))
    if format and format not in FORMATS:
        raise unknown("matrix format", format, FORMATS)
    if not rows:
        raise InputError(f"{path}: no rows")
    fits = [format] if format else [name for name, (_, looks) in FORMATS.items() if looks(rows[0])]
    if len(fits) != 1:
        raise InputError(
            f"{path}: cannot tell which format this is (columns {', '.join(map(str, rows[0]))}); "
            f"name one of {', '.join(FORMATS)}"
        )
    try:
        return FORMATS[fits[0]][0](rows, **options)
    except InputError as e:
        raise InputError(f"{path}: {e}") from e


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    kind = file.with_suffix("").suffix if file.suffix == ".gz" else file.suffix
    if kind in (".pkl", ".pickle"):
        raise InputError(f"{file} is a pickle, which runs code when opened; export it to Parquet or JSON lines first")
    if kind not in (".jsonl", ".json", ".parquet", ".csv"):
        raise unknown("file type", kind, (".jsonl", ".json", ".parquet", ".csv"))
    if not file.is_file():
        raise InputError(f"{file} does not exist")
    if kind == ".parquet":
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(file).to_pylist()
        return
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        if kind == ".csv":
            import csv

            yield from ({k: (v if v != "" else None) for k, v in row.items()} for row in csv.DictReader(lines))
            return
        try:
            if kind == ".json":
                found = json.load(lines)
                yield from found if isinstance(found, list) else [found]
                return
        except ValueError as e:
            raise InputError(f"{file}: not JSON ({e})") from e
        for n, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as e:
                raise InputError(f"{file}:{n}: not JSON ({e})") from e
