"""Files and folders that appear whole or not at all: written under a temporary name, fsynced, renamed.

Everything that trimtab keeps goes through here. kill -9 at any moment leaves the old state or the new one, and a
`.tmp-*` leftover that the next writer of the same name removes. It knows no format.
"""

import errno
import hashlib
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trimtab.errors import StoreError

at: Callable[[str, Path], None] | None = None
"""Called at each step of publishing with its name and path. For tests that kill a run there; None in production."""

_LEFTOVER = re.compile(r"\.(tmp|old)-(?P<pid>\d+)-(?P<run>[0-9a-f]{8})-\d+-(?P<name>.+)", re.DOTALL)
_RUN = secrets.token_hex(4)  # tells this process from a dead one of the same number, as every container has a process 1
_COUNT = itertools.count()


def publish(path: Path, write: Callable[[Path], Any], name: Callable[[Path], str] | None = None) -> None:
    """Writes a file by `write(temporary path)`, then makes it appear whole under `path` (fsync, rename, fsync).

    `name(temporary path)` gives the last part of `path` where that depends on what was written. The disk's refusals
    (full, read-only, no permission) are StoreErrors that name the path.
    """
    with reporting(path):
        remove_leftovers(path.parent, path.name)
        tmp = _hidden("tmp", path)
        try:
            _step("write", path)
            write(tmp)
            _fsync(tmp)
            _step("rename", path)
            tmp.replace(path.with_name(name(tmp)) if name else path)
            _step("renamed", path)
            _fsync(path.parent)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise


def publish_text(path: Path, text: str) -> None:
    """`publish` of a text in UTF-8; half a surrogate pair is written as \\ud800, which JSON reads back."""
    publish(path, lambda tmp: tmp.write_text(text, encoding="utf-8", errors="backslashreplace"))


def publish_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a folder by `write(temporary folder)`, then makes it appear whole under `path`, in place of an old one.

    Killed between the two renames, `path` is missing and its old content hidden beside it; `recover` brings it back.
    """
    with reporting(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        remove_leftovers(path.parent, path.name)
        tmp = _hidden("tmp", path)
        try:
            tmp.mkdir()
            _step("write", path)
            write(tmp)
            appear(tmp, path)
        except BaseException:
            shutil.rmtree(tmp, ignore_errors=True)
            recover(path)
            raise


def appear(written: Path, path: Path) -> None:
    """Makes a folder that is written appear under `path`, in place of an old one (fsync, rename, fsync)."""
    old = _hidden("old", path)
    for file in [*(f for f in written.rglob("*") if f.is_file()), written]:
        _fsync(file)
    _step("rename", path)
    if path.exists():
        path.replace(old)
        _step("between", path)
    written.replace(path)
    _step("renamed", path)
    _fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Brings back what `publish_folder` had hidden when it was killed before the new folder stood in its place."""
    if path.exists() or not path.parent.is_dir():
        return
    hidden = [f for f in path.parent.glob(".old-*") if (m := _LEFTOVER.fullmatch(f.name)) and m["name"] == path.name]
    if hidden:
        max(hidden, key=lambda f: f.stat().st_mtime).replace(path)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what killed writers left in `folder` (of one published name when given); a living writer's stays."""
    for file in folder.glob(".*-*"):
        match = _LEFTOVER.fullmatch(file.name)
        if match is None or (name is not None and match["name"] != name) or _alive(int(match["pid"]), match["run"]):
            continue
        if match[1] == "old" and not (folder / match["name"]).exists():
            continue  # the only copy: `recover` wants it
        shutil.rmtree(file, ignore_errors=True) if file.is_dir() else file.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made if needed. StoreError when another process works there."""
    with reporting(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"another process is working in {folder}; wait for it, stop it, or use another folder"
            ) from None
    try:
        yield
    finally:
        lock.release()


class reporting:
    """Turns the operating system's refusals into a StoreError that names the path and says what to do."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, value: BaseException | None, traceback: Any) -> None:
        if value is not None and (said := refusal(value)):
            raise StoreError(f"{self.path}: {said}") from value


def refusal(error: BaseException) -> str:
    """What the operating system refused and what to do, in one line; "" for an error that is none of its."""
    code = error.errno if isinstance(error, OSError) else None
    # safetensors and torch have errors of their own for a full disk
    if code in (errno.ENOSPC, errno.EDQUOT) or re.search(
        "No space left|unexpected pos|file write failed|iostream error", str(error)
    ):
        return "the disk is full; free space and run the same command again, nothing written so far is lost"
    if not isinstance(error, OSError):
        return ""
    return f"{error.strerror or error}; check the path and its permissions"


def _step(name: str, path: Path) -> None:
    if at is not None:
        at(name, path)


def _hidden(kind: str, path: Path) -> Path:
    return path.with_name(f".{kind}-{os.getpid()}-{_RUN}-{next(_COUNT)}-{path.name}")


def _alive(pid: int, run: str) -> bool:
    """Whether a process of this machine is still writing. A folder shared by machines has one writer (its lock)."""
    if pid == os.getpid():
        return run == _RUN  # another thread of ours
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256(file: Path) -> str:
    """Hex digits of a file's SHA-256, read in chunks."""
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
