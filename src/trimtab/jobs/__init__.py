"""Where the rooms are composed: whole jobs as functions with plain keyword arguments, for you and the command line."""

from typing import TYPE_CHECKING

from trimtab.lazy import lazy

if TYPE_CHECKING:
    from trimtab.jobs import (
        calibration,
        checks,
        features,
        inputs,
        judging,
        main_job,
        make,
        paired,
        pool,
        probes,
        prompts,
        training,
    )
    from trimtab.jobs import routing as routing
    from trimtab.jobs import stats as stats
    from trimtab.jobs import west_of_n as west_of_n
    from trimtab.jobs.loading import load

__all__ = [
    "calibration", "checks", "features", "inputs", "judging", "load", "main_job", "make",
    "paired", "pool", "probes", "prompts", "routing", "stats", "training", "west_of_n",
]  # fmt: skip
_HOMES = {
    "calibration": "", "checks": "", "features": "", "inputs": "", "judging": "", "load": "loading", "main_job": "",
    "make": "", "paired": "", "pool": "", "probes": "", "prompts": "", "routing": "", "stats": "",
    "training": "", "west_of_n": "",
}  # fmt: skip  # each imports only the rooms that it composes
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
