"""Checkpoints that are whole or not there, and one process a run: transformers' Trainer writes a checkpoint beside its
place (weights, optimiser, scheduler, random states, state, one after the other), then it is renamed.

It decides neither what a checkpoint holds nor how often one is written.
"""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from transformers import Trainer

from trimtab.publish import alone_in, appear, reporting

P = ParamSpec("P")
R = TypeVar("R")
STAGING = ".staging"


class WholeCheckpoints(Trainer):
    """A Trainer whose checkpoints appear whole in `args.output_dir`."""

    _staging = False

    def _get_output_dir(self, trial: Any) -> str:
        """Where transformers writes: beside the checkpoints while one is being written."""
        home = super()._get_output_dir(trial)
        return str(Path(home) / STAGING) if self._staging else home

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        home = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        with reporting(home):
            self._staging = True
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = False
            self.accelerator.wait_for_everyone()  # every process has written its part
            if self.args.should_save:
                appear(home / STAGING / name, home / name)
                keep = self.args.save_total_limit
                clear_staging(home)
                for old in checkpoints(home)[:-keep] if keep else ():
                    shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()


def checkpoints(home: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first. One without the trainer's state was cut short by an older
    version, which wrote them in place."""
    found = [
        f for f in home.glob("checkpoint-*") if f.name.split("-")[1].isdigit() and (f / "trainer_state.json").is_file()
    ]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def clear_staging(home: Path) -> None:
    """Removes what a killed run was writing."""
    shutil.rmtree(home / STAGING, ignore_errors=True)


def one_writer(train: Callable[P, R]) -> Callable[P, R]:
    """Makes a training function hold the lock of its `out`: StoreError when another process works there."""

    @functools.wraps(train)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with alone_in(Path(str(kwargs["out"]))):
            return train(*args, **kwargs)

    return locked
