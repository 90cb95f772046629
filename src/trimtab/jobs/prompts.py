"""Prompts to a run directory that holds them: read, divided, and shown what was right in another run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trimtab import data
from trimtab.errors import InputError
from trimtab.store import Store
from trimtab.types import Prompt, fingerprint

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".gz", ".txt")
Prompts = str | Sequence[Prompt]
"""A file, a named task such as "reasoning_gym/chain_sum", or the prompts themselves."""


class Divided(NamedTuple):
    """Prompts to learn from and prompts to test on, and the settings that made them."""

    train: list[Prompt]
    test: list[Prompt]
    settings: dict[str, Any]


def divide(
    prompts: Prompts, *, test_prompts: Prompts = "", options: Mapping[str, Any] | None = None, train: int = 0,
    test: float = 0.3, seed: int = 0, chat: bool = True, shots: int = 0, shots_from: str = "", reward: str = "",
) -> Divided:  # fmt: skip
    """Prompts read and divided: `test` is a share (below 1; by hash of the id) or a count, or `test_prompts` others.

    `train`: how many train; 0: all that do not test. `options`: the named task's own. `chat`: text prompts of files
    become user messages. `shots` right answers of the run `shots_from`, by its `reward`, go in front of every prompt.
    InputError: too few prompts, and prompts that are in both halves.
    """
    how = {"options": dict(options or {}), "train": train, "test": test, "seed": seed, "chat": chat}
    if test_prompts:
        first, second = (_load(p, dict(options or {}), chat) for p in (prompts, test_prompts))
    else:
        made = {"size": train + int(test), "seed": seed, **(options or {})} if train and test >= 1 else None
        first, second = data.split_by_id(_load(prompts, made, chat), test=int(test) if test >= 1 else test, seed=seed)
    first = first[:train] if train else first
    if len(first) < 2 or not second:
        raise InputError(
            f"{_name(prompts)}: {len(first)} training and {len(second)} test prompts; a probe needs at least two to "
            "train on and one to test on: give more prompts or change data.test"
        )
    if test_prompts:
        _apart(first, second, _name(test_prompts))
    if bool(shots) != bool(shots_from):
        raise InputError("data.shots (how many) and data.shots_from (the run directory they are from) go together")
    if shots:
        solved = data.own_successes(Store(shots_from).groups("train", reward))
        first, second = (data.with_shots(p, solved, k=shots, seed=seed) for p in (first, second))
    names = {"prompts": Path(_name(prompts)).name, "test_prompts": Path(_name(test_prompts)).name}
    contents = {"train_content": fingerprint(first), "test_content": fingerprint(second)}
    return Divided(first, second, {**names, **how, **contents})


def add(out: str | Path | Store, divided: Divided | None = None) -> Store:
    """The store `out` with these prompts in it as "train" and "test"; without any, they are those that it holds.

    SettingsChanged with the difference when it holds others.
    """
    store = opened(out)
    if divided:
        for split in ("train", "test"):
            store.add_prompts(getattr(divided, split), split, divided.settings)
    elif not store.tables("prompts"):
        raise InputError(
            f"{store.path} is no run directory with prompts in it: give data.prompts (or --prompts), a file or a named "
            "task, or the directory of a run that has been sampled"
        )
    return store


def opened(out: str | Path | Store) -> Store:
    """The store of a run directory, named or given."""
    return out if isinstance(out, Store) else Store(out)


def sampled(out: str | Path | Store) -> Store:
    """The store of a run that has been sampled. InputError when there is none."""
    store = opened(out)
    if not store.tables("completions"):
        raise InputError(f"{store.path} holds no completions; run `trimtab sample` first, or give another directory")
    return store


def looks_like_file(spec: str) -> bool:
    """Whether prompts are named by a file ("tasks.jsonl"), not by a task ("mbpp/train") or a data set of the hub."""
    return spec.lower().endswith(ENDINGS) or Path(spec).is_file()


def _load(prompts: Prompts, options: Mapping[str, Any] | None, chat: bool) -> list[Prompt]:
    if not isinstance(prompts, str):
        return list(prompts)
    if looks_like_file(prompts):
        return data.load(prompts, chat=chat)
    if options is None:
        raise InputError(
            f"data.prompts = {prompts!r} makes prompts to order: say how many with data.train and data.test"
        )
    return data.load(prompts, **options)


def _apart(train: Sequence[Prompt], test: Sequence[Prompt], name: str) -> None:
    """InputError when a prompt is in both: what is learnt from it would be measured on it."""
    seen = {fingerprint(list(map(dict, p.messages))) for p in train}
    both = [p for p in test if fingerprint(list(map(dict, p.messages))) in seen]
    if both:
        raise InputError(
            f"{len(both)} of {len(test)} prompts of {name} overlap with the training prompts (the first: "
            f"{both[0].id!r}); take them out of one of the two files"
        )


def _name(prompts: Prompts) -> str:
    return prompts if isinstance(prompts, str) else ""
