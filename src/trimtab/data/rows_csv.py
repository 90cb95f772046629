"""CSV files to (place, row), as spreadsheets and pandas write them: the part of `data.rows` that knows delimiters.

A cell is text, and an empty one is None. The delimiter (comma, semicolon, tab) is the one that the header uses most.
Rows that do not fit the header, quotes that never close and names used twice are refused with their line.
"""

import csv
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtab.data.rows import opened, text_of_file
from trimtab.errors import InputError

_LIMIT = 2**31 - 1
"""Characters a field may have; csv's own limit of 131,072 is less than one long answer."""


def csv_rows(file: Path, *, tabs: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, row) of every row that is not blank; the header is the first line."""
    text = _text(file)
    if "\0" in text:
        raise InputError(f"{file}: holds NUL characters, so it is no CSV file; save it as UTF-8 text")
    delimiter = "\t" if tabs else ""
    skip = 0
    if text[:4].lower() == "sep=" and not tabs:  # how a spreadsheet says which delimiter it used
        delimiter, skip = text[4:5], 1
    records = _records(file, text, delimiter or _delimiter(text))[skip:]
    if not records:
        return
    names = _names(file, records[0], records[1:])
    for line, fields in records[1:]:
        if not any(f.strip() for f in fields):
            continue
        if len(fields) != len(names):
            raise InputError(
                f"{file}:{line}: {len(fields)} fields where the header names {len(names)} columns; is a quote or a "
                "delimiter missing?"
            )
        yield f"{file}:{line}", {n: f if f != "" else None for n, f in zip(names, fields, strict=True) if n}


def _text(file: Path) -> str:
    try:
        return text_of_file(file)
    except InputError as e:
        if ": not UTF-8" not in str(e):
            raise
        with opened(file) as stream:
            data = stream.read()
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise e from None
        if "\0" in text:
            return text
        warnings.warn(f"{e}; read as Windows-1252, so check accents, or save it as UTF-8", stacklevel=2)
        return text


def _delimiter(text: str) -> str:
    """The delimiter that divides the header into most columns; comma where none does."""
    first = text.partition("\n")[0]
    try:
        count = {d: len(next(csv.reader([first], delimiter=d), [])) for d in ",;\t"}
    except csv.Error:
        return ","
    return max(count, key=lambda d: count[d])


def _records(file: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """(line of its beginning, fields) of every record."""
    before, line, records = csv.field_size_limit(_LIMIT), 0, []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for fields in reader:
            records.append((line + 1, fields))
            line = reader.line_num
    except (csv.Error, TypeError, ValueError) as e:  # TypeError, ValueError: a delimiter that csv does not take
        raise InputError(f"{file}:{line + 1}: not CSV ({e}); is a quote missing?") from e
    finally:
        csv.field_size_limit(before)
    return records


def _names(file: Path, header: tuple[int, list[str]], records: list[tuple[int, list[str]]]) -> list[str]:
    """Column names; "" for unnamed columns without content. A first unnamed one is pandas' index, "column 1"."""
    line, names = header[0], [n.strip() for n in header[1]]
    for i, name in enumerate(names):
        if not name and any(len(fields) > i and fields[i] for _, fields in records):
            if i:
                raise InputError(f"{file}:{line}: column {i + 1} has cells but no name; name it or remove it")
            names[0] = "column 1"
        elif name and names.index(name) != i:
            raise InputError(f"{file}:{line}: two columns are called {name!r}; rename one")
    return names
