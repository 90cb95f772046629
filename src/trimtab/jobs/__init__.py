"""Where the rooms are composed: whole jobs as functions with plain keyword arguments, for you and the command line."""

from typing import TYPE_CHECKING

from trimtab.lazy import lazy

if TYPE_CHECKING:
    from trimtab.jobs import checks, main_job, make, paired, pool, probes, prompts
    from trimtab.jobs.loading import load

__all__ = ["checks", "load", "main_job", "make", "paired", "pool", "probes", "prompts"]
_HOMES = {
    "checks": "", "load": "loading", "main_job": "", "make": "", "paired": "", "pool": "", "probes": "", "prompts": "",
}  # fmt: skip  # each imports only the rooms that it composes
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
