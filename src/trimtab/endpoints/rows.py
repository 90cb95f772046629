"""Answers of one row a text (vectors, rewards): rows in the order of the texts, and errors inside a success."""

from collections.abc import Mapping
from typing import Any

from trimtab.endpoints.faults import Trouble, error_in, judged


def in_order(rows: Any, count: int) -> list[Any]:
    """Rows of a reply by their `index` (a number, also as text), or as given where none has one. ValueError for another
    number of rows than texts, and for indices that are not 0 to count - 1."""
    if not isinstance(rows, list) or len(rows) != count:
        raise ValueError(f"{len(rows) if isinstance(rows, list) else 'no'} rows for {count} texts")
    given = [r.get("index") if isinstance(r, Mapping) else None for r in rows]
    if all(i is None for i in given):
        return rows
    places = [int(i) if i is not None else -1 for i in given]
    if sorted(places) != list(range(count)):
        raise ValueError(f"index is {given[:8]}, not 0 to {count - 1} once each")
    return [rows[k] for k in sorted(range(count), key=places.__getitem__)]


def error_check(payload: Any) -> Trouble | None:
    """The error inside an answer that should hold `data`."""
    found = error_in(payload, "data")
    return judged(found[0], found[1], {}, kind=found[2], hidden=True) if found else None
