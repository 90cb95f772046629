"""Spend a learned object: choose tokens, completions or models. Completion level: draw several, choose one."""

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
from trimtab.decoders.select import argmax, rejection_probs, softmax_weights, vote_weights

__all__ = [
    "BestOfN",
    "Greedy",
    "LogprobRerank",
    "Longest",
    "Majority",
    "Plain",
    "RejectionSampler",
    "SoftmaxPolicy",
    "argmax",
    "rejection_probs",
    "softmax_weights",
    "vote_weights",
]
