"""The pipeline's stages as functions of a `Task`: sample, score, embed, fit, evaluate, report.

This is where the rooms are composed: samplers, rewards and embeddings are made here and handed to learners and
evaluation, which know none of them. Every stage reads and writes the store of `task.out`, skips what is there, and can
be run alone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import embeddings, evaluation, learners, rewards, samplers
from trimtab.cli import probes, reranker
from trimtab.cli.config import Task
from trimtab.cli.prompts import open_store, reward_name, reward_of, run_store
from trimtab.errors import InputError
from trimtab.jobs import make
from trimtab.progress import working
from trimtab.publish import publish_text
from trimtab.store import Store
from trimtab.types import Group, SamplingParams

SETS = {"train": "train", "test": "test", "greedy": "test"}
"""Sets of completions, and the split of prompts each is sampled from."""


def run_all(task: Task, say: Callable[[str], None]) -> evaluation.Table:
    """Every stage in order; `say` hears a line or two a stage. Returns the table. Without losses there are no probes,
    and so no vectors are needed."""
    learn = [("embedded", embed), ("fitted", fit)] if task.probe.losses else []
    for label, stage in (("sampled", sample), ("scored", score), *learn):
        begun = time.monotonic()
        facts = stage(task)
        say(f"{facts_text(label, facts)}  ({time.monotonic() - begun:.1f} s)")
    e = _evaluated(task, strict=True)
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
    sampler = make.sampler(**vars(task.model))
    facts: dict[str, Any] = {"model": sampler.model}
    for name, n, how in (("train", s.train_n, params), ("test", s.test_n, params), ("greedy", 1, greedy)):
        groups = samplers.Cached(sampler, store, name)(store.prompts(SETS[name]), n, how)
        facts[name] = f"{len(groups)} x {n}"
        if failed := sum(c.failed for g in groups for c in g.completions):
            facts[f"{name}_failed"] = f"{failed} (asked for again by the next run)"
    return facts


def score(task: Task) -> dict[str, Any]:
    """Completions to rewards; what could not be scored is NaN with a note, and counted here by its note."""
    store, (name, reward) = run_store(task, keep=True), reward_of(task)
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
    store = run_store(task, keep=True)
    m = task.model
    embedder = make.embedder(**vars(task.embed), beside=m.name, device=m.device, dtype=m.dtype)
    facts: dict[str, Any] = {k: embedder.card[k] for k in ("model", "layers") if k in embedder.card}
    for set_ in _sampled(store, "greedy"):
        vectors = embeddings.Stored(embedder, store, set_)(store.groups(set_, None))
        facts[set_] = f"{sum(map(len, vectors))} x {vectors[0].shape[1]}"
    return facts


def fit(task: Task) -> dict[str, Any]:
    """Rewards and vectors to one probe a loss; see `probes.fit`."""
    return probes.fit(task)


def evaluate(task: Task, *, strict: bool = False) -> evaluation.Table:
    """What every strategy buys on the test prompts; kept as table.json in the run directory.

    Probes that have not been fitted are left out with a note; with `strict` they are an InputError.
    """
    return _evaluated(task, strict).table


def report(task: Task, *, strict: bool = False) -> Path:
    """The table, the curves and a browser of groups as report.html in the run directory."""
    return _write_report(task, _evaluated(task, strict))


@dataclass(frozen=True)
class Evaluated:
    """The scored test groups, the greedy answers, each probe and each ranking's values, and the table made of all."""

    name: str
    groups: list[Group]
    greedy: list[Group] | None
    probes: dict[str, learners.Probe]
    values: dict[str, list[list[float]]]
    table: evaluation.Table
    extract: Callable[[str], str | None] | None


def _evaluated(task: Task, strict: bool) -> Evaluated:
    store = run_store(task)
    name, reward = _tested(store), reward_name(task, store)
    groups = store.groups(name, reward)
    greedy = store.groups("greedy", reward) if "greedy" in store.names("completions") else None
    fitted, notes = probes.load(task, store, name, strict=strict)
    extract = _extract(task, groups)
    with working("comparing strategies"):
        values = {f"probe {loss}": [[r.value for r in row] for row in p(groups)] for loss, p in fitted.items()}
        values |= reranker.values(store, name, groups, extract or rewards.extractor("whole"))
        # the best on training prompts, never on test
        best = max(fitted, key=lambda loss: probes.held_out(fitted[loss].card), default="")
        table = evaluation.compare(
            groups, values, greedy_groups=greedy, beta=task.eval.beta, soft=[f"probe {best}"] if best else [],
            extract=extract, draws=task.eval.draws, seed=task.eval.seed,
        )  # fmt: skip
    if extract is None:
        notes.append(
            "majority vote is left out: neither the reward nor the golds say what it would count; name an extractor "
            "with eval.extract"
        )
    known = [n for n in table.notes if n != evaluation.NO_EXTRACTOR]
    table = replace(table, notes=(*known, *notes))
    publish_text(store.path / "table.json", table.to_json())
    return Evaluated(name, groups, greedy, fitted, values, table, extract)


def _write_report(task: Task, e: Evaluated) -> Path:
    draws, seed = min(task.eval.draws, 2000), task.eval.seed  # many points, so fewer draws each than the table's
    with working("drawing the report"):
        figures = [
            curve(e.groups, e.values, greedy_groups=e.greedy, draws=draws, seed=seed)
            for curve in (evaluation.reward_against_k, evaluation.reward_against_beta)
        ]
        if e.probes:
            refits = probes.Refits(task, e.probes, e.groups, e.greedy, e.name, draws)
            figures.append(refits.against_prompts())
            if len(task.embed.layers) > 1 and task.embed.kind == "hidden_states":
                figures.append(refits.against_layer())
        strategies, _ = evaluation.strategies(e.groups, e.values, beta=task.eval.beta, soft=[], extract=e.extract)
        return evaluation.write_report(
            Path(task.out) / "report.html", e.table, figures, e.groups, values=e.values,
            choices=evaluation.choices(e.groups, strategies), greedy_groups=e.greedy,
            pass_rates=evaluation.value_against_pass_rate(e.groups, e.values, draws=draws, seed=seed),
            meta={"model": _models(e.groups), "reward": task.reward.name, **e.table.meta},
            title=f"trimtab: {task.out}",
        )  # fmt: skip


def scored_groups(task: Task, name: str) -> tuple[list[Group], Store]:
    """The completions of a set with the task's rewards, and the store that they come from."""
    store = run_store(task)
    return store.groups(name, reward_name(task, store)), store


def answer_of(task: Task, groups: list[Group]) -> Callable[[str], str | None]:
    """What two completions must agree in to say the same: the vote's answer, else the whole text."""
    return _extract(task, groups) or rewards.extractor("whole")


def _models(groups: list[Group]) -> str:
    return ", ".join(sorted({c.model for g in groups for c in g.completions}))


def _sampled(store: Store, *without: str) -> list[str]:
    names = [n for n in store.names("completions") if n not in without]
    if not names:
        raise InputError(f"{store.path} holds no completions; run `trimtab sample` first")
    return names


def _tested(store: Store) -> str:
    """The completions that are judged: "test", or the only ones there are."""
    names = _sampled(store, "greedy")
    if "test" in names:
        return "test"
    if len(names) == 1:
        return names.pop()
    raise InputError(f"{store.path} holds no completions 'test' to judge, only {', '.join(sorted(names))}")


def _extract(task: Task, groups: list[Group]) -> Callable[[str], str | None] | None:
    """What majority vote counts: as the task says, else by the reward, else by the golds; None: nothing to count."""
    name = task.eval.extract
    if not name:
        try:
            reward = reward_of(task)[1]
        except InputError:  # the user's function may not be at hand where only the run directory is
            reward = None
        name = rewards.extractor_for(reward, [g.prompt for g in groups]) or ""
    return rewards.extractor(name) if name else None
