"""Environments of peers and neighbours: made on demand from `neighbours.toml`, made anew when their pins change."""

import os
import shutil
import site
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import Skipped

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".make" / "neighbours"


@dataclass(frozen=True)
class Neighbour:
    """What is installed, and whether the project's own packages are visible beside it."""

    requires: tuple[str, ...]
    what: str
    sees_project: bool = False


def neighbours() -> dict[str, Neighbour]:
    """Every neighbour by name."""
    table = tomllib.loads((HERE / "neighbours.toml").read_text(encoding="utf-8"))
    return {k: Neighbour(**{**v, "requires": tuple(v["requires"])}) for k, v in table.items()}


def python(name: str, folder: Path = FOLDER) -> Path:
    """The interpreter of a neighbour's environment, which is made where it is missing; Skipped when it cannot be."""
    wanted, home = neighbours()[name], folder / name
    binary, made = home / "bin" / "python", home / "made"
    if made.is_file() and made.read_text() == repr(wanted):
        return binary
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, symlinks=True)
    if wanted.sees_project:
        lines = [f"import site; site.addsitedir({p!r})" for p in site.getsitepackages()]
        packages = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (packages / "project.pth").write_text("\n".join(lines) + "\n")
    # pip of the project installs into it: a bare Debian's venv has none
    pip = [sys.executable, "-m", "pip", "--python", str(binary), "install", "-q", *["--no-deps"] * wanted.sees_project]
    done = subprocess.run([*pip, *wanted.requires], capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        last = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise Skipped(f"the environment of {name} cannot be made ({last})")
    made.write_text(repr(wanted))
    return binary
