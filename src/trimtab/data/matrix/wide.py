"""The table a user has first, to a response matrix: a prompt a row and a column a model, or a row a prompt and model.

    prompt,gpt-4,mixtral,gpt-4_response,mixtral_response,gpt-4_cost,subject      wide, as RouteLLM's and RouterBench's
    What is 2 + 3?,True,0.0,5,four,$0.002,sums
    question,model_name,score,task                                               long, under other names
    What is 2 + 3?,gpt-4,1,sums

A column is a model when most of its cells are numbers (or true, false) and its name is none of META. What is not read
as reward, text, price or tag goes to the prompts' target, and the matrix's note says which column became what.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from trimtab.data.cells import MISSING, as_number
from trimtab.errors import InputError, unknown

NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "query", "instruction", "input"),
    "model": ("model", "model_name", "model_id", "llm", "generator"),
    "reward": ("reward", "score", "correct", "is_correct", "accuracy", "performance", "quality"),
    "prompt_id": ("prompt_id", "sample_id", "question_id", "id", "uid"),
    "tags": ("tags", "tag", "task", "task_name", "eval_name", "dataset", "benchmark", "category", "subject", "domain"),
    "text": ("text", "response", "output", "completion", "answer", "generation"),
    "price": ("price", "cost", "total_cost"),
    "tokens": ("tokens", "token_num", "output_tokens", "completion_tokens"),
    "latency": ("latency", "response_time", "seconds"),
}
"""Our columns, and what others call them; the first that a table has is taken."""
COUNTERS = ("column 1", "Unnamed: 0", "__index_level_0__", "index", "idx")
META = frozenset((
    *(name for names in NAMES.values() for name in names), *COUNTERS, "target", "gold", "ground_truth", "reference",
    "expected", "solution", "label", "difficulty", "level", "length", "num_tokens", "n_tokens", "prompt_tokens", "seed",
    "weight", "fold", "turn", "row", "rank", "year", "split", "source",
))  # fmt: skip
"""Names that are no model's."""
_PARTS = {
    "response": "text", "output": "text", "answer": "text", "completion": "text", "generation": "text", "text": "text",
    "cost": "price", "price": "price", "tokens": "tokens", "latency": "latency", "seconds": "latency",
    "score": "reward", "reward": "reward", "correct": "reward", "accuracy": "reward", "acc": "reward",
}  # fmt: skip
_WORDS = "|".join(_PARTS)
_AFTER = re.compile(rf"(.+?)[ _|:./-]+(?:(?:total|model|output|is)[ _])?({_WORDS})", re.I)
_BEFORE = re.compile(rf"(?:total_)?({_WORDS})[ _|:./-]+(.+)", re.I)


def looks_long(row: Mapping[str, Any]) -> bool:
    """Whether a row is one cell, by the names of its columns."""
    return all(any(n in row for n in NAMES[k]) for k in ("prompt", "model", "reward"))


def looks_wide(row: Mapping[str, Any]) -> bool:
    """Whether a row has a prompt and no model's name."""
    return any(n in row for n in NAMES["prompt"]) and not looks_long(row)


def long_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[Iterator[list[dict[str, Any]]], str]:
    """One list of cells a row, of a table that names a prompt and a model in each, and what became of the columns."""
    columns = _columns(rows)
    found = {k: n for k in NAMES if (n := _first(columns, NAMES[k])) is not None}
    rest = [c for c in columns if c not in found.values() and c not in (*COUNTERS, "target")]
    cells = ([_labelled({k: row.get(n) for k, n in found.items()} | {"target": _target(row, rest)})] for row in rows)
    other = {k: n for k, n in found.items() if k != n}
    return cells, _note([f"{k} is {n!r}" for k, n in other.items()], rest)


def wide_cells(
    rows: Sequence[Mapping[str, Any]], models: Sequence[str] = ()
) -> tuple[Iterator[list[dict[str, Any]]], str]:
    """The cells of every row of a table with a column a model, and what became of the columns.

    `models` names the models' columns; without it they are found. InputError where there are none, and where some
    columns of numbers lie outside the others' range of 0 to 1, for then they are hardly rewards.
    """
    columns = _columns(rows)
    base = {k: _first(columns, NAMES[k]) for k in ("prompt", "prompt_id", "tags")}
    if base["prompt"] is None:
        raise InputError(f"no column with the prompt ({', '.join(NAMES['prompt'])}); it has {', '.join(columns)}")
    parts = _parts(columns)
    free = [
        c for c in columns if c not in base.values() and c not in {p for own in parts.values() for p in own.values()}
    ]
    found = _models(rows, free, parts, models)
    parts = {m: {"reward": m, **parts.get(m, {})} for m in found}
    used = {*base.values(), *COUNTERS, *(c for own in parts.values() for c in own.values())}
    rest = [c for c in columns if c not in used]

    def cells() -> Iterator[list[dict[str, Any]]]:
        for row in rows:
            shared = {k: row.get(c) for k, c in base.items() if c is not None} | {"target": _target(row, rest)}
            shared = _labelled(shared)
            yield [{**shared, "model": m, **{k: row.get(c) for k, c in own.items()}} for m, own in parts.items()]

    tag = [f"tags are {base['tags']!r}"] if base["tags"] else []
    return cells(), _note([f"models are {', '.join(found)}", *tag], rest)


def _models(
    rows: Sequence[Mapping[str, Any]], free: Sequence[str], parts: Mapping[str, Mapping[str, str]], given: Sequence[str]
) -> list[str]:
    """The models' names, in the order of the columns."""
    if given:
        for name in given:
            if name not in free and name not in parts:
                raise unknown("column of a model", name, [*free, *parts])
        return list(given)
    own = [m for m, p in parts.items() if "reward" in p]
    found = own or [c for c in free if c.lower() not in META and _numeric(rows, c)]
    if not found:
        raise InputError(
            f"no column of numbers that could be a model's rewards; it has {', '.join(free)}. A table has a column a "
            "model, or the columns model and reward"
        )
    column = {m: parts.get(m, {}).get("reward", m) for m in found}
    values = {m: [v for row in rows if math.isfinite(v := as_number(row.get(c)))] for m, c in column.items()}
    beyond = [m for m, v in values.items() if v and not 0 <= min(v) <= max(v) <= 1]
    if beyond and len(beyond) < len([v for v in values.values() if v]):
        raise InputError(
            f"the numbers of {', '.join(map(repr, beyond))} are not between 0 and 1 as those of the other models are: "
            "are these rewards? Remove or rename the column, or name the models (models=[...])"
        )
    return found


def _numeric(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether most cells that are not empty are numbers; the others are then errors with their line."""
    cells = [v for row in rows if (v := row.get(column)) is not None and str(v).strip().lower() not in MISSING]
    return 2 * sum(not math.isnan(as_number(c)) for c in cells) > len(cells)


def _parts(columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """{model: {"text": its column of responses, "price": ...}} by columns such as gpt-4_response and cost_gpt-4.

    The model is a column itself, or one of its columns holds its rewards (gpt-4_score).
    """
    found: dict[str, dict[str, str]] = {}
    for column in columns:
        if column.lower() in META:
            continue
        after, before = _AFTER.fullmatch(column), _BEFORE.fullmatch(column)
        for model, word in [m.groups() for m in (after,) if m] + [m.groups()[::-1] for m in (before,) if m]:
            if model in columns or after is not None:
                found.setdefault(model, {}).setdefault(_PARTS[word.lower()], column)
                break
    known = {m for m in found if m in columns and m.lower() not in META}
    if not known:
        known = {m for m, own in found.items() if "reward" in own and len(own) > 1}
    return {
        m: {k: c for k, c in own.items() if k != "reward" or m not in columns} for m, own in found.items() if m in known
    }


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(k) for row in rows for k in row))


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {c.lower(): c for c in reversed(columns)}
    return next((lower[n] for n in names if n in lower), None)


def _labelled(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell with a tag that is a number as text, and one that is NaN as none."""
    tag = cell.get("tags")
    if isinstance(tag, int | float):
        cell["tags"] = str(tag) if tag == tag else None
    return cell


def _target(row: Mapping[str, Any], rest: Sequence[str]) -> Any:
    return row["target"] if "target" in row else {c: row[c] for c in rest if row.get(c) is not None} or None


def _note(parts: Sequence[str], rest: Sequence[str]) -> str:
    return "; ".join([*parts, *([f"kept beside the prompt: {', '.join(rest)}"] if rest else [])])
