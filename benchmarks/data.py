"""Input files by name: found in the folder that TRIMTAB_DATA names, else fetched where their source serves them.

`data.toml` lists them all with public source, licence and checksum (of what is in a .gz, since gzip's own bytes vary).
None is in the repository.
"""

import gzip
import hashlib
import os
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "trimtab" / "data"


class Skipped(Exception):
    """The benchmark cannot run here; the message says what it lacks and how to get it."""


@dataclass(frozen=True)
class Input:
    """One file; `fetch` is the address of the same bytes (unpacked), "" where the file is made from its source."""

    file: str
    what: str
    source: str
    licence: str
    sha256: str
    fetch: str = ""
    made: str = ""


def inputs() -> dict[str, Input]:
    """Every input by name."""
    return {k: Input(**v) for k, v in tomllib.loads((HERE / "data.toml").read_text(encoding="utf-8")).items()}


def find(name: str) -> Path:
    """The file's place; Skipped says what to do when it is nowhere. A file of other contents is used, and told of."""
    wanted = inputs()[name]
    folder = os.environ.get("TRIMTAB_DATA")
    for root in (Path(folder), CACHE) if folder else (CACHE,):
        if (file := root / wanted.file).is_file():
            if digest(file) != wanted.sha256:
                sys.stderr.write(f"{file} is not the file that data.toml names: figures will not be comparable\n")
            return file
    if wanted.fetch:
        return fetched(name, wanted)
    raise Skipped(
        f"{wanted.file} is not here ({wanted.what}; {wanted.source}): put it into the folder that TRIMTAB_DATA names"
        + (f"; {wanted.made}" if wanted.made else "")
    )


def fetched(name: str, wanted: Input, limit_s: float = 60.0) -> Path:
    """The file, fetched into CACHE; Skipped when its source cannot be reached or serves other bytes."""
    file = CACHE / wanted.file
    try:
        with urllib.request.urlopen(wanted.fetch, timeout=limit_s) as answer:
            body = answer.read()
    except OSError as e:
        raise Skipped(
            f"{wanted.file} is not here and cannot be fetched from {wanted.fetch} ({e}): TRIMTAB_DATA names the folder "
            "that holds it"
        ) from e
    if hashlib.sha256(body).hexdigest() != wanted.sha256:
        raise Skipped(f"{wanted.fetch} serves other bytes than data.toml names for {name}: nothing is compared on them")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_bytes(gzip.compress(body, mtime=0) if file.suffix == ".gz" else body)
    part.replace(file)
    return file


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked."""
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as f:
        yield f


def lines(name: str) -> list[str]:
    """The lines of a text input."""
    with opened(find(name)) as f:
        return f.read().decode().splitlines()


def digest(file: Path) -> str:
    """SHA-256 of the unpacked file."""
    with opened(file) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
