"""Where a map runs: in this process, or in a pool of processes with a time limit an item.

It knows nothing of prompts or rewards. Ray Data is the engine for many machines (a later addition behind `map_items`).
"""

import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
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
    and replaced. `warm` runs first in each worker, outside the limit: imports must not count against an item.
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
    import multiprocessing
    from concurrent.futures.process import BrokenProcessPool

    from pebble import ProcessExpired, ProcessPool

    context = multiprocessing.get_context("spawn")
    started = context.Semaphore(0)
    begin = (started, warm)
    with ProcessPool(max_workers=workers, initializer=_start_worker, initargs=begin, context=context) as pool:
        # not pool.map: its results also give up after `timeout_s` of waiting, while a fresh worker is still importing
        futures = [pool.schedule(fn, args=(item,), timeout=timeout_s) for item in items]
        starting = workers
        try:
            for future in futures:
                try:
                    yield future.result()
                except FutureTimeout:
                    yield Failure(f"took longer than {timeout_s} s")
                except ProcessExpired as e:
                    yield Failure(f"the worker process died (exit code {e.exitcode})")
                except BrokenProcessPool:
                    starting = 0  # none will
                    yield Failure("the worker process died before it could begin")
                except Exception as e:
                    yield Failure(f"{type(e).__name__}: {e}")
            _await_start(started, starting)
        except BaseException as e:  # Ctrl-C, or the consumer stopped early: do not wait for what is queued
            if isinstance(e, GeneratorExit):
                _await_start(started, starting)
            pool.stop()
            raise


def _await_start(started: Any, workers: int) -> None:
    """Waits for workers that are still starting: the pool, when it closes, first takes away the semaphores they look
    for, and each would print a traceback."""
    deadline = time.monotonic() + START_S
    for _ in range(workers):
        started.acquire(timeout=max(0.0, deadline - time.monotonic()))


def _start_worker(started: Any, warm: Callable[[], object] | None) -> None:
    started.release()
    if sys.platform == "linux":  # or a worker in an endless loop outlives a parent that was killed
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG
    if warm:
        warm()


def cpu_count() -> int:
    """Processors this process may use (cgroup and affinity limits included where Python sees them)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
