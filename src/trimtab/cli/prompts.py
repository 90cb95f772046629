"""A Task to its run directory with the prompts in it: read, divided, and shown what was right in another run.

The one place where a task's [data] and [reward] sections become objects; the stages take it from there.
"""

import json
from dataclasses import asdict
from pathlib import Path

from trimtab import data, rewards
from trimtab.cli.config import REMEMBERED, Task, looks_like_file
from trimtab.errors import InputError
from trimtab.json_file import read_json
from trimtab.publish import publish_text
from trimtab.store import Store
from trimtab.types import Prompt, RewardFn, fingerprint


def open_store(task: Task) -> Store:
    """The task's store with its prompts in it. The first call reads and splits them; a later one that would give other
    prompts is refused with the difference. Without `data.prompts` the prompts are those the store holds."""
    store, d = Store(task.out), task.data
    if not d.prompts:
        if store.tables("prompts"):
            _remember(task, store)
            return store
        raise InputError(
            f"{task.out} is no run directory with prompts in it: give data.prompts (or --prompts), a file or a named "
            "task, or the directory of a run that has been sampled"
        )
    train, test = read_prompts(task)
    settings = asdict(d) | {
        "prompts": Path(d.prompts).name, "test_prompts": Path(d.test_prompts).name,
        "train_content": fingerprint(train), "test_content": fingerprint(test),
    }  # fmt: skip
    del settings["shots"], settings["shots_from"]  # the fingerprints tell
    store.add_prompts(train, "train", settings)
    store.add_prompts(test, "test", settings)
    _remember(task, store)
    return store


def run_store(task: Task, *, keep: bool = False) -> Store:
    """The store of a run that has been sampled; nothing is read but it. InputError when there is none.

    `keep`: a stage that adds to the run makes its settings the run's own, so that later verbs need no flags.
    """
    store = Store(task.out)
    if not store.tables("completions"):
        raise InputError(f"{task.out} holds no completions; run `trimtab sample` first, or give another directory")
    if keep:
        _remember(task, store)
    return store


def read_prompts(task: Task) -> tuple[list[Prompt], list[Prompt]]:
    """Training and test prompts as the task's [data] section says; the store is not touched."""
    train, test = _split(task)
    if task.data.test_prompts:
        _apart(task, train, test)
    return _after_shots(task, train), _after_shots(task, test)


def _apart(task: Task, train: list[Prompt], test: list[Prompt]) -> None:
    """InputError when a prompt is in both files: what is learnt from it would be measured on it."""
    seen = {fingerprint(list(map(dict, p.messages))) for p in train}
    both = [p for p in test if fingerprint(list(map(dict, p.messages))) in seen]
    if both:
        raise InputError(
            f"{len(both)} of {len(test)} prompts of {task.data.test_prompts} overlap with the training prompts (the "
            f"first: {both[0].id!r}); take them out of one of the two files"
        )


def _remember(task: Task, store: Store) -> None:
    """Keeps the resolved task in the run directory; prompts that came from the store are named as they were."""
    file, tree = store.path / REMEMBERED, asdict(task)
    if not task.data.prompts and file.exists():
        tree["data"] = read_json(file, "a run's task").get("data", tree["data"])
    text = json.dumps(tree, indent=2)
    if not file.exists() or file.read_bytes() != text.encode():
        publish_text(file, text)


def _split(task: Task) -> tuple[list[Prompt], list[Prompt]]:
    d = task.data
    if looks_like_file(d.prompts):
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
        options = {"chat": d.chat} if looks_like_file(d.test_prompts) else d.options
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
    solved = data.own_successes(Store(d.shots_from).groups("train", reward_name(task)))
    return data.with_shots(prompts, solved, k=d.shots, seed=d.seed)


def reward_name(task: Task, store: Store | None = None) -> str:
    """The name under which the task's rewards are stored; the only one in the store where the task names none."""
    if not task.reward.name:
        name = store.reward_name("test" if "test" in store.names("completions") else "train") if store else ""
        if name:
            return name
        raise InputError("no reward; give reward.name (or --reward): a built-in or package.module:function")
    name = task.reward.name.replace(":", ".")
    if task.reward.options:  # two settings of one reward are two columns of rewards
        name += "-" + fingerprint(task.reward.options)[:8]
    return name


def reward_of(task: Task) -> tuple[str, RewardFn]:
    """The name under which the task's rewards are stored, and the reward."""
    return reward_name(task), rewards.resolve(task.reward.name, **task.reward.options)
