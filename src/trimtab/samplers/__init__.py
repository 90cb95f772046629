"""PROMPTS to COMPLETIONS.

Engines load on first use: importing this room imports neither torch nor openvino.
"""

import importlib
from typing import Any

_NAMES = {"Cached": "cached", "HF": "hf", "OpenAI": "openai", "OpenVINO": "openvino", "fitting": "requests"}

__all__ = ["HF", "Cached", "OpenAI", "OpenVINO", "fitting"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"trimtab.samplers.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'trimtab.samplers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
