"""The one training loop: a `Step` says what a batch's losses are, `fit` trains a model with it, or goes on with it.

Policies and reward models are steps in it. Epochs, optimiser, FSDP and callbacks are `transformers.Trainer`'s. Here is
what every training asks beside: no dropout, one precision, micro-batches, whole checkpoints, no number that is none.
It computes no loss and makes no examples.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from trimtab.errors import ModelError
from trimtab.learners.precision import optimizer_for
from trimtab.learners.run import LOG, Lora, Run, checkpoints
from trimtab.lm import trained
from trimtab.lm.load import LM, only_errors
from trimtab.lm.weights import not_finite, some
from trimtab.progress import Work, working
from trimtab.publish import appear, publish_text, reporting

STAGING = ".staging"


class Step(Protocol):
    """What a learner computes of a batch; the model comes as an argument."""

    def parts(self, examples: Sequence[Any]) -> list[list[int]]:
        """The micro-batches of a batch, as indices."""
        ...

    def whole_batch(self, model: Any, examples: Sequence[Any]) -> dict[str, Tensor]:
        """What the losses of every micro-batch take from the whole batch."""
        ...

    def losses(
        self, model: Any, examples: Sequence[Any], shared: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each example (B,), with gradient, and metrics by name (detached, NaN where there is none)."""
        ...


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


class Loop(Trainer):
    """transformers.Trainer whose batches are a `Step`'s, whose checkpoints appear whole in `args.output_dir`, and which
    stops with a ModelError where the training diverges. The overridden methods are the ones it documents for that."""

    _staging = False

    def __init__(self, *args: Any, step: Step, autocast: torch.dtype | None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.step, self.autocast, self._means = step, autocast, Means()

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        without_dropout(model)
        loss = self._gradients(model, inputs["examples"])
        if not bool(loss.isfinite()):
            self._stop("loss", loss.item())
        return loss

    def _gradients(self, model: Any, examples: Sequence[Any]) -> Tensor:
        """Adds the gradients of a batch; its mean loss, detached. DeepSpeed gets one micro-batch a step: its engine
        counts backward calls itself."""
        from accelerate.utils import DistributedType

        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        parts = [list(range(len(examples)))] if deepspeed else self.step.parts(examples)
        with self.compute_loss_context_manager():
            shared = self.step.whole_batch(model, examples)
        total = torch.zeros((), device=self.args.device)
        for n, part in enumerate(parts):
            with contextlib.nullcontext() if n == len(parts) - 1 else self.accelerator.no_sync(model):
                loss = self._loss(model, [examples[i] for i in part], shared) / len(examples)
                loss = loss / self.current_gradient_accumulation_steps
                self.accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))
            total += loss.detach()
        return total

    def _loss(self, model: Any, examples: Sequence[Any], shared: Mapping[str, Tensor]) -> Tensor:
        with self.compute_loss_context_manager():
            loss_B, metrics = self.step.losses(model, examples, shared)
        self._means.add(metrics)
        return loss_B.sum()

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        examples = inputs["examples"]
        with torch.no_grad(), self.compute_loss_context_manager():
            shared = self.step.whole_batch(model, examples)
            losses = [self._loss(model, [examples[i] for i in p], shared) for p in self.step.parts(examples)]
        return sum(losses) / len(examples), None, None

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        stack = super().compute_loss_context_manager()
        if self.autocast is not None:
            stack.enter_context(torch.autocast(self.args.device.type, self.autocast))
        return stack

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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        prefix = "eval_" if any(k.startswith("eval_") for k in logs) else ""
        if "train_loss" in logs:  # transformers' own leaves out what was trained before the run was continued
            losses = [x["loss"] for x in self.state.log_history if "loss" in x]
            logs["train_loss"] = sum(losses) / max(1, len(losses))
        if not any(k.startswith("train_") for k in logs):
            logs.update({prefix + k: v for k, v in self._means.take().items()})
        super().log(logs, start_time)

    def _get_output_dir(self, trial: Any) -> str:
        """Where transformers writes: beside the checkpoints while one is being written."""
        home = super()._get_output_dir(trial)
        return str(Path(home) / STAGING) if self._staging else home

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Weights, optimiser, scheduler, random states and state are written beside their place, then renamed."""
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
                shutil.rmtree(home / STAGING, ignore_errors=True)
                for old in checkpoints(home)[:-keep] if keep else ():
                    shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()


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


def fit(
    run: Run, network: nn.Module, step: Step, examples: Sequence[Any], held_out: Sequence[Any] = (), *, rate: float,
    autocast: torch.dtype | None, callbacks: Sequence[TrainerCallback] = (),
) -> Loop:  # fmt: skip
    """Trains `network` from the run's last checkpoint on; the log is kept also when the training diverges."""
    arguments = _arguments(run, rate, bool(held_out))
    chosen = "optim" in (run.compute.trainer or {})
    loop = Loop(
        network, arguments, train_dataset=examples, eval_dataset=held_out or None,
        data_collator=lambda batch: {"examples": batch},
        callbacks=[*run.compute.callbacks, *callbacks], step=step, autocast=autocast,
        optimizer_cls_and_kwargs=optimizer_for(run.precision, network, arguments, chosen),
    )  # fmt: skip
    loop.remove_callback(PrinterCallback)  # the log is a file; a terminal shows our bar
    home = run.out / "checkpoints"
    shutil.rmtree(home / STAGING, ignore_errors=True)  # what a killed run was writing
    before = checkpoints(home)
    with only_errors(), reporting(run.out), working("training") as work:
        loop.add_callback(Heartbeat(work))
        try:
            loop.train(resume_from_checkpoint=str(before[-1]) if before else None)
            if bad := not_finite(unwrapped(loop.model)):
                raise ModelError(
                    f"the training diverged: weights are NaN or infinite ({some(bad)}); lower learning_rate"
                )
        finally:
            publish_text(run.out / LOG, "".join(json.dumps(x) + "\n" for x in loop.state.log_history))
    return loop


def save(run: Run, loop: Loop, lm: LM, counts: Mapping[str, int], *, merge: bool = False) -> dict[str, Any]:
    """Writes the model (with `merge` the adapter merged into it) and its tokenizer; the card of the finished run."""
    import transformers

    model: Any = unwrapped(loop.model)
    # in float32: what an adapter adds to a weight is mostly below the last place of a bfloat16
    model = model.float().merge_and_unload() if merge else model
    with reporting(run.out):
        model.save_pretrained(run.out)
        lm.tokenizer.save_pretrained(run.out)
    steps = [x for x in loop.state.log_history if "loss" in x]
    return run.read() | {
        "finished": True, "model": lm.id, trained.SUMS: trained.sums(run.out), "examples": dict(counts),
        "steps": loop.state.global_step, "last": steps[-1] if steps else {},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip


def trainable(model: Any, lora: Lora | None, seed: int, checkpointing: bool, task: str = "CAUSAL_LM") -> Any:
    """The model with every weight to train, or with fresh adapters drawn by `seed`."""
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if lora is None:
        if any(not p.is_floating_point() for p in model.parameters()):
            raise ModelError(
                f"{model.name_or_path}: its weights are quantised; train a LoRA on them, or load it unquantised"
            )
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type=task
        )  # pyright: ignore[reportCallIssue]
        return get_peft_model(model, config)


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


def _arguments(run: Run, rate: float, held_out: bool) -> TrainingArguments:
    optim, every = run.optim, run.checkpoints.every
    defaults: dict[str, Any] = {
        "output_dir": str(run.out / "checkpoints"), "num_train_epochs": optim.epochs, "learning_rate": rate,
        "per_device_train_batch_size": optim.batch_size, "per_device_eval_batch_size": optim.batch_size,
        "lr_scheduler_type": optim.schedule, "warmup_steps": optim.warmup, "weight_decay": optim.weight_decay,
        "max_grad_norm": optim.max_grad_norm, "seed": run.seed, "data_seed": run.seed,
        "train_sampling_strategy": "random" if optim.shuffle else "sequential",
        "save_strategy": "steps", "save_steps": every, "save_total_limit": run.checkpoints.keep,
        "eval_strategy": "steps" if held_out else "no", "eval_steps": every,
        "logging_steps": 1, "logging_strategy": "steps", "report_to": "none", "disable_tqdm": True,
        "remove_unused_columns": False, "use_cpu": run.device == "cpu", "average_tokens_across_devices": False,
        "dataloader_pin_memory": run.device != "cpu", "logging_nan_inf_filter": False,
    }  # fmt: skip
    more = {k: v for k, v in (run.compute.trainer or {}).items() if k != "bf16"}  # `Precision` computes in it
    return TrainingArguments(**{**defaults, **more})
