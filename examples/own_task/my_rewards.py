"""A reward of one's own in TRL's shape: columns of the JSONL arrive as keyword arguments, one entry a completion."""

import re


def is_right(completions: list, answer: list[str], **columns) -> list[float | None]:
    """1 when the last number of the reply is the answer, 0 when it is another, None (unscored) when there is none."""
    replies = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    numbers = [re.findall(r"-?\d+", reply) for reply in replies]
    return [float(found[-1] == gold) if found else None for found, gold in zip(numbers, answer, strict=True)]
