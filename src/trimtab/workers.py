"""Where a map runs: in this process, or in a pool of processes with a time limit an item.

It knows nothing of prompts or rewards. Ray Data is the engine for many machines (a later addition behind `map_items`).
"""

import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
START_S = 10.0  # how long the end of a pool waits for workers that are still starting


@dataclass(frozen=True)
class Failure:
    """An item whose function raised, timed out or lost its worker; `reason` is one line for people."""

    reason: str


def map_items(
    fn: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int = 0,
    timeout_s: float | None = None,
    warm: Callable[[], object] | None = None,
) -> Generator[R | Failure, None, None]:
    """`fn` over `items`, results in order, a Failure in the place of an item that raised or ran out of time.

    workers = 0 runs in this process (no time limit is possible then). Otherwise a pool of processes that import the
    function's module afresh (spawn, so that threads and torch survive); a worker that hangs past `timeout_s` is killed
    and replaced. One worker begins; the others start when that pays. `warm` runs first in each worker, outside the
    limit: imports must not count against an item.
    Close the generator (contextlib.closing) when leaving early: that stops the pool.
    `fn` and the items must be picklable by reference, as `multiprocessing` asks.
    """
    if workers == 0:
        for item in items:
            try:
                yield fn(item)
            except Exception as e:
                yield Failure(f"{type(e).__name__}: {e}")
        return
    crews = [_Crew(fn, 1, timeout_s, warm)]
    try:
        yield from _gathered(crews, items, partial(_Crew, fn, workers - 1, timeout_s, warm) if workers > 1 else None)
        for crew in crews:
            crew.close()
    except BaseException as e:  # Ctrl-C, or the consumer stopped early: do not wait for what is queued
        for crew in crews:
            crew.stop(orderly=isinstance(e, GeneratorExit))
        raise


BROKEN = Failure("the worker process died before it could begin")


class _Crew:
    """A pool of worker processes that takes items one by one."""

    def __init__(
        self, fn: Callable[[Any], Any], size: int, timeout_s: float | None, warm: Callable[[], object] | None
    ) -> None:
        import multiprocessing

        from pebble import ProcessPool

        context = multiprocessing.get_context("spawn")
        self.fn, self.size, self.timeout_s, self.warm = fn, size, timeout_s, warm
        self.started, self.warmed = context.Semaphore(0), context.Semaphore(0)
        self.begun, self.ready_at, self.starting = time.monotonic(), 0.0, size
        self.pool = ProcessPool(
            max_workers=size, initializer=_start_worker, initargs=(self.started, self.warmed, warm), context=context
        )
        self.futures: dict[Any, int] = {}

    def wants(self) -> bool:
        """Whether another item should be queued: two a worker, so that none waits for us and few are lost to a crew
        that starts later."""
        return len(self.futures) < 2 * self.size

    def give(self, index: int, item: Any) -> None:
        """Queues an item; in a pool whose every start has failed it fails at once."""
        # not pool.map: its results also give up after `timeout_s` of waiting, while a fresh worker is still importing
        try:
            future = self.pool.schedule(self.fn, args=(item,), timeout=self.timeout_s)
        except RuntimeError as e:
            future = Future()
            future.set_exception(BrokenProcessPool(str(e)))
        self.futures[future] = index

    def is_slow(self, done: int, left: int) -> bool:
        """Whether it has worked for as long as it took to start, with more than that to do: then more workers pay."""
        now = time.monotonic()
        if not self.ready_at and self.warmed.acquire(block=False):
            self.ready_at = now
        if not self.ready_at or now - self.ready_at < self.ready_at - self.begun:
            return False
        return not done or left * (now - self.ready_at) / done > self.ready_at - self.begun

    def result(self, future: Any) -> Any:
        from pebble import ProcessExpired

        try:
            return future.result()
        except FutureTimeout:
            return Failure(f"took longer than {self.timeout_s} s")
        except ProcessExpired as e:
            return Failure(f"the worker process died (exit code {e.exitcode})")
        except BrokenProcessPool:
            self.starting = 0  # none will
            return BROKEN
        except Exception as e:
            return Failure(f"{type(e).__name__}: {e}")

    def again(self) -> "_Crew":
        """Another crew in its place: the library gives a pool up when a worker dies before it has said what it took."""
        self.stop(orderly=False)
        return _Crew(self.fn, self.size, self.timeout_s, self.warm)

    def close(self) -> None:
        _await_start(self.started, self.starting)
        self.pool.close()
        self.pool.join()

    def stop(self, *, orderly: bool) -> None:
        if orderly:
            _await_start(self.started, self.starting)
        self.pool.stop()
        self.pool.join()


def _gathered(crews: list[_Crew], items: Sequence[Any], more: Callable[[], _Crew] | None) -> Generator[Any, None, None]:
    """Results in order. One worker begins; the others start once it has worked for as long as a start takes.

    Measured on two busy cores for 104 items of no work, whose module imports torch: 3.8 s with one worker, 12.6 s with
    two, 44 s with eight (2026-11-29). At worst the others start one start-up time late.
    """
    ready: dict[int, Any] = {}
    waiting = list(range(len(items)))[::-1]
    tried: set[int] = set()  # items that a broken pool has lost, once; all of them while no worker has ever worked
    worked = False
    for wanted in range(len(items)):
        while wanted not in ready:
            while waiting and (crew := next((c for c in crews if c.wants()), None)):
                crew.give(waiting[-1], items[waiting.pop()])
            outstanding = [f for crew in crews for f in crew.futures]
            done, _ = wait(outstanding, timeout=0.1 if more else None, return_when=FIRST_COMPLETED)
            for at, crew in enumerate(crews):
                results = {crew.futures.pop(f): crew.result(f) for f in done & crew.futures.keys()}
                worked = worked or any(r is not BROKEN for r in results.values())
                lost = [i for i, r in results.items() if r is BROKEN and worked and i not in tried]
                ready |= {i: r for i, r in results.items() if i not in lost}
                if lost:
                    tried.update(lost)
                    waiting += sorted([*lost, *crew.futures.values()], reverse=True)
                    crews[at] = crew.again()
            if more and waiting and crews[0].is_slow(len(items) - len(waiting) - len(outstanding), len(waiting)):
                crews.append(more())
                more = None
        yield ready.pop(wanted)


def _await_start(started: Any, workers: int) -> None:
    """Waits for workers that are still starting: the pool, when it closes, first takes away the semaphores they look
    for, and each would print a traceback."""
    deadline = time.monotonic() + START_S
    for _ in range(workers):
        started.acquire(timeout=max(0.0, deadline - time.monotonic()))


def _start_worker(started: Any, warmed: Any, warm: Callable[[], object] | None) -> None:
    started.release()
    if sys.platform == "linux":  # or a worker in an endless loop outlives a parent that was killed
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG
    if warm:
        warm()
    warmed.release()


def cpu_count() -> int:
    """Processors this process may use (cgroup and affinity limits included where Python sees them)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
