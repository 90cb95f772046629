"""A LEVER and PROMPTS to ANSWERS: the steps of all prompts run side by side, and what they want is merged.

In every round, prompts that ask the same of a model (n, params) share one sampler call, and groups to be read by the
same reward share one `RewardFn` call. Caps, prices, traces, failures and what could not be counted are known here
alone: a lever's steps only say what they want next. A prompt whose sampler or steps raised gets a failed or the best
answer so far, with a note, and its neighbours go on; an error that meets every prompt is raised.
"""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

from trimtab.adapters import score_answered
from trimtab.errors import CapReached, ModelError, StoreError, TrimtabError
from trimtab.types import (
    NO_USAGE,
    Answer,
    Ask,
    Completion,
    Group,
    Lever,
    Prompt,
    Read,
    Sampler,
    SamplingParams,
    Step,
    Steps,
    Usage,
    completion_seed,
    message_text,
)

HOPELESS = 8
"""So many prompts alone may fail, and none be answered, before the sampler's error is raised."""


@dataclass(frozen=True)
class Caps:
    """The most that one prompt's answer may take: calls of models, generated tokens, US dollars.

    They hold before anything is asked: an Ask gets fewer completions where all might exceed a cap, and where not one
    fits, `CapReached` is raised inside the steps. A prompt's tokens are bounded by its bytes; seconds cannot be.
    """

    calls: float = math.inf
    tokens: float = math.inf
    dollars: float = math.inf

    def room(self, ask: Ask, spent: Usage, dollars: float) -> int:
        """How many of the completions asked for fit, after what was spent."""
        if self is UNCAPPED:
            return ask.n
        return next((n for n in range(ask.n, 0, -1) if self._fit(most(ask, n), ask, spent, dollars)), 0)

    def _fit(self, more: Usage, ask: Ask, spent: Usage, dollars: float) -> bool:
        total = spent + more
        return (
            (total.calls or 0) <= self.calls
            and (total.completion_tokens or 0) <= self.tokens
            and dollars + ask.price(more) <= self.dollars
        )


UNCAPPED = Caps()
DEFAULT = SamplingParams()


def most(ask: Ask, n: int) -> Usage:
    """The most that one call for n completions may use, where seconds are not known beforehand."""
    prompt = sum(len(message_text(m).encode("utf-8", "surrogatepass")) for m in ask.prompt.messages)
    return Usage(prompt, 0.0, n * ask.params.max_tokens, 1.0, 0.0)


@dataclass(slots=True)
class Run:
    """One prompt's steps on their way: what they want now, what they have cost, and, when they end, the answer.

    A driver looks at `want`, gives what was wanted to `asked` or `read`, and so on until `want` is None.
    """

    prompt: Prompt
    steps: Steps
    caps: Caps = UNCAPPED
    want: Ask | Read | None = None
    answer: Answer | None = None
    error: TrimtabError | None = None
    """What ended the steps before there was anything to choose."""
    trace: list[Step] = field(default_factory=list)
    _groups: list[Group] = field(default_factory=list)
    _spent: Usage = NO_USAGE
    _dollars: float = 0.0
    _full: int = 0
    _uncounted: int = 0

    def __post_init__(self) -> None:
        self._go(None)

    def asked(self, group: Group, model: str) -> None:
        """The group that the wanted Ask got."""
        ask = self.want
        assert isinstance(ask, Ask)
        usage = group.usage
        if usage.calls is None:
            usage = Usage(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, 1.0, usage.seconds)
        price = ask.price(usage)
        note = f"{ask.n} of {self._full} completions: the others might exceed a cap" if ask.n < self._full else ""
        if math.isnan(price):
            note = "; ".join(filter(None, [note, f"price unknown: {ask.price.missing(usage)} not counted"]))
        self.trace.append(Step("ask", model, len(group.completions), usage, price, note))
        if self.caps is not UNCAPPED:  # what is unknown counts as the most it can be
            bound = most(ask, ask.n)
            self._spent += Usage(**{k: vars(bound)[k] if v is None else v for k, v in vars(usage).items()})
            self._dollars += ask.price(bound) if math.isnan(price) else price
        if usage.completion_tokens is None:
            self._uncounted += sum(c.paid_tokens is None for c in group.completions if not c.failed)
        self._groups.append(group)
        self._go(group)

    def read(self, group: Group, by: str, usage: Usage) -> None:
        """The wanted group with its rewards."""
        self.trace.append(Step("read", by, len(group.completions), usage))
        self._groups.append(group)
        self._go(group)

    def _go(self, group: Group | None) -> None:
        """To the next want, or to the end."""
        self.want = None
        try:
            want = next(self.steps) if group is None else self.steps.send(group)
            while isinstance(want, Ask):
                self._full = want.n
                n = self.caps.room(want, self._spent, self._dollars)
                if n:
                    want = want if n == want.n else replace(want, n=n)
                    break
                want = self.steps.throw(CapReached(f"{self.caps} leaves no room for what comes next; raise the cap"))
            self.want = want
        except StopIteration as end:
            self._end(end.value)
        except CapReached as error:
            best = self._best(str(error))
            self.error = error if best.completion.failed else None
            self._end(best)
        except TrimtabError as error:
            self.error = error
            self._end(self._best(str(error)))

    def _end(self, answer: Answer) -> None:
        notes = [answer.note]
        if answer.completion.failed:
            notes.append(f"failed: {answer.completion.note}")
        if self._uncounted:
            notes.append(f"tokens of {self._uncounted} completions are unknown")
        notes += dict.fromkeys(s.note for s in self.trace)
        usage = reduce(add, [s.usage for s in self.trace]) if self.trace else NO_USAGE
        price, note = sum(s.price for s in self.trace), "; ".join(filter(None, notes))
        price = math.nan if math.isnan(price) else price  # one and the same NaN: equal answers are equal
        self.answer = Answer(answer.completion, answer.group, usage, price, note, tuple(self.trace))

    def _best(self, why: str) -> Answer:
        """What can be answered when the steps end early: the highest reward among what was asked, else the first."""
        asked = [g for s, g in zip(self.trace, self._groups, strict=True) if s.kind == "ask"]
        there = {c: g for g in asked for c in g.completions if not c.failed}
        value = dict.fromkeys(there, -math.inf)
        read = [pair for g in self._groups for pair in zip(g.completions, g.rewards, strict=False)]
        value |= {c: r.value for c, r in read if c in there and not math.isnan(r.value)}
        if not there:
            failed = Completion("", "", 0, 0, "error", note=why)
            return Answer(failed, Group(self.prompt, (failed,)))
        best = max(there, key=value.__getitem__)
        return Answer(best, there[best], note=f"stopped, the best so far: {why}")


def drive(
    lever: Lever, prompts: Sequence[Prompt], params: SamplingParams = DEFAULT, caps: Caps = UNCAPPED
) -> list[Answer]:
    """The lever's answers, one a prompt in order, each with usage, price and trace of its own steps."""
    runs = [Run(p, lever.steps(p, params), caps) for p in prompts]
    try:
        while wants := _merged(runs):
            for together in wants:
                _ask(together) if isinstance(together[0].want, Ask) else _read(together)
    finally:
        for run in runs:
            run.steps.close()
    if runs and all(run.error for run in runs):
        raise runs[0].error  # type: ignore[misc]
    return [run.answer for run in runs if run.answer]


def _merged(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that want the same, together: of one model with equal n and params, or read by one RewardFn."""
    together: dict[Any, list[Run]] = {}
    for run in runs:
        if run.want is not None:
            want = run.want
            key = (id(want.model), want.n, want.params) if isinstance(want, Ask) else id(want.by)
            together.setdefault(key, []).append(run)
    return list(together.values())


def _ask(runs: Sequence[Run]) -> None:
    asks = [run.want for run in runs if isinstance(run.want, Ask)]
    model, n, params = asks[0].model, asks[0].n, asks[0].params
    name = model.model
    groups = _Asking(model, name, n, params)([ask.prompt for ask in asks])
    for run, group in zip(runs, groups, strict=True):
        run.asked(group, name)


def _read(runs: Sequence[Run]) -> None:
    wants = [run.want for run in runs if isinstance(run.want, Read)]
    by, groups = wants[0].by, [want.group for want in wants]
    began = time.perf_counter()
    rewards = score_answered(groups, by)
    usage = Usage(0.0, 0.0, 0.0, 0.0, (time.perf_counter() - began) / len(groups))
    name = getattr(by, "__qualname__", type(by).__name__)
    for run, group, row in zip(runs, groups, rewards, strict=True):
        run.read(Group(group.prompt, group.completions, tuple(row)), name, usage)


@dataclass
class _Asking:
    """One merged call of a sampler. Where it raises, halves are asked apart, until who failed stands alone."""

    model: Sampler
    name: str
    n: int
    params: SamplingParams
    answered: int = 0
    lost: list[Exception] = field(default_factory=list)

    def __call__(self, prompts: Sequence[Prompt]) -> list[Group]:
        groups = self._groups(prompts)
        if self.lost:
            if not self.answered:
                raise self.lost[0]
            warnings.warn(
                f"{self.name} raised for {len(self.lost)} of {len(prompts)} prompts, which get no answer of it: "
                f"{self.lost[0]}", stacklevel=4,
            )  # fmt: skip
        return groups

    def _groups(self, prompts: Sequence[Prompt]) -> list[Group]:
        try:
            groups = self.model(prompts, self.n, self.params)
        except (ModelError, StoreError):
            raise  # of the model or the run: it would meet everybody
        except Exception as error:
            return self._apart(prompts, error)
        self.answered += len(prompts)
        return groups

    def _apart(self, prompts: Sequence[Prompt], error: Exception) -> list[Group]:
        from trimtab.endpoints import Fault

        if isinstance(error, Fault):
            raise error  # the sampler itself keeps neighbours apart, and this met them all
        if len(prompts) > 1:
            half = len(prompts) // 2
            return self._groups(prompts[:half]) + self._groups(prompts[half:])
        self.lost.append(error)
        if len(self.lost) >= HOPELESS and not self.answered:
            raise self.lost[0]
        note = f"{type(error).__name__}: {error}"
        failed = [
            Completion("", self.name, completion_seed(self.params.seed, prompts[0].id, i), i, "error", note=note)
            for i in range(self.n)
        ]
        return [Group(prompts[0], tuple(failed))]
