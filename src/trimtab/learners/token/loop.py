"""What every training here asks of `transformers.Trainer`: no dropout, one precision, and no number that is none.

Policies and reward models are trained by subclasses that say what a batch's gradients are. The loop itself, its
checkpoints, resume and FSDP stay transformers'. It computes no loss and saves nothing of its own.
"""

import contextlib
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.errors import ModelError
from trimtab.learners.token.checkpoints import WholeCheckpoints, checkpoints


class Means:
    """Means of metrics since the last log line, NaN left out.

    Sums and counts stay on their device until `take`: to read each of them would make an accelerator wait.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value_B in values.items():
            sum_and_count = torch.stack([value_B.nansum(), (~value_B.isnan()).sum().to(value_B.dtype)])
            self._sums[name] = self._sums[name] + sum_and_count if name in self._sums else sum_and_count

    def take(self) -> dict[str, float]:
        """The means, which start anew; a metric that was never a number is left out."""
        found = torch.stack(list(self._sums.values())).tolist() if self._sums else []
        names, self._sums = list(self._sums), {}
        return {name: total / count for name, (total, count) in zip(names, found, strict=True) if count}


class SteadyTrainer(WholeCheckpoints):
    """transformers.Trainer whose step is `gradients`; it stops with a ModelError where the training diverges."""

    def __init__(self, *args: Any, autocast: torch.dtype | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.autocast = autocast
        self._means = Means()

    def gradients(self, model: Any, examples: Sequence[Any]) -> Tensor:
        """Adds the gradients of a batch; its mean loss, detached."""
        raise NotImplementedError

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        without_dropout(model)
        loss = self.gradients(model, inputs["examples"])
        if not bool(loss.isfinite()):
            self._stop("loss", loss.item())
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called before every optimiser step: gradients that are no numbers never reach the weights."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        value = float(norm) if norm is not None else 0.0
        if not math.isfinite(value) and self.accelerator.scaler is None:  # a scaler skips the step and scales less
            self._stop("gradient's norm", value)
        return norm

    def _stop(self, what: str, value: float) -> None:
        """The checkpoint of this very step, if any, holds the weights that gave no number: it is not kept."""
        step = self.state.global_step
        folder = Path(str(self.args.output_dir))
        if self.is_world_process_zero():
            shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)
        good = checkpoints(folder)
        kept = f"the last good checkpoint is {good[-1]}" if good else "there was no good checkpoint before it"
        rate = self.args.learning_rate
        raise ModelError(
            f"the training diverged: the {what} of step {step + 1} is {value}. Nothing was published; {kept}. Train "
            f"anew in another directory with a learning rate below {rate:g}, or look for a pair that causes it"
        )

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        stack = super().compute_loss_context_manager()
        if self.autocast is not None:
            stack.enter_context(torch.autocast(self.args.device.type, self.autocast))
        return stack

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        prefix = "eval_" if any(k.startswith("eval_") for k in logs) else ""
        if "train_loss" in logs:  # transformers' own leaves out what was trained before the run was continued
            losses = [x["loss"] for x in self.state.log_history if "loss" in x]
            logs["train_loss"] = sum(losses) / max(1, len(losses))
        if not any(k.startswith("train_") for k in logs):
            logs.update({prefix + k: v for k, v in self._means.take().items()})
        super().log(logs, start_time)


def without_dropout(model: nn.Module) -> None:
    """Puts a model in the mode it is trained in: as in evaluation, for its reference has no dropout (or router jitter)
    either, and a first DPO loss must be log 2. A LoRA's own dropout, 0 unless asked for, stays on.

    Activation checkpointing asks for layers in training mode: these get it, with their own dropout rates at 0.
    """
    model.eval()
    for name, module in model.named_modules():
        if "lora_dropout" in name.split("."):
            module.training = True
        elif getattr(module, "gradient_checkpointing", False) is True:
            module.training = True
            for rate, value in vars(module).items():
                if isinstance(value, float) and ("drop" in rate or "jitter" in rate):
                    setattr(module, rate, 0.0)


def unwrapped(model: Any) -> Any:
    """The model (PEFT's included) inside DDP or FSDP."""
    from accelerate.utils import extract_model_from_parallel

    return extract_model_from_parallel(model)
