"""Spend a learned object: choose tokens, completions or models: draw several and choose one, or choose who is asked."""

from typing import TYPE_CHECKING

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
from trimtab.lazy import lazy

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
_HOMES = {"BeamSearch": "token", "ChunkedBestOfN": "token"}  # these need torch
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
