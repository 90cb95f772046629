"""A task file (TOML) and flags over it become one frozen, checked `Task`; unknown keys and wrong types are errors.

Config stops here: the stages pass plain keyword arguments on.
"""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.cli.assignments import assignment
from trimtab.cli.limits import check_limits
from trimtab.cli.sections import Judging, Model, Task
from trimtab.errors import InputError, unknown
from trimtab.jobs.prompts import looks_like_file
from trimtab.json_file import read_json
from trimtab.named import search

REMEMBERED = "task.json"
"""The resolved task in a run directory, so that later verbs need only `--out`."""


def load_task(path: str | Path | None, overrides: Mapping[str, Any] | None = None, sets: Sequence[str] = ()) -> Task:
    """Reads a task file and lays flags over it: `overrides` maps "section.key" to a value (None is not given), `sets`
    are "section.key=TOML value" strings. Without a file, the run directory that `out` names gives the task it was begun
    with, and its prompts are those in the store; `path` may be such a directory. InputError names the file, the key and
    the nearest known key."""
    given = {k: v for k, v in {**(overrides or {}), **dict(_parse_set(s) for s in sets)}.items() if v is not None}
    if path is not None and Path(path).is_dir():
        given.setdefault("out", str(path))
        path = None
    remembered = Path(given.get("out", Task.out)) / REMEMBERED
    if path is None and remembered.exists():
        path, tree = remembered, _remembered(remembered)
        if not any(key.startswith("data.") for key in given):
            tree["data"]["prompts"] = ""  # the store's: the file may be elsewhere by now, or another
    else:
        tree = _read(path) if path is not None else {}
        tree |= {"home": str(Path(path).absolute().parent)} if path is not None else {}
    where = str(path or "the command line")
    for key, value in given.items():
        _lay(tree, key, value, where)
    task = _build(Task, tree, where, "")
    check_limits(task)
    if task.home and Path(task.home).is_dir():
        search(task.home)
    return task


def _remembered(file: Path) -> dict[str, Any]:
    """The task that a run was begun with; what an older version did not know has its default."""
    do = "give the task file again with --config"
    tree = read_json(file, "a task of trimtab", {"data?": dict, "out?": str, "home?": str}, do=do)
    tree.setdefault("data", {})
    return tree


def _lay(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Puts `value` at "section.key" of the tree."""
    *sections, last = key.split(".")
    for s in sections:
        tree = tree.setdefault(s, {})
        if not isinstance(tree, dict):
            raise InputError(f"{where}: {key} cannot be set, for {s} is not a section")
    tree[last] = value


def load_model(path: str | None, overrides: Mapping[str, Any], sets: Sequence[str] = ()) -> Model:
    """The [model] of a judge's file, flags over it as in `load_task`."""
    tree, where = _read(path) if path is not None else {}, str(path or "the command line")
    for key, value in {**overrides, **dict(_parse_set(s) for s in sets)}.items():
        if value is not None:
            _lay(tree, key, value, where)
    judging = _build(Judging, tree, where, "")
    check_limits(judging)
    return judging.model


def read_sections(cls: Any, path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Any:
    """Another verb's file as its frozen dataclass `cls`, as strictly; `overrides` that are None are not given."""
    tree = _read(path) if path is not None else {}
    tree |= {k: v for k, v in (overrides or {}).items() if v is not None}
    built = _build(cls, tree, str(path or "the command line"), "")
    check_limits(built)
    return built


def _read(path: str | Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such task file{'' if Path(path).suffix else ' or run directory'}") from None
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror or e}); check the path and its permissions") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InputError(f"{path}: not valid TOML: {e}") from None
    _relative_to(Path(path).parent, tree)
    return tree


ELSEWHERE = {"data": ("shots_from",), "model": ("name",), "embed": ("model",)}
"""Keys whose value may be a folder beside the task file, where the current folder has none of that name."""


def _relative_to(folder: Path, tree: dict[str, Any]) -> None:
    """Files and folders named in a task file are relative to it, as in every tool that has such a file."""
    folder = folder.absolute()
    data = tree.get("data")
    for key in ("prompts", "test_prompts"):
        if isinstance(data, dict) and isinstance(value := data.get(key), str) and looks_like_file(value):
            data[key] = str(folder / value)
    for section, keys in ELSEWHERE.items():
        values: Any = tree.get(section)
        for key in keys if isinstance(values, dict) else ():
            value = values.get(key)
            if isinstance(value, str) and value and not Path(value).exists() and (folder / value).exists():
                values[key] = str(folder / value)


def _parse_set(text: str) -> tuple[str, Any]:
    key, value = assignment("--set", text, "section.key=value, for example --set embed.layers=[16,20]")
    try:
        return key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()  # a bare word is a string


def _build(cls: Any, tree: Mapping[str, Any], where: str, prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    for key in tree:
        if key not in hints:
            raise InputError(f"{where}: {unknown('key', prefix + key, (prefix + h for h in hints))}")
    return cls(**{k: _check(hints[k], v, where, prefix + k) for k, v in tree.items()})


def _check(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: [{key}] is a section, not {value!r}")
        return _build(hint, value, where, key + ".")
    origin = typing.get_origin(hint)
    base = origin if isinstance(origin, type) else hint
    if isinstance(hint, types.GenericAlias) and origin is list and isinstance(value, list):
        (item,) = typing.get_args(hint)
        return [_check(item, v, where, f"{key}[{n}]") for n, v in enumerate(value)]
    if base is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, base) or (base is int and isinstance(value, bool)):
        raise InputError(f"{where}: {key} must be {getattr(base, '__name__', base)}, not {value!r}")
    return value
