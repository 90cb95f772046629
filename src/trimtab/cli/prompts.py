"""A Task to its run directory with the prompts in it: read, divided, and shown what was right in another run.

The one place where a task's [data] and [reward] sections become objects; the stages take it from there.
"""

import json
from dataclasses import asdict
from pathlib import Path

from trimtab import data, rewards
from trimtab.cli.config import REMEMBERED, Task
from trimtab.errors import InputError
from trimtab.store import Store, publish
from trimtab.types import Prompt, RewardFn, fingerprint


def open_store(task: Task) -> Store:
    """The task's store with its prompts in it. The first call reads and splits them; a later one that would give other
    prompts is refused with the difference."""
    store, d = Store(task.out), task.data
    if not d.prompts:
        if store.tables("prompts"):
            return store
        raise InputError(f"{task.out}: no prompts; give data.prompts (or --prompts): a .jsonl or .parquet file")
    train, test = (_after_shots(task, prompts) for prompts in _split(task))
    settings = asdict(d) | {
        "prompts": Path(d.prompts).name, "test_prompts": Path(d.test_prompts).name,
        "train_content": fingerprint(train), "test_content": fingerprint(test),
    }  # fmt: skip
    del settings["shots"], settings["shots_from"]  # the fingerprints tell
    store.add_prompts(train, "train", settings)
    store.add_prompts(test, "test", settings)
    publish(store.path / REMEMBERED, lambda tmp: tmp.write_text(json.dumps(asdict(task), indent=2)))
    return store


def _split(task: Task) -> tuple[list[Prompt], list[Prompt]]:
    d = task.data
    if _is_file(d.prompts):
        prompts = data.load(d.prompts, chat=d.chat)
    elif d.test_prompts:
        prompts = data.load(d.prompts, **d.options)
    elif d.train and d.test >= 1:
        prompts = data.load(d.prompts, size=d.train + int(d.test), seed=d.seed, **d.options)
    else:
        raise InputError(
            f"data.prompts = {d.prompts!r} makes prompts to order: say how many with data.train and data.test"
        )
    if d.test_prompts:
        options = {"chat": d.chat} if _is_file(d.test_prompts) else d.options
        train, test = prompts, data.load(d.test_prompts, **options)
    else:
        train, test = data.split_by_id(prompts, test=int(d.test) if d.test >= 1 else d.test, seed=d.seed)
    train = train[: d.train] if d.train else train
    if len(train) < 2 or not test:
        raise InputError(
            f"{d.prompts}: {len(train)} training and {len(test)} test prompts; a probe needs at least two to train on "
            "and one to test on: give more prompts or change data.test"
        )
    return train, test


def _after_shots(task: Task, prompts: list[Prompt]) -> list[Prompt]:
    """The prompts behind examples: what was right, by this task's reward, among another run's training completions."""
    d = task.data
    if bool(d.shots) != bool(d.shots_from):
        raise InputError("data.shots (how many) and data.shots_from (the run directory they are from) go together")
    if not d.shots:
        return prompts
    solved = data.own_successes(Store(d.shots_from).groups("train", reward_of(task)[0]))
    return data.with_shots(prompts, solved, k=d.shots, seed=d.seed)


def _is_file(spec: str) -> bool:
    return spec.endswith((".jsonl", ".jsonl.gz", ".parquet"))


def reward_of(task: Task) -> tuple[str, RewardFn]:
    """The name under which the task's rewards are stored, and the reward."""
    if not task.reward.name:
        raise InputError("no reward; give reward.name (or --reward): a built-in or package.module:function")
    name = task.reward.name.replace(":", ".")
    if task.reward.options:  # two settings of one reward are two columns of rewards
        name += "-" + fingerprint(task.reward.options)[:8]
    return name, rewards.resolve(task.reward.name, **task.reward.options)
