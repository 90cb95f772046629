"""Where prompts come from: files, rows and generated tasks, each to a list of `Prompt`.

A source is one function whose docstring shows one real row. Every complaint names the file, the line and the field.
It does not apply chat templates (lm.chat does) and does not split (splits.py does).
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from trimtab.data.messages import SYSTEM, prompt_messages
from trimtab.data.rows import KINDS, check_depth, kind_of, numbered, read_rows, short
from trimtab.data.tasks.answers import TASKS
from trimtab.data.tasks.code import CODE_TASKS
from trimtab.errors import InputError, unknown
from trimtab.types import Prompt, canonical_json, fingerprint

INSTRUCTION = "Reply with the final answer alone."


def from_file(
    path: str | os.PathLike[str], *, chat: bool = True, prompt: str = "prompt", id: str = "id"
) -> list[Prompt]:
    r"""Prompts from a file of rows (JSON lines, JSON, CSV, Parquet, also compressed); `prompt` and `id` name columns.

        {"prompt": "What is 2 + 3?", "answer": "5"}
        {"id": "q7", "prompt": [{"role": "user", "content": "Name a prime."}], "tests": ["is_prime(x)"]}

    A prompt that is text becomes one user message, or with `chat=False` raw text that no template touches. `system` and
    `tools` go to the messages (`data.messages`), all other columns to the target, a dict. Without an id the fingerprint
    of messages and target serves. Rows that repeat an id with the same content are dropped with a warning that counts
    them. InputError names the file, line and column: what `data.rows` refuses, no prompt, wrong messages, an id used
    twice for different content.
    """
    return _from_file(path, "", chat, prompt, id)


def from_jsonl(
    path: str | os.PathLike[str], *, chat: bool = True, prompt: str = "prompt", id: str = "id"
) -> list[Prompt]:
    """`from_file` for JSON lines under any name."""
    return _from_file(path, ".jsonl", chat, prompt, id)


def from_parquet(
    path: str | os.PathLike[str], *, chat: bool = True, prompt: str = "prompt", id: str = "id"
) -> list[Prompt]:
    """`from_file` for Parquet under any name."""
    return _from_file(path, ".parquet", chat, prompt, id)


def from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    chat: bool = True,
    prompt: str = "prompt",
    id: str = "id",
    source: str = "rows",
) -> list[Prompt]:
    """Prompts from mappings such as a `datasets.Dataset` yields: the rules of `from_file`, rows counted from 1."""
    return _prompts(numbered(rows, source), source, chat=chat, prompt=prompt, id=id, source=source)


def _from_file(path: str | os.PathLike[str], kind: str, chat: bool, prompt: str, id: str) -> list[Prompt]:
    file = Path(path)
    rows = read_rows(file, kind=kind_of(file) or kind)
    return _prompts(rows, str(file), chat=chat, prompt=prompt, id=id, source=file.name)


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
    """Prompts by one word: "tasks.jsonl", "tasks.csv", "reasoning_gym/chain_sum", "mbpp" or a part of a task,
    "mbpp/train" or "bbh/date_understanding"; `options` (path, form, size, ...) go to the source."""
    kind, _, task = spec.partition("/")
    if kind == "reasoning_gym" and task:
        return reasoning_gym(task, **options)
    if kind_of(spec):
        return from_file(spec, **options)
    if kind in TASKS or kind in CODE_TASKS:
        parts = (task,) if task else ()
        try:
            return SOURCES[kind](*parts, **options)
        except TypeError as e:
            raise InputError(f"task {spec!r} refuses its options {options}: {e}") from e
    raise InputError(
        f"{spec!r} names no prompts: give a file of rows ({', '.join(KINDS)}), reasoning_gym/<task>, or one of "
        f"{', '.join([*TASKS, *CODE_TASKS])}"
    )


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


def _prompt(where: str, row: Mapping[str, Any], *, chat: bool, prompt: str, id: str, source: str) -> Prompt:
    if prompt not in row:
        raise InputError(f"{where}: no column {prompt!r}; it has: {', '.join(map(str, row)) or '(none)'}")
    messages = prompt_messages(where, row, row[prompt], chat=chat, field=prompt)
    target = {k: v for k, v in row.items() if k not in (prompt, id, "tools", *SYSTEM)}
    check_depth(where, target)
    name = row.get(id)
    if name is None:
        name = fingerprint([messages, target])
    elif not isinstance(name, str | int) or isinstance(name, bool) or name == "":
        raise InputError(f"{where}: {id!r} must be text or a whole number, got {short(name)}")
    return Prompt(str(name), messages, target, source)
