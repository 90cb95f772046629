"""What dpo.py and fpo.py share: the words of their pairs, the clock of a step, memory and the machine."""

import os
import platform
import random
import resource
import time
from typing import Any

DEVICE = os.environ.get("DEVICE", "cpu")
DTYPE = os.environ.get("DTYPE", "float32")
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state")


def random_rows(count: int, prompt: tuple[int, int], answer: tuple[int, int]) -> list[dict[str, str]]:
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

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu_times: list[float] = []

    def begin(self) -> None:
        _finish()
        self.begun = time.perf_counter(), time.process_time()

    def end(self) -> None:
        _finish()
        self.times.append(time.perf_counter() - self.begun[0])
        self.cpu_times.append(time.process_time() - self.begun[1])


def callback_of(watch: Stopwatch) -> Any:
    """The stopwatch as a callback of transformers' Trainer."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            watch.begin()

        def on_step_end(self, args, state, control, **kwargs):
            watch.end()

    return Clock()


def peak_mb() -> float:
    """The most memory this process had: resident on a CPU, allocated by torch on a GPU."""
    if DEVICE == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


def machine() -> str:
    host = f"{platform.machine()}, {os.cpu_count()} cores"
    if DEVICE == "cpu":
        return host
    import torch

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {host}"


def _finish() -> None:
    if DEVICE != "cpu":
        import torch

        torch.cuda.synchronize()
