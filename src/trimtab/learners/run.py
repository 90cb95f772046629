"""One training's folder: what decides its result, whether it is begun or done, and what it leaves.

The groups of settings that every training takes stand here, with their defaults. It trains nothing
(`trimtab.learners.loop` does).
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import torch

from trimtab.errors import refuse_changed
from trimtab.json_file import Kinds, parse_json, read_json, read_lines
from trimtab.learners.precision import Precision, choose_precision
from trimtab.lm import trained
from trimtab.lm.load import default_device
from trimtab.publish import alone_in, publish_text
from trimtab.types import fingerprint

P = ParamSpec("P")
R = TypeVar("R")
LOG = "log.jsonl"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the linear layers of the blocks (peft), instead of training every weight."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    """peft's `target_modules`; "all-linear" leaves the output layer out."""


@dataclass(frozen=True)
class Optim:
    """How the weights are moved: AdamW, its rate falling from `learning_rate` by `schedule`."""

    learning_rate: float | None = None
    """None: what the learner's docstring says."""
    epochs: float = 1.0
    batch_size: int = 32
    """Examples an optimiser step and device; memory does not follow it (`Compute.micro_tokens`)."""
    shuffle: bool = True
    schedule: str = "linear"
    warmup: float = 0.0
    """Steps of a rising rate, or below 1 their share of the run."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class Encoding:
    """Which examples are taken. Nothing is cut: what is longer than `max_tokens` is refused, or dropped and counted."""

    max_tokens: int | None = None
    """Prompt and completion together; None: the model's context."""
    overlong: str = "refuse"
    desirable_above: float = 0.5
    """Of scored groups (KTO, SFT): the reward above which a completion is desirable."""

    def limit(self, context: int) -> int:
        """The most tokens of an example, for a model of this context."""
        return min(self.max_tokens or context, context)


@dataclass(frozen=True)
class Compute:
    """Where and how a training is computed. Only `dtype` and `trainer` decide its result."""

    dtype: str | None = None
    device: str | None = None
    micro_tokens: int | None = None
    """Padded tokens of one forward; None: 512 on a CPU, 8192 elsewhere. A longer example makes a forward alone."""
    micro_rows: int | None = None
    share_prompt: bool = True
    """Runs a prompt once for its completions (policies)."""
    checkpointing: bool = False
    """Recomputes activations to save memory."""
    reference_store: str | Path | None = None
    """Where the reference's log-probs and features are kept; None: in the run's folder."""
    trainer: Mapping[str, Any] | None = None
    """Further transformers.TrainingArguments."""
    callbacks: Sequence[Any] = ()
    """Further transformers.TrainerCallbacks."""


@dataclass(frozen=True)
class Checkpoints:
    """When a checkpoint is written (steps, or below 1 a share of the run; `held_out` is measured then) and how many
    are kept."""

    every: float = 0.25
    keep: int = 1


@dataclass(frozen=True)
class Trained:
    """A finished training: its folder, its card (settings and results) and the lines of its log."""

    path: Path
    card: dict[str, Any]
    log: list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """A training to be done in `out`, whose card is the file `card`; `more` is what decides its result besides."""

    out: Path
    card: str
    model: str
    lora: Lora | None
    optim: Optim
    encoding: Encoding
    compute: Compute
    checkpoints: Checkpoints
    seed: int
    more: Mapping[str, Any]

    @cached_property
    def device(self) -> str:
        """Where it is computed."""
        return self.compute.device or default_device()

    @cached_property
    def precision(self) -> Precision:
        """How it is computed: what was asked, or what the run in `out` began with, which it keeps on every device."""
        before = self.before().get("settings", {}).get("dtype")
        lora, more = self.lora is not None, self.compute.trainer
        return choose_precision(self.compute.dtype, self.device, lora=lora, before=before, trainer=more)

    @property
    def budget(self) -> int:
        """Padded tokens of one forward."""
        return self.compute.micro_tokens or micro_budget(self.device)

    def identity(self) -> dict[str, Any]:
        """What decides the result; how it is computed (micro-batches, paths, the device) is left out."""
        optim, usual = self.optim, Optim()
        rare = {k: getattr(optim, k) for k in ("schedule", "warmup", "weight_decay", "max_grad_norm")}
        return {
            "model": self.model, "lora": repr(self.lora), "seed": self.seed, "dtype": str(self.precision),
            "learning_rate": optim.learning_rate, "epochs": optim.epochs, "batch_size": optim.batch_size,
            "shuffle": optim.shuffle, "max_tokens": self.encoding.max_tokens, "overlong": self.encoding.overlong,
            "trainer": self.compute.trainer, **{k: v for k, v in rare.items() if v != getattr(usual, k)}, **self.more,
        }  # fmt: skip

    def before(self) -> dict[str, Any]:
        """The card of what `out` holds, a begun or finished run; one refused before (bad data) has nothing to lose."""
        card = self.read() if (self.out / self.card).exists() else {}
        return card if card.get("finished") or checkpoints(self.out / "checkpoints") else {}

    def read(self, kinds: Kinds = MappingProxyType({})) -> dict[str, Any]:
        """The card in `out`, with these kinds of values besides."""
        kinds = {**trained.KINDS, "settings": dict, **kinds}
        return read_json(self.out / self.card, "a run's card", kinds, do="restore it, or use another directory")

    def begin(self, data: Sequence[Any]) -> Trained | None:
        """Writes the card of a new run; what `out` holds when this very run is finished; SettingsChanged for another.

        The card lists the kinds of device a run was computed on, which do not decide what it is.
        """
        wanted = json.loads(json.dumps({**self.identity(), "data": fingerprint(list(data))}, default=str))
        if old := self.before():
            was = {k: v for k, v in old["settings"].items() if k != "precision"}  # older versions wrote dtype twice
            if old.get("finished") and was.get("dtype", "") is None:  # of a version that wrote what was asked
                wanted["dtype"] = None
            refuse_changed(f"{self.out} holds a run", was, wanted)
            if old.get("finished"):
                return self.trained()
        self.out.mkdir(parents=True, exist_ok=True)
        kind = torch.device(self.device).type
        devices = [d for d in old.get("devices", []) if d != kind]
        self.write({**old, "settings": wanted, "devices": [*devices, kind]})
        return None

    def write(self, card: Mapping[str, Any]) -> None:
        """Writes the card."""
        publish_text(self.out / self.card, json.dumps(card, indent=2, ensure_ascii=False))

    def trained(self) -> Trained:
        """The finished run in `out`."""
        file, what = self.out / LOG, "a run's log"
        lines = read_lines(file, what) if file.is_file() else []
        log = [parse_json(line, f"{file}:{n}", what) for n, line in enumerate(lines, 1) if line]
        return Trained(self.out, self.read({"last": dict, "examples": dict}), log)


def micro_budget(device: str) -> int:
    """Padded tokens of one forward, where `micro_tokens` does not say: more than keep the device busy."""
    return 512 if device.startswith("cpu") else 8192


def checkpoints(home: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first. One without the trainer's state was cut short by an older
    version, which wrote them in place."""
    found = [
        f for f in home.glob("checkpoint-*") if f.name.split("-")[1].isdigit() and (f / "trainer_state.json").is_file()
    ]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def one_writer(train: Callable[P, R]) -> Callable[P, R]:
    """Makes a training function hold the lock of its `out`: StoreError when another process works there."""

    @functools.wraps(train)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with alone_in(Path(str(kwargs["out"]))):
            return train(*args, **kwargs)

    return locked
