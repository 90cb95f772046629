"""Nothing that a verb or a user's function started outlives the command (Linux; elsewhere it does nothing)."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: a process whose parent is gone becomes ours, not init's


def adopt_orphans() -> None:
    """From now on processes that ours leave behind are ours, so that `end_children` finds them."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """Kills every process below this one, again until there is none: a child may start others while it ends."""
    for _ in range(20):
        below = descendants(os.getpid())
        for pid in below:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not below:
            return


def descendants(root: int) -> list[int]:
    """Living processes below `root`, by what /proc says of their parents."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            pid, _, rest = stat.read_text(encoding="utf-8", errors="replace").partition(" (")
            state, parent = rest.rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(pid))
    found, todo = [], [root]
    while todo:
        for child in children.get(todo.pop(), ()):
            found.append(child)
            todo.append(child)
    return found
