"""The one reader of row files: JSON lines, JSON, CSV, Parquet and hub data sets to (place, row), or a complaint.

    {"prompt": "2 + 3?", "answer": "5"}          .jsonl .ndjson: one object a line; blank lines at the end pass
    [{"prompt": "2 + 3?"}, ...]                  .json: a list, or an object that holds one list of rows
    prompt,answer                                .csv .tsv: commas, semicolons or tabs, found from the header
    2 + 3?,5

Any of them compressed (.gz .bz2 .xz .zst), UTF-8, or UTF-16 with its mark. A place is `file:line`, or `file: row n` in
Parquet, JSON and data sets. Whatever cannot be read is an InputError with its place; no file raises anything else.
"""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from trimtab.errors import InputError

Located = tuple[str, dict[str, Any]]
KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
CONVERSATIONS = ("prompt", "chosen", "rejected", "completion", "messages", "conversations", "tools")
"""Columns that hold messages or tools, in which Arrow fills absent keys with nulls."""


def kind_of(spec: str | Path) -> str:
    """The file's kind by its name (".jsonl", ".csv", ...), "" when it is none of KINDS."""
    path = Path(str(spec).lower())
    ending = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    return ending if ending in KINDS else ""


def read_rows(spec: str | Path, *, kind: str = "", nan: bool = False) -> Iterator[Located]:
    """(place, row) of every row of a file, or of a hub data set `org/name[:split]`.

    `kind` is one of KINDS, found by the name if absent. `nan` lets JSON spell NaN, as tables of measurements may; it is
    refused otherwise. InputError for anything that is wrong with the file, a file without rows, and a row that is no
    object.
    """
    kind = kind or kind_of(spec)
    if not kind:
        if not _is_hub_name(str(spec)):
            refuse_name(str(spec))
        repo, _, split = str(spec).partition(":")
        rows = numbered(from_hub(repo, split or "train"), str(spec))
    elif kind == ".parquet":
        rows = _parquet(Path(spec))
    elif kind in (".csv", ".tsv"):
        from trimtab.data.rows_csv import csv_rows

        rows = csv_rows(Path(spec), tabs=kind == ".tsv")
    else:
        rows = _json(Path(spec), nan) if kind == ".json" else _json_lines(Path(spec), nan)
    empty = True
    for where, row in rows:
        empty = False
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object with named columns, got {short(row)}")
        yield where, row
    if empty:
        raise InputError(f"{spec}: no rows")


def numbered(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[Located]:
    """Rows in memory with their places, counted from 1."""
    for n, row in enumerate(rows, 1):
        where = f"{source}: row {n}"
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: expected a JSON object with named columns, got {short(row)}")
        check_characters(where, row)
        yield where, dict(row)


def from_hub(name: str, split: str, config: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a data set on the hub. InputError without the package `datasets`, or when the set cannot be had."""
    try:
        import datasets
    except ImportError as e:
        raise InputError(f"{name} is no file; to read it from the hub: pip install datasets") from e
    try:
        rows: Any = datasets.load_dataset(name, config, split=split)
        yield from map(dict, rows)
    except InputError:
        raise
    except Exception as e:  # the hub raises many kinds
        raise InputError(f"{name} ({split}) cannot be had from the hub: {e}; give a file") from e


def short(value: Any) -> str:
    """A value in a few words for a complaint: its type and its beginning."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def refuse_name(spec: str) -> NoReturn:
    """InputError for a name that is no row file, saying what would be."""
    if spec.endswith((".pkl", ".pickle", ".pt", ".pth")):
        raise InputError(f"{spec} is a pickle, which runs code when opened; export it to Parquet or JSON lines first")
    raise InputError(
        f"{spec!r} is no file of rows ({', '.join(KINDS)}, also {', '.join(COMPRESSED)}) and no hub data set (org/name)"
    )


def check_characters(where: str, value: Any) -> None:
    """InputError for text with half a surrogate pair: JSON can spell it, no file or tokenizer can hold it."""
    check_depth(where, value)
    _check_characters(where, value)


def _check_characters(where: str, value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise InputError(f"{where}: half a surrogate pair, {value[e.start]!r}, is no character; remove it") from e
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _check_characters(where, key)
            _check_characters(where, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_characters(where, inner)


def check_depth(where: str, value: Any, depth: int = 100) -> None:
    """InputError for objects and lists more than `depth` deep inside each other, which nothing could write again."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if depth == 0 and inner:
        raise InputError(f"{where}: nested more than 100 deep; no row of data is")
    for v in inner:
        if isinstance(v, dict | list):
            check_depth(where, v, depth - 1)


@contextmanager
def opened(file: Path) -> Iterator[io.BufferedIOBase]:
    """The file's bytes, uncompressed by what its first bytes say; whatever fails while reading is an InputError."""
    import pyarrow as pa

    try:
        with file.open("rb") as raw:
            head = raw.peek(4)
            if head.startswith(b"\x1f\x8b"):
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream
            elif head.startswith(b"BZh"):
                with bz2.BZ2File(raw) as stream:
                    yield stream
            elif head.startswith(b"\xfd7zX"):
                with lzma.LZMAFile(raw) as stream:
                    yield stream
            elif head.startswith(b"\x28\xb5\x2f\xfd"):
                yield io.BytesIO(pa.CompressedInputStream(raw, "zstd").read())
            else:
                yield raw
    except OSError as e:
        raise InputError(f"{file} cannot be read: {e.strerror or e}") from e
    except (EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, MemoryError) as e:
        raise InputError(f"{file} cannot be read: {e}; is it cut off or damaged?") from e


def text_of_file(file: Path) -> str:
    """The whole file as text: UTF-8, or UTF-16 or UTF-32 with its mark. InputError with the line that is not."""
    with opened(file) as stream:
        data = stream.read()
    encoding = _marked(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise InputError(f"{file}:{line}: not {encoding.upper().removesuffix('-SIG')} ({e.reason})") from e


def _marked(data: bytes) -> str:
    """The encoding that a byte order mark announces; UTF-8 without one."""
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    return "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _json_lines(file: Path, nan: bool) -> Iterator[tuple[str, Any]]:
    blank, name = 0, str(file)
    with opened(file) as stream:
        for n, line in enumerate(_lines(stream, file), 1):
            where = f"{name}:{n}"
            stripped = line.strip()
            if not stripped:
                blank = blank or n
                continue
            if blank:
                raise InputError(f"{name}:{blank}: empty line; remove it")
            try:
                text = _decoded(stripped, first=n == 1)
            except UnicodeDecodeError as e:
                raise InputError(f"{where}: not UTF-8 ({e}); save the file as UTF-8") from e
            yield where, _object(where, text, nan)


def _decoded(line: bytes | str, first: bool) -> str:
    if isinstance(line, str):
        return line
    return line.decode("utf-8-sig").lstrip() if first else line.decode()


def _lines(stream: io.BufferedIOBase, file: Path) -> Iterator[bytes | str]:
    first = stream.readline()
    if _marked(first) == "utf-8-sig":
        yield first
        yield from stream
        return
    try:
        yield from io.StringIO((first + stream.read()).decode(_marked(first)), newline="\n")
    except UnicodeDecodeError as e:
        raise InputError(f"{file}:1: not {_marked(first).upper()}, though its mark says so ({e.reason})") from e


def _json(file: Path, nan: bool) -> Iterator[tuple[str, Any]]:
    text = text_of_file(file)
    first = text.lstrip().partition("\n")[0]
    try:
        whole = (_TABLES if nan else _STRICT).decode(text)
    except (ValueError, RecursionError) as e:
        if isinstance(e, json.JSONDecodeError) and _is_object(first):  # some sets call lines of JSON .json
            yield from _json_lines(file, nan)
            return
        line = e.lineno if isinstance(e, json.JSONDecodeError) else 1
        raise InputError(f"{file}:{line}: not JSON ({e or type(e).__name__})") from e
    if _halves(text):
        check_characters(str(file), whole)
    for n, row in enumerate(_rows_in(whole, file), 1):
        yield f"{file}: row {n}", row


def _rows_in(whole: Any, file: Path) -> list[Any]:
    """The rows of a JSON document: a list, the one list of objects in an object, or the object as the only row."""
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, dict):
        raise InputError(f"{file}:1: expected a list of JSON objects, got {short(whole)}")
    lists = [
        v for k, v in whole.items() if k not in CONVERSATIONS and isinstance(v, list) and v and isinstance(v[0], dict)
    ]
    return lists[0] if len(lists) == 1 and not any(k in whole for k in CONVERSATIONS) else [whole]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _object(where: str, text: str, nan: bool) -> Any:
    try:
        value, end = (_TABLES if nan else _STRICT).raw_decode(text)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except (ValueError, RecursionError) as e:
        hint = "; every line must be one JSON object"
        if "\0" in text:
            hint = "; it holds NUL bytes: save the file as UTF-8"
        elif text.lstrip().startswith("["):
            hint += " (a file that is one JSON list is called .json)"
        raise InputError(f"{where}: not JSON ({e or type(e).__name__}){hint}") from e
    if _halves(text):
        check_characters(where, value)
    return value


def _halves(text: str) -> bool:
    """Whether JSON text may spell half a surrogate pair. One character is found much faster than two."""
    return "\\" in text and ("\\ud" in text or "\\uD" in text)


def _parquet(file: Path) -> Iterator[Located]:
    import pyarrow as pa
    import pyarrow.parquet

    with opened(file) as stream:
        source: Any = file if isinstance(stream, io.BufferedReader) else pa.BufferReader(stream.read())
        try:
            table = pyarrow.parquet.ParquetFile(source)
            names = table.schema_arrow.names
            if len(set(names)) != len(names):
                twice = next(n for n in names if names.count(n) > 1)
                raise InputError(f"{file}: two columns are called {twice!r}; rename one")
            nested = [f.name for f in table.schema_arrow if f.name in CONVERSATIONS and _wide(f.type)]
            rows = (row for batch in table.iter_batches(batch_size=8192) for row in batch.to_pylist())
            for n, row in enumerate(rows, 1):
                for name in nested:
                    row[name] = without_nulls(row[name])
                yield f"{file}: row {n}", row
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as e:
            raise InputError(f"{file} is not a readable Parquet file: {e}") from e


def _wide(type_: Any) -> bool:
    """Whether an Arrow type holds a struct with more than a role and a content."""
    import pyarrow as pa

    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return _wide(type_.value_type)
    if not pa.types.is_struct(type_):
        return False
    return not {f.name for f in type_} <= {"role", "content"} or any(_wide(f.type) for f in type_)


def without_nulls(value: Any) -> Any:
    """The value without the keys that are null: Arrow gives every object of a column the keys of all of them."""
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None or k == "content"}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def _is_hub_name(name: str) -> bool:
    return (
        name.count("/") == 1 and not name.startswith((".", "/")) and not name.endswith("/") and not Path(name).exists()
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _finite(number: str) -> float:
    value = float(number)
    return value if abs(value) != float("inf") else _refuse(number)


def _known(constant: str) -> float:
    return float("nan") if constant == "NaN" else _refuse(constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


_STRICT = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique)
_TABLES = json.JSONDecoder(parse_constant=_known, parse_float=_finite, object_pairs_hook=_unique)
