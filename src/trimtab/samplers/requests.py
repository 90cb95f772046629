"""What every sampler asks of its arguments, and how generated tokens become a completion. Knows no engine.

Prompts are encoded once, by `lm.chat`, and refused when they do not fit the context: never cut. A stop string is
cut from the text here, the same way for every engine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from trimtab.errors import InputError, ModelError
from trimtab.types import Completion, Prompt, SamplingParams, Usage


class LocalSampler(Protocol):
    """A sampler that holds the tokenizer: it can say what a prompt costs before it is sampled."""

    @property
    def context(self) -> int: ...

    def lengths(self, prompts: Sequence[Prompt]) -> list[int]: ...


def fitting(
    sampler: LocalSampler, prompts: Sequence[Prompt], params: SamplingParams
) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts that leave room for `params.max_tokens` in the sampler's context, and those that do not.

    For who would rather drop and count the long ones than have the whole call refused.
    """
    room = sampler.context - params.max_tokens
    fits, refused = [], []
    for prompt, length in zip(prompts, sampler.lengths(prompts), strict=True):
        (fits if length <= room else refused).append(prompt)
    return fits, refused


def encode(
    tokenizer: Any, prompts: Sequence[Prompt], params: SamplingParams, context: int, model: str
) -> list[list[int]]:
    """Token ids of every prompt. InputError naming the prompts that leave no room for `params.max_tokens`."""
    from trimtab.lm.chat import encode_prompt

    rows = [encode_prompt(tokenizer, p) for p in prompts]
    room = context - params.max_tokens
    long = [f"{p.id!r} ({len(row)} tokens)" for p, row in zip(prompts, rows, strict=True) if len(row) > room]
    if long:
        shown = ", ".join(long[:5]) + (f" and {len(long) - 5} more" if len(long) > 5 else "")
        raise InputError(
            f"{len(long)} of {len(prompts)} prompts do not fit {model}: its context of {context} tokens less "
            f"max_tokens {params.max_tokens} leaves {room}; too long: {shown}. Shorten them, lower max_tokens, or drop "
            "them with trimtab.samplers.fitting"
        )
    return rows


def check(n: int, params: SamplingParams) -> None:
    """InputError naming the argument that no engine could honour."""
    rules = {
        "n": (n, n >= 1, "at least 1"),
        "max_tokens": (params.max_tokens, params.max_tokens >= 1, "at least 1"),
        "temperature": (params.temperature, 0 <= params.temperature < float("inf"), "0 (greedy) or more"),
        "top_p": (params.top_p, 0 < params.top_p <= 1, "above 0 and at most 1"),
        "top_k": (params.top_k, params.top_k >= 0, "0 (the whole vocabulary) or more"),
        "stop": (params.stop, not isinstance(params.stop, str) and all(params.stop), "a tuple of non-empty strings"),
    }
    for name, (value, right, wanted) in rules.items():
        if not right:
            raise InputError(f"{name} is {value!r}; it must be {wanted}")


def cut_at_stop(tokens: list[int], decode: Callable[[list[int]], str], stop: Sequence[str]) -> tuple[str, int, bool]:
    """Text before the first stop string, how many tokens it took to write it (those that complete the stop string
    included), and whether there was one. Without one: the whole text and all tokens."""
    text = decode(tokens)
    places = [at for s in stop if (at := text.find(s)) >= 0]
    if not places:
        return text, len(tokens), False
    low, high = 1, len(tokens)  # the shortest prefix whose text holds a stop string
    while low < high:
        middle = (low + high) // 2
        if any(s in decode(tokens[:middle]) for s in stop):
            high = middle
        else:
            low = middle + 1
    return text[: min(places)], low, True


def completion(
    tokenizer: Any, ends: frozenset[int], model: str, seed: int, index: int, tokens: list[int], logprobs: list[float],
    stop: Sequence[str],
) -> Completion:  # fmt: skip
    """A completion from what an engine wrote, the end token included: text without special tokens and stop string.

    ModelError for a log-prob that is NaN: weights that are no numbers write text all the same ("!!!!").
    """
    from trimtab.lm.chat import end_length

    if any(map(math.isnan, logprobs)):
        raise ModelError(f"{model} gives log-probs that are NaN: its weights are damaged; fetch or train it again")
    end = end_length(tokenizer, tokens, ends)

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    text, kept, stopped = cut_at_stop(tokens[: len(tokens) - end], decode, stop)
    if stopped:
        tokens, logprobs = tokens[:kept], logprobs[:kept]
    finish = "stop" if end or stopped else "length"
    return Completion(text, model, seed, index, finish, tuple(tokens), tuple(logprobs))


def counted(c: Completion, prompt: int, n: int, seconds: float, copies: int = 1) -> Completion:
    """The completion with its share of a prompt that ran once for n; `copies` are completions of one and the same run.
    `seconds` are its own."""
    return replace(c, usage=Usage(prompt / n, 0.0, len(c.tokens or ()) / copies, 1 / n, seconds))
