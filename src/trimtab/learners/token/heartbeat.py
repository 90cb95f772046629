"""A training's steps and loss to the progress that a terminal, or a log file, shows."""

from typing import Any

from transformers import TrainerCallback

from trimtab.progress import Work


class Heartbeat(TrainerCallback):
    """Counts the optimiser's steps in `work` and names the latest loss."""

    def __init__(self, work: Work):
        self.work, self.label = work, work.label

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.work.done, self.work.total = state.global_step, state.max_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.work.done = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            self.work.label = f"{self.label} (loss {logs['loss']:.4g})"
