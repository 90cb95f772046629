"""The nouns: prompts, completions, rewards, groups, answers, and what they cost.

Prompts are sampled into completions, rewards score them, a learner distils the rewards into an object that gives value
to tokens, features, completions or models, a decoder spends that object, evaluation says what it bought.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.types.identity import canonical_json, fingerprint

Message = Mapping[str, Any]
"""`{"role": ..., "content": ...}` and every further key it came with (tool_calls, name, ...); content is None where a
message calls tools only. Role "text" marks raw text that no chat template may touch (alone in its prompt). The tools
that a prompt may call stand in its first message under "tools", as the chat template takes them."""


def message_text(message: Message) -> str:
    """What a message says, for readers that know no chat template: its content, and its tool calls as JSON."""
    content = message.get("content")
    said = [content if isinstance(content, str) else canonical_json(content)] if content else []
    return "\n".join([*said, *(canonical_json(message[k]) for k in ("tool_calls", "function_call") if message.get(k))])


@dataclass(frozen=True)
class Prompt:
    """One thing to answer. `target` holds what a reward needs: a gold answer, tests, rules, or a dict of columns."""

    id: str
    messages: tuple[Message, ...]
    target: Any = None
    source: str = ""

    @classmethod
    def of(cls, text: str, *, id: str = "", **columns: Any) -> "Prompt":
        """A user's question, with what a reward needs by name: `Prompt.of("2 + 3?", answer="5")`. Without an id it gets
        the one that the same row of a file gets."""
        messages = ({"role": "user", "content": text},)
        return cls(id or fingerprint([messages, columns]), messages, columns)

    @property
    def columns(self) -> dict[str, Any]:
        """The target as named columns; a bare target is the column `target`."""
        return dict(self.target) if isinstance(self.target, Mapping) else {"target": self.target}


@dataclass(frozen=True)
class Usage:
    """What answering cost, as the engine counted it; None where it did not say, never 0.

    A request for several completions is shared equally among them: the sum over a group is what was paid for it.
    `cached_tokens` are part of `prompt_tokens`; `seconds` are of the request that answered, retries apart.
    """

    prompt_tokens: float | None = None
    cached_tokens: float | None = None
    completion_tokens: float | None = None
    calls: float | None = None
    seconds: float | None = field(default=None, compare=False)
    """A measurement, no part of what an answer is: the same call may take longer."""

    def __add__(self, other: "Usage") -> "Usage":
        """Both together; unknown with anything is unknown. `sum(usages, NO_USAGE)` adds many."""
        both = zip(vars(self).values(), vars(other).values(), strict=True)
        return Usage(*[None if a is None or b is None else a + b for a, b in both])


NO_USAGE = Usage(0.0, 0.0, 0.0, 0.0, 0.0)
"""What asking nobody costs."""


def _total(counts: Sequence[float | None]) -> float | None:
    return None if None in counts else sum(counts)  # pyright: ignore[reportArgumentType, reportCallIssue]


@dataclass(frozen=True)
class Price:
    """US dollars a call, a million prompt tokens, cached ones (None: as the others), generated ones, and a second."""

    call: float = 0.0
    million_in: float = 0.0
    million_cached: float | None = None
    million_out: float = 0.0
    second: float = 0.0

    def __post_init__(self) -> None:
        if wrong := {k: v for k, v in vars(self).items() if v is not None and not 0 <= v < math.inf}:
            raise ValueError(f"a price is a number of dollars, 0 or more; got {wrong}")

    def __call__(self, usage: Usage) -> float:
        """What this usage costs; NaN where a count that costs something is unknown, and `missing` names it."""
        if self is FREE:
            return 0.0
        if self.missing(usage):
            return math.nan
        paid = [(name, rate * n) for name, (rate, n) in self._parts(usage).items() if rate and n is not None]
        return float(sum(dollars / 1e6 if name.endswith("tokens") else dollars for name, dollars in paid))

    def missing(self, usage: Usage) -> str:
        """The counts that the price needs and the engine did not give; empty where there are none."""
        return ", ".join(name for name, (rate, n) in self._parts(usage).items() if rate and n is None)

    def _parts(self, usage: Usage) -> dict[str, tuple[float, float | None]]:
        off = 0.0 if self.million_cached is None else self.million_cached - self.million_in
        rates = (self.million_in, off, self.million_out, self.call, self.second)  # in the order of Usage's fields
        return {name: (rate, n) for rate, (name, n) in zip(rates, vars(usage).items(), strict=True)}


FREE = Price()


@dataclass(frozen=True)
class Completion:
    """One answer of one model. `finish` is "stop" (the model ended it), "length" (it was cut) or "error": this one
    failed, `note` says why, it is never scored and never chosen, and its group goes on without it.

    `tokens` and `logprobs` (natural log, of the model's own distribution, before temperature and top-p) are absent,
    never zero, where the engine does not give them; both include the end token when the model emitted one. `logprobs`,
    when present, has one entry a generated token, also when `tokens` is absent.
    """

    text: str
    model: str
    seed: int
    index: int
    finish: str = "stop"
    tokens: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    usage: Usage | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether there is no answer: `finish` is "error"."""
        return self.finish == "error"

    @property
    def length(self) -> int | None:
        """Generated tokens: those it has, or what the engine counted where the request was its own; None unknown."""
        known = self.tokens if self.tokens is not None else self.logprobs
        if known is not None:
            return len(known)
        counted = None if self.usage is None or self.usage.calls != 1 else self.usage.completion_tokens
        return None if counted is None else int(counted)

    @property
    def paid_tokens(self) -> float | None:
        """Generated tokens that are paid for (hidden thoughts too), its share where a request gave several; None where
        nobody counted."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return self.length


@dataclass(frozen=True)
class Reward:
    """Higher is better. NaN means unscored, and then `note` says why."""

    value: float
    note: str = ""


@dataclass(frozen=True)
class Group:
    """N completions of ONE prompt, the unit of everything; `rewards` is empty or has one entry a completion."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    rewards: tuple[Reward, ...] = ()

    def __post_init__(self) -> None:
        if self.rewards and len(self.rewards) != len(self.completions):
            raise ValueError(
                f"prompt {self.prompt.id}: {len(self.completions)} completions but {len(self.rewards)} rewards"
            )

    @property
    def usage(self) -> Usage:
        """What its completions cost, those that failed apart; unknown where nothing was answered."""
        there = [c for c in self.completions if c.finish != "error"]
        if not there:
            return Usage()
        paid = _total([c.paid_tokens for c in there])
        used = [c.usage for c in there if c.usage is not None]
        if len(used) < len(there):
            return Usage(completion_tokens=paid)
        prompt, cached, calls, seconds = (
            _total([getattr(u, k) for u in used]) for k in ("prompt_tokens", "cached_tokens", "calls", "seconds")
        )
        return Usage(prompt, cached, paid, calls, seconds)

    @property
    def reward_N(self) -> npt.NDArray[np.float64]:
        """Reward values, shape (N,), NaN where unscored (all NaN when the group was never scored)."""
        if not self.rewards:
            return np.full(len(self.completions), np.nan)
        return np.array([r.value for r in self.rewards], dtype=np.float64)


@dataclass(frozen=True)
class Pair:
    """A preference: `chosen` is better than `rejected` by `margin` (in reward units, 0 when unknown)."""

    prompt: Prompt
    chosen: Completion
    rejected: Completion
    margin: float = 0.0


@dataclass(frozen=True)
class Step:
    """One step to an answer: a model that was asked ("ask") or a reward that read ("read"), and what that cost."""

    kind: str
    by: str
    n: int
    usage: Usage
    price: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What a decoder chose, from which group, and what all its steps cost together: NaN dollars where a count that
    costs is unknown. What a reward pays for itself, such as a judge's calls, is not known here."""

    completion: Completion
    group: Group
    usage: Usage = Usage()
    price: float = 0.0
    note: str = ""
    trace: tuple[Step, ...] = ()

    @property
    def tokens(self) -> float:
        """Generated tokens that were paid for, NaN where the engine did not count all."""
        return math.nan if self.usage.completion_tokens is None else self.usage.completion_tokens


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. Temperature 0 is greedy. `seed` is the run's; every completion derives its own from it."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 0
    """0 keeps the whole vocabulary (Hugging Face's silent default of 50 is never inherited)."""
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0


def user_text(prompt: Prompt) -> str:
    """What a router reads: the user's messages (or raw text), joined by newlines; system messages are left out."""
    return "\n".join(message_text(m) for m in prompt.messages if m.get("role") in ("user", "text"))
