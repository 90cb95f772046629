"""Where the rooms are composed: whole jobs as functions with plain keyword arguments, for you and the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.jobs import checks as checks
    from trimtab.jobs import features as features
    from trimtab.jobs import inputs as inputs
    from trimtab.jobs import judging as judging
    from trimtab.jobs import main_job as main_job
    from trimtab.jobs import make as make
    from trimtab.jobs import paired as paired
    from trimtab.jobs import pool as pool
    from trimtab.jobs import probes as probes
    from trimtab.jobs import prompts as prompts
    from trimtab.jobs import training as training
    from trimtab.jobs import west_of_n as west_of_n

_JOBS = (
    "checks", "features", "inputs", "judging", "main_job", "make", "paired", "pool", "probes", "prompts", "training",
    "west_of_n",
)  # fmt: skip

__all__ = [*_JOBS]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Jobs load on first use: each imports only the rooms that it composes."""
    if name in _JOBS:
        return importlib.import_module(f"trimtab.jobs.{name}")
    raise AttributeError(f"module 'trimtab.jobs' has no attribute {name!r}")
