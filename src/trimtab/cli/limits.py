"""Settings that no run could honour (no draws, minus one worker, an infinite temperature), refused before any work."""

import dataclasses
import math
from typing import Any

from trimtab.errors import InputError

LEAST: dict[str, float] = {
    "data.train": 0, "data.test": 0, "data.shots": 0, "model.batch": 0, "sample.train_n": 1, "sample.test_n": 1,
    "sample.temperature": 0, "sample.top_k": 0, "sample.max_tokens": 1, "reward.workers": 0, "embed.layers": 0,
    "probe.l2": 0, "probe.folds": 2, "eval.beta": 0, "eval.draws": 1,
}  # fmt: skip
ABOVE: dict[str, float] = {"model.timeout": 0, "sample.top_p": 0, "reward.timeout_s": 0}
MOST: dict[str, float] = {"sample.top_p": 1}


def check_limits(task: Any, prefix: str = "") -> None:
    """InputError that names the key, for a number of a task outside what it can mean. Every number must be finite."""
    for f in dataclasses.fields(task):
        key, value = prefix + f.name, getattr(task, f.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, key + ".")
            continue
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                _check(key, number)


def _check(key: str, number: float) -> None:
    rules = [
        (math.isfinite(number), "a finite number"),
        (number >= LEAST.get(key, -math.inf), f"{LEAST.get(key, 0):g} or more"),
        (number > ABOVE.get(key, -math.inf), f"more than {ABOVE.get(key, 0):g}"),
        (number <= MOST.get(key, math.inf), f"at most {MOST.get(key, 0):g}"),
    ]
    for holds, wanted in rules:
        if not holds:
            raise InputError(f"{key} is {number}; it must be {wanted}")
