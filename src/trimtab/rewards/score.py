"""GROUPS to scored GROUPS: the only scoring loop. It decides where a reward runs and what its failures become.

A `Verifier` with a time limit runs in a pool of processes, one completion at a time if it can; every other reward runs
in this process, some groups at a time. With a store the rewards go to the table rewards/<name>/<reward_name>, and what
is there is not scored again. Our own failure (an exception, too long, a dead worker, a wrong shape) is NaN and a note.
Errors of `trimtab.errors` stop the loop: they are for the user to act on. Nothing here knows a particular reward.
"""

import math
import pickle
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from trimtab.adapters import NAN, Verifier, as_reward
from trimtab.errors import EngineError, InputError, TrimtabError
from trimtab.progress import track
from trimtab.returned import NO_REWARD, called, failed, no_reward, to_reward
from trimtab.store import Store, Writer
from trimtab.types import AnyReward, Group, Reward, RewardFn, describe
from trimtab.workers import Failure, cpu_count, map_items

DIED = "the worker process died"
BATCH = 16  # groups a call in this process: large enough for a model's batches, small enough for progress


@dataclass(frozen=True)
class Job:
    """One call of the reward: some groups, and where each of their completions stands in the whole."""

    batch: list[Group]
    places: list[list[tuple[int, int]]]


def score(
    groups: Sequence[Group],
    reward: AnyReward,
    *,
    store: Store | None = None,
    name: str | None = None,
    reward_name: str | None = None,
    workers: int | None = None,
    timeout_s: float | None = None,
    progress: bool = True,
) -> list[Group]:
    """The same groups, every completion with a reward; NaN where it could not be scored, and the note says why.

    With `store`, `groups` are those of its `completions/<name>` and rows go to `rewards/<name>/<reward_name>`: a run
    that was killed continues, and a finished one costs nothing. `workers` processes (default: one a core for rewards
    with a `limit_s`, else 0 = this process) take at most `timeout_s` (default: that limit) seconds an item: a
    completion or, where the reward needs it, a group. In this process no time limit is possible.
    InputError when the reward cannot be sent to workers; SettingsChanged when the table holds those of another reward;
    EngineError when every worker dies.
    """
    _check_numbers(workers, timeout_s)
    reward = as_reward(reward)
    limit_s = timeout_s or (reward.limit_s if isinstance(reward, Verifier) else None)
    wanted = isinstance(reward, Verifier) and reward.limit_s is not None
    workers = (cpu_count() if wanted else 0) if workers is None else workers
    by_completion = isinstance(reward, Verifier) and reward.by_completion
    ids = _ids(groups, store, name, reward_name)
    table = f"rewards/{name}/{reward_name}"
    with store.writer(table, {"reward": describe(reward)}) if store else nullcontext() as writer:
        found = _stored(store, table) if store else {}
        rewards = [[found.get(i) for i in row] for row in ids]
        _keep_failures(groups, rewards, ids, writer)
        jobs = _jobs(groups, rewards, by_completion, workers)
        label = f"scoring {reward_name or ''}".strip()
        with closing(_results(reward, jobs, workers, limit_s)) as results:
            for job, result in track(results, len(jobs), label) if progress else results:
                for place, r in _placed(job, result):
                    _keep(place, r, groups, rewards, ids, writer)
    scored = [replace(g, rewards=tuple(r or _MISSING for r in row)) for g, row in zip(groups, rewards, strict=True)]
    if store and jobs:
        store.note(table, scored=sum(map(len, ids)), unscored=unscored(scored))
    return scored


def _check_numbers(workers: int | None, timeout_s: float | None) -> None:
    if workers is not None and workers < 0:
        raise InputError(f"workers is {workers}; it must be 0 (this process) or more")
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise InputError(f"timeout_s is {timeout_s}; it must be more than 0 seconds, or None for the reward's own")


_MISSING = Reward(NAN, "not scored yet")


def _keep_failures(
    groups: Sequence[Group], rewards: list[list[Reward | None]], ids: Sequence[Sequence[str]], writer: Writer | None
) -> None:
    """A completion that failed is not shown to any reward: NaN, and its own note."""
    for g, group in enumerate(groups):
        for i, c in enumerate(group.completions):
            if c.failed:
                _keep((g, i), Reward(NAN, c.note), groups, rewards, ids, writer)


def unscored(groups: Iterable[Group]) -> dict[str, int]:
    """How many completions have no reward, by note, the most frequent first."""
    notes = Counter(r.note or "no note" for g in groups for r in g.rewards if r.value != r.value)
    return dict(notes.most_common())


def apply(reward: RewardFn, batch: Sequence[Group]) -> list[list[Reward]] | TrimtabError:
    """Calls a reward and checks what it returns; when a batch fails its groups are tried one by one.

    A TrimtabError is returned, not raised, so that it crosses from a worker as what it is.
    """
    try:
        rows = called(reward, batch)
        if len(rows) != len(batch):
            raise ValueError(f"the reward returned {len(rows)} rows for {len(batch)} groups")
        for g, row in zip(batch, rows, strict=True):
            if isinstance(row, str) or len(row) != len(g.completions):
                raise ValueError(f"the reward returned {len(row)} values for {len(g.completions)} completions")
        return [[to_reward(r) for r in row] for row in rows]
    except TrimtabError as e:
        return e
    except NO_REWARD as e:
        if len(batch) == 1:
            return [[failed(e)] * len(batch[0].completions)]
    out: list[list[Reward]] = []
    for g in batch:
        result = apply(reward, [g])
        if isinstance(result, TrimtabError):
            return result
        out += result
    return out


def _ids(groups: Sequence[Group], store: Store | None, name: str | None, reward_name: str | None) -> list[list[str]]:
    """The store's ids of the completions; empty names where nothing is stored."""
    if store is None:
        return [[""] * len(g.completions) for g in groups]
    if not name or not reward_name:
        raise InputError("scoring into a store needs name= (of the completions) and reward_name= (of the reward)")
    return store.sample_ids(name, groups)


def _stored(store: Store, table: str) -> dict[str, Reward]:
    rows = store.read(table, ["id", "value", "note"]).to_pylist()
    return {r["id"]: Reward(r["value"], r["note"]) for r in rows}


def _jobs(
    groups: Sequence[Group], rewards: Sequence[Sequence[Reward | None]], by_completion: bool, workers: int
) -> list[Job]:
    """What is still to do: single completions for a pool, else what a group lacks, or all of it if it must be whole."""
    todo: list[tuple[Group, list[tuple[int, int]]]] = []
    for g, (group, row) in enumerate(zip(groups, rewards, strict=True)):
        missing = [i for i, r in enumerate(row) if r is None]
        if not missing:
            continue
        if not by_completion:
            missing = [i for i, c in enumerate(group.completions) if not c.failed]
        parts = [[i] for i in missing] if by_completion and workers else [missing]
        for part in parts:
            todo.append((Group(group.prompt, tuple(group.completions[i] for i in part)), [(g, i) for i in part]))
    size = 1 if workers else BATCH
    chunks = [todo[i : i + size] for i in range(0, len(todo), size)]
    return [Job([g for g, _ in chunk], [p for _, p in chunk]) for chunk in chunks]


def _results(
    reward: RewardFn, jobs: Sequence[Job], workers: int, limit_s: float | None
) -> Generator[tuple[Job, list[list[Reward]] | Failure], None, None]:
    """Jobs with their results, in order. Results wait while no worker has survived one: if none ever does, the fault is
    not the completions'."""
    if workers:
        _check_picklable(reward)
    waiting: list[tuple[Job, list[list[Reward]] | Failure]] = []
    alive = False
    if not jobs:
        return
    call = partial(apply, reward)
    calls = map_items(
        call, [job.batch for job in jobs], workers=min(workers, len(jobs)), timeout_s=limit_s, warm=partial(call, [])
    )
    with closing(calls):  # an error must not leave the pool running
        for job, result in zip(jobs, calls, strict=True):
            if isinstance(result, TrimtabError):
                raise result
            alive = alive or not (isinstance(result, Failure) and DIED in result.reason)
            waiting.append((job, result))
            if alive:
                yield from waiting
                waiting = []
    if len(waiting) > 1:
        raise EngineError(
            f"every worker process died while scoring with {describe(reward)}; in a script put the call under "
            '`if __name__ == "__main__":`, or pass workers=0 to see the reward fail in this process'
        )
    yield from waiting


def _placed(job: Job, result: list[list[Reward]] | Failure) -> Iterator[tuple[tuple[int, int], Reward]]:
    """Every (group, completion) place of a job with its reward."""
    for n, places in enumerate(job.places):
        for k, place in enumerate(places):
            yield place, no_reward(result.reason) if isinstance(result, Failure) else result[n][k]


def _keep(
    place: tuple[int, int],
    reward: Reward,
    groups: Sequence[Group],
    rewards: list[list[Reward | None]],
    ids: Sequence[Sequence[str]],
    writer: Writer | None,
) -> None:
    """Puts a reward in its place unless one was stored there before, which a group scored whole again may have."""
    g, i = place
    if rewards[g][i] is not None:
        return
    rewards[g][i] = reward
    if writer:
        writer.append([{"id": ids[g][i], "prompt_id": groups[g].prompt.id, "value": reward.value, "note": reward.note}])


def _check_picklable(reward: Any) -> None:
    try:
        pickle.dumps(reward)
    except Exception as e:
        raise InputError(
            f"reward {describe(reward)} cannot be sent to worker processes ({e}); define it at the top of a module, or "
            "pass workers=0"
        ) from e
