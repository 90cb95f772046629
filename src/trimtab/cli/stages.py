"""The pipeline's stages as functions of a `Task`: sample, score, embed, fit, evaluate, report.

This is where the rooms are composed: samplers, rewards and embeddings are made here and handed to learners and
evaluation, which know none of them. Every stage reads and writes the store of `task.out`, skips what is there, and can
be run alone.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import data, embeddings, evaluation, learners, rewards, samplers
from trimtab.cli.config import REMEMBERED, Task
from trimtab.errors import InputError, unknown
from trimtab.store import Store, publish
from trimtab.types import Embedder, Group, Prompt, RewardFn, Sampler, SamplingParams, fingerprint

ENGINES: dict[str, Callable[[Task], Sampler]] = {
    "openvino": lambda task: samplers.OpenVINO(task.model.name),
    "hf": lambda task: samplers.HF(task.model.name),
    "openai": lambda task: samplers.OpenAI(
        base_url=task.model.base_url, model=task.model.name, api_key=os.environ.get(task.model.api_key_env)
    ),
}
EMBEDDERS: dict[str, Callable[[Task], Embedder]] = {
    "hidden_states": lambda task: embeddings.HiddenStates(
        task.embed.model or task.model.name, layers=tuple(task.embed.layers), pooling=task.embed.pooling
    ),
    "encoder": lambda task: embeddings.Encoder(task.embed.model or "all-minilm-l6-v2"),
    "endpoint": lambda task: embeddings.Endpoint(base_url=task.embed.base_url, model=task.embed.model),
}
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
    sampler = _named(ENGINES, "engine", task.model.engine)(task)
    facts: dict[str, Any] = {"model": sampler.model}
    for name, n, how in (("train", s.train_n, params), ("test", s.test_n, params), ("greedy", 1, greedy)):
        groups = samplers.Cached(sampler, store, name)(store.prompts(SETS[name]), n, how)
        facts[name] = f"{len(groups)} x {n}"
    return facts


def score(task: Task) -> dict[str, Any]:
    """Completions to rewards; what could not be scored is NaN with a note, and counted here by its note."""
    store, (name, reward) = open_store(task), _reward(task)
    facts: dict[str, Any] = {"reward": name}
    for set_ in _sampled(store):
        groups = rewards.score(
            store.groups(set_), reward, store=store, name=set_, reward_name=name,
            workers=task.reward.workers or None, timeout_s=task.reward.timeout_s,
        )  # fmt: skip
        facts[set_] = f"{np.nanmean(np.concatenate([g.reward_N for g in groups])):.3f}"
        for note, count in rewards.unscored(groups).items():
            facts[f"{set_}_unscored"] = f"{count} ({note})"
    return facts


def embed(task: Task) -> dict[str, Any]:
    """Completions to vectors, those of the greedy answers excepted: nothing chooses among one."""
    store = open_store(task)
    embedder = _named(EMBEDDERS, "kind of embedding", task.embed.kind)(task)
    facts: dict[str, Any] = {k: embedder.card[k] for k in ("model", "layers") if k in embedder.card}
    for set_ in _sampled(store) - {"greedy"}:
        vectors = embeddings.Stored(embedder, store, set_)(store.groups(set_))
        facts[set_] = f"{sum(map(len, vectors))} x {vectors[0].shape[1]}"
    return facts


def fit(task: Task) -> dict[str, Any]:
    """Rewards and vectors to one probe a loss, in `probes/<loss>`; skipped where nothing it is made of has changed."""
    store, (name, _) = open_store(task), _reward(task)
    groups = store.groups("train", name)
    layers = {f"layer {n}": _reader(task, store, "train", n) for n in _layers(task)}
    facts: dict[str, Any] = {}
    for loss in task.probe.losses:
        folder = store.path / "probes" / loss
        request = fingerprint([asdict(task.probe), loss, [e.card for e in layers.values()], groups])
        if not (folder / "request").exists() or (folder / "request").read_text() != request:
            probe = learners.select_probe(
                groups, layers, losses=(loss,), l2=task.probe.l2 or None, folds=task.probe.folds, seed=task.probe.seed
            )
            probe.save(folder)
            publish(folder / "request", lambda tmp, text=request: tmp.write_text(text))
        card = json.loads((folder / "card.json").read_text())
        facts[loss] = f"{card['selected']}, l2 {card['l2']:g}, held-out reward {_held_out(card):.3f}"
    return facts


def evaluate(task: Task) -> evaluation.Table:
    """What every way of choosing buys on the test prompts; kept as table.json in the run directory."""
    return _evaluated(task).table


def report(task: Task) -> Path:
    """The table, the curves and a browser of groups as report.html in the run directory."""
    return _write_report(task, _evaluated(task))


def _write_report(task: Task, e: "Evaluated") -> Path:
    settings = {"draws": min(task.eval.draws, 2000), "seed": task.eval.seed}
    shared = settings | {"greedy_groups": e.greedy}
    figures = [
        evaluation.reward_against_k(e.groups, e.values, **shared),
        evaluation.reward_against_beta(e.groups, e.values, **shared),
    ]
    ways, _ = evaluation.ways(e.groups, e.values, beta=task.eval.beta, soft=[], extract=_extract(task))
    return evaluation.write_report(
        Path(task.out) / "report.html", e.table, figures, e.groups, values=e.values,
        choices=evaluation.choices(e.groups, ways), greedy_groups=e.greedy,
        pass_rates=evaluation.value_against_pass_rate(e.groups, e.values, **settings),
        meta={"model": task.model.name, "reward": task.reward.name, **e.table.meta}, title=f"trimtab: {task.out}",
    )  # fmt: skip


@dataclass(frozen=True)
class Evaluated:
    """The scored test groups, each probe's values on them, the greedy answers, and the table made of all."""

    groups: list[Group]
    greedy: list[Group]
    values: dict[str, list[list[float]]]
    table: evaluation.Table


def _evaluated(task: Task) -> Evaluated:
    store, (name, _) = open_store(task), _reward(task)
    groups, greedy = store.groups("test", name), store.groups("greedy", name)
    probes = {loss: _probe(task, store, loss) for loss in task.probe.losses}
    values = {f"probe {loss}": [[r.value for r in row] for row in p(groups)] for loss, p in probes.items()}
    best = max(probes, key=lambda loss: _held_out(probes[loss].card))  # on training prompts, never on test
    table = evaluation.compare(
        groups, values, greedy_groups=greedy, beta=task.eval.beta, soft=[f"probe {best}"], extract=_extract(task),
        draws=task.eval.draws, seed=task.eval.seed,
    )  # fmt: skip
    publish(store.path / "table.json", lambda tmp: tmp.write_text(table.to_json()))
    return Evaluated(groups, greedy, values, table)


def open_store(task: Task) -> Store:
    """The task's store with its prompts in it. The first call reads and splits them; a later one that would give other
    prompts is refused with the difference."""
    store, d = Store(task.out), task.data
    if not d.prompts:
        if store.tables("prompts"):
            return store
        raise InputError(f"{task.out}: no prompts; give data.prompts (or --prompts): a .jsonl or .parquet file")
    train, test = _split(task)
    settings = asdict(d) | {
        "prompts": Path(d.prompts).name, "test_prompts": Path(d.test_prompts).name,
        "train_content": fingerprint(train), "test_content": fingerprint(test),
    }  # fmt: skip
    store.add_prompts(train, "train", settings)
    store.add_prompts(test, "test", settings)
    publish(store.path / REMEMBERED, lambda tmp: tmp.write_text(json.dumps(asdict(task), indent=2)))
    return store


def _split(task: Task) -> tuple[list[Prompt], list[Prompt]]:
    d = task.data
    if d.prompts.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        prompts = data.load(d.prompts, chat=d.chat)
    elif d.train and d.test >= 1:
        prompts = data.load(d.prompts, size=d.train + int(d.test), seed=d.seed, **d.options)
    else:
        raise InputError(
            f"data.prompts = {d.prompts!r} makes prompts to order: say how many with data.train and data.test"
        )
    if d.test_prompts:
        train, test = prompts, data.load(d.test_prompts, chat=d.chat)
    else:
        train, test = data.split_by_id(prompts, test=int(d.test) if d.test >= 1 else d.test, seed=d.seed)
    train = train[: d.train] if d.train else train
    if len(train) < 2 or not test:
        raise InputError(
            f"{d.prompts}: {len(train)} training and {len(test)} test prompts; a probe needs at least two to train on "
            "and one to test on: give more prompts or change data.test"
        )
    return train, test


def _sampled(store: Store) -> set[str]:
    names = {t.split("/", 1)[1] for t in store.tables("completions")}
    if not names:
        raise InputError(f"{store.path} holds no completions; run `trimtab sample` first")
    return names


def _reward(task: Task) -> tuple[str, RewardFn]:
    if not task.reward.name:
        raise InputError("no reward; give reward.name (or --reward): a built-in or package.module:function")
    name = task.reward.name.replace(":", ".")
    if task.reward.options:  # two settings of one reward are two columns of rewards
        name += "-" + fingerprint(task.reward.options)[:8]
    return name, rewards.resolve(task.reward.name, **task.reward.options)


def _reader(task: Task, store: Store, name: str, layer: int | None) -> Embedder:
    keys = None if layer is None else (f"layer{layer}.{task.embed.pooling}",)
    return embeddings.Stored(None, store, name, keys=keys)


def _layers(task: Task) -> list[int | None]:
    return [*task.embed.layers] if task.embed.kind == "hidden_states" else [None]


def _probe(task: Task, store: Store, loss: str) -> learners.Probe:
    folder = store.path / "probes" / loss
    if not (folder / "card.json").exists():
        raise InputError(f"{folder} holds no probe; run `trimtab fit probe --loss {loss}` first")
    layers = json.loads((folder / "card.json").read_text())["embedder"].get("layers", [None])
    return learners.Probe.load(folder, _reader(task, store, "test", layers[0]))


def _held_out(card: Mapping[str, Any]) -> float:
    """The reward that cross-validation over training prompts gave the chosen settings."""
    return max(row["reward"] for row in card["selection"])


def _extract(task: Task) -> Callable[[str], str | None]:
    return rewards.extractor(task.eval.extract)


def _named(table: dict[str, Callable[[Task], Any]], kind: str, name: str) -> Callable[[Task], Any]:
    if name not in table:
        raise unknown(kind, name, table)
    return table[name]
