"""A run's probes: fitted from its store, read for its test completions, and fitted again for the report's curves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab import embeddings, evaluation, learners
from trimtab.cli.config import Task
from trimtab.cli.prompts import reward_name, run_store
from trimtab.errors import InputError
from trimtab.intervals import figure
from trimtab.progress import working
from trimtab.store import Store
from trimtab.types import Embedder, Group, fingerprint

Values = list[list[float]]


def fit(task: Task) -> dict[str, Any]:
    """Rewards and vectors to one probe a loss, in `probes/<loss>`; skipped where nothing it is made of has changed."""
    store = run_store(task, keep=True)
    groups = store.groups("train", reward_name(task, store))
    views = {label: _stored(task, store, "train", n) for label, n in _layers(task).items()}
    facts: dict[str, Any] = {}
    for loss in task.probe.losses:
        folder = store.path / "probes" / loss
        request = fingerprint([asdict(task.probe), loss, [e.card for e in views.values()], groups])
        if not _is_fitted(folder, request):
            with working(f"fitting probe {loss}"):
                probe = learners.select_probe(
                    groups, views, losses=(loss,), l2=task.probe.l2 or None, folds=task.probe.folds,
                    seed=task.probe.seed,
                )  # fmt: skip
            replace(probe, card={**probe.card, "request": request}).save(folder)
        card = learners.Probe.load(folder).card
        facts[loss] = f"{card['selected']}, l2 {card['l2']:g}, held-out reward {figure(held_out(card))}"
    return facts


def load(task: Task, store: Store, name: str, *, strict: bool) -> tuple[dict[str, learners.Probe], list[str]]:
    """The run's probe of each loss, to read the completions `name`; and notes on those that have not been fitted.

    `strict`: the user named the losses, so one that is missing is an InputError.
    """
    probes, notes = {}, []
    for loss in task.probe.losses:
        folder = store.path / "probes" / loss
        if (folder / "card.json").exists():
            layer = _layer_of(learners.Probe.load(folder).card)
            probes[loss] = learners.Probe.load(folder, _stored(task, store, name, layer))
        elif strict:
            raise InputError(f"{folder} holds no probe; run `trimtab fit probe --loss {loss}` first")
        else:
            notes.append(f"probe {loss} is left out: none has been fitted (`trimtab fit probe --out {store.path}`)")
    return probes, notes


def held_out(card: Mapping[str, Any]) -> float:
    """The reward that cross-validation over training prompts gave the chosen settings."""
    return max(row["reward"] for row in card["selection"])


@dataclass(frozen=True)
class Refits:
    """The probes fitted again, as they were chosen, for curves over prompts and layers."""

    task: Task
    probes: Mapping[str, learners.Probe]
    groups: list[Group]
    greedy: list[Group] | None
    name: str
    draws: int

    def against_prompts(self) -> evaluation.Figure:
        """On fewer training prompts (the paper's Fig. 2)."""
        train = self._train()

        def fit_on(index: npt.NDArray[np.intp]) -> dict[str, Values]:
            some = [train[i] for i in index]
            return {f"probe {loss}": self._refitted(some, loss) for loss in self.probes}

        sizes = sorted({max(2, len(train) // d) for d in (16, 8, 4, 2, 1)})
        return evaluation.reward_against_prompts(
            self.groups, fit_on, sizes, len(train), greedy_groups=self.greedy, draws=self.draws,
            seed=self.task.eval.seed,
        )  # fmt: skip

    def against_layer(self) -> evaluation.Figure:
        """On every stored layer, at the L2 that was chosen for the best one."""
        train = self._train()
        by_layer = {
            layer: {f"probe {loss}": self._refitted(train, loss, layer) for loss in self.probes}
            for layer in self.task.embed.layers
        }
        return evaluation.reward_against_layer(
            self.groups, by_layer, greedy_groups=self.greedy, draws=self.draws, seed=self.task.eval.seed
        )

    def _train(self) -> list[Group]:
        store = run_store(self.task)
        return store.groups("train", reward_name(self.task, store))

    def _refitted(self, train: list[Group], loss: str, layer: int | None = None) -> Values:
        card, store = self.probes[loss].card, run_store(self.task)
        layer = layer if layer is not None else _layer_of(card)
        settings = {"loss": loss, "l2": card["l2"], "seed": self.task.probe.seed}
        try:
            probe = learners.fit_probe(train, _stored(self.task, store, "train", layer), **settings)
        except InputError:  # few prompts can have all rewards equal: such a probe ranks nothing
            return [[0.0] * len(g.completions) for g in self.groups]
        probe = replace(probe, embed=_stored(self.task, store, self.name, layer))
        return [[r.value for r in row] for row in probe(self.groups)]


def _layers(task: Task) -> dict[str, int | None]:
    """What a probe may read, by the name that people see: layers, or another embedder's one vector."""
    if task.embed.kind == "hidden_states":
        return {f"layer {n}": n for n in task.embed.layers}
    return {f"{task.embed.kind} {task.embed.model}".strip(): None}


def _layer_of(card: Mapping[str, Any]) -> int | None:
    return card["embedder"].get("layers", [None])[0]


def _stored(task: Task, store: Store, name: str, layer: int | None) -> Embedder:
    keys = None if layer is None else (f"layer{layer}.{task.embed.pooling}",)
    return embeddings.Stored(None, store, name, keys=keys)


def _is_fitted(folder: Path, request: str) -> bool:
    """Whether `folder` holds a whole probe that was fitted for this very request; a damaged one is fitted again."""
    try:
        return learners.Probe.load(folder).card.get("request") == request
    except InputError:
        return False
