"""The nouns and the call shapes; everything else turns one of these into another. Imports nothing of ours."""

from trimtab.types.calls import (
    AnyReward,
    Ask,
    Decoder,
    Embedder,
    Lever,
    Preference,
    PromptEmbedder,
    Read,
    RewardFn,
    Router,
    Sampler,
    Steps,
    StreamingSampler,
)
from trimtab.types.identity import HALF, canonical_json, completion_seed, describe, fingerprint, whole_text
from trimtab.types.nouns import (
    FREE,
    NO_USAGE,
    Answer,
    Completion,
    Group,
    Message,
    Pair,
    Price,
    Prompt,
    Reward,
    SamplingParams,
    Step,
    Usage,
    message_text,
    user_text,
)

__all__ = [
    "FREE", "HALF", "NO_USAGE", "Answer", "AnyReward", "Ask", "Completion", "Decoder", "Embedder", "Group", "Lever",
    "Message", "Pair", "Preference", "Price", "Prompt", "PromptEmbedder", "Read", "Reward", "RewardFn", "Router",
    "Sampler", "SamplingParams", "Step", "Steps", "StreamingSampler", "Usage", "canonical_json", "completion_seed",
    "describe", "fingerprint", "message_text", "user_text", "whole_text",
]  # fmt: skip
