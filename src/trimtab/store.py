"""One run directory: rows in Parquet shards, tensors in safetensors shards, a manifest.json. Append-only, resumable.

    runs/demo/
      manifest.json                       settings, versions, times and counts of every table
      prompts/000000-crc32-1f2e3d4c.parquet   id, messages (JSON), target (JSON), source, split
      completions/test/....parquet        id, prompt_id, model, seed, index, text, finish, tokens, logprobs,
                                          usage, note
      rewards/test/chain_sum/....parquet  id (of the completion), prompt_id, value, note
      embeddings/test/....safetensors     ids (n, 32) hex digits as bytes, and one (n, D) array a key
      logprobs/1a2b3c4d5e6f/....parquet   id (of prompt and completion tokens), tokens, logprobs of a reference model
      features/1a2b3c4d5e6f/....parquet   the same id, features and values: a reference's nonzero mean SAE features

A table is a folder; the first part of its name gives its columns. A shard is written under a temporary name, fsynced
and renamed, so kill -9 loses at most the shard in flight; rows are keyed by a hash of what made them, never by
position, so running the same command again continues. Settings that differ from those a table was begun with are
refused. It does not know how to sample, score or embed.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock, Timeout

from trimtab.errors import InputError, StoreError, refuse_changed, unknown
from trimtab.publish import publish_text, reporting
from trimtab.shards import (
    SCHEMAS,
    Tensors,
    as_ids,
    check_name,
    next_number,
    read_rows,
    read_tensors,
    shards,
    write_rows,
    write_tensors,
)
from trimtab.types import (
    HALF,
    Completion,
    Group,
    Prompt,
    Reward,
    Usage,
    canonical_json,
    fingerprint,
    whole_text,
)

MANIFEST = "manifest.json"
FORMAT = 2
"""Of the run directory. 1 (a manifest without the word): shards without checksums, before November 2026."""


@dataclass(frozen=True)
class Store:
    """A run directory. Reading needs nothing but the files; writing goes through `writer`."""

    path: Path

    def __init__(self, path: str | os.PathLike[str]):
        object.__setattr__(self, "path", Path(path))

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest, {"tables": {}} when the directory is new. StoreError when the file is not a manifest."""
        file = self.path / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"format": FORMAT, "tables": {}}
        except (OSError, ValueError, RecursionError) as e:
            raise StoreError(f"{file} is not a readable manifest ({e}); restore it or use another directory") from e
        _check_manifest(file, manifest)
        return manifest

    def tables(self, kind: str = "") -> list[str]:
        """Names of the tables begun so far, those of one kind ("rewards") when given."""
        return [t for t in self.manifest["tables"] if not kind or t.split("/")[0] == kind]

    def settings(self, table: str) -> dict[str, Any]:
        """The settings a table was begun with. InputError when there is no such table."""
        tables = self.manifest["tables"]
        if table not in tables:
            self._refuse_orphans(table)
            raise InputError(f"{self.path} has no table {table!r}; it has: {', '.join(tables) or '(none)'}")
        return tables[table]["settings"]

    def note(self, table: str, **facts: Any) -> None:
        """Adds facts (counts, times, versions) to a table's manifest entry. Never part of what is compared."""

        def change(manifest: dict[str, Any]) -> None:
            manifest["tables"][table].setdefault("facts", {}).update(json.loads(canonical_json(facts)))

        self._change_manifest(change)

    def writer(self, table: str, settings: Mapping[str, Any], **limits: Any) -> "Writer":
        """Begins or continues `table`. SettingsChanged when it was begun with other settings; StoreError when another
        process is writing it."""
        wanted = json.loads(canonical_json(settings))
        check_name(table)

        def change(manifest: dict[str, Any]) -> None:
            if table not in manifest["tables"]:
                self._refuse_orphans(table)
            entry = manifest["tables"].setdefault(table, {"settings": wanted, "begun": _now()})
            if entry["settings"] != wanted and not shards(self.path / table):
                entry["settings"] = wanted  # begun, but the first row failed: nothing was made with the old settings
            do = "Use another directory, or delete this one if its rows are no longer wanted."
            refuse_changed(f"{self.path} holds {table!r} made", entry["settings"], wanted, do)

        writer = Writer(self, table, **limits)  # first, for its lock: no one else may be about to write the first row
        writer.made_with = fingerprint(wanted)
        try:
            self._change_manifest(change)
        except BaseException:
            writer.release()
            raise
        return writer

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """All rows of a table in the order they were written; an empty table when it was never begun."""
        check_name(table)
        schema = SCHEMAS[table.split("/")[0]]
        columns = columns or schema.names
        files, made_with = self._shards(table, "parquet")
        if not files:
            return schema.empty_table().select(columns)
        return pa.concat_tables([read_rows(f, schema, columns, made_with) for f in files])

    def ids(self, table: str) -> set[str]:
        """Ids of the rows (or tensor rows) a table holds."""
        if table.startswith("embeddings"):
            return {i for ids, _ in self.tensors(table, keys=()) for i in ids}
        return set(self.read(table, ["id"])["id"].to_pylist())

    def tensors(self, table: str, keys: Sequence[str] | None = None) -> Iterator[tuple[list[str], Tensors]]:
        """Shards of a tensor table in order: row ids and one (n, ...) array a key (all keys by default)."""
        files, made_with = self._shards(table, "safetensors")
        for file in files:
            yield read_tensors(file, keys, made_with)

    def tensor_rows(self, table: str, key: str, ids: Sequence[str]) -> npt.NDArray[Any]:
        """Rows of one tensor key for `ids`, in that order, shape (len(ids), ...). StoreError names a missing id."""
        place = {i: n for n, i in enumerate(ids)}
        out: npt.NDArray[Any] | None = None
        seen = np.zeros(len(ids), dtype=bool)
        for shard_ids, tensors in self.tensors(table, keys=(key,)):
            hits = [(n, place[i]) for n, i in enumerate(shard_ids) if i in place]
            if not hits:
                continue
            source, target = np.array(hits).T
            if out is None:
                out = np.empty((len(ids), *tensors[key].shape[1:]), tensors[key].dtype)
            out[target] = tensors[key][source]
            seen[target] = True
        if out is None or not seen.all():
            missing = next(i for i, n in place.items() if not seen[n]) if ids else "(none asked)"
            raise StoreError(f"{self.path}: table {table!r} lacks a row for sample {missing}; run the embed step again")
        return out

    def add_prompts(self, prompts: Iterable[Prompt], split: str, settings: Mapping[str, Any] | None = None) -> None:
        """Adds prompts under a split name. An id already stored with the same content is skipped; with other content,
        or in another split, it is an InputError. `settings` (where they come from), when given, are guarded as in
        `writer`."""
        known = {r["id"]: r for r in self.read("prompts").to_pylist()}
        if settings is None:  # more prompts from the same hand
            settings = self.settings("prompts") if self.tables("prompts") else {}
        with self.writer("prompts", settings) as w:
            for p in prompts:
                row = {
                    "id": p.id, "messages": canonical_json(list(map(dict, p.messages))),
                    "target": canonical_json(p.target), "source": p.source, "split": split,
                }  # fmt: skip
                if bad := [k for k, v in row.items() if whole_text(v) != v]:
                    raise InputError(
                        f"prompt {p.id!r}: half a surrogate pair in its {bad[0]} is no character; remove it"
                    )
                if p.id not in known:
                    w.append([row])
                elif (old := known[p.id]) != row:
                    field_ = next(k for k in row if old[k] != row[k])
                    raise InputError(
                        f"{self.path}: prompt {p.id!r} is already stored with another {field_} "
                        f"({old[field_][:80]!r} then, {row[field_][:80]!r} now); "
                        "give it another id or use another directory"
                    )
                known[p.id] = row

    def prompts(self, split: str | None = None) -> list[Prompt]:
        """Stored prompts in the order they were added, of one split when given."""
        with _sound(self.path / "prompts"):
            return [
                Prompt(r["id"], tuple(json.loads(r["messages"])), json.loads(r["target"]), r["source"])
                for r in self.read("prompts").to_pylist()
                if split is None or r["split"] == split
            ]

    def sample_ids(self, name: str, groups: Sequence[Group]) -> list[list[str]]:
        """Ids of the completions of `completions/<name>`: a hash of the table's settings (model, revision, parameters),
        the prompt, the model, the seed and the index."""
        print_ = fingerprint(self.settings(f"completions/{name}"))
        heads = [_made_for(print_, g.prompt) for g in groups]  # the same for every completion of a prompt
        return [[_made_by(head, c) for c in g.completions] for head, g in zip(heads, groups, strict=True)]

    def groups(self, name: str, reward: str | None = "") -> list[Group]:
        """Groups of `completions/<name>` in the order of the prompts, completions by index, carrying the values of
        `rewards/<name>/<reward>` (NaN and a note where a row is missing).

        Where nobody names the reward it is the only one these completions have; without any, groups are unscored.
        None asks for groups without rewards. InputError for completions or a reward that the store does not hold, and
        where it holds several rewards and none is named.
        """
        self._known("completions", name)
        reward = self.reward_name(name, reward) if reward is not None else None
        rows: dict[str, dict[tuple[str, int], tuple[str, Completion]]] = {}
        with _sound(self.path / "completions" / name):
            table = self.read(f"completions/{name}")
            if table["usage"].null_count == len(table):  # a local engine's: half a row's cost for nothing
                table = table.drop_columns(["usage"])
            for r in table.to_pylist():
                there, place = rows.setdefault(r["prompt_id"], {}), (r["model"], int(r["index"]))
                if place not in there or there[place][1].failed:  # one that failed gives way to a later attempt
                    there[place] = (r["id"], _completion(r))
        groups = []
        values = self._rewards(f"rewards/{name}/{reward}") if reward else {}
        for prompt in self.prompts():
            if pairs := [pair for _, pair in sorted(rows.get(prompt.id, {}).items())]:
                group = Group(prompt, tuple(c for _, c in pairs))
                missing = Reward(float("nan"), "not scored yet")
                groups.append(
                    replace(group, rewards=tuple(values.get(i, missing) for i, _ in pairs)) if reward else group
                )
        return groups

    def names(self, kind: str, under: str = "") -> list[str]:
        """What the store holds of a kind: completions ("train", "test"), or the rewards under some completions."""
        prefix = f"{kind}/{under}/" if under else f"{kind}/"
        return [t.removeprefix(prefix) for t in self.tables(kind) if t.startswith(prefix)]

    def reward_name(self, name: str, reward: str = "") -> str:
        """The reward that is meant for the completions `name`: the one named, or the only one; "" where there is none.

        InputError for one that is not there, with those that are, and where there are several and none is named.
        """
        held = self.names("rewards", name)
        if reward:
            if not held:
                raise InputError(
                    f"{self.path}: completions {name!r} have no rewards yet ({reward!r} is asked for); score them first"
                )
            if reward not in held:
                raise InputError(f"{self.path}, completions {name!r}: {unknown('reward', reward, held)}")
            return reward
        if len(held) > 1:
            raise InputError(
                f"{self.path}: completions {name!r} have several rewards ({', '.join(sorted(held))}); name one"
            )
        return held[0] if held else ""

    def _known(self, kind: str, name: str) -> None:
        check_name(f"{kind}/{name}")
        if name not in (held := self.names(kind)):
            raise InputError(f"{self.path}: {unknown(kind, name, held)}")

    def _rewards(self, table: str) -> dict[str, Reward]:
        if not (self.path / table).is_dir():
            self.settings(table)  # the error that lists what there is
        return {r["id"]: Reward(r["value"], r["note"]) for r in self.read(table).to_pylist()}

    def _shards(self, table: str, suffix: str) -> tuple[list[Path], str]:
        """A table's shards and the fingerprint of its settings; none for a table that was never begun."""
        check_name(table)
        files = [f for f in shards(self.path / table) if f.suffix == f".{suffix}"]
        return files, fingerprint(self.settings(table)) if files else ""

    def _refuse_orphans(self, table: str) -> None:
        """StoreError when a table has shards but no entry in the manifest: nobody knows what they were made with."""
        if shards(self.path / table):
            raise StoreError(
                f"{self.path / table} holds rows, but {MANIFEST} does not know them (was it lost or edited?): restore "
                "it, or use another directory"
            )

    def _change_manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        with reporting(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / ".manifest.lock"):
                manifest = self.manifest
                before = canonical_json(manifest)
                change(manifest)
                if canonical_json(manifest) != before:
                    text = json.dumps({**manifest, "format": FORMAT}, indent=2, ensure_ascii=False)
                    publish_text(self.path / MANIFEST, text)


def sample_id(settings_print: str, prompt: Prompt, completion: Completion) -> str:
    """32 hex digits that identify one sample by what made it; see `Store.sample_ids`."""
    return _made_by(_made_for(settings_print, prompt), completion)


def _made_for(settings_print: str, prompt: Prompt) -> str:
    """The part of what is hashed that all completions of a prompt share: JSON of a list, left open."""
    return canonical_json([settings_print, prompt.id, list(map(dict, prompt.messages))])[:-1]


def _made_by(head: str, c: Completion) -> str:
    failure = [c.finish, c.note] if c.failed else []  # another id than the answer that a later run may get
    text = f"{head},{canonical_json([c.model, c.seed, c.index, *failure])[1:]}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _named_whole(c: Completion) -> Completion:
    """The completion under a model's name that can be stored: it is part of the id, which is read back with it."""
    return c if whole_text(c.model) == c.model else replace(c, model=whole_text(c.model))


def _completion(row: Mapping[str, Any]) -> Completion:
    """A row of a completions table; runs from before November 2026 have neither usage nor note."""
    return Completion(
        row["text"], row["model"], row["seed"], row["index"], row["finish"],
        None if row["tokens"] is None else tuple(row["tokens"]),
        None if row["logprobs"] is None else tuple(row["logprobs"]),
        Usage(**row["usage"]) if row.get("usage") else None, row["note"] or "",
    )  # fmt: skip


@dataclass
class Writer:
    """Appends to one table; a context manager. Buffers at most `flush_rows` rows or `flush_s` seconds of work."""

    store: Store
    table: str
    flush_rows: int = 4096
    flush_s: float = 2.0
    made_with: str = field(init=False, default="")
    """The fingerprint of the table's settings, which every shard carries."""
    ids: set[str] = field(init=False)
    """Ids the table holds, the buffer included: what a resuming stage skips."""

    def __post_init__(self) -> None:
        self.folder = self.store.path / self.table
        with reporting(self.store.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / ".lock", blocking=False)
            try:
                self._lock.acquire()
            except Timeout:
                raise StoreError(
                    f"another process is writing {self.table!r} of {self.store.path}; wait for it or stop it"
                ) from None
        try:
            for stale in self.folder.glob(".tmp-*"):  # what a killed writer left behind; the lock says that it is dead
                stale.unlink(missing_ok=True)
            self._number = next_number(self.folder)
            self.ids = self.store.ids(self.table)
        except BaseException:
            self.release()
            raise
        self._rows: list[Mapping[str, Any]] = []
        self._tensors: list[Tensors] = []
        self._tensor_ids: list[str] = []
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        try:
            self.flush()  # also after an error or Ctrl-C: what was paid for is kept
        finally:
            self.release()

    def release(self) -> None:
        """Lets another process write the table."""
        self._lock.release()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows of the table's schema. StoreError for an id the table already holds."""
        for row in rows:
            self._claim(row["id"])
            self._rows.append(row)
        self._maybe_flush(len(self._rows))

    def append_groups(self, groups: Iterable[Group]) -> None:
        """Adds the completions of `groups` to a `completions/<name>` table; a failure it already holds is not added
        again."""
        name = self.table.removeprefix("completions/")
        groups = [replace(g, completions=tuple(map(_named_whole, g.completions))) for g in groups]
        for g, ids in zip(groups, self.store.sample_ids(name, groups), strict=True):
            self.append(
                {
                    **vars(c),
                    "id": i, "prompt_id": g.prompt.id, "usage": None if c.usage is None else asdict(c.usage),
                }
                for i, c in zip(ids, g.completions, strict=True)
                if not (c.failed and i in self.ids)
            )  # fmt: skip

    def append_tensors(self, ids: Sequence[str], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Adds rows to a tensor table: each array has shape (len(ids), ...), and every call has the same keys."""
        if self._tensors and tensors.keys() != self._tensors[0].keys():
            raise ValueError(f"{self.table}: keys {sorted(tensors)} differ from {sorted(self._tensors[0])}")
        for key, array in tensors.items():
            if len(array) != len(ids):
                raise ValueError(f"{self.table}: {len(ids)} ids but {len(array)} rows of {key!r}")
        for i in ids:
            self._claim(i)
        self._tensor_ids += ids
        self._tensors.append(dict(tensors))
        self._maybe_flush(len(self._tensor_ids))

    def flush(self) -> None:
        """Writes the buffer as one shard that is on disk when this returns."""
        if self._rows:
            write_rows(self.folder, self._number, self._whole_table(), self.made_with)
            self._number, self._rows = self._number + 1, []
        if self._tensor_ids:
            shard = {k: np.concatenate([t[k] for t in self._tensors]) for k in self._tensors[0]}
            shard["ids"] = as_ids(self._tensor_ids)
            write_tensors(self.folder, self._number, shard, self.made_with)
            self._number, self._tensors, self._tensor_ids = self._number + 1, [], []
        self._since = time.monotonic()

    def _whole_table(self) -> pa.Table:
        """The buffer as a table. Half a surrogate pair, which Parquet cannot hold, is U+FFFD and said in the note: one
        bad character never takes its neighbours with it."""
        schema = SCHEMAS[self.table.split("/")[0]]
        try:
            return pa.Table.from_pylist([dict(r) for r in self._rows], schema)
        except UnicodeEncodeError:
            return pa.Table.from_pylist([_whole_row(r) for r in self._rows], schema)

    def _claim(self, row_id: str) -> None:
        if row_id in self.ids:
            raise StoreError(f"{self.store.path}: {self.table!r} already holds row {row_id}; rows are never rewritten")
        self.ids.add(row_id)

    def _maybe_flush(self, rows: int) -> None:
        if rows >= self.flush_rows or time.monotonic() - self._since > self.flush_s:
            self.flush()


def _whole_row(row: Mapping[str, Any]) -> dict[str, Any]:
    whole = {k: whole_text(v) if isinstance(v, str) else v for k, v in row.items()}
    if whole != row and "note" in whole:
        whole["note"] = "; ".join(filter(None, [whole["note"], HALF]))
    return whole


@contextmanager
def _sound(folder: Path) -> Iterator[None]:
    """Rows of shards without checksums can hold anything where a bit is flipped: a StoreError that names the table."""
    try:
        yield
    except (TypeError, ValueError, RecursionError) as e:
        raise StoreError(f"{folder} holds a damaged row ({e}); restore its files, or use another directory") from e


def _check_manifest(file: Path, manifest: Any) -> None:
    """StoreError unless `manifest` is one that this version reads."""
    tables = manifest.get("tables") if isinstance(manifest, dict) else None
    if not isinstance(tables, dict):
        raise StoreError(f'{file} has no "tables": it is not a trimtab run; use another directory')
    if not isinstance(found := manifest.get("format", 1), int) or found > FORMAT:
        raise StoreError(f"{file} has format {found!r}, this trimtab reads up to {FORMAT}: install a newer one")
    for table, entry in tables.items():
        try:
            check_name(table)
        except InputError as e:
            raise StoreError(f"{file}: {e}; restore it or use another directory") from e
        if not isinstance(entry, dict) or not isinstance(entry.get("settings"), dict):
            raise StoreError(f"{file}: table {table!r} has no settings; restore it or use another directory")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
