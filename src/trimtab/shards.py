"""The files of one table: names, columns, checksums, and reading one so that it is what was written, or an error.

A shard is `000042-crc32-1f2e3d4c.parquet` or `.safetensors`: its number, and the CRC-32 of the whole file. A copy, a
cut file, a flipped bit and a foreign file are refused by name. Shards of before November 2026 carry no checksum
(`000042-1f2e3d4c.parquet`) and are read unchecked.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from trimtab.errors import InputError, StoreError
from trimtab.publish import publish
from trimtab.types import Usage

Tensors = dict[str, npt.NDArray[Any]]
SUFFIXES = ("parquet", "safetensors")
MADE_WITH = "trimtab.settings"
"""The key of a shard's own metadata that holds the fingerprint of the table's settings."""

_NAME = re.compile(r"(?P<number>\d{6})-(?P<checked>crc32-)?(?P<hash>[0-9a-f]{8})\.(?P<suffix>parquet|safetensors)")
_CHUNK = 1 << 20
SCHEMAS = {
    "prompts": pa.schema(
        [("id", pa.string()), ("messages", pa.string()), ("target", pa.string()), ("source", pa.string()),
         ("split", pa.string())]
    ),
    "completions": pa.schema(
        [("id", pa.string()), ("prompt_id", pa.string()), ("model", pa.string()), ("seed", pa.int64()),
         ("index", pa.int32()), ("text", pa.string()), ("finish", pa.string()), ("tokens", pa.list_(pa.int32())),
         ("logprobs", pa.list_(pa.float32())),
         ("usage", pa.struct([(f.name, pa.float64()) for f in fields(Usage)])), ("note", pa.string())]
    ),
    "rewards": pa.schema(
        [("id", pa.string()), ("prompt_id", pa.string()), ("value", pa.float64()), ("note", pa.string())]
    ),
    "logprobs": pa.schema(
        [("id", pa.string()), ("tokens", pa.list_(pa.int32())), ("logprobs", pa.list_(pa.float32()))]
    ),
    "features": pa.schema(
        [("id", pa.string()), ("features", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))]
    ),
}  # fmt: skip


def check_name(table: str) -> None:
    """InputError for a table name that is not of a known kind, or whose folder would lie outside the run."""
    kind, *rest = table.split("/")
    if kind not in {*SCHEMAS, "embeddings"}:
        raise InputError(f"table {table!r} must begin with one of {', '.join([*SCHEMAS, 'embeddings'])}")
    if any(not part or part.startswith(".") or not part.isprintable() or "\\" in part for part in rest):
        raise InputError(f"table {table!r}: a part of its name is empty, begins with a dot or is not printable")


def shards(folder: Path) -> list[Path]:
    """The shards of a table in the order they were written. StoreError for a data file that no writer of ours named,
    and for a copy of another shard."""
    found: list[Path] = []
    first: dict[tuple[str, int], Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name.startswith(".") or file.suffix.lstrip(".") not in SUFFIXES:
            continue
        match = _NAME.fullmatch(file.name)
        if match is None:
            raise StoreError(f"{file} is not a shard that trimtab wrote (a copy?); move it out of the run directory")
        twin = first.setdefault((match["hash"], file.stat().st_size), file)
        if twin is not file:
            raise StoreError(f"{file} is a copy of {twin.name}; remove one of the two")
        found.append(file)
    return found


def next_number(folder: Path) -> int:
    """The number that the next shard of a table gets."""
    files = shards(folder)
    return int(files[-1].name[:6]) + 1 if files else 0


def checksum(file: Path) -> str:
    """CRC-32 of a file, 8 hex digits."""
    crc = 0
    with file.open("rb") as f:
        while chunk := f.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"


def is_checked(file: Path) -> bool:
    """Whether a shard's name carries its checksum."""
    match = _NAME.fullmatch(file.name)
    return match is not None and match["checked"] is not None


def check(file: Path) -> None:
    """StoreError when a shard's bytes are not those that its name was made from."""
    if is_checked(file):
        _compare(file, checksum(file))


def damaged(file: Path, why: object) -> StoreError:
    """The error for a shard that cannot be trusted."""
    return StoreError(
        f"{file} is damaged: {why}. Restore it, or delete it and run the command that made it again: only its rows are "
        "made anew"
    )


def write_rows(folder: Path, number: int, rows: pa.Table, made_with: str) -> None:
    """Writes one Parquet shard, whole, with page checksums for readers that are not ours."""
    rows = rows.replace_schema_metadata({MADE_WITH: made_with})
    write = partial(pyarrow.parquet.write_table, rows, compression="zstd", write_page_checksum=True)
    publish(folder / f"{number:06d}.parquet", write, _checked_name(number, "parquet"))


def write_tensors(folder: Path, number: int, tensors: Tensors, made_with: str) -> None:
    """Writes one safetensors shard, whole."""
    from safetensors.numpy import save_file

    write = partial(save_file, tensors, metadata={MADE_WITH: made_with})
    publish(folder / f"{number:06d}.safetensors", write, _checked_name(number, "safetensors"))


def read_rows(file: Path, schema: pa.Schema, columns: Sequence[str], made_with: str) -> pa.Table:
    """Some columns of a Parquet shard, in the table's schema; a column that the shard is too old to have is null."""
    data = _bytes(file)
    with _named(file):
        source = pyarrow.parquet.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_settings(file, (source.schema_arrow.metadata or {}).get(MADE_WITH.encode(), b"").decode(), made_with)
        there = set(source.schema_arrow.names)
        rows = source.read([c for c in columns if c in there], use_threads=False)  # a shard is small
        arrays = [
            rows[c].cast(schema.field(c).type) if c in there else pa.nulls(len(rows), schema.field(c).type)
            for c in columns
        ]
        return pa.table(arrays, schema=pa.schema([schema.field(c) for c in columns]))


def read_tensors(file: Path, keys: Sequence[str] | None, made_with: str) -> tuple[list[str], Tensors]:
    """Row ids and one (n, ...) array a key of a safetensors shard (all keys for None). The checksum is verified when
    tensors are read; with no key only the ids are, as a resuming stage does."""
    from safetensors import safe_open

    if keys is None or keys:
        check(file)
    with _named(file), safe_open(file, framework="numpy") as f:
        _check_settings(file, (f.metadata() or {}).get(MADE_WITH, ""), made_with)
        ids = [bytes(row).decode("ascii") for row in f.get_tensor("ids")]
        tensors = {k: f.get_tensor(k) for k in (f.keys() if keys is None else keys) if k != "ids"}
        if any(len(t) != len(ids) for t in tensors.values()):
            raise ValueError("its arrays have different lengths")
        return ids, tensors


def _checked_name(number: int, suffix: str) -> Callable[[Path], str]:
    return lambda written: f"{number:06d}-crc32-{checksum(written)}.{suffix}"


def _bytes(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as e:
        raise StoreError(f"{file} cannot be read ({e.strerror or e}); check the path and its permissions") from e
    if is_checked(file):
        _compare(file, f"{zlib.crc32(data):08x}")
    return data


def _compare(file: Path, found: str) -> None:
    match = _NAME.fullmatch(file.name)
    if match is None or match["hash"] != found:
        raise damaged(file, "its checksum is not that of its name")


def _check_settings(file: Path, found: str, wanted: str) -> None:
    if found and found != wanted:
        raise StoreError(
            f"{file} was made with other settings than {file.parent.name!r} has in the manifest: was manifest.json "
            "edited, or a shard moved here from another run? Put back what was there, or use another directory"
        )


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """What a reader of ours or others' raises about a file's content, as a StoreError that names the file."""
    from safetensors import SafetensorError

    try:
        yield
    except StoreError:
        raise
    except (pa.ArrowException, SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError) as e:
        raise damaged(file, " ".join(str(e).split())[:200]) from e


def as_ids(ids: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Row ids as the bytes that a safetensors shard holds."""
    return np.array([list(i.encode("ascii")) for i in ids], dtype=np.uint8)
