"""A sampler whose completions live in a store: what is there is read, what is missing is sampled and kept.

Any sampler wrapped in it resumes: after Ctrl-C or kill -9 the same call samples only the prompts that are missing.
Completions that failed are kept as failures and asked for again by the next call. It samples nothing itself and knows
no engine.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from trimtab.errors import EngineError, InputError, StoreError
from trimtab.progress import track, working
from trimtab.store import Store, Writer
from trimtab.types import Group, Prompt, Sampler, SamplingParams, StreamingSampler

COMPLETIONS_A_BATCH = 512
"""Enough to keep an engine of 64 parallel sequences busy, and at most this many are lost by a kill."""
HOPELESS = 8
"""So many calls for one prompt each may fail before it is said that all do."""
SHARD_S, LONGEST_S = 0.03, 2.0
"""What a stream has finished is on disk at once, later after so many seconds a shard that is there, at most 2."""


@runtime_checkable
class SettledSampler(Sampler, Protocol):
    """A sampler with settings, beside its model, that decide its texts: a table holds those of one setting only."""

    @property
    def settings(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Cached:
    """`sampler`, with `completions/<name>` of `store` as its memory; `sampler=None` only reads.

    A sampler that streams gives its groups one by one, and they are written as they come. Any other, or one with
    `batch` set, samples and writes `batch` prompts at a time (0: as many as make 512 completions). A call with another
    model, n or params than the table was begun with is SettingsChanged. Prompts are added to the store under the split
    `name` unless it holds them.
    """

    sampler: Sampler | None
    store: Store
    name: str
    batch: int = 0

    @property
    def model(self) -> str:
        """The sampler's "name@revision", or what the table was begun with."""
        return self.sampler.model if self.sampler else self.store.settings(f"completions/{self.name}")["model"]

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        """Groups in the order of the prompts; samples the missing ones batch by batch, and what failed once more.

        InputError when prompts are missing and there is no sampler, and when two prompts share an id. EngineError when
        all of them failed.
        """
        ids = [p.id for p in prompts]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise InputError(f"prompt id {twice!r} is given twice; ids must be unique within a run")
        if self.sampler is None:
            if missing := [p for p in prompts if p.id not in self._answered(prompts, n)]:
                names = ", ".join(repr(p.id) for p in missing[:5])
                raise InputError(
                    f"{self.store.path}: completions/{self.name} lacks {len(missing)} of {len(prompts)} prompts "
                    f"({names}{', ...' if len(missing) > 5 else ''}) and there is no sampler to make them; run the "
                    "sample step first"
                )
        else:
            self._sample(self.sampler, prompts, n, params)
        stored = self._groups(prompts)
        if self.sampler is not None:
            self._check_answers(stored, n)
        return [stored[i] for i in ids]

    def _check_answers(self, groups: dict[str, Group], n: int) -> None:
        """EngineError when a table, of more than a prompt or of many calls, holds nothing but failures."""
        failed = [c for g in groups.values() for c in g.completions if c.failed]
        if failed and len(failed) == sum(len(g.completions) for g in groups.values()):
            table = self._answered((), n)
            if not any(table.values()) and (len(groups) > 1 or len(table) >= HOPELESS):
                raise EngineError(f"not one of {len(table)} prompts was answered: {failed[0].note}")

    def _sample(self, sampler: Sampler, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> None:
        with self.store.writer(f"completions/{self.name}", self._settings(sampler, n, params)) as writer:
            known = {p.id for p in self.store.prompts()}
            self.store.add_prompts([p for p in prompts if p.id not in known], self.name)
            answered = self._answered(prompts, n)
            missing = [p for p in prompts if len(answered.get(p.id, ())) < n]
            if isinstance(sampler, StreamingSampler) and not self.batch:
                with closing(sampler.stream(missing, n, params)) as finished, _at_once(writer) as keep:
                    for _, group in track(finished, len(missing), f"sampling {self.name}"):
                        keep(_new(group, answered))
                return
            size = self.batch or max(1, COMPLETIONS_A_BATCH // max(n, 1))
            batches = [missing[i : i + size] for i in range(0, len(missing), size)]
            with working(f"sampling {self.name}", len(missing)) as work:
                for batch in batches:
                    if isinstance(sampler, StreamingSampler):  # a batch of failures is no reason to stop
                        groups = [g for _, g in sorted(sampler.stream(batch, n, params), key=lambda pair: pair[0])]
                    else:
                        groups = sampler(batch, n, params)
                    writer.append_groups([_new(g, answered) for g in groups])
                    writer.flush()
                    work.done += len(batch)

    def _settings(self, sampler: Sampler, n: int, params: SamplingParams) -> dict[str, Any]:
        more = sampler.settings if isinstance(sampler, SettledSampler) else {}
        return {"sampler": type(sampler).__name__, "model": sampler.model, "n": n, **asdict(params), **more}

    def _answered(self, prompts: Sequence[Prompt], n: int) -> dict[str, set[int]]:
        """The completions, by index, that each stored prompt has and that did not fail."""
        there: dict[str, set[int]] = {}
        good: dict[str, set[int]] = {}
        table = self.store.read(f"completions/{self.name}", ["prompt_id", "index", "finish"])
        for i, index, finish in zip(*(table[c].to_pylist() for c in table.column_names), strict=True):
            there.setdefault(i, set()).add(index)
            good.setdefault(i, set()).update([index] if finish != "error" else [])
        for p in prompts:  # a group is written whole, so another count means another hand
            if len(there.get(p.id, range(n))) != n:
                raise StoreError(
                    f"{self.store.path}: completions/{self.name} holds {len(there[p.id])} completions of prompt "
                    f"{p.id!r}, not {n}; use another directory, or ask for n = {len(there[p.id])}"
                )
        return good

    def _groups(self, prompts: Sequence[Prompt]) -> dict[str, Group]:
        wanted = {p.id: p for p in prompts}
        groups = {g.prompt.id: g for g in self.store.groups(self.name, None) if g.prompt.id in wanted}
        for i, g in groups.items():
            if list(map(dict, g.prompt.messages)) != list(map(dict, wanted[i].messages)):
                raise InputError(
                    f"{self.store.path}: prompt {i!r} was stored with other messages; give it another id, or use "
                    "another directory"
                )
        return {i: Group(wanted[i], g.completions) for i, g in groups.items()}


def _new(group: Group, answered: dict[str, set[int]]) -> Group:
    """What a group adds to those that are stored: all of it, or what failed before."""
    had = answered.get(group.prompt.id, set())
    return Group(group.prompt, tuple(c for c in group.completions if c.index not in had)) if had else group


@contextmanager
def _at_once(writer: Writer) -> Iterator[Any]:
    """A function that keeps a group; what is kept is on disk soon, also while no further group comes."""
    lock, over = threading.Lock(), threading.Event()
    state: dict[str, Any] = {"shards": 0, "error": None, "waiting": False}

    def flush() -> None:
        with lock:
            if state["waiting"]:
                writer.flush()
                state["waiting"], state["shards"] = False, state["shards"] + 1

    def keep(group: Group) -> None:
        if state["error"]:
            raise state["error"]
        with lock:
            writer.append_groups([group])
            state["waiting"] = True
        wake.set()

    def loop() -> None:
        while not over.is_set():
            wake.wait()
            wake.clear()
            try:
                flush()
            except Exception as e:  # the disk is full: the next group tells
                state["error"] = e
                return
            over.wait(min(LONGEST_S, SHARD_S * state["shards"]))

    wake = threading.Event()
    thread = threading.Thread(target=loop, name="keeps what is sampled", daemon=True)
    thread.start()
    try:
        yield keep
    finally:
        over.set()
        wake.set()
        thread.join()
    if state["error"]:
        raise state["error"]
