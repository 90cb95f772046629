"""JSON files that are read again: objects with the kinds of value that they must have, or an error.

The error names the file, the key and what to do. No kind of file is known here: who reads one says what it needs.
"""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from trimtab.errors import InputError, TrimtabError

Kinds = Mapping[str, type | tuple[type, ...]]
NUMBER = (int, float)
_NAMES = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a whole number"}


def read_json(
    file: str | PathLike[str], what: str, kinds: Kinds | None = None, *, do: str = "restore it, or make it again",
    error: type[TrimtabError] = InputError,
) -> dict[str, Any]:  # fmt: skip
    """The JSON object of `file`, which is `what` ("a policy's card"). `error` names the file and says what to `do`.

    `kinds` are the types of its values by key; "settings.model" is a key of an object inside, and one with "?" at its
    end may be absent.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as e:
        raise error(f"{file}: cannot be read ({e.strerror or e}); it should be {what}: {do}") from e
    except UnicodeDecodeError as e:
        raise error(f"{file}: cannot be read, it is not UTF-8 ({e}); it should be {what}: {do}") from e
    return parse_json(text, str(file), what, kinds, do=do, error=error)


def parse_json(
    text: str, where: str, what: str, kinds: Kinds | None = None, *, do: str = "restore it, or make it again",
    error: type[TrimtabError] = InputError,
) -> dict[str, Any]:  # fmt: skip
    """`read_json` of a text that is there already: a line of `where`, "pairs.jsonl:3"."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise error(f"{where}: cannot be read, it is not JSON ({e}); it should be {what}: {do}") from e
    problem = _problem(found, kinds or {})
    if problem:
        raise error(f"{where}: is not {what}: {problem}; {do}")
    return found


def _problem(found: Any, kinds: Kinds) -> str:
    if not isinstance(found, dict):
        return f"it is {type(found).__name__}, not an object"
    for path, wanted in kinds.items():
        *outer, last = path.removesuffix("?").split(".")
        value: Any = found
        for key in outer:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, dict) or last not in value:
            if not path.endswith("?"):
                return f"it has no {path}"
        elif not _is(value[last], wanted):
            names = " or ".join(_NAMES.get(k, k.__name__) for k in (wanted if isinstance(wanted, tuple) else (wanted,)))
            return f"its {path.removesuffix('?')} is {str(value[last])[:60]!r}, not {names}"
    return ""


def _is(value: Any, wanted: type | tuple[type, ...]) -> bool:
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def read_lines(file: str | PathLike[str], what: str, *, do: str = "restore it, or make it again") -> list[str]:
    """The lines of a file of JSON lines, `what` it should be; only "\\n" ends one, as JSON allows the other breaks."""
    try:
        text = Path(file).read_bytes().decode("utf-8")
    except OSError as e:
        raise InputError(f"{file}: cannot be read ({e.strerror or e}); it should be {what}: {do}") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{file}: is not UTF-8 ({e}); it should be {what}: {do}") from e
    return text.removesuffix("\n").split("\n") if text else []
