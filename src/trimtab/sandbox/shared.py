"""One warm sandbox a process and setting, shared by every reward that runs programs: starting workers is what costs."""

import os
from typing import TYPE_CHECKING

from trimtab.sandbox.limits import Limits

if TYPE_CHECKING:
    from trimtab.sandbox.pool import Sandbox

_OPEN: "dict[tuple[object, ...], Sandbox]" = {}


def shared(timeout_s: float, memory_mb: int, workers: int, way: str, unsafe: bool) -> "Sandbox":
    """The open `Sandbox` of these settings, started if need be. EngineError: this machine gives no isolation."""
    from trimtab.sandbox.pool import Sandbox

    key = (os.getpid(), timeout_s, memory_mb, workers, way, unsafe)
    found = _OPEN.get(key)
    if found is None or found.closed:
        limits = Limits(wall_s=timeout_s, memory_mb=memory_mb)
        found = _OPEN[key] = Sandbox(workers, limits, way=way, unsafe=unsafe)
    return found
