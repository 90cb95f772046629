"""Names of models and run directories to scored groups on the same prompts, for `trimtab versus`.

A run directory is read (and scored, when a reward is named); a model is sampled into a run directory of its own, so
that a stopped comparison goes on where it was.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import data, rewards, samplers
from trimtab.cli.config import RewardSpec, Task
from trimtab.cli.prompts import reward_of
from trimtab.errors import InputError
from trimtab.jobs import make
from trimtab.store import Store
from trimtab.types import Group, Prompt, Sampler, SamplingParams, fingerprint

DECISIVE = ("temperature", "top_p", "top_k", "max_tokens", "stop")
"""Settings that decide what a completion can be; seed and n only decide which are drawn and how many."""


@dataclass(frozen=True)
class Sampling:
    """How the models among the names are sampled."""

    engine: str = "hf"
    device: str = ""
    n: int = 4
    temperature: float = 0.8
    max_tokens: int = 256
    seed: int = 0
    raw: bool = False
    """Text prompts go to the model as they are, without its chat template."""


def collect(
    names: Sequence[str], prompts: str, reward: str, split: str, how: Sampling, out: str, say: Callable[[str], None]
) -> tuple[dict[str, list[Group]], list[str]]:
    """Scored groups by name, and what differs in how the sides were sampled. InputError for what cannot be compared."""
    if len(set(names)) < len(names) or len(names) < 2:
        raise InputError("give two or more different models or run directories")
    runs = [n for n in names if is_run(n)]
    models = [n for n in names if n not in runs]
    if models and not (out and reward):
        raise InputError(f"{models[0]} is a model: give --out for its completions and --reward to score them")
    if reward:  # whatever can be wrong is found before the first completion is paid for
        reward_of(Task(reward=RewardSpec(name=reward)))
    made = {n: make.sampler(n, how.engine, device=how.device) for n in models}
    _ = [sampler.model for sampler in made.values()]  # an unknown name or an adapter without its base raises here
    asked = _prompts(prompts, runs, split, how.raw) if models else []
    found: dict[str, list[Group]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for name in names:
        store, table = (Store(name), split) if name in runs else (Store(Path(out) / _slug(name)), "test")
        if name in models:
            say(f"sampling {name} on {len(asked)} prompts")
            _sample(made[name], store, asked, how)
        found[name] = _scored(store, table, reward)
        kept = store.settings(f"completions/{table}")
        settings[name] = {k: kept[k] for k in DECISIVE if k in kept}
    base = settings[names[0]]
    notes = []
    for name in names[1:]:
        differs = {k: (settings[name].get(k), base.get(k)) for k in DECISIVE if settings[name].get(k) != base.get(k)}
        if differs:
            told = ", ".join(f"{k} {a!r}, not {b!r}" for k, (a, b) in differs.items())
            notes.append(f"{name} was sampled otherwise than {names[0]}: {told}")
    return found, notes


def is_run(name: str) -> bool:
    """Whether a name is a run directory (a store), and not a model."""
    return (Path(name).expanduser() / "manifest.json").is_file()


def _prompts(file: str, runs: Sequence[str], split: str, raw: bool) -> list[Prompt]:
    if file:
        return data.load(file, **({"chat": False} if raw else {}))
    if not runs:
        raise InputError("models are compared on prompts: give --prompts, or a run directory among the names")
    return Store(runs[0]).prompts(split)


def _sample(sampler: Sampler, store: Store, prompts: Sequence[Prompt], how: Sampling) -> None:
    store.add_prompts(list(prompts), "test", {"content": fingerprint(list(prompts))})
    params = SamplingParams(how.temperature, 1.0, 0, how.max_tokens, (), how.seed)
    samplers.Cached(sampler, store, "test")(store.prompts("test"), how.n, params)


def _scored(store: Store, table: str, reward: str) -> list[Group]:
    if not reward:
        return store.groups(table)
    name, fn = reward_of(Task(reward=RewardSpec(name=reward)))
    return rewards.score(store.groups(table, None), fn, store=store, name=table, reward_name=name)


def _slug(name: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.')[-60:]}-{fingerprint(name)[:6]}"
