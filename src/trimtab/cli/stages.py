"""The pipeline's stages as functions of a `Task`: sample, score, embed, fit, evaluate, report.

This is where the rooms are composed: samplers, rewards and embeddings are made here and handed to learners and
evaluation, which know none of them. Every stage reads and writes the store of `task.out`, skips what is there, and can
be run alone.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab import embeddings, evaluation, learners, rewards, samplers
from trimtab.cli import make, reader
from trimtab.cli.config import Task
from trimtab.cli.prompts import open_store, reward_of
from trimtab.errors import InputError
from trimtab.store import Store, publish
from trimtab.types import Embedder, Group, SamplingParams, fingerprint

SETS = {"train": "train", "test": "test", "greedy": "test"}
"""Sets of completions, and the split of prompts each is sampled from."""


def run_all(task: Task, say: Callable[[str], None]) -> evaluation.Table:
    """Every stage in order; `say` hears a line or two a stage. Returns the table."""
    for label, stage in (("sampled", sample), ("scored", score), ("embedded", embed), ("fitted", fit)):
        begun = time.monotonic()
        facts = stage(task)
        say(f"{facts_text(label, facts)}  ({time.monotonic() - begun:.1f} s)")
    e = _evaluated(task)
    say(f"\n{e.table}\n\nwrote {_write_report(task, e)}")
    return e.table


def facts_text(label: str, facts: dict[str, Any]) -> str:
    """One line for people: what a stage did, from its facts."""
    return f"{label:<9}" + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in facts.items())


def sample(task: Task) -> dict[str, Any]:
    """Prompts to completions: n a prompt for training and test, and one greedy completion a test prompt."""
    store = open_store(task)
    s = task.sample
    params = SamplingParams(s.temperature, s.top_p, s.top_k, s.max_tokens, tuple(s.stop), s.seed)
    greedy = SamplingParams(0.0, 1.0, 0, s.max_tokens, tuple(s.stop), s.seed)
    sampler = make.sampler(task.model)
    facts: dict[str, Any] = {"model": sampler.model}
    for name, n, how in (("train", s.train_n, params), ("test", s.test_n, params), ("greedy", 1, greedy)):
        groups = samplers.Cached(sampler, store, name)(store.prompts(SETS[name]), n, how)
        facts[name] = f"{len(groups)} x {n}"
    return facts


def score(task: Task) -> dict[str, Any]:
    """Completions to rewards; what could not be scored is NaN with a note, and counted here by its note."""
    store, (name, reward) = open_store(task), reward_of(task)
    facts: dict[str, Any] = {"reward": name}
    for set_ in _sampled(store):
        groups = rewards.score(
            store.groups(set_, None), reward, store=store, name=set_, reward_name=name,
            workers=task.reward.workers or None, timeout_s=task.reward.timeout_s,
        )  # fmt: skip
        values = np.concatenate([g.reward_N for g in groups])
        facts[set_] = f"{np.nanmean(values):.3f}" if np.isfinite(values).any() else "nothing scored"
        for note, count in rewards.unscored(groups).items():
            facts[f"{set_}_unscored"] = f"{count} ({note})"
    return facts


def embed(task: Task) -> dict[str, Any]:
    """Completions to vectors, those of the greedy answers excepted: nothing chooses among one."""
    store = open_store(task)
    embedder = make.embedder(task.embed, task.model)
    facts: dict[str, Any] = {k: embedder.card[k] for k in ("model", "layers") if k in embedder.card}
    for set_ in _sampled(store) - {"greedy"}:
        vectors = embeddings.Stored(embedder, store, set_)(store.groups(set_, None))
        facts[set_] = f"{sum(map(len, vectors))} x {vectors[0].shape[1]}"
    return facts


def fit(task: Task) -> dict[str, Any]:
    """Rewards and vectors to one probe a loss, in `probes/<loss>`; skipped where nothing it is made of has changed."""
    store, (name, _) = open_store(task), reward_of(task)
    groups = store.groups("train", name)
    layers = {f"layer {n}": _reader(task, store, "train", n) for n in _layers(task)}
    facts: dict[str, Any] = {}
    for loss in task.probe.losses:
        folder = store.path / "probes" / loss
        request = fingerprint([asdict(task.probe), loss, [e.card for e in layers.values()], groups])
        if not _is_fitted(folder, request):
            probe = learners.select_probe(
                groups, layers, losses=(loss,), l2=task.probe.l2 or None, folds=task.probe.folds, seed=task.probe.seed
            )
            replace(probe, card={**probe.card, "request": request}).save(folder)
        card = _card(store, loss)
        facts[loss] = f"{card['selected']}, l2 {card['l2']:g}, held-out reward {_held_out(card):.3f}"
    return facts


def _is_fitted(folder: Path, request: str) -> bool:
    """Whether `folder` holds a whole probe that was fitted for this very request; a damaged one is fitted again."""
    try:
        return learners.Probe.load(folder).card.get("request") == request
    except InputError:
        return False


def evaluate(task: Task) -> evaluation.Table:
    """What every way of choosing buys on the test prompts; kept as table.json in the run directory."""
    return _evaluated(task).table


def report(task: Task) -> Path:
    """The table, the curves and a browser of groups as report.html in the run directory."""
    return _write_report(task, _evaluated(task))


def _write_report(task: Task, e: "Evaluated") -> Path:
    draws, seed = min(task.eval.draws, 2000), task.eval.seed  # many points, so fewer draws each than the table's
    figures = [
        curve(e.groups, e.values, greedy_groups=e.greedy, draws=draws, seed=seed)
        for curve in (evaluation.reward_against_k, evaluation.reward_against_beta)
    ]
    figures.append(_against_prompts(task, e, draws))
    if len(task.embed.layers) > 1 and task.embed.kind == "hidden_states":
        figures.append(_against_layer(task, e, draws))
    ways, _ = evaluation.ways(e.groups, e.values, beta=task.eval.beta, soft=[], extract=_extract(task))
    return evaluation.write_report(
        Path(task.out) / "report.html", e.table, figures, e.groups, values=e.values,
        choices=evaluation.choices(e.groups, ways), greedy_groups=e.greedy,
        pass_rates=evaluation.value_against_pass_rate(e.groups, e.values, draws=draws, seed=seed),
        meta={"model": task.model.name, "reward": task.reward.name, **e.table.meta}, title=f"trimtab: {task.out}",
    )  # fmt: skip


def _against_prompts(task: Task, e: "Evaluated", draws: int) -> evaluation.Figure:
    """Probes refitted, as they were chosen, on fewer training prompts (the paper's Fig. 2)."""
    store, (name, _) = open_store(task), reward_of(task)
    train = store.groups("train", name)
    cards = {loss: _card(store, loss) for loss in task.probe.losses}

    def fit_on(index: npt.NDArray[np.intp]) -> dict[str, list[list[float]]]:
        some = [train[i] for i in index]
        return {f"probe {loss}": _refitted(task, store, some, loss, card, e.groups) for loss, card in cards.items()}

    sizes = sorted({max(2, len(train) // d) for d in (16, 8, 4, 2, 1)})
    return evaluation.reward_against_prompts(
        e.groups, fit_on, sizes, len(train), greedy_groups=e.greedy, draws=draws, seed=task.eval.seed
    )


def _against_layer(task: Task, e: "Evaluated", draws: int) -> evaluation.Figure:
    """Probes refitted on every stored layer, at the L2 that was chosen for the best one."""
    store, (name, _) = open_store(task), reward_of(task)
    train = store.groups("train", name)
    by_layer = {
        layer: {
            f"probe {loss}": _refitted(task, store, train, loss, _card(store, loss), e.groups, layer)
            for loss in task.probe.losses
        }
        for layer in task.embed.layers
    }
    return evaluation.reward_against_layer(e.groups, by_layer, greedy_groups=e.greedy, draws=draws, seed=task.eval.seed)


def _refitted(
    task: Task, store: Store, train: list[Group], loss: str, card: Mapping[str, Any], groups: list[Group],
    layer: int | None = None,
) -> list[list[float]]:  # fmt: skip
    layer = layer if layer is not None else card["embedder"].get("layers", [None])[0]
    settings = {"loss": loss, "l2": card["l2"], "seed": task.probe.seed}
    try:
        probe = learners.fit_probe(train, _reader(task, store, "train", layer), **settings)
    except InputError:  # few prompts can have all rewards equal: such a probe ranks nothing
        return [[0.0] * len(g.completions) for g in groups]
    probe = replace(probe, embed=_reader(task, store, "test", layer))
    return [[r.value for r in row] for row in probe(groups)]


@dataclass(frozen=True)
class Evaluated:
    """The scored test groups, each probe's values on them, the greedy answers, and the table made of all."""

    groups: list[Group]
    greedy: list[Group]
    values: dict[str, list[list[float]]]
    table: evaluation.Table


def _evaluated(task: Task) -> Evaluated:
    store, (name, _) = open_store(task), reward_of(task)
    groups, greedy = store.groups("test", name), store.groups("greedy", name)
    probes = {loss: _probe(task, store, loss) for loss in task.probe.losses}
    values = {f"probe {loss}": [[r.value for r in row] for row in p(groups)] for loss, p in probes.items()}
    values |= reader.values(store, "test", groups, _extract(task))
    best = max(probes, key=lambda loss: _held_out(probes[loss].card))  # on training prompts, never on test
    table = evaluation.compare(
        groups, values, greedy_groups=greedy, beta=task.eval.beta, soft=[f"probe {best}"], extract=_extract(task),
        draws=task.eval.draws, seed=task.eval.seed,
    )  # fmt: skip
    publish(store.path / "table.json", lambda tmp: tmp.write_text(table.to_json()))
    return Evaluated(groups, greedy, values, table)


def scored_groups(task: Task, name: str) -> tuple[list[Group], Store]:
    """The completions of a set with the task's rewards, and the store that they come from."""
    store, (reward, _) = open_store(task), reward_of(task)
    return store.groups(name, reward), store


def _sampled(store: Store) -> set[str]:
    names = {t.split("/", 1)[1] for t in store.tables("completions")}
    if not names:
        raise InputError(f"{store.path} holds no completions; run `trimtab sample` first")
    return names


def _reader(task: Task, store: Store, name: str, layer: int | None) -> Embedder:
    keys = None if layer is None else (f"layer{layer}.{task.embed.pooling}",)
    return embeddings.Stored(None, store, name, keys=keys)


def _layers(task: Task) -> list[int | None]:
    return [*task.embed.layers] if task.embed.kind == "hidden_states" else [None]


def _probe(task: Task, store: Store, loss: str) -> learners.Probe:
    layers = _card(store, loss)["embedder"].get("layers", [None])
    return learners.Probe.load(store.path / "probes" / loss, _reader(task, store, "test", layers[0]))


def _card(store: Store, loss: str) -> dict[str, Any]:
    file = store.path / "probes" / loss / "card.json"
    if not file.exists():
        raise InputError(f"{file.parent} holds no probe; run `trimtab fit probe --loss {loss}` first")
    return json.loads(file.read_text())


def _held_out(card: Mapping[str, Any]) -> float:
    """The reward that cross-validation over training prompts gave the chosen settings."""
    return max(row["reward"] for row in card["selection"])


def _extract(task: Task) -> Callable[[str], str | None]:
    return rewards.extractor(task.eval.extract)
