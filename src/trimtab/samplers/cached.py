"""A sampler whose completions live in a store: what is there is read, what is missing is sampled and kept.

Any sampler wrapped in it resumes: after Ctrl-C or kill -9 the same call samples only the prompts that are missing. It
samples nothing itself and knows no engine.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.errors import InputError, StoreError
from trimtab.progress import track
from trimtab.store import Store
from trimtab.types import Group, Prompt, Sampler, SamplingParams, StreamingSampler

COMPLETIONS_A_BATCH = 512
"""Enough to keep an engine of 64 parallel sequences busy, and at most this many are lost by a kill."""


@dataclass(frozen=True)
class Cached:
    """`sampler`, with `completions/<name>` of `store` as its memory; `sampler=None` only reads.

    A sampler that streams gives its groups one by one, and they are written every few seconds. Any other, or one with
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
        """Groups in the order of the prompts; samples the missing ones batch by batch.

        InputError when prompts are missing and there is no sampler, and when two prompts share an id.
        """
        ids = [p.id for p in prompts]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise InputError(f"prompt id {twice!r} is given twice; ids must be unique within a run")
        if self.sampler is None:
            if missing := self._missing(prompts, n):
                names = ", ".join(repr(p.id) for p in missing[:5])
                raise InputError(
                    f"{self.store.path}: completions/{self.name} lacks {len(missing)} of {len(prompts)} prompts "
                    f"({names}{', ...' if len(missing) > 5 else ''}) and there is no sampler to make them; run the "
                    "sample step first"
                )
        else:
            self._sample(self.sampler, prompts, n, params)
        stored = self._groups(prompts, n)
        return [stored[i] for i in ids]

    def _sample(self, sampler: Sampler, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> None:
        with self.store.writer(f"completions/{self.name}", self._settings(sampler, n, params)) as writer:
            known = {p.id for p in self.store.prompts()}
            self.store.add_prompts([p for p in prompts if p.id not in known], self.name)
            missing = self._missing(prompts, n)
            if isinstance(sampler, StreamingSampler) and not self.batch:
                with closing(sampler.stream(missing, n, params)) as finished:  # on Ctrl-C too, so that the engine stops
                    for _, group in track(finished, len(missing), f"sampling {self.name}"):
                        writer.append_groups([group])
                return
            size = self.batch or max(1, COMPLETIONS_A_BATCH // max(n, 1))
            batches = [missing[i : i + size] for i in range(0, len(missing), size)]
            for batch in track(batches, len(batches), f"sampling {self.name}"):
                writer.append_groups(sampler(batch, n, params))
                writer.flush()

    def _settings(self, sampler: Sampler, n: int, params: SamplingParams) -> dict[str, Any]:
        return {"sampler": type(sampler).__name__, "model": sampler.model, "n": n, **asdict(params)}

    def _missing(self, prompts: Sequence[Prompt], n: int) -> list[Prompt]:
        counts: dict[str, int] = {}
        for i in self.store.read(f"completions/{self.name}", ["prompt_id"])["prompt_id"].to_pylist():
            counts[i] = counts.get(i, 0) + 1
        for p in prompts:  # a group is written whole, so another count means another hand
            if counts.get(p.id, n) != n:
                raise StoreError(
                    f"{self.store.path}: completions/{self.name} holds {counts[p.id]} completions of prompt {p.id!r}, "
                    f"not {n}; use another directory, or ask for n = {counts[p.id]}"
                )
        return [p for p in prompts if p.id not in counts]

    def _groups(self, prompts: Sequence[Prompt], n: int) -> dict[str, Group]:
        wanted = {p.id: p for p in prompts}
        groups = {g.prompt.id: g for g in self.store.groups(self.name, None) if g.prompt.id in wanted}
        for i, g in groups.items():
            if list(map(dict, g.prompt.messages)) != list(map(dict, wanted[i].messages)):
                raise InputError(
                    f"{self.store.path}: prompt {i!r} was stored with other messages; give it another id, or use "
                    "another directory"
                )
        return {i: Group(wanted[i], g.completions) for i, g in groups.items()}
