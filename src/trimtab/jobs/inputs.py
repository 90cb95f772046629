"""What a job learns or is judged from, named in one way: a file, a data set of the hub, or a run directory.

A run directory gives the completions and the reward that are named, or the only ones it has.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data.pairs import all_pairs, best_vs_worst, right_vs_wrong, why_none
from trimtab.data.preference import load_demonstrations, load_labelled, load_pairs
from trimtab.data.rows import read_rows, short, text_of_file
from trimtab.errors import InputError, unknown
from trimtab.store import Store
from trimtab.types import Group, Pair

MAKERS = {"best_vs_worst": best_vs_worst, "right_vs_wrong": right_vs_wrong, "all_pairs": all_pairs}


@dataclass(frozen=True)
class Source:
    """Where pairs, scored groups or texts come from; `split`, `reward` and `make` are of a run directory."""

    data: str
    split: str = ""
    """Which completions; empty: "train" where there are any (a report prefers "test"), or the only ones."""
    reward: str = ""
    """Which reward; empty: the only one."""
    make: str = "best_vs_worst"
    """How pairs are made of scored groups: a name of MAKERS."""
    chat: bool = False
    """Prompts that are text become user messages."""


Data = Source | str | Path | Sequence[Any]
"""A source, its name alone, or the pairs, groups or texts themselves."""


def pairs(data: Data, *, prefer: str = "train") -> list[Pair]:
    """Pairs of a file or hub data set, or made of a run's scored completions."""
    if not isinstance(source := named(data), Source):
        return list(source)
    if Path(source.data).is_dir():
        return made(scored_groups(source, prefer=prefer), source.make, source.data)
    return load_pairs(source.data, chat=source.chat)


def examples(data: Data, loss: str) -> list[Any]:
    """What the loss learns from: pairs, or scored groups for KTO and SFT."""
    source = named(data)
    if not isinstance(source, Source) or loss not in ("kto", "sft"):
        return pairs(source)
    if Path(source.data).is_dir():
        return scored_groups(source)
    if loss == "kto":
        return load_labelled(source.data, chat=source.chat)
    if "completion" in next(iter(read_rows(source.data)))[1]:
        return load_demonstrations(source.data, chat=source.chat)
    return pairs(source)


def texts(data: Data) -> list[Any]:
    """Pairs, groups or texts, by what `data` is. InputError for rows with neither `chosen` nor `text`."""
    if not isinstance(source := named(data), Source):
        return list(source)
    if Path(source.data).is_dir():
        return list(groups(source))
    if source.data.endswith(".txt"):
        return [line for line in text_of_file(Path(source.data)).splitlines() if line.strip()]
    _, first = next(iter(read_rows(source.data)))
    if "chosen" in first:
        return list(load_pairs(source.data, chat=source.chat))
    if "text" in first:
        rows = list(read_rows(source.data))
        for where, row in rows:
            if not isinstance(row.get("text"), str):
                raise InputError(f"{where}: field 'text' must be a text, it is {short(row.get('text'))}")
        return [row["text"] for _, row in rows]
    have = ", ".join(map(str, first))
    raise InputError(f"{source.data}: rows need `chosen` and `rejected`, or `text`; they have {have}")


def groups(data: Data, *, prefer: str = "train") -> list[Group]:
    """Completions of a run, without rewards."""
    if not isinstance(source := named(data), Source):
        return list(source)
    store = open_run(source.data)
    return store.groups(completions(store, source.split, prefer=prefer), None)


def scored_groups(data: Data, *, prefer: str = "train") -> list[Group]:
    """Completions of a run with their rewards. InputError where they have none, or several and none is named."""
    if not isinstance(source := named(data), Source):
        return list(source)
    store = open_run(source.data)
    name = completions(store, source.split, prefer=prefer)
    known = store.reward_name(name, source.reward.replace(":", "."))
    if not known:
        raise InputError(
            f"{source.data}: completions {name!r} have no rewards yet; run `trimtab score --out {source.data}`"
        )
    return store.groups(name, known)


def made(groups: Sequence[Group], make: str, source: str) -> list[Pair]:
    """Pairs of scored groups. InputError for an unknown way to make them, and where there are none, with the reason."""
    if make not in MAKERS:
        raise unknown("way to make pairs", make, MAKERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = MAKERS[make](groups)
    if not found:
        threshold = 0.5 if make == "right_vs_wrong" else None
        raise InputError(f"{source}: {make} makes no pairs: {why_none(groups, threshold)}")
    return found


def is_run(path: str) -> bool:
    """Whether `path` is a run directory (a store)."""
    return (Path(path) / "manifest.json").is_file()


def open_run(path: str) -> Store:
    """The store of a run directory. InputError when there is none."""
    if not is_run(path):
        what = "is no run directory" if Path(path).exists() else "does not exist"
        raise InputError(f"{path} {what}: give the directory that `trimtab run` or `trimtab sample` wrote")
    return Store(path)


def completions(store: Store, name: str = "", *, prefer: str = "train") -> str:
    """The completions that are meant: those named, `prefer`, or the only ones. InputError lists what there is."""
    held = store.names("completions")
    if name and name not in held:
        raise InputError(f"{store.path}: {unknown('completions', name, held)}")
    if name or prefer in held:
        return name or prefer
    if len(held) == 1:
        return held[0]
    have = f"has several completions ({', '.join(held)}); name some" if held else "holds no completions yet"
    raise InputError(f"{store.path} {have}")


def named(data: Data) -> Source | Sequence[Any]:
    """The source of a name; rows that are given themselves stay what they are."""
    return Source(str(data)) if isinstance(data, str | Path) else data
