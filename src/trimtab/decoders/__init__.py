"""Spend a learned object: choose tokens, completions or models: draw several and choose one, or choose who is asked."""

import importlib
from typing import TYPE_CHECKING, Any

from trimtab.decoders.completion import (
    BestOfN,
    Greedy,
    LogprobRerank,
    Longest,
    Majority,
    Plain,
    RejectionSampler,
    SoftmaxPolicy,
)
from trimtab.decoders.model import Ranked, Routed
from trimtab.decoders.select import argmax, rejection_probs, softmax_weights, vote_weights

_LAZY = {"BeamSearch": "trimtab.decoders.token", "ChunkedBestOfN": "trimtab.decoders.token"}  # these need torch

if TYPE_CHECKING:
    from trimtab.decoders.token import BeamSearch, ChunkedBestOfN

__all__ = [
    "BeamSearch",
    "BestOfN",
    "ChunkedBestOfN",
    "Greedy",
    "LogprobRerank",
    "Longest",
    "Majority",
    "Plain",
    "Ranked",
    "RejectionSampler",
    "Routed",
    "SoftmaxPolicy",
    "argmax",
    "rejection_probs",
    "softmax_weights",
    "vote_weights",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'trimtab.decoders' has no attribute {name!r}")
