"""Runs programs that nobody has read, in isolation, and says whether they pass their tests. Public names are lazy."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.sandbox.limits import Job, Limits, Outcome, escape
    from trimtab.sandbox.pool import Sandbox

_HOME = {"Job": "limits", "Limits": "limits", "Outcome": "limits", "escape": "limits", "Sandbox": "pool"}
__all__ = ["Job", "Limits", "Outcome", "Sandbox", "escape"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(name)
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
