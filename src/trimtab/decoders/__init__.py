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
    again,
    answer,
    choose,
)
from trimtab.decoders.drive import Caps, drive
from trimtab.decoders.model import Ranked, Routed
from trimtab.decoders.select import argmax, rejection_probs, softmax_weights, vote_weights
from trimtab.lazy import lazy

if TYPE_CHECKING:
    from trimtab.decoders.token import BeamSearch, ChunkedBestOfN

__all__ = [
    "BeamSearch",
    "BestOfN",
    "Caps",
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
    "again",
    "answer",
    "argmax",
    "choose",
    "drive",
    "rejection_probs",
    "softmax_weights",
    "vote_weights",
]
_HOMES = {"BeamSearch": "token", "ChunkedBestOfN": "token"}  # these need torch
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
