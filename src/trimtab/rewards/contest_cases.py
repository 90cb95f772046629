"""Columns of a data set to test cases: inputs and outputs of a program, as APPS, TACO, CodeContests, LiveCodeBench and
others of competitions give them.

Two kinds: text for stdin with the text expected on stdout, and arguments of a function (or of a method of LeetCode's
`class Solution`) with its value. The second becomes Python tests. Nothing here runs a program.
"""

import base64
import json
import pickletools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

TOLERANCE = Decimal("1e-6")  # relative or absolute, of numbers written with a point, as judges of contests allow
NODES = ("ListNode", "TreeNode")
SITE = (
    "from typing import *; from collections import *; from itertools import *; from functools import *; "
    "from heapq import *; from bisect import *; from math import inf; import sys, math, re, string, random, operator, "
    "collections, itertools, functools, heapq, bisect, datetime, copy\n"
)
"""What the sites that these tasks come from import for every program; the program's own names win."""
COMPARE = """
def _plain(x):
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in x]
    return {k: _plain(v) for k, v in x.items()} if isinstance(x, dict) else x
def _near(a, b):
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_near, a, b))
    if type(a) is float or type(b) is float:
        return type(a) in (int, float) and type(b) in (int, float) and abs(a - b) <= 1e-6 * max(1.0, abs(b))
    return type(a) == type(b) and a == b
def _same(got, *wanted):
    return any(_near(_plain(got), _plain(w)) for w in wanted)
"""


class Unreadable(Exception):
    """The columns look like test cases and cannot be read; the text says why."""


@dataclass(frozen=True)
class Cases:
    """`pairs` of stdin and stdout; or, with `function`, of argument lists and the values allowed."""

    pairs: tuple[tuple[Any, Any], ...]
    function: str = ""

    def tests(self, call: str) -> str:
        """Python tests that call `call`."""
        lines = [
            f"assert _same({call}({', '.join(map(repr, args))}), {', '.join(map(repr, wanted))})"
            for args, wanted in self.pairs
        ]
        return COMPARE + "\n".join(lines)


def read_cases(columns: Mapping[str, Any]) -> Cases | None:
    """The test cases of a target, None when it has none in these forms; Unreadable when it has and they are broken."""
    if any(n in str(columns.get("starter_code") or "") for n in NODES):
        raise Unreadable("the task passes linked nodes or trees, which no data describes")
    if (found := _table(columns.get("input_output"))) is not None:
        return _in_out(found)
    contests = [_table(columns.get(k)) for k in ("public_tests", "private_tests", "generated_tests")]
    if any(contests):
        return _in_out({
            "inputs": [x for t in contests if t for x in t.get("input", ())],
            "outputs": [x for t in contests if t for x in t.get("output", ())],
        })  # fmt: skip
    listed = [_listed(columns.get(k)) for k in ("public_test_cases", "private_test_cases", "official_tests", "tests")]
    if any(listed):
        return _from_rows([row for rows in listed if rows for row in rows], columns)
    if (found := _table(columns.get("tests"))) is not None:
        return _in_out(found)
    if "inputs" in columns and "outputs" in columns:
        return _in_out({**columns, "inputs": _json(columns["inputs"]), "outputs": _json(columns["outputs"])})
    return None


def same_output(got: str, wanted: str) -> bool:
    """Whether a program printed what is expected: line by line but for trailing space, numbers by value."""
    a, b = ([line.split() for line in text.rstrip().split("\n")] for text in (got, wanted))
    if len(a) != len(b):
        return False
    return all(len(x) == len(y) and all(map(_same_word, x, y)) for x, y in zip(a, b, strict=True))


def _same_word(got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    try:
        x, y = Decimal(got), Decimal(wanted)
        if "." not in wanted and "e" not in wanted.lower():
            return False  # whole numbers are written in one way
        return abs(x - y) <= TOLERANCE * max(Decimal(1), abs(y))
    except (InvalidOperation, ValueError):
        return False


def _in_out(table: Mapping[str, Any]) -> Cases:
    """{"inputs": [...], "outputs": [...], "fn_name"?}: APPS' and TACO's form."""
    inputs, outputs, name = table.get("inputs"), table.get("outputs"), str(table.get("fn_name") or "")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
        raise Unreadable("'inputs' and 'outputs' must be two lists of one length, not empty")
    if not name:
        return Cases(tuple((_text(i), _text(o)) for i, o in zip(inputs, outputs, strict=True)))
    pairs = []
    for args, out in zip(inputs, outputs, strict=True):
        if not isinstance(args, list):
            raise Unreadable(f"arguments of {name!r} must be a list, got {str(args)[:60]!r}")
        # APPS wraps the value in a list, others do not: both are allowed, as in its own checker
        wanted = (out, out[0]) if isinstance(out, list) and len(out) == 1 else (out,)
        pairs.append((args, wanted))
    return Cases(tuple(pairs), name)


def _from_rows(rows: Sequence[Any], columns: Mapping[str, Any]) -> Cases:
    """[{"input", "output", "testtype"?}, ...]: LiveCodeBench's form; functions take a line of JSON an argument."""
    if not all(isinstance(r, Mapping) and "input" in r and "output" in r for r in rows):
        raise Unreadable("every test case must be a table with 'input' and 'output'")
    kinds = {str(r.get("testtype") or r.get("type") or "stdin") for r in rows}
    name = str((_table(columns.get("metadata")) or columns).get("func_name") or rows[0].get("fn_name") or "")
    if len(kinds) > 1 or (("functional" in kinds or "function_call" in kinds) and not name):
        raise Unreadable(f"test cases of the kinds {', '.join(sorted(kinds))} without the name of a function")
    if not name or kinds == {"stdin"}:
        return Cases(tuple((_text(r["input"]), _text(r["output"])) for r in rows))
    pairs = [(_arguments(r["input"]), (_value(r["output"]),)) for r in rows]
    return Cases(tuple(pairs), name)


def _arguments(given: Any) -> list[Any]:
    if isinstance(given, list):
        return given
    return [_value(line) for line in str(given).split("\n") if line.strip()]


def _value(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError as e:
        raise Unreadable(f"an argument or value is not JSON: {text[:60]!r}") from e


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _table(value: Any) -> Mapping[str, Any] | None:
    found = _json(value)
    return found if isinstance(found, Mapping) and found else None


def _listed(value: Any) -> list[Any]:
    """A list of tables, or nothing; LiveCodeBench's private cases are packed once more."""
    found = _json(value)
    if isinstance(found, str) and len(found) > 40 and found.isascii() and " " not in found and "\n" not in found:
        found = _json(_unpacked(found))
    return found if isinstance(found, list) and found and all(isinstance(r, Mapping) for r in found) else []


def _unpacked(packed: str) -> str:
    """The one text in a pickle that was packed by zlib and base64. The pickle is read, never executed."""
    try:
        parts = list(pickletools.genops(zlib.decompress(base64.b64decode(packed, validate=True))))
    except Exception as e:
        raise Unreadable(f"private test cases that are neither JSON nor packed as LiveCodeBench does: {e}") from e
    texts = [arg for op, arg, _ in parts if "UNICODE" in op.name]
    if len(texts) != 1 or any(op.name in ("GLOBAL", "STACK_GLOBAL", "REDUCE") for op, _, _ in parts):
        raise Unreadable("private test cases whose pickle holds more than one text")
    return str(texts[0])
