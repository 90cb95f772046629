"""Settings that no run could honour (no draws, minus one worker, an infinite temperature), refused before any work."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from trimtab.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Where a number must lie; it must be finite, too."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def check(self, name: str, number: float) -> None:
        """InputError that names the number, when it is outside."""
        rules = [
            (math.isfinite(number), "a finite number"),
            (number >= self.least, f"{self.least:g} or more"),
            (number > self.above, f"more than {self.above:g}"),
            (number <= self.most, f"at most {self.most:g}"),
            (number < self.below, f"less than {self.below:g}"),
        ]
        for holds, wanted in rules:
            if not holds:
                raise InputError(f"{name} is {number}; it must be {wanted}")


_SAMPLING = {"temperature": Limits(0), "top_k": Limits(0), "top_p": Limits(most=1, above=0), "max_tokens": Limits(1),
             "seed": Limits(0)}  # fmt: skip
_SERVER = {"timeout": Limits(above=0), "concurrency": Limits(0), "retries": Limits(0)}
KEYS: dict[str, Limits] = {
    "data.train": Limits(0), "data.test": Limits(0), "data.shots": Limits(0), "data.seed": Limits(0),
    "sample.train_n": Limits(1), "sample.test_n": Limits(1), "reward.workers": Limits(0),
    "reward.timeout_s": Limits(above=0), "embed.layers": Limits(0), "probe.l2": Limits(0), "probe.folds": Limits(2),
    "probe.seed": Limits(0), "eval.beta": Limits(0), "eval.draws": Limits(1), "eval.seed": Limits(0),
    **{f"sample.{k}": v for k, v in _SAMPLING.items()},
    **{f"{section}.{k}": v for section in ("model", "embed", "models") for k, v in _SERVER.items()},
    **{f"{section}batch": Limits(0) for section in ("model.", "models.", "")},
    **_SAMPLING, "n": Limits(1), "workers": Limits(0),
}  # fmt: skip
"""What the numbers of a task file can mean, by key; those without a section and [[models]] are a pool's."""


def check_limits(task: Any, prefix: str = "") -> None:
    """InputError that names the key, for a number of a task outside what it can mean. Every number must be finite."""
    for f in dataclasses.fields(task):
        key, value = prefix + f.name, getattr(task, f.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, key + ".")
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            if dataclasses.is_dataclass(item):
                check_limits(item, key + ".")
            elif isinstance(item, int | float) and not isinstance(item, bool):
                KEYS.get(key, Limits()).check(key, item)


FLAGS: dict[str, Limits] = {
    "--n": Limits(1), "--temperature": Limits(0), "--max-tokens": Limits(1), "--seed": Limits(0), "--layer": Limits(0),
    "--confidence": Limits(0, below=1), "--logprob": Limits(0, below=1), "--ratio": Limits(0), "--rounds": Limits(1),
    "--l2": Limits(0), "--beta": Limits(above=0), "--sft-weight": Limits(0), "--lora-rank": Limits(0),
    "--epochs": Limits(above=0), "--lr": Limits(above=0), "--batch-size": Limits(1), "--micro-tokens": Limits(1),
    "--alpha": Limits(0), "--top-k": Limits(1), "--limit": Limits(1), "--top": Limits(1), "--batch": Limits(0),
    "--exchange": Limits(0), "--timeout": Limits(above=0), "--balance": Limits(0), "--max-fvu": Limits(above=0),
    "--width": Limits(1), "--k": Limits(1), "--samples": Limits(1), "--center": Limits(0),
    "--planned": Limits(1), "--hold": Limits(0), "--free": Limits(0),
    "--label-smoothing": Limits(0, below=0.5), "--confident": Limits(0, below=1), "--seeds": Limits(1),
    "features diversity --top": Limits(0), "reward judge --limit": Limits(0),
}  # fmt: skip
"""What the numbers of flags can mean, by flag; "verb --flag" is another meaning that one verb has of it."""


def check_flag(verb: str, flag: str, value: Any) -> None:
    """InputError that names the flag, for a number outside what it can mean; every one in a list is looked at."""
    limits = FLAGS.get(f"{verb} {flag}", FLAGS.get(flag, Limits()))
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, int | float) and not isinstance(number, bool):
            limits.check(flag, number)
