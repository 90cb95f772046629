"""trimtab: steer large language models by reward with the smallest lever that does the job."""

from typing import TYPE_CHECKING

from trimtab.lazy import lazy
from trimtab.version import __version__

if TYPE_CHECKING:
    from trimtab import (
        data,
        decoders,
        embeddings,
        errors,
        evaluation,
        jobs,
        learners,
        lm,
        rewards,
        samplers,
        sandbox,
        store,
        tensors,
        testing,
        types,
        workers,
    )
    from trimtab.errors import TrimtabError
    from trimtab.jobs.loading import load
    from trimtab.store import Store
    from trimtab.types import Answer, Completion, Group, Pair, Price, Prompt, Reward, SamplingParams, Usage

__all__ = [
    "Answer",
    "Completion",
    "Group",
    "Pair",
    "Price",
    "Prompt",
    "Reward",
    "SamplingParams",
    "Store",
    "TrimtabError",
    "Usage",
    "__version__",
    "data",
    "decoders",
    "embeddings",
    "errors",
    "evaluation",
    "jobs",
    "learners",
    "lm",
    "load",
    "rewards",
    "samplers",
    "sandbox",
    "store",
    "tensors",
    "testing",
    "types",
    "workers",
]
_ROOMS = (
    "data", "decoders", "embeddings", "errors", "evaluation", "jobs", "learners", "lm", "rewards", "samplers",
    "sandbox", "store", "tensors", "testing", "types", "workers",
)  # fmt: skip
_TYPES = ("Answer", "Completion", "Group", "Pair", "Price", "Prompt", "Reward", "SamplingParams", "Usage")
_HOMES = {
    **dict.fromkeys(_ROOMS, ""), **dict.fromkeys(_TYPES, "types"),
    "Store": "store", "TrimtabError": "errors", "load": "jobs.loading",
}  # fmt: skip
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)  # `import trimtab` stays under 150 ms and imports no torch
