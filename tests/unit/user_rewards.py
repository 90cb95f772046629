"""What a user might write, good and bad; imported by name from this folder, also in worker processes."""

import asyncio
import os
import sys
import time
from dataclasses import dataclass

from trimtab.types import Reward


def length(prompt, completion):
    return len(completion.text)


def naughty(prompt, completion):
    """Does what the completion says."""
    match completion.text:
        case "raise":
            raise ValueError("no reward for you")
        case "hang":
            time.sleep(60)
        case "die":
            os._exit(3)
        case "string":
            return "good"
        case "nan":
            return float("nan")
        case "none":
            return None
    return 1.0


def always_dies(prompt, completion):
    os._exit(4)


def trl(completions, answer, **kwargs):
    """TRL's own documentation has this shape."""
    return [1.0 if c[0]["content"] == a else 0.0 for c, a in zip(completions, answer, strict=True)]


def trl_prompts(prompts, completions):
    return [None if c == "skip" else float(p.endswith(c)) for p, c in zip(prompts, completions, strict=True)]


def trl_short(completions, **kwargs):
    return [1.0]


def by_groups(groups):
    return [[Reward(float(len(g.completions))) for _ in g.completions] for g in groups]


async def later(completions, **kwargs):
    return [0.0 for _ in completions]


async def later_each(prompt, completion):
    await asyncio.sleep(0)
    return len(completion.text)


async def later_groups(groups):
    return by_groups(groups)


def trl_trainer(completions, log_extra=None, log_metric=None, **kwargs):
    """As TRL's documentation writes a function that logs and looks at the trainer where there is one."""
    if log_metric:
        log_metric("length", 1.0)
    return [float("trainer_state" in kwargs or log_extra is not None)] * len(completions)


def chatty(prompt, completion):
    print("scoring", completion.text)
    if completion.text == "exit":
        sys.exit(3)
    return True


def swapped(completion, prompt):
    return 0


def odd(a, b, c):
    return 0


NOT_A_REWARD = 3


@dataclass(frozen=True)
class Longer:
    than: int = 3

    def __call__(self, prompt, completion):
        return len(completion.text) > self.than
