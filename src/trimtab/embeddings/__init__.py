"""COMPLETIONS to VECTORS: hidden states, sentence encoders, `/v1/embeddings`, and the stage that stores them."""

import importlib
from typing import Any

_NAMES = {
    "Both": "ngrams",
    "Encoder": "encoder",
    "Endpoint": "endpoint",
    "HashedNgrams": "ngrams",
    "HiddenStates": "hidden_states",
    "StaticVectors": "static",
    "Stored": "stored",
    "from_card": "stored",
}

__all__ = [*_NAMES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Names load on first use: `import trimtab.embeddings` imports no torch."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"trimtab.embeddings.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'trimtab.embeddings' has no attribute {name!r}")
