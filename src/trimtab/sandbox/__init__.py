"""Runs programs that nobody has read, in isolation, and says whether they pass their tests. Public names are lazy."""

from typing import TYPE_CHECKING

from trimtab.lazy import lazy

if TYPE_CHECKING:
    from trimtab.sandbox.limits import Job, Limits, Outcome, escape
    from trimtab.sandbox.pool import Sandbox

__all__ = [
    "Job",
    "Limits",
    "Outcome",
    "Sandbox",
    "escape",
]
_HOMES = {"Job": "limits", "Limits": "limits", "Outcome": "limits", "Sandbox": "pool", "escape": "limits"}
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
