"""The pipeline's stages as functions of a `Task`: sample, score, embed, fit, evaluate, report.

This is where the rooms are composed: samplers, rewards and embeddings are made here and handed to learners and
evaluation, which know none of them. Every stage reads and writes the store of `task.out`, skips what is there, and can
be run alone.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import data, embeddings, evaluation, learners, rewards, samplers
from trimtab.cli.config import REMEMBERED, Task
from trimtab.errors import InputError, unknown
from trimtab.store import Store, publish
from trimtab.types import Embedder, Group, Prompt, RewardFn, Sampler, SamplingParams, canonical_json, fingerprint

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
    table = evaluate(task)
    say(f"\n{table}\n\nwrote {report(task)}")
    return table


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
