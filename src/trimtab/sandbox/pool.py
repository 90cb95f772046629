"""A pool of sandbox workers: jobs in, outcomes out in the same order, whatever the programs do.

The owner's side of the sandbox. It keeps the clock, kills what overstays, replaces a worker that died, and turns its
own failures into outcomes with `passed=None`. It trusts the testers' reports, which no program can reach, and nothing
else.
"""

import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from trimtab.errors import EngineError, InputError, unknown
from trimtab.sandbox import launch
from trimtab.sandbox.inside import wire
from trimtab.sandbox.limits import TOO_LONG, Job, Limits, Outcome
from trimtab.workers import cpu_count

GRACE_S = 1.0  # after the tester's own deadline
START_S = 60.0
END_S = 10.0  # from a kill to its confirmation


class _Worker:
    """One worker process and the job it has."""

    def __init__(self, settings: launch.Settings, limits: Limits, *, heavy: bool = False):
        self.heavy = heavy
        self.control, control = socket.socketpair()
        self.job, job = socket.socketpair()
        self.home = tempfile.mkdtemp(prefix="trimtab-unsafe-") if settings.way == "none" else ""
        self.lines, self.buffer = bytearray(), bytearray()
        self.ready, self.failed, self.programs = False, "", 0
        self.task: int | None = None
        self.since = self.killed_at = 0.0
        self.status: dict[str, Any] | None = None
        try:
            self.process = launch.start(
                settings, limits.for_worker(), control.fileno(), job.fileno(), self.home, heavy=heavy
            )
        finally:
            control.close()
            job.close()
        self.control.setblocking(False)
        self.job.settimeout(START_S)

    def await_start(self) -> str:
        """Waits for the worker's first line; the reason when it could not start, else ""."""
        deadline = time.monotonic() + START_S
        self.control.settimeout(1.0)
        while b"\n" not in self.lines:
            try:
                part = self.control.recv(4096)
            except TimeoutError:
                part = None
            if part == b"" or time.monotonic() > deadline or (part is None and self.process.poll() is not None):
                break
            self.lines += part or b""
        self.control.setblocking(False)
        if b"\n" not in self.lines:
            return self._stderr() or "the worker ended at once"
        self.parse()
        return self.failed

    def _stderr(self) -> str:
        self.process.kill()
        assert self.process.stderr is not None
        return self.process.stderr.read(2000).decode("utf-8", "replace").strip()[-300:]

    def give(self, index: int, message: bytes) -> None:
        self.task, self.ready, self.status = index, False, None
        self.buffer.clear()
        self.since, self.killed_at = time.monotonic(), 0.0
        self.job.settimeout(START_S)
        self.job.sendall(message)

    def read(self) -> bool:
        """Takes what has arrived on both sockets; False when the worker is gone."""
        alive = True
        for source, store in ((self.control, self.lines), (self.job, self.buffer)):
            source.setblocking(False)
            while True:
                try:
                    part = source.recv(1 << 16)
                except BlockingIOError:
                    break
                except OSError:
                    part = b""
                if not part:
                    alive = False
                    break
                store.extend(part)
        self.parse()
        return alive and not self.failed

    def parse(self) -> None:
        """Takes the whole lines of the zygote."""
        while b"\n" in self.lines:
            line, _, rest = bytes(self.lines).partition(b"\n")
            self.lines = bytearray(rest)
            message = json.loads(line)
            self.failed = message.get("failed", self.failed)
            if "status" in message:
                self.status = message
            if message.get("ready"):
                self.ready = True
                self.programs += 1

    def report(self) -> dict[str, Any] | None:
        """The tester's whole report, if it has arrived."""
        size = wire.LENGTH.size
        if len(self.buffer) < size or len(self.buffer) - size < wire.LENGTH.unpack(self.buffer[:size])[0]:
            return None
        return wire.unpack(bytes(self.buffer[size:]))

    def kill_job(self) -> None:
        self.killed_at = time.monotonic()
        with contextlib.suppress(OSError):  # the worker is gone; reading says so
            self.control.send(bytes((ord("K"), (self.programs - 1) % 256)))

    def close(self) -> None:
        """Ends the worker and all it holds: without its owner's socket the zygote kills its children and exits."""
        _end(self.process, self.control, self.job, self.home)


def _end(process: subprocess.Popen[bytes], control: socket.socket, job: socket.socket, home: str) -> None:
    control.close()
    job.close()
    try:
        process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stderr is not None:
        process.stderr.close()
    if home:
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class _State:
    """Workers and the lock of one Sandbox, apart from it so that its finaliser can hold them."""

    workers: list[_Worker]
    pid: int

    def close(self) -> None:
        if self.pid == os.getpid():  # a forked copy must not touch the original's workers
            while self.workers:
                self.workers.pop().close()


class Sandbox:
    """Runs untrusted programs, each in isolation, on warm workers. A context manager; also closed when forgotten.

    `way` is "auto", "bubblewrap" or "syscalls"; `unsafe=True` runs without isolation where it is asked for.
    `packages` are importable inside besides the standard library; `commands=True` offers /usr/bin and lets jobs of mode
    "argv" execute. EngineError when the machine gives no isolation, with the reasons and what to do.
    """

    def __init__(
        self, workers: int = 0, limits: Limits | None = None, *, way: str = "auto", unsafe: bool = False,
        packages: tuple[str, ...] = ("numpy",), commands: bool = False,
    ):  # fmt: skip
        if way != "auto" and way not in launch.WAYS:
            raise unknown("way of isolation", way, ("auto", *launch.WAYS))
        if way == "none" and not unsafe:
            raise InputError(f'way="none" needs unsafe=True: {launch.LOST}')
        self.limits = limits or Limits()
        self._size = workers or cpu_count()
        self._lock = threading.Lock()
        self._state = _State([], os.getpid())
        self._finish = weakref.finalize(self, self._state.close)
        self._start(way, unsafe, packages, commands)

    def _start(self, way: str, unsafe: bool, packages: tuple[str, ...], commands: bool) -> None:
        ways = ["none"] if unsafe else launch.worth_trying() if way == "auto" else [way]
        reasons: dict[str, str] = {}
        for name in ways:
            self._settings = launch.Settings(name, packages, commands)
            first = _Worker(self._settings, self.limits)
            reasons[name] = first.await_start()
            if not reasons[name]:
                self.way = name
                self._state.workers.append(first)
                rest = [_Worker(self._settings, self.limits) for _ in range(self._size - 1)]
                self._state.workers += rest
                for worker in rest:
                    if reason := worker.await_start():
                        self.close()
                        raise EngineError(f"a sandbox worker could not start: {reason}")
                return
            first.close()
        raise launch.refusal(reasons)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every worker and whatever runs in it."""
        self._finish()

    @property
    def closed(self) -> bool:
        """Whether the workers are gone."""
        return not self._finish.alive or self._state.pid != os.getpid()

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Outcomes in the order of the jobs; at most a few hundred jobs ahead of what was consumed are taken."""
        if self.closed:
            raise EngineError("this sandbox is closed; open another")
        with self._lock:
            yield from _Run(self, jobs).outcomes()

    def add_heavy(self) -> None:
        """Starts one more worker with the packages imported; it becomes ready by and by."""
        self._state.workers.append(_Worker(self._settings, self.limits, heavy=True))

    def replace(self, worker: _Worker) -> str:
        """A new worker in the place of a broken one; the reason when it could not start."""
        worker.close()
        workers = self._state.workers
        index = workers.index(worker)
        try:
            new = _Worker(self._settings, self.limits, heavy=worker.heavy)
            reason = new.await_start()
        except (EngineError, OSError) as e:
            workers.pop(index)
            return str(e)
        if reason:
            new.close()
            workers.pop(index)
            return reason
        workers[index] = new
        return ""


AHEAD = 256
LOSSES = 20


class _Run:
    """One pass of jobs over a sandbox's workers."""

    def __init__(self, sandbox: Sandbox, jobs: Iterable[Job]):
        self.sandbox = sandbox
        self.limits = sandbox.limits
        self.source = enumerate(jobs)
        self.pending: dict[bool, deque[tuple[int, Job]]] = {False: deque(), True: deque()}
        self.jobs: dict[int, Job] = {}
        self.tries: dict[int, int] = {}
        self.done: dict[int, Outcome] = {}
        self.exhausted = False
        self.broken = ""
        self.losses = 0
        self.selector = selectors.DefaultSelector()
        self.watched: set[_Worker] = set()

    @property
    def workers(self) -> list[_Worker]:
        return self.sandbox._state.workers

    def outcomes(self) -> Iterator[Outcome]:
        following = 0
        try:
            while True:
                self.assign()
                while following in self.done:
                    yield self.done.pop(following)
                    following += 1
                    self.assign()
                if self.exhausted and not any(self.pending.values()) and not self.jobs:
                    return
                self.step()
        finally:  # the consumer stopped early: what still runs is ended with its worker
            self.selector.close()
            for worker in [w for w in self.workers if w.task is not None]:
                worker.task = None
                self.sandbox.replace(worker)

    def assign(self) -> None:
        """Gives jobs to the workers that are ready, at most `size` at a time."""
        self.fill()
        for heavy in (True, False):
            queue = self.pending[heavy]
            while queue and len(self.jobs) < self.sandbox._size:
                mine = [w for w in self.workers if w.heavy == heavy]
                worker = next((w for w in mine if w.ready and w.task is None), None)
                if worker is None:
                    if heavy and len(mine) < self.sandbox._size and not any(w.programs == 0 for w in mine):
                        self.sandbox.add_heavy()
                    elif not mine:
                        self.give_up(queue)
                    break
                index, job = queue.popleft()
                self.jobs[index] = job
                try:
                    worker.give(index, wire.pack(self.message(job)))
                except OSError:
                    self.lost(worker, "did not take the job")

    def give_up(self, queue: deque[tuple[int, Job]]) -> None:
        while queue:
            self.done[queue.popleft()[0]] = Outcome(None, f"the sandbox could not start again: {self.broken}")

    def fill(self) -> None:
        """Takes jobs from the source, far enough ahead to keep every worker busy."""
        packages = self.sandbox._settings.packages
        while not self.exhausted and len(self.pending[False]) < self.sandbox._size:
            if len(self.done) + len(self.pending[True]) > AHEAD:
                return
            item = next(self.source, None)
            if item is None:
                self.exhausted = True
                return
            index, job = item
            if len(job.program) > TOO_LONG:
                self.done[index] = Outcome(
                    False, f"a program of {len(job.program)} characters; at most {TOO_LONG} are run"
                )
            elif len(job.tests) + len(job.prelude) > TOO_LONG:
                self.done[index] = Outcome(None, f"the tests are longer than {TOO_LONG} characters")
            else:
                self.pending[any(p in job.program or p in job.tests for p in packages)].append(item)

    def message(self, job: Job) -> dict[str, Any]:
        return {
            "program": job.program, "tests": job.tests, "prelude": job.prelude, "entry_point": job.entry_point,
            "mode": job.mode, "aliases": list(job.aliases), "argv": list(job.argv), "env": dict(job.env),
            "stdin": job.stdin,             "wall_s": self.limits.wall_s, "output_bytes": self.limits.output_bytes,
        }  # fmt: skip

    def step(self) -> None:
        """Waits for the next event or deadline and handles it."""
        now = time.monotonic()
        deadlines = [
            w.killed_at + END_S if w.killed_at else w.since + self.limits.wall_s + GRACE_S
            for w in self.workers if w.task is not None
        ]  # fmt: skip
        for gone in self.watched - set(self.workers):
            self.watched.remove(gone)
        for new in set(self.workers) - self.watched:  # a closed socket has left the selector by itself
            for source in (new.control, new.job):
                if source.fileno() in self.selector.get_map():
                    self.selector.unregister(source.fileno())
                self.selector.register(source, selectors.EVENT_READ, new)
            self.watched.add(new)
        events = self.selector.select(max(0.0, min(deadlines, default=now + 1.0) - now) + 0.001)
        for worker in {id(k.data): k.data for k, _ in events}.values():
            if not worker.read():
                self.lost(worker, "died")
            elif worker.task is not None and worker.status is not None:
                self.finish(worker)
        self.enforce()

    def enforce(self) -> None:
        now = time.monotonic()
        for worker in [w for w in self.workers if w.task is not None]:
            if worker.killed_at and now > worker.killed_at + END_S:
                self.lost(worker, "did not end a program that was killed")
            elif not worker.killed_at and now > worker.since + self.limits.wall_s + GRACE_S:
                worker.kill_job()

    def finish(self, worker: _Worker) -> None:
        """The zygote says that the job is over and its processes are gone."""
        assert worker.task is not None and worker.status is not None
        index, report, status = worker.task, worker.report(), worker.status
        seconds = time.monotonic() - worker.since
        late = f"took longer than {self.limits.wall_s:g} s"
        if report is None:
            note = late if status["killed"] else "the process that runs the tests died"
            outcome = Outcome(False if status["killed"] else None, note, seconds=seconds)
            self.sandbox_again(worker)  # half a job or half a report may be left in its sockets
        else:
            value = report.get("value")
            ran = self.jobs[index].mode in ("script", "argv")
            outcome = Outcome(
                report["passed"],
                report["note"] or (late if status["killed"] else ""),
                report["stdout"],
                report["stderr"],
                status["status"] if ran else None,
                None if value is None else _value(value["value"]),
                report["cut"],
                seconds,
            )
            worker.task = None
            self.losses = 0
        del self.jobs[index]
        self.done[index] = outcome

    def lost(self, worker: _Worker, how: str) -> None:
        """A worker died: its job is tried once more, then given up as unscored."""
        index = worker.task
        self.sandbox_again(worker)
        if index is None:
            return
        job = self.jobs.pop(index)
        self.tries[index] = self.tries.get(index, 0) + 1
        if self.tries[index] > 1:
            self.done[index] = Outcome(None, f"the sandbox worker {how}, twice")
        else:
            self.pending[worker.heavy].appendleft((index, job))

    def sandbox_again(self, worker: _Worker) -> None:
        worker.task = None
        self.losses += 1
        if self.losses > LOSSES:  # no job has ended for many workers: this machine is ill, do not try for ever
            worker.close()
            self.workers.remove(worker)
            self.broken = "its workers keep dying"
            return
        self.broken = self.sandbox.replace(worker) or self.broken


def _value(encoded: Any) -> Any:
    return wire.decode(encoded, lambda tagged: f"<{tagged.get('v')}>" if tagged["!"] == "opaque" else None)
