"""Where the rooms are composed: whole jobs as functions with plain keyword arguments, for you and the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.jobs import checks as checks
    from trimtab.jobs import make as make

_JOBS = ("checks", "make")

__all__ = [*_JOBS]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Jobs load on first use: each imports only the rooms that it composes."""
    if name in _JOBS:
        return importlib.import_module(f"trimtab.jobs.{name}")
    raise AttributeError(f"module 'trimtab.jobs' has no attribute {name!r}")
