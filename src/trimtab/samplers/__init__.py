"""PROMPTS to COMPLETIONS.

Engines load on first use: importing this room imports neither torch nor openvino.
"""

from typing import TYPE_CHECKING

from trimtab.lazy import lazy

if TYPE_CHECKING:
    from trimtab.samplers.cached import Cached
    from trimtab.samplers.hf import HF
    from trimtab.samplers.openai import OpenAI
    from trimtab.samplers.openvino import OpenVINO
    from trimtab.samplers.requests import fitting
    from trimtab.samplers.text import AsText

__all__ = [
    "HF",
    "AsText",
    "Cached",
    "OpenAI",
    "OpenVINO",
    "fitting",
]
_HOMES = {
    "AsText": "text", "Cached": "cached", "HF": "hf", "OpenAI": "openai", "OpenVINO": "openvino", "fitting": "requests",
}  # fmt: skip
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
