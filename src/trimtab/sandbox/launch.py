"""Which isolation this machine gives, and the command line that starts a sandbox worker with it.

Two ways to the same box: bubblewrap where it is installed, else the system calls themselves (`inside/box.py`).
Inside, both continue with `inside/zygote.py`. "none" is the unsafe way: separate processes and resource limits only.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trimtab.errors import EngineError, InputError

WAYS = ("bubblewrap", "syscalls", "none")
HERE = Path(__file__).parent
WARM = (
    "abc", "array", "ast", "bisect", "builtins", "calendar", "cmath", "collections", "collections.abc",
    "contextlib", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib",
    "heapq", "io", "itertools", "json", "math", "numbers", "operator", "os", "random", "re", "statistics",
    "string", "struct", "sys", "textwrap", "time", "traceback", "types", "typing", "unicodedata", "uuid",
    "warnings",
)  # fmt: skip
LOST = (
    "without isolation a program can read your files and secrets, use the network, signal your processes and leave "
    "files behind; only separate processes and limits on CPU, memory and time remain"
)


@dataclass(frozen=True)
class Settings:
    """How to start workers: the way of isolation, the packages that programs may import, whether commands may run."""

    way: str
    packages: tuple[str, ...] = ("numpy",)
    commands: bool = False


def start(
    settings: Settings, limits: dict[str, Any], control: int, job: int, home: str, *, heavy: bool
) -> subprocess.Popen[bytes]:
    """Starts one worker, which inherits the descriptors `control` and `job`; EngineError when the program is missing.

    A `heavy` worker has the packages imported, which programs that use them want and which makes every fork dearer.
    """
    isolated = settings.way != "none"
    layout = _layout(settings)
    outside = list(dict.fromkeys(str(_location(p).parent) for p in settings.packages if _has(p)))
    inner: dict[str, Any] = {
        "limits": limits, "isolated": isolated, "home": home, "commands": settings.commands, "control": control,
        "job": job, "path": ["/site"] if isolated else outside,
        "imports": [*WARM, *(p for p in settings.packages if heavy and _has(p))],
        "root": is_real_root(), "uid": (1 << 30) + secrets.randbelow(1 << 24), "debug": False,
    }  # fmt: skip
    env = {
        "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",
        "PYTHONPATH": "/sandbox" if isolated else str(HERE), "LD_LIBRARY_PATH": "/python/lib" if isolated else "",
    }  # fmt: skip
    run = "import sys; from inside.zygote import main; main(sys.argv[1])"
    python = layout["python"] if isolated else sys.executable
    argv = [python, "-S", "-s", "-P", "-B", "-X", "utf8", "-c", run, json.dumps(inner)]
    if settings.way == "syscalls":
        box = {**layout, "root": is_real_root(), "control": control, "job": job, "argv": argv, "env": env}
        run = "import sys; from inside.box import main; main(sys.argv[1])"
        argv = [sys.executable, "-S", "-s", "-P", "-B", "-c", run, json.dumps(box)]
        env = {"PYTHONPATH": str(HERE)}
    elif settings.way == "bubblewrap":
        argv = _bubblewrap(layout, argv, env)
        env = {}
    try:
        return subprocess.Popen(  # noqa: S603
            argv, env=env, pass_fds=(control, job), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, process_group=0, cwd="/",
        )  # fmt: skip
    except OSError as e:
        raise EngineError(f"the sandbox could not start: {argv[0]}: {e.strerror}") from e


def _bubblewrap(layout: dict[str, Any], argv: Sequence[str], env: dict[str, str]) -> list[str]:
    user = [] if is_real_root() else ["--unshare-user"]
    caps = [x for c in ("SETUID", "SETGID", "SYS_ADMIN", "SETPCAP") for x in ("--cap-add", "CAP_" + c)]
    args = [_bwrap() or "bwrap", *user, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    args += ["--unshare-cgroup-try", "--hostname", "sandbox", "--new-session", "--clearenv"]
    args += caps if is_real_root() else []
    for name, value in env.items():
        args += ["--setenv", name, value]
    parents = {str(q) for _, t in [*layout["binds"], ("", "/dev/null")] for q in Path(t).parents} - {"/"}
    for folder in sorted(parents):  # those that bubblewrap makes by itself only root may enter
        args += ["--dir", folder]
    for source, target in layout["binds"]:
        args += ["--ro-bind", source, target]
    for target, link in layout["links"]:
        args += ["--symlink", link, target]
    for target in layout["masks"]:
        args += ["--tmpfs", target, "--remount-ro", target]
    for device in ("null", "zero", "full", "random", "urandom"):
        args += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    # the zygote writes its uid map in /proc, then covers it; nothing untrusted runs before that
    args += ["--bind", "/proc", "/proc", "--dir", "/tmp", "--chdir", "/", "--remount-ro", "/"]  # noqa: S108
    return [*args, "--", *argv]


@lru_cache
def _layout(settings: Settings) -> dict[str, Any]:
    """What the root file system of the box holds: (source, target) binds, (target, link) links, folders to hide."""
    base, version = os.path.realpath(sys.base_prefix), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    executable = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    stdlib = os.path.realpath(sysconfig.get_path("stdlib"))
    if base == "/usr":
        binds, python, inside = [(executable, executable)], executable, stdlib
    else:
        inside = f"/python/lib/{version}"
        python = f"/python/bin/{version}"
        binds = [(executable, python), (str(Path(base) / "lib"), "/python/lib")]
    links: list[tuple[str, str]] = []
    for folder in ("/usr/lib", "/usr/lib64", *(("/usr/bin",) if settings.commands else ())):
        if Path(folder).is_dir():
            binds.append((folder, folder))
    for folder in ("/lib", "/lib64", "/lib32", *(("/bin",) if settings.commands else ())):
        if Path(folder).is_symlink():
            links.append((folder, "usr" + folder))
        elif Path(folder).is_dir():
            binds.append((folder, folder))
    masks = [m for m in (f"{inside}/site-packages", "/usr/lib/python3/dist-packages") if _exists_behind(m, binds)]
    binds.append((str(HERE / "inside"), "/sandbox/inside"))
    for package in settings.packages:
        if _has(package):
            where = _location(package)
            binds.append((str(where), f"/site/{where.name}"))
            libraries = where.with_name(f"{package}.libs")  # what wheels bundle
            if libraries.is_dir():
                binds.append((str(libraries), f"/site/{libraries.name}"))
    return {"binds": binds, "links": links, "masks": masks, "python": python}


def _exists_behind(target: str, binds: list[tuple[str, str]]) -> bool:
    return any(target.startswith(t + "/") and Path(s + target[len(t) :]).is_dir() for s, t in binds)


@lru_cache
def _has(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def _location(package: str) -> Path:
    import importlib.util

    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"package {package!r} is not installed (or is a namespace package); the sandbox cannot offer it"
        )
    origin = Path(spec.origin).resolve()
    return origin.parent if spec.submodule_search_locations else origin


def is_real_root() -> bool:
    """Whether this process may mount and unshare by itself (effective CAP_SYS_ADMIN and user 0)."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 21 & 1)
    return False


def _bwrap() -> str | None:
    return shutil.which("bwrap")


def worth_trying() -> list[str]:
    """The ways worth trying on this machine, best first."""
    if not sys.platform.startswith("linux"):
        return []
    return [*(["bubblewrap"] if _bwrap() else []), "syscalls"]


def refusal(reasons: dict[str, str]) -> EngineError:
    """The error for a machine that gives no isolation."""
    tried = "; ".join(f"{way}: {reason}" for way, reason in reasons.items()) or f"{sys.platform} has no namespaces"
    return EngineError(
        "this machine gives no isolation, so untrusted programs are not run "
        f"({tried}). Allow unprivileged user namespaces (sysctl user.max_user_namespaces, "
        "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns; in a container also its "
        f"seccomp profile), or install bubblewrap. unsafe=True (--unsafe-execution) runs them all the same, but {LOST}."
    )
