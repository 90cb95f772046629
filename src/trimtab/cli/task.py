"""The sections of a `Task` as keywords of the jobs, and the settings that a run directory remembers."""

import json
from dataclasses import asdict
from typing import Any

from trimtab.cli.config import REMEMBERED
from trimtab.cli.sections import Task
from trimtab.jobs import make, prompts
from trimtab.json_file import read_json
from trimtab.publish import publish_text
from trimtab.store import Store
from trimtab.types import Embedder, Sampler


def opened(task: Task) -> Store:
    """The task's run directory with its prompts in it, and the task remembered there."""
    return _remember(task, prompts.add(task.out, divided(task) if task.data.prompts else None))


def sampled(task: Task) -> Store:
    """The run directory of a run that has been sampled. A stage that adds to it makes its settings the run's own, so
    that later verbs need no flags."""
    return _remember(task, prompts.sampled(task.out))


def divided(task: Task) -> prompts.Divided:
    """Training and test prompts as the task's [data] says; the run directory is not touched."""
    reward = make.reward_name(task.reward.name, **task.reward.options) if task.reward.name else ""
    return prompts.divide(**vars(task.data), reward=reward)


def sampler(task: Task) -> Sampler:
    """The sampler of [model]."""
    return make.sampler(**vars(task.model))


def embedder(task: Task) -> Embedder:
    """The embedder of [embed], beside the model that answers. Where no engine is named, a run that has vectors goes on
    with theirs."""
    m, given, store = task.model, vars(task.embed), Store(task.out)
    begun = [t for t in store.tables("embeddings") if t.count("/") == 1]
    if begun and not task.embed.engine:
        given = given | {"engine": store.settings(begun[0])["card"].get("engine", "torch")}
    return make.embedder(**given, beside=m.name, sampled_by=m.engine, device=m.device, dtype=m.dtype)


def keys(task: Task) -> list[str]:
    """The stored vectors that the probes choose among; none: the only ones there are."""
    e = task.embed
    return [f"layer{n}.{e.pooling}" for n in e.layers] if e.kind == "hidden_states" else []


def rewarded(task: Task) -> dict[str, Any]:
    """The reward of a stage."""
    return {"reward": task.reward.name, "options": task.reward.options}


def _remember(task: Task, store: Store) -> Store:
    """Keeps the resolved task in the run directory; prompts that came from the store are named as they were."""
    file, tree = store.path / REMEMBERED, asdict(task)
    if not task.data.prompts and file.exists():
        tree["data"] = read_json(file, "a run's task").get("data", tree["data"])
    text = json.dumps(tree, indent=2)
    if not file.exists() or file.read_bytes() != text.encode():
        publish_text(file, text)
    return store
