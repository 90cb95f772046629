"""What a verb learns or is judged from, named in one way: a file, a data set of the hub, or a run directory.

A run directory gives the completions and the reward that are named, or the only ones it has.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trimtab.store import Store
    from trimtab.types import Group, Pair

MAKERS = ("best_vs_worst", "right_vs_wrong", "all_pairs")
Pairs = Annotated[str, typer.Argument(metavar="PAIRS|RUN", help="Pairs (file or hub data set) or a run directory.")]
RewardName = Annotated[str, typer.Option("--reward", help="Run directory: the reward, if it has several.")]
Split = Annotated[str, typer.Option("--split", help="Run directory: which completions; train if it has them.")]
Make = Annotated[str, typer.Option("--make", help="Run directory, how pairs are made: " + ", ".join(MAKERS))]


def is_run(path: str) -> bool:
    """Whether `path` is a run directory."""
    return (Path(path) / "manifest.json").is_file()


def open_run(path: str) -> "Store":
    """The store of a run directory. InputError when there is none."""
    from trimtab.errors import InputError
    from trimtab.store import Store

    if not is_run(path):
        what = "is no run directory" if Path(path).exists() else "does not exist"
        raise InputError(f"{path} {what}: give the directory that `trimtab run` or `trimtab sample` wrote")
    return Store(path)


def completions(store: "Store", name: str = "", *, prefer: str = "train") -> str:
    """The completions that are meant: those named, `prefer`, or the only ones. InputError lists what there is."""
    from trimtab.errors import InputError, unknown

    held = store.names("completions")
    if name and name not in held:
        raise InputError(f"{store.path}: {unknown('completions', name, held)}")
    if name or prefer in held:
        return name or prefer
    if len(held) == 1:
        return held[0]
    have = f"has several completions ({', '.join(held)}); name some" if held else "holds no completions yet"
    raise InputError(f"{store.path} {have}")


def scored_groups(path: str, split: str = "", reward: str = "", *, prefer: str = "train") -> "list[Group]":
    """Completions of a run with their rewards. InputError where they have none, or several and none is named."""
    from trimtab.errors import InputError

    store = open_run(path)
    name = completions(store, split, prefer=prefer)
    known = store.reward_name(name, reward.replace(":", "."))
    if not known:
        raise InputError(f"{path}: completions {name!r} have no rewards yet; run `trimtab score --out {path}`")
    return store.groups(name, known)


def made(groups: "Sequence[Group]", make: str, source: str) -> "list[Pair]":
    """Pairs of scored groups. InputError for an unknown way to make them, and where there are none, with the reason."""
    import warnings

    from trimtab.data import pairs
    from trimtab.errors import InputError, unknown

    if make not in MAKERS:
        raise unknown("way to make pairs", make, MAKERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = getattr(pairs, make)(groups)
    if not found:
        threshold = 0.5 if make == "right_vs_wrong" else None
        raise InputError(f"{source}: {make} makes no pairs: {pairs.why_none(groups, threshold)}")
    return found


def load(
    data: str, *, chat: bool = False, split: str = "", reward: str = "", make: str = "best_vs_worst",
    prefer: str = "train",
) -> "list[Pair]":  # fmt: skip
    """Pairs of a file or hub data set, or made of a run's scored completions."""
    from trimtab.data.preference import load_pairs

    if Path(data).is_dir():
        return made(scored_groups(data, split, reward, prefer=prefer), make, data)
    return load_pairs(data, chat=chat)


def load_texts(data: str, split: str = "", chat: bool = False) -> list[Any]:
    """Pairs, groups or texts, by what `data` is. InputError for rows with neither `chosen` nor `text`."""
    from trimtab.data.preference import load_pairs
    from trimtab.data.rows import read_rows, short, text_of_file
    from trimtab.errors import InputError

    if Path(data).is_dir():
        store = open_run(data)
        return list(store.groups(completions(store, split), None))
    if data.endswith(".txt"):
        return [line for line in text_of_file(Path(data)).splitlines() if line.strip()]
    _, first = next(iter(read_rows(data)))
    if "chosen" in first:
        return list(load_pairs(data, chat=chat))
    if "text" in first:
        rows = list(read_rows(data))
        for where, row in rows:
            if not isinstance(row.get("text"), str):
                raise InputError(f"{where}: field 'text' must be a text, it is {short(row.get('text'))}")
        return [row["text"] for _, row in rows]
    raise InputError(f"{data}: rows need `chosen` and `rejected`, or `text`; they have {', '.join(map(str, first))}")
