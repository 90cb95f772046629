"""Names of models and run directories to rewards on the same prompts, and to one table of paired differences.

A run directory is read (and scored, when a reward is named); a model is sampled into a run directory of its own, so
that a stopped comparison goes on where it was.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trimtab import data, rewards, samplers
from trimtab.errors import InputError, differences
from trimtab.evaluation import paired
from trimtab.jobs import make
from trimtab.jobs.inputs import is_run
from trimtab.store import Store
from trimtab.types import Group, Prompt, RewardFn, SamplingParams, fingerprint

DECISIVE = ("temperature", "top_p", "top_k", "max_tokens", "stop")
"""Settings that decide what a completion can be; seed and n only decide which are drawn and how many."""


def versus(
    names: Sequence[str], *, prompts: str = "", reward: str | RewardFn = "", split: str = "test", out: str = "",
    engine: str = "hf", device: str = "", n: int = 4, temperature: float = 0.8, max_tokens: int = 256, seed: int = 0,
    raw: bool = False, say: Callable[[str], None] = lambda line: None,
) -> tuple[paired.Table, list[str]]:  # fmt: skip
    """Models and run directories compared with the first, and notes on what differs in how they were sampled.

    `split`: which completions of run directories. Models answer `prompts` (a file; else the first run's) into a folder
    each of `out`, `n` completions a prompt; `raw` gives them text without a chat template. InputError for what cannot
    be compared, before the first completion is paid for.
    """
    if len(set(names)) < len(names) or len(names) < 2:
        raise InputError("give two or more different models or run directories")
    runs = [name for name in names if is_run(name)]
    models = [name for name in names if name not in runs]
    if models and not (out and reward):
        raise InputError(f"{models[0]} is a model: give --out for its completions and --reward to score them")
    fn = make.reward(reward) if reward else None
    made = {name: make.sampler(name, engine, device=device) for name in models}
    _ = [sampler.model for sampler in made.values()]  # an unknown name or an adapter without its base raises here
    asked = _prompts(prompts, runs, split, raw) if models else []
    params = SamplingParams(temperature, 1.0, 0, max_tokens, (), seed)
    found: dict[str, list[Group]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for name in names:
        store, table = (Store(name), split) if name in runs else (Store(Path(out) / _slug(name)), "test")
        if name in models:
            say(f"sampling {name} on {len(asked)} prompts")
            store.add_prompts(asked, "test", {"content": fingerprint(asked)})
            samplers.Cached(made[name], store, "test")(store.prompts("test"), n, params)
        if fn:
            column, groups = make.reward_name(reward), store.groups(table, None)
            found[name] = rewards.score(groups, fn, store=store, name=table, reward_name=column)
        else:
            found[name] = store.groups(table)
        kept = store.settings(f"completions/{table}")
        settings[name] = {k: kept[k] for k in DECISIVE if k in kept}
    return paired.versus(found, seed=seed), _differences(settings)


def _differences(settings: dict[str, dict[str, Any]]) -> list[str]:
    first, *others = settings
    base, notes = settings[first], []
    for name in others:
        if told := ", ".join(differences(base, settings[name], "{key} {new}, not {old}")):
            notes.append(f"{name} was sampled otherwise than {first}: {told}")
    return notes


def _prompts(file: str, runs: Sequence[str], split: str, raw: bool) -> list[Prompt]:
    if file:
        return data.load(file, **({"chat": False} if raw else {}))
    if not runs:
        raise InputError("models are compared on prompts: give --prompts, or a run directory among the names")
    return Store(runs[0]).prompts(split)


def _slug(name: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.')[-60:]}-{fingerprint(name)[:6]}"
