"""Where prompts come from: files, rows and generated tasks, each to a list of `Prompt`.

A source is one function whose docstring shows one real row. Every complaint names the file, the line and the field.
It does not apply chat templates (models.chat does) and does not split (splits.py does).
"""

import gzip
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from trimtab.data.tasks import TASKS
from trimtab.data.tasks_code import CODE_TASKS
from trimtab.errors import InputError, unknown
from trimtab.types import Message, Prompt, canonical_json, fingerprint

ROLES = ("system", "developer", "user", "assistant", "tool", "text")
INSTRUCTION = "Reply with the final answer alone."


def from_jsonl(
    path: str | os.PathLike[str], *, chat: bool = True, prompt: str = "prompt", id: str = "id"
) -> list[Prompt]:
    r"""Prompts from a file of JSON lines (`.jsonl` or `.jsonl.gz`); `prompt` and `id` name the columns.

        {"prompt": "What is 2 + 3?", "answer": "5"}
        {"id": "q7", "prompt": [{"role": "user", "content": "Name a prime."}], "tests": ["is_prime(x)"]}

    A prompt that is text becomes one user message, or with `chat=False` raw text that no template touches. All other
    columns become the target, a dict. Without an id the fingerprint of messages and target serves. Rows that repeat an
    id with the same content are dropped with a warning that counts them.
    InputError names the file, line and field: empty line, not JSON, not an object, no prompt, wrong messages, an id
    used twice for different content, an empty file.
    """
    file = Path(path)
    located = ((f"{file}:{n}", _parse(f"{file}:{n}", line)) for n, line in enumerate(_lines(file), 1))
    return _prompts(located, str(file), chat=chat, prompt=prompt, id=id, source=file.name)


def from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    chat: bool = True,
    prompt: str = "prompt",
    id: str = "id",
    source: str = "rows",
) -> list[Prompt]:
    """Prompts from mappings such as a `datasets.Dataset` yields: the rules of `from_jsonl`, rows counted from 1."""
    located = ((f"{source}, row {n}", row) for n, row in enumerate(rows, 1))
    return _prompts(located, source, chat=chat, prompt=prompt, id=id, source=source)


def from_parquet(
    path: str | os.PathLike[str], *, chat: bool = True, prompt: str = "prompt", id: str = "id"
) -> list[Prompt]:
    """Prompts from a Parquet file; the same columns and rules as `from_jsonl`, rows counted from 1."""
    import pyarrow as pa
    import pyarrow.parquet

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as e:
        raise InputError(f"{file} is not a readable Parquet file: {e}") from e
    located = ((f"{file}, row {n}", row) for n, row in enumerate(rows, 1))
    return _prompts(located, str(file), chat=chat, prompt=prompt, id=id, source=file.name)


def reasoning_gym(
    name: str, size: int, seed: int = 0, *, instruction: str = INSTRUCTION, system: str = "", **config: Any
) -> list[Prompt]:
    """`size` distinct prompts of a reasoning-gym task, e.g. ("chain_sum", 250, min_terms=2, max_terms=3).

        Prompt(messages=({"role": "user", "content": "State the final answer to the following arithmetic problem: "
               "4 - 1 =\\nReply with the final answer alone."},), source="reasoning_gym/chain_sum",
               target={"question": "State the final ...", "answer": "3", "metadata": {"expression": "4 - 1", ...}})

    `system` is a system prompt, which then stands in the place of `instruction`: a text, or the name of one of
    reasoning-gym's own ("direct": the answer alone, between <answer> tags).
    The target is reasoning-gym's whole entry, so that its own verifier can score completions. The id is a hash of task
    and question, so a question drawn again, even by another seed, has the same id; repeats within a draw are skipped.
    InputError: unknown task or setting, or a task with fewer than `size` distinct questions in 16 x `size` draws.
    """
    import_error = "reasoning-gym is not installed: pip install 'trimtab[tasks]'"
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
        from reasoning_gym.utils import SYSTEM_PROMPTS
    except ImportError as e:
        raise InputError(import_error) from e
    if name not in DATASETS:
        raise unknown("reasoning-gym task", name, DATASETS)
    if system and " " not in system and system not in SYSTEM_PROMPTS:
        raise unknown("system prompt of reasoning-gym", system, SYSTEM_PROMPTS)
    before = ({"role": "system", "content": SYSTEM_PROMPTS.get(system, system).strip()},) if system else ()
    instruction = "" if system else instruction
    known = {f.name for f in fields(DATASETS[name][1])} - {"seed", "size"}
    for key in config:
        if key not in known:
            raise unknown(f"setting of reasoning-gym's {name}", key, known)
    entries: dict[str, Any] = {}
    draws = size
    while len(entries) < size:
        if draws > 16 * size:
            raise InputError(
                f"reasoning-gym's {name} gave only {len(entries)} distinct questions in {draws // 2} draws; "
                f"ask for at most {len(entries)} or widen its settings"
            )
        try:
            dataset = create_dataset(name, size=draws, seed=seed, **config)
            for entry in (dataset[i] for i in range(draws)):
                entries.setdefault(entry["question"], entry)
        except (AssertionError, ValueError) as e:
            raise InputError(f"reasoning-gym's {name} refuses size={draws}, seed={seed}, {config}: {e}") from e
        draws *= 2
    source = f"reasoning_gym/{name}"
    return [
        Prompt(
            fingerprint([source, question]),
            (
                *before,
                {"role": "user", "content": f"{question}\n{instruction}".strip()},
            ),
            json.loads(canonical_json(entry)),
            source,
        )
        for question, entry in list(entries.items())[:size]
    ]


SOURCES: dict[str, Callable[..., list[Prompt]]] = {
    "jsonl": from_jsonl,
    "parquet": from_parquet,
    "reasoning_gym": reasoning_gym,
    **TASKS,
    **CODE_TASKS,
}


def load(spec: str, **options: Any) -> list[Prompt]:
    """Prompts by one word: "tasks.jsonl", "tasks.parquet", "reasoning_gym/chain_sum", "mbpp" or a part of a task,
    "mbpp/train" or "bbh/date_understanding"; `options` (path, form, size, ...) go to the source."""
    kind, _, task = spec.partition("/")
    if kind == "reasoning_gym" and task:
        return reasoning_gym(task, **options)
    if spec.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
        return from_jsonl(spec, **options)
    if spec.endswith(".parquet"):
        return from_parquet(spec, **options)
    if kind in TASKS or kind in CODE_TASKS:
        parts = (task,) if task else ()
        try:
            return SOURCES[kind](*parts, **options)
        except TypeError as e:
            raise InputError(f"task {spec!r} refuses its options {options}: {e}") from e
    raise InputError(
        f"{spec!r} names no prompts: give a .jsonl or .parquet file, reasoning_gym/<task>, or one of "
        f"{', '.join([*TASKS, *CODE_TASKS])}"
    )


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as f:
            yield from f
    except (OSError, EOFError) as e:
        raise InputError(f"{file} cannot be read: {e}") from e


def _parse(where: str, line: bytes) -> Any:
    try:
        text = line.decode("utf-8-sig" if where.endswith(":1") else "utf-8").strip()
    except UnicodeDecodeError as e:
        raise InputError(f"{where}: not UTF-8 ({e}); save the file as UTF-8") from e
    if not text:
        raise InputError(f"{where}: empty line; remove it")
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as e:
        raise InputError(f"{where}: not JSON ({e}); every line must be one JSON object") from e


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _prompts(
    located: Iterable[tuple[str, Any]], whole: str, *, chat: bool, prompt: str, id: str, source: str
) -> list[Prompt]:
    """Located rows to prompts; drops identical repeats and warns how many."""
    found: dict[str, tuple[str, Prompt]] = {}
    repeats = 0
    for where, row in located:
        p = _prompt(where, row, chat=chat, prompt=prompt, id=id, source=source)
        first, old = found.setdefault(p.id, (where, p))
        if old is p:
            continue
        if canonical_json(old) != canonical_json(p):
            raise InputError(f"{where}: id {p.id!r} was used at {first} for other content; ids must be unique")
        repeats += 1
    if not found:
        raise InputError(f"{whole} holds no prompts")
    if repeats:
        warnings.warn(f"{whole}: dropped {repeats} identical repeats of rows", stacklevel=3)
    return [p for _, p in found.values()]


def _prompt(where: str, row: Any, *, chat: bool, prompt: str, id: str, source: str) -> Prompt:
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected a JSON object with a {prompt!r}, got {_kind(row)}")
    if prompt not in row:
        raise InputError(f"{where}: no column {prompt!r}; it has: {', '.join(map(str, row)) or '(none)'}")
    messages = _messages(f"{where}: {prompt!r}", row[prompt], chat)
    target = {k: v for k, v in row.items() if k not in (prompt, id)}
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as e:  # JSON can spell half a character; no file or tokenizer can hold it
        raise InputError(f"{where}: half a surrogate pair, {e.object[e.start]!r}, is no character; remove it") from e
    name = row.get(id)
    if name is None:
        name = fingerprint([messages, target])
    elif not isinstance(name, str | int) or isinstance(name, bool) or name == "":
        raise InputError(f"{where}: {id!r} must be text or a whole number, got {_kind(name)}")
    return Prompt(str(name), messages, target, source)


def _messages(where: str, value: Any, chat: bool) -> tuple[Message, ...]:
    if isinstance(value, str):
        if not value.strip():
            raise InputError(f"{where} is empty")
        return ({"role": "user" if chat else "text", "content": value},)
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{where} must be text or a list of messages, got {_kind(value)}")
    if not chat:
        raise InputError(f"{where} is a list of messages, but chat=False asks for raw text; set chat=True")
    for n, m in enumerate(value):
        ok = isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        if not ok:
            raise InputError(f"{where}, message {n}: expected {{'role': text, 'content': text}}, got {_kind(m)}")
        if m["role"] not in ROLES:
            raise InputError(f"{where}, message {n}: {unknown('role', m['role'], ROLES)}")
        if m["role"] == "text" and len(value) > 1:
            raise InputError(f"{where}, message {n}: role 'text' is raw text and must be the only message")
    return tuple({k: v for k, v in m.items() if isinstance(v, str)} for m in value)


def _kind(value: Any) -> str:
    """A JSON value in a few words for an error: its type and its beginning."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
