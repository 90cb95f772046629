"""Result files of evaluations to values by prompt id: Inspect logs, lm-eval sample files, our own, CSV and JSON lines.

    runs/a, runs/a/table.json     what `trimtab` wrote: mean reward of a prompt's completions; every row of a table
    logs/2026_sums_abc.eval       Inspect's log, also as .json; a scorer's values by sample id, epochs are samples
    samples_gsm8k_2026.jsonl      lm-eval's samples (--log_samples); a metric by `doc_hash`, of one filter
    scores.csv  .jsonl .parquet   a column `prompt_id` or `id`, and one of VALUES or the one that is named

A prompt that stands in several rows has several samples. What has no value is NaN; what cannot be a value is refused
with its place. It compares nothing.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.data.cells import number
from trimtab.data.inspect_zip import entry
from trimtab.data.rows import Located, kind_of, numbered, read_rows, short, text_of_file
from trimtab.errors import InputError, unknown
from trimtab.store import Store

IDS = ("prompt_id", "id")
VALUES = ("reward", "score", "value", "correct", "accuracy", "exact_match")
LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Inspect's letters: correct, partly, incorrect, no answer. They are worth what Inspect's own metrics take them for."""
_LM_EVAL = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
            "prompt_hash", "target_hash"}  # fmt: skip
_TEXT = 500
"""Characters of a prompt that are compared: logs cut long ones."""


@dataclass(frozen=True)
class Results:
    """What one system earned: `values` are the samples of every prompt by its id (NaN: no value), `of` says which
    value was read, `texts` the beginnings of prompts where the file has them."""

    name: str
    values: Mapping[str, tuple[float, ...]]
    of: str
    notes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)


def load_results(
    path: str | Path, *, value: str = "", id: str = "", filter: str = "", split: str = "test"
) -> list[Results]:
    """One system of a file or run directory; every row of a table.

    `value` is the column, scorer, metric, reward or row of a table where there are several; `id` the column of prompt
    ids; `filter` lm-eval's; `split` a run directory's. InputError names what the file holds instead.
    """
    file = Path(path)
    if file.is_dir():
        return [_run(file, value, split)] if (file / "manifest.json").is_file() else _of_folder(file, value)
    if not file.is_file():
        raise InputError(f"{file}: no such file or run directory")
    if file.suffix == ".eval":
        return [_inspect(str(file), *_unzipped(file), value)]
    if kind_of(file) == ".json":
        whole = _document(file)
        if isinstance(whole, dict) and "eval" in whole and "version" in whole:
            return [_inspect(str(file), whole.get("samples") or [], str(whole.get("status")), value)]
        if isinstance(whole, dict) and "baseline" in whole and isinstance(whole.get("rows"), list):
            return _table(file, whole["rows"], value)
        if isinstance(whole, dict) and "results" in whole and "configs" in whole:
            raise InputError(
                f"{file}: lm-eval's totals hold no value by prompt; run it with --log_samples and give samples_*.jsonl"
            )
    rows = list(read_rows(file, nan=True))
    return [_lm_eval(file, rows, value, filter) if "doc_hash" in rows[0][1] else _rows(file, rows, value, id)]


def _document(file: Path) -> Any:
    """The JSON of a file, or None for lines of JSON, which the reader of rows takes or refuses."""
    try:
        return json.loads(text_of_file(file))
    except (ValueError, RecursionError):
        return None


def as_value(place: str, name: str, value: Any) -> float:
    """A number, a truth value or one of Inspect's letters; NaN where it is missing; InputError for anything else."""
    if isinstance(value, str) and value in LETTERS:
        return LETTERS[value]
    return number(place, "reward", value, column=name)


def _collected(rows: Iterable[tuple[str, float]]) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {}
    for prompt, value in rows:
        found.setdefault(prompt, []).append(value)
    return {k: tuple(v) for k, v in found.items()}


def _prompt_id(place: str, name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"{place}: field {name!r} must be a prompt's id (text or a whole number), got {short(value)}")
    return str(value)


def _chosen(file: object, kind: str, flag: str, wanted: str, found: Iterable[str]) -> str:
    """The one that is wanted, or the only one; InputError with the list and the flag otherwise."""
    names = list(dict.fromkeys(found))
    if wanted:
        if wanted not in names:
            raise InputError(f"{file}: {unknown(kind, wanted, names)}")
        return wanted
    if not names:
        raise InputError(f"{file}: no {kind}; score it first")
    if len(names) > 1:
        raise InputError(f"{file}: several {kind}s ({', '.join(names)}); name one: {flag} {names[0]}")
    return names[0]


def _rows(file: Path, rows: list[Located], value: str, id: str) -> Results:
    columns = list(dict.fromkeys(k for _, row in rows for k in row))
    key = id or next((k for k in IDS if k in columns), "")
    if key not in columns:
        raise InputError(
            f"{file}: no column {id or ' or '.join(IDS)}, by which prompts are joined; it has {', '.join(columns)}: "
            "name one with --id"
        )
    if not value and not set(VALUES) & set(columns):
        raise InputError(f"{file}: no column {', '.join(VALUES)}; it has {', '.join(columns)}: name one with --value")
    name = _chosen(file, "value column", "--value", value, columns if value else [v for v in VALUES if v in columns])
    found, texts = [], {}
    for place, row in rows:
        if name not in row:
            raise InputError(f"{place}: no field {name!r}; write null where there is no value")
        prompt = _prompt_id(place, key, row.get(key))
        found.append((prompt, as_value(place, name, row[name])))
        if isinstance(row.get("prompt"), str):
            texts[prompt] = row["prompt"][:_TEXT]
    return Results(file.name, _collected(found), name, (), texts)


def _lm_eval(file: Path, rows: list[Located], value: str, filter: str) -> Results:
    wanted = _chosen(file, "filter", "--filter", filter, (str(row.get("filter", "none")) for _, row in rows))
    rows = [(place, row) for place, row in rows if str(row.get("filter", "none")) == wanted]
    named = [m for _, row in rows for m in row.get("metrics") or sorted(row.keys() - _LM_EVAL)]
    metric = _chosen(file, "metric", "--value", value, named)
    found = []
    for place, row in rows:
        if metric not in row:
            raise InputError(f"{place}: no field {metric!r}; write null where there is no value")
        found.append((_prompt_id(place, "doc_hash", row.get("doc_hash")), as_value(place, metric, row[metric])))
    return Results(file.name, _collected(found), metric if wanted == "none" else f"{metric}, {wanted}")


def _table(file: Path, rows: list[Any], value: str) -> list[Results]:
    made = []
    for place, row in numbered(rows, str(file)):
        rewards = row.get("rewards")
        if not isinstance(rewards, dict) or not isinstance(row.get("name"), str):
            raise InputError(f"{place}: no rewards by prompt, so nothing can be paired; run `trimtab eval` again")
        values = {k: (as_value(place, k, v),) for k, v in rewards.items()}
        made.append(Results(row["name"], values, "reward"))
    if value:
        _chosen(file, "row", "--value", value, [r.name for r in made])
        made = [r for r in made if r.name == value]
    return made


def _of_folder(folder: Path, value: str) -> list[Results]:
    if (folder / "table.json").is_file():
        return load_results(folder / "table.json", value=value)
    raise InputError(f"{folder} is no run directory; name the result files in it ({folder}/*.jsonl)")


def _run(folder: Path, value: str, split: str) -> Results:
    store = Store(folder)
    reward = store.reward_name(split, value)
    groups = store.groups(split, reward)
    if not reward:
        raise InputError(f"{folder}: completions {split!r} have no rewards yet; score them first")
    values = {g.prompt.id: tuple(float(r.value) for r in g.rewards) for g in groups}
    alone = {g.prompt.id: g.prompt.messages[0].get("content") for g in groups if len(g.prompt.messages) == 1}
    return Results(
        folder.name, values, reward, (), {k: text[:_TEXT] for k, text in alone.items() if isinstance(text, str)}
    )


def _unzipped(file: Path) -> tuple[list[Any], str]:
    """(summaries of samples, status) of an Inspect log. A run that was stopped has its journal only."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            parts = [n for n in names if n == "summaries.json"] or sorted(
                (n for n in names if n.startswith("_journal/summaries/")), key=lambda n: (len(n), n)
            )
            samples = [s for name in parts for s in _list(file, name, _json_entry(file, archive, name))]
            header = _json_entry(file, archive, "header.json") if "header.json" in names else {}
    except (zipfile.BadZipFile, OSError) as e:
        raise InputError(f"{file}: is no readable Inspect log ({e}); is it cut off or damaged?") from e
    if not parts:
        raise InputError(f"{file}: is no Inspect log with samples (no summaries.json in it)")
    return samples, str(header.get("status", "started")) if isinstance(header, dict) else "started"


def _json_entry(file: Path, archive: zipfile.ZipFile, name: str) -> Any:
    try:
        return json.loads(entry(file, archive, name))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{file}: {name} in it is not JSON ({e})") from e


def _list(file: Path, name: str, found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise InputError(f"{file}: {name} in it must be a list of samples, got {short(found)}")
    return found


def _scores(sample: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of a sample's scores; a scorer that gives several values is `scorer.key` for each."""
    scores = sample.get("scores")
    for scorer, score in (scores if isinstance(scores, dict) else {}).items():
        value = score.get("value") if isinstance(score, dict) else score
        if isinstance(value, dict):
            yield from ((f"{scorer}.{key}", v) for key, v in value.items())
        else:
            yield scorer, value


def _inspect(file: str, samples: list[Any], status: str, value: str) -> Results:
    last = {}  # a sample that was tried again stands again in a journal
    for place, sample in numbered(samples, file):
        prompt = _prompt_id(place, "id", sample.get("id"))
        last[prompt, sample.get("epoch", 1)] = place, sample
    if not last:
        raise InputError(f"{file}: this Inspect log has no samples (status {status!r})")
    scores = {key: dict(_scores(sample)) for key, (_, sample) in last.items()}
    name = _chosen(file, "scorer", "--value", value, (n for found in scores.values() for n in found))
    found, texts = [], {}
    for (prompt, epoch), (place, sample) in last.items():
        found.append((prompt, as_value(place, f"scores.{name}.value", scores[prompt, epoch].get(name))))
        if isinstance(sample.get("input"), str):
            texts[prompt] = sample["input"][:_TEXT]
    notes = [] if status == "success" else [f"its status is {status!r}: samples may be missing"]
    if lost := sum(bool(sample.get("error")) for _, sample in last.values()):
        notes.append(f"{lost} samples ended in an error")
    return Results(Path(file).name, _collected(found), name, tuple(notes), texts)
