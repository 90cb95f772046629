"""One call to a server: requests for many prompts at once, groups as they are finished, failures where they belong.

One bad prompt loses only itself. A fault of the key, the model, the address or the request's shape stops the call
before more is paid; answers that are on their way then are still given out.
"""

import queue
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from trimtab.endpoints import Connection, Fault
from trimtab.lm.chat import conversation, is_raw
from trimtab.samplers.answers import Choice, choices_of, read_choice, read_usage, shared, trouble_in
from trimtab.samplers.shape import FIELDS, Shape
from trimtab.samplers.watch import Watch
from trimtab.types import Completion, Group, Prompt, SamplingParams, completion_seed

TOLERATED = 8
"""So many prompts in a row may fail by the server's fault, or be refused before anything was answered."""


@dataclass(frozen=True)
class Job:
    """`n` completions of prompt number `prompt`, from index `first` on."""

    prompt: int
    first: int
    n: int


@dataclass(frozen=True)
class Got:
    """What a job's request brought: completions, what is still to ask, and the fault that ended it."""

    job: Job
    completions: Sequence[Completion] = ()
    rest: Sequence[Job] = ()
    fault: Fault | None = None


@dataclass
class Health:
    """How the server has been so far."""

    limit: int
    answered: int = 0
    in_a_row: int = 0
    refused: int = 0
    first: Fault | None = None
    """The first fault that is not a prompt's own."""
    own: Fault | None = None
    """The first that is."""

    def stops(self, got: Got) -> bool:
        """Whether this is the fault that ends the call."""
        if got.fault is None:
            self.answered, self.in_a_row = self.answered + 1, 0
            return False
        blame = got.fault.blame
        if blame == "prompt":
            self.own = self.own or got.fault
        else:
            self.first = self.first or got.fault
        self.in_a_row += blame == "server"
        self.refused += blame == "request"
        return (
            blame in ("all", "field")
            or self.in_a_row >= self.limit
            or (not self.answered and self.refused >= self.limit)
        )


@dataclass
class Asking:
    """A call on its way. `extra` is merged into every request; `name` is the model's."""

    connection: Connection
    name: str
    prompts: Sequence[Prompt]
    n: int
    params: SamplingParams
    shape: Shape
    extra: dict[str, Any]
    watch: Watch
    health: Health
    _finished: "queue.SimpleQueue[Future[Got]]" = field(default_factory=queue.SimpleQueue)

    def groups(self) -> Generator[tuple[int, Group], None, None]:
        """Each group when it is finished, with the place of its prompt. Fault for what stops the call."""
        had: dict[int, dict[int, Completion]] = {p: {} for p in range(len(self.prompts))}
        stopped: Fault | None = None
        pool = ThreadPoolExecutor(self.connection.concurrency)
        try:
            with self.connection:
                waiting = {self._submit(pool, Job(p, 0, self.n)) for p in had}
                while waiting:
                    future = self._finished.get()
                    waiting.discard(future)
                    if future.cancelled():
                        continue
                    got = future.result()
                    if stopped is None and self.health.stops(got):
                        stopped = got.fault
                        self.connection.close()  # nobody tries again; what is on its way may arrive
                        for other in waiting:
                            other.cancel()
                    if stopped is None:
                        waiting |= {self._submit(pool, job) for job in got.rest}
                    place = got.job.prompt
                    had[place].update((c.index, c) for c in self._completions(got, stopped))
                    if len(had[place]) == self.n:
                        yield place, self._group(place, had.pop(place))
        finally:
            self.connection.close()
            pool.shutdown(wait=False, cancel_futures=True)
        if stopped is not None:
            raise stopped

    def _submit(self, pool: ThreadPoolExecutor, job: Job) -> "Future[Got]":
        future = pool.submit(self._ask, job)
        future.add_done_callback(self._finished.put)
        return future

    def _completions(self, got: Got, stopped: Fault | None) -> Sequence[Completion]:
        """What was answered; failures in the place of what was not, unless the whole call has stopped."""
        if got.fault is None or stopped is not None:
            return got.completions
        note = str(got.fault)
        return [
            Completion("", self.name, self._seed(got.job, i), i, "error", note=note)
            for i in range(got.job.first, got.job.first + got.job.n)
        ]

    def _group(self, place: int, completions: dict[int, Completion]) -> Group:
        group = Group(self.prompts[place], tuple(completions[i] for i in range(self.n)))
        self.watch.group(group)
        return group

    def _seed(self, job: Job, index: int) -> int:
        return completion_seed(self.params.seed, self.prompts[job.prompt].id, index)

    def _ask(self, job: Job) -> Got:
        """One request for as many of a job's completions as the server takes at once, and what is left to ask."""
        prompt = self.prompts[job.prompt]
        raw = is_raw(prompt)
        path = "/completions" if raw else "/chat/completions"
        for _ in range(2 * len(FIELDS)):
            version, n = self.shape.version, min(job.n, self.shape.most)
            body: dict[str, Any] = {
                "model": self.name,
                **self.shape.body(self.params, n, self._seed(job, job.first), raw),
            }
            messages, tools = conversation(prompt)
            body |= {"prompt": messages[0]["content"]} if raw else {"messages": messages}
            body |= {"tools": tools} if tools else {}
            body = {k: v for k, v in {**body, **self.extra}.items() if v is not None}
            fields = self.shape.ours()
            check: Callable[[Any], Any] = lambda a, f=fields: trouble_in(a, f, self.params.max_tokens)  # noqa: E731
            sent = {theirs: ours for theirs, ours in fields.items() if theirs in body}
            try:
                reply = self.connection.post(path, body, check, about=f"prompt {prompt.id!r}", fields=sent)
                return self._read(job, n, reply.json, reply.seconds)
            except Fault as fault:
                if fault.blame != "field":
                    return Got(job, fault=fault)
                try:
                    self.shape.bend(fault, self.params, n, version)
                except Fault as unbent:
                    return Got(job, fault=unbent)
        raise AssertionError("every field can be bent but twice")

    def _read(self, job: Job, asked: int, payload: Any, seconds: float) -> Got:
        """The completions of an answer; choices that are missing or failed are left to ask, one by one."""
        found = choices_of(payload)
        usage = read_usage(payload, seconds)
        counted = usage.completion_tokens if len(found) == 1 else None
        self.watch.answer(payload, asked, len(found))
        choices = [read_choice(c, self.params.max_tokens, counted) for c in found[:asked]]
        kept = [(job.first + i, c) for i, c in enumerate(choices) if c.trouble is None or c.trouble.blame == "prompt"]
        share = shared(usage, max(1, len(kept)), any(c.text for _, c in kept))
        seed = self._seed(job, job.first)
        completions = [self._completion(i, seed, c, share) for i, c in kept]
        there = {i for i, _ in kept}
        lost = [Job(job.prompt, i, 1) for i in range(job.first, job.first + asked) if i not in there]
        end, most = job.first + job.n, min(self.shape.most, asked)
        later = [Job(job.prompt, i, min(most, end - i)) for i in range(job.first + asked, end, most)]
        return Got(job, completions, [*lost, *later])

    def _completion(self, index: int, seed: int, c: Choice, usage: Any) -> Completion:
        finish, note = ("error", c.trouble.reason) if c.trouble else (c.finish, c.note)
        return Completion(c.text, self.name, seed, index, finish, None, c.logprobs, usage, note)
