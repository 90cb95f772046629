"""A run directory to a list of its faults: every checksum, name, id and join is looked at. It changes nothing."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.errors import InputError, StoreError
from trimtab.shards import SCHEMAS, SUFFIXES, is_checked, shards
from trimtab.store import Store


@dataclass
class Verified:
    """What `verify` looked at, and what is wrong: one sentence a fault, naming the file or table."""

    tables: int = 0
    shards: int = 0
    rows: int = 0
    unchecked: int = 0
    """Shards of before the checksums: read, but a flipped bit in them cannot be seen."""
    faults: list[str] = field(default_factory=list)


def verify(store: Store) -> Verified:
    """Reads every shard of a run. StoreError only when the manifest itself cannot be read."""
    seen = Verified()
    ids: dict[str, set[str]] = {}
    for table in store.tables():
        seen.tables += 1
        try:
            rows = _table(store, table, seen)
        except (StoreError, InputError) as e:
            seen.faults.append(str(e))
            continue
        seen.rows += len(rows)
        ids[table] = set(rows)
        if twice := [i for i, n in Counter(rows).items() if n > 1]:
            seen.faults.append(f"{store.path}: {table} holds {len(twice)} rows twice, such as {twice[0]}")
    seen.faults += _strangers(store) + _joins(store, ids)
    return seen


def _table(store: Store, table: str, seen: Verified) -> list[str]:
    """Ids of every row of a table, each shard read whole."""
    files = shards(store.path / table)
    seen.shards += len(files)
    seen.unchecked += sum(not is_checked(f) for f in files)
    numbers = {int(f.name[:6]) for f in files}
    if lost := sorted(set(range(max(numbers, default=-1) + 1)) - numbers):
        seen.faults.append(
            f"{store.path / table}: shard {lost[0]:06d} is missing; run the command that made it again, it makes "
            "its rows anew"
        )
    if table.startswith("embeddings"):
        return [i for ids, _ in store.tensors(table) for i in ids]
    return store.read(table)["id"].to_pylist()


def _strangers(store: Store) -> list[str]:
    """Folders with shards that the manifest does not know."""
    known = set(store.tables())
    folders: set[Path] = set()
    for kind in (*SCHEMAS, "embeddings"):
        folders |= {f.parent for suffix in SUFFIXES for f in (store.path / kind).rglob(f"*.{suffix}")}
    names = sorted(str(f.relative_to(store.path)) for f in folders)
    return [f"{store.path / n} holds rows that manifest.json does not know" for n in names if n not in known]


def _joins(store: Store, ids: dict[str, set[str]]) -> list[str]:
    """Rows that belong to no stored prompt or completion, and completions whose id is not that of what made them."""
    faults = []
    for table, own in ids.items():
        kind, _, rest = table.partition("/")
        parent = "completions/" + rest.split("/")[0]
        if kind in ("rewards", "embeddings") and (lone := own - ids.get(parent, own)):
            faults.append(f"{store.path}: {table} has {len(lone)} rows of completions that are not in {parent}")
        if kind != "completions":
            continue
        prompts = ids.get("prompts", set())
        asked = set(store.read(table, ["prompt_id"])["prompt_id"].to_pylist())
        if lone := asked - prompts:
            faults.append(f"{store.path}: {table} answers {len(lone)} prompts that are not stored")
            continue
        made = {i for row in store.sample_ids(rest, store.groups(rest, None)) for i in row}
        if wrong := own - made:
            faults.append(f"{store.path}: {table} has {len(wrong)} rows whose id is not that of what made them")
    return faults
