"""A run's probes and reranker: fitted from its store, read for its test completions, and fitted again for curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab import evaluation, learners
from trimtab.embeddings import Stored
from trimtab.errors import InputError
from trimtab.intervals import figure
from trimtab.json_file import read_json
from trimtab.progress import working
from trimtab.store import Store
from trimtab.types import Group, RewardFn, fingerprint

LOSSES = ("mse", "ce", "pg")
RERANKER, CALIBRATED = "rerankers/reranker", "calibrated"
Values = list[list[float]]


def fit(
    store: Store, groups: Sequence[Group], *, keys: Sequence[str] = (), losses: Sequence[str] = LOSSES,
    l2: Sequence[float] = (), folds: int = 5, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Scored groups of "train" and their vectors to one probe a loss, in `probes/<loss>`; {loss: what was chosen}.

    `keys`: the stored vectors that cross-validation chooses among ("layer20.last"); none: the only ones there are. A
    probe is left as it is where nothing that it is made of has changed.
    """
    views = _views(store, keys)
    request = {"losses": list(losses), "l2": list(l2), "folds": folds, "seed": seed}
    facts: dict[str, Any] = {}
    for loss in losses:
        folder = store.path / "probes" / loss
        wanted = fingerprint([request, loss, [e.card for e in views.values()], groups])
        if not _is_fitted(folder, wanted):
            with working(f"fitting probe {loss}"):
                probe = learners.select_probe(groups, views, losses=(loss,), l2=l2 or None, folds=folds, seed=seed)
            replace(probe, card={**probe.card, "request": wanted}).save(folder)
        card = learners.Probe.load(folder).card
        facts[loss] = f"{card['selected']}, l2 {card['l2']:g}, held-out reward {figure(held_out(card))}"
    return facts


def load(store: Store, name: str, losses: Sequence[str], *, strict: bool) -> tuple[dict[str, Any], list[str]]:
    """The run's probe of each loss, to read the completions `name`; and notes on those that have not been fitted.

    `strict`: the user named the losses, so one that is missing is an InputError.
    """
    probes, notes = {}, []
    for loss in losses:
        folder = store.path / "probes" / loss
        if (folder / "card.json").exists():
            probes[loss] = learners.Probe.load(folder, _stored(store, name, learners.Probe.load(folder).card))
        elif strict:
            raise InputError(f"{folder} holds no probe; run `trimtab fit probe --loss {loss}` first")
        else:
            notes.append(f"probe {loss} is left out: none has been fitted (`trimtab fit probe --out {store.path}`)")
    return probes, notes


def held_out(card: Mapping[str, Any]) -> float:
    """The reward that cross-validation over training prompts gave the chosen settings."""
    return max(row["reward"] for row in card["selection"])


def numbers(reward: RewardFn, groups: Sequence[Group]) -> Values:
    """The values of what a reward says of every completion."""
    return [[r.value for r in row] for row in reward(groups)]


@dataclass(frozen=True)
class Refits:
    """The probes fitted again, as they were chosen, for curves over prompts and layers."""

    store: Store
    name: str
    """The completions that are judged: `groups`."""
    groups: list[Group]
    train: list[Group]
    probes: Mapping[str, "learners.Probe"]
    curve: Mapping[str, Any]
    """Keywords of every curve: greedy_groups, draws, seed."""

    def against_prompts(self) -> evaluation.Figure:
        """On fewer training prompts (the paper's Fig. 2)."""

        def fit_on(index: npt.NDArray[np.intp]) -> dict[str, Values]:
            return self._refitted([self.train[i] for i in index])

        sizes = sorted({max(2, len(self.train) // d) for d in (16, 8, 4, 2, 1)})
        return evaluation.reward_against_prompts(self.groups, fit_on, sizes, len(self.train), **self.curve)

    def against_layer(self, keys: Sequence[str]) -> evaluation.Figure:
        """On every one of these stored layers, at the L2 that was chosen for the best one."""
        by_layer = {_layer(key): self._refitted(self.train, key) for key in keys}
        return evaluation.reward_against_layer(self.groups, by_layer, **self.curve)

    def _refitted(self, train: list[Group], key: str = "") -> dict[str, Values]:
        return {f"probe {loss}": self._values(train, probe.card, key) for loss, probe in self.probes.items()}

    def _values(self, train: list[Group], card: Mapping[str, Any], key: str) -> Values:
        learnt, read = (
            Stored(None, self.store, name, keys=(key,)) if key else _stored(self.store, name, card)
            for name in ("train", self.name)
        )
        try:
            probe = learners.fit_probe(train, learnt, loss=card["loss"], l2=card["l2"], seed=card["seed"])
        except InputError:  # few prompts can have all rewards equal: such a probe ranks nothing
            return [[0.0] * len(g.completions) for g in self.groups]
        return numbers(replace(probe, embed=read), self.groups)


def fit_reranker(
    store: Store, groups: Sequence[Group], *, same: Callable[[str], Any], states: bool = True, folds: int = 5,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Fits a reranker to the scored groups of "train" and saves it; every stored layer and pooling is tried.

    `same`: what two completions must agree in to say the same. `states`: also read vectors; without, cues alone.
    """
    views = {}
    if states:
        if "embeddings/train" not in store.tables("embeddings"):
            raise InputError(f"{store.path} holds no vectors; run `trimtab embed` first, or fit with --no-states")
        keys = store.settings("embeddings/train")["keys"]
        views = {key: Stored(None, store, "train", keys=(key,)) for key in keys}
    reranker = learners.fit_reranker(groups, views, same=same, folds=folds, seed=seed)
    reranker.save(store.path / RERANKER)
    form, metrics = reranker.form, reranker.card["metrics"]
    return {
        "cues": "+".join(form.cues) or "none", "states": form.states or "none", "l2": form.l2, "pool": form.pool,
        "held_out_reward": round(metrics["held_out_reward"], 4), "held_out_null": round(metrics["held_out_null"], 4),
        "null": metrics["null"],
        "forms_tried": len(reranker.card["selection"]), "learnable_prompts": reranker.card["learnable_prompts"],
    }  # fmt: skip


def reranked(store: Store, name: str, groups: Sequence[Group], same: Callable[[str], Any]) -> dict[str, Values]:
    """{"reranker": its value for every completion of the stored set `name`}, {} when the run has no reranker."""
    if not (store.path / RERANKER / "card.json").exists():
        return {}
    return {"reranker": numbers(load_reranker(store, name, same), groups)}


def load_reranker(store: Store, name: str, same: Callable[[str], Any]) -> "learners.Reranker":
    """The run's reranker, to read the completions `name`. InputError when there is none."""
    folder = store.path / RERANKER
    if not (folder / "card.json").exists():
        raise InputError(f"{folder} holds no reranker; run `trimtab fit reranker --out {store.path}` first")
    reranker = learners.Reranker.load(folder, same=same)
    if (states := reranker.form.states) is not None:
        reranker = learners.Reranker.load(folder, Stored(None, store, name, keys=(states,)), same)
    return reranker


def calibrations(store: Store) -> list[evaluation.Figure]:
    """How reliable each calibration of the run is, for the report."""
    cards = sorted((store.path / CALIBRATED).glob("*/card.json"))
    needs = {"by_k": list, "reward": str}
    return [evaluation.reliability(read_json(file, "a calibration's card", needs)) for file in cards]


def _views(store: Store, keys: Sequence[str]) -> dict[str, Stored]:
    """What a probe may read, by the name that people see: layers, or another embedder's one vector."""
    if keys:
        return {f"layer {_layer(key)}": Stored(None, store, "train", keys=(key,)) for key in keys}
    only = Stored(None, store, "train")
    return {f"{only.card['kind']} {only.card.get('model', '')}".strip(): only}


def _layer(key: str) -> int:
    return int(key.split(".")[0].removeprefix("layer"))


def _stored(store: Store, name: str, card: Mapping[str, Any]) -> Stored:
    """The vectors of the completions `name` that the probe of this card reads."""
    e = card["embedder"]
    return Stored(None, store, name, keys=(f"layer{e['layers'][0]}.{e['pooling']}",) if "layers" in e else None)


def _is_fitted(folder: Path, request: str) -> bool:
    """Whether `folder` holds a whole probe that was fitted for this very request; a damaged one is fitted again."""
    try:
        return learners.Probe.load(folder).card.get("request") == request
    except InputError:
        return False
