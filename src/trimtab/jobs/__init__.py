"""Where the rooms are composed: whole jobs as functions with plain keyword arguments, for you and the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.jobs import checks as checks
    from trimtab.jobs import main_job as main_job
    from trimtab.jobs import make as make
    from trimtab.jobs import paired as paired
    from trimtab.jobs import pool as pool
    from trimtab.jobs import probes as probes
    from trimtab.jobs import prompts as prompts

_JOBS = ("checks", "main_job", "make", "paired", "pool", "probes", "prompts")

__all__ = [*_JOBS]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Jobs load on first use: each imports only the rooms that it composes."""
    if name in _JOBS:
        return importlib.import_module(f"trimtab.jobs.{name}")
    raise AttributeError(f"module 'trimtab.jobs' has no attribute {name!r}")
