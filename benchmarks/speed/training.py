"""What dpo.py and fpo.py share: the words of their pairs, the clock of a step, memory, sides that take turns."""

import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.run import Run

SETTINGS = {"model": "smollm2-135m", "device": "cpu", "dtype": "float32"}
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state")
Rows = list[dict[str, str]]


def random_rows(count: int, prompt: tuple[int, int], answer: tuple[int, int]) -> Rows:
    """`count` pairs of between `prompt` and between `answer` words, the same ones at every call."""
    rng = random.Random(0)

    def words(low: int, high: int) -> str:
        return "".join(f" {rng.choice(WORDS)}" for _ in range(rng.randint(low, high)))

    return [
        {"prompt": "Story:" + words(*prompt), "chosen": words(*answer), "rejected": words(*answer)}
        for _ in range(count)
    ]


class Stopwatch:
    """Seconds and processor seconds of each step, waiting for what the GPU has been given."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: list[float] = []
        self.cpu_times: list[float] = []

    def begin(self) -> None:
        self._finish()
        self.begun = time.perf_counter(), time.process_time()

    def end(self) -> None:
        self._finish()
        self.times.append(time.perf_counter() - self.begun[0])
        self.cpu_times.append(time.process_time() - self.begun[1])

    def _finish(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()


def callback_of(watch: Stopwatch) -> Any:
    """The stopwatch as a callback of transformers' Trainer."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            watch.begin()

        def on_step_end(self, args, state, control, **kwargs):
            watch.end()

    return Clock()


def measured(side: Callable[[Stopwatch], dict[str, Any]], device: str) -> dict[str, Any]:
    """What a side says of itself, with the seconds of its steps and the most memory that it had."""
    watch = Stopwatch(device)
    said = side(watch)
    return {**said, "times": watch.times, "cpu_times": watch.cpu_times, "peak_mb": peak_mb(device)}


def peak_mb(device: str) -> float:
    """The most memory this process had: resident on a CPU, allocated by torch on a GPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


@dataclass(frozen=True)
class Sides:
    """Every side's rounds, and the medians over their warm steps."""

    found: dict[str, list[dict[str, Any]]]
    step: dict[str, float]
    cpu: dict[str, float]
    peak: dict[str, float]


def take_turns(run: Run, rounds: dict[str, int], python: dict[str, Path] | None = None) -> Sides:
    """Runs each side so many rounds, each in a process of its own; `python` is a side's own interpreter."""
    found: dict[str, list[dict[str, Any]]] = {s: [] for s in rounds}
    for n in range(max(rounds.values())):
        for s in (s for s, most in rounds.items() if n < most):
            found[s].append(run.worker(s, python=(python or {}).get(s, sys.executable)))
            print(s, [round(t, 2) for t in found[s][-1]["times"]], round(found[s][-1]["peak_mb"]), "MB", flush=True)
    # the first step is left out everywhere, unless it is the only one: it allocates the optimiser's state
    warm = min(1, run.settings.steps - 1)

    def median(key: str) -> dict[str, float]:
        return {s: statistics.median(t for r in rs for t in r[key][warm:]) for s, rs in found.items()}

    peak = {s: max(r["peak_mb"] for r in rs) for s, rs in found.items()}
    return Sides(found, median("times"), median("cpu_times"), peak)


def sizes(model: str, rows: Rows) -> list[dict[str, int]]:
    """Tokens of each part of each pair."""
    from trimtab.lm.load import load_tokenizer

    count = load_tokenizer(model)
    return [{k: len(count(v)["input_ids"]) for k, v in r.items()} for r in rows]


def rates(run: Run, rows: Rows, sides: Sides) -> dict[str, Any]:
    """Tokens a second (prompt + chosen + prompt + rejected, padding not included) and peak memory of each side."""
    tokens = sum(2 * s["prompt"] + s["chosen"] + s["rejected"] + 2 for s in sizes(run.settings.model, rows))
    each = tokens / run.settings.steps
    return {
        "tokens_per_s": {s: round(each / t, 1) for s, t in sides.step.items()},
        "peak_mb": {s: round(x) for s, x in sides.peak.items()},
    }


def ratios(sides: Sides, ours: str, theirs: str, suffix: str = "") -> dict[str, float]:
    """Our tokens a second over theirs, the same in processor time, our peak memory over theirs."""
    return {
        f"ratio{suffix}": round(sides.step[theirs] / sides.step[ours], 3),
        f"ratio_cpu_time{suffix}": round(sides.cpu[theirs] / sides.cpu[ours], 3),
        f"memory_ratio{suffix}": round(sides.peak[ours] / sides.peak[theirs], 3),
    }


def result_name(name: str, device: str) -> str:
    return name if device == "cpu" else f"{name}_gpu"


def median_of(found: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.median(r[key] for r in found)
