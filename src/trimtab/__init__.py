"""trimtab: steer large language models by reward with the smallest lever that does the job."""

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = (
    "data", "decoders", "embeddings", "errors", "evaluation", "jobs", "learners", "lm", "rewards", "samplers",
    "sandbox", "store", "tensors", "testing", "types", "workers",
)  # fmt: skip
_NAMES = {
    "Answer": "types", "Completion": "types", "Group": "types", "Pair": "types", "Price": "types", "Prompt": "types",
    "Reward": "types", "SamplingParams": "types", "Store": "store", "TrimtabError": "errors", "Usage": "types",
}  # fmt: skip

__all__ = ["__version__", *_NAMES, *_ROOMS]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Rooms and names load on first use: `import trimtab` must stay under 150 ms and import no torch."""
    if name in _ROOMS:
        return importlib.import_module(f"trimtab.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"trimtab.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'trimtab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
