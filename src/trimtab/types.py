"""The nouns and the call shapes; everything else turns one of these into another. Imports nothing of ours.

Prompts are sampled into completions, rewards score them, a learner distils the rewards into an object that gives value
to tokens, features, completions or models, a decoder spends that object, evaluation says what it bought.
"""

import hashlib
import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

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
    seconds: float | None = None


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
        """Generated tokens, None where the engine gave neither tokens nor log-probs of each."""
        known = self.tokens if self.tokens is not None else self.logprobs
        return None if known is None else len(known)

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
class Answer:
    """What a decoder chose, from which group, and what that cost (`tokens` generated over the whole group; NaN where
    nobody counted)."""

    completion: Completion
    group: Group
    tokens: float
    price: float = 0.0
    note: str = ""


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


class Sampler(Protocol):
    """Prompts to completions: exactly n a prompt, groups in the order of the prompts. `model` is "name@revision"."""

    @property
    def model(self) -> str: ...

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]: ...


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that can also give each group when it is finished, with the place of its prompt: nobody waits for the
    longest completion of a batch."""

    def stream(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams
    ) -> Generator[tuple[int, Group], None, None]: ...


RewardFn = Callable[[Sequence[Group]], list[list[Reward]]]
"""Groups to rewards, aligned with groups and completions. Verifiers, reward models, probes and judges share it."""


@runtime_checkable
class Embedder(Protocol):
    """Groups to vectors: one (N, D) float array a group, row i for completion i. `card` identifies what made them."""

    @property
    def card(self) -> dict[str, Any]: ...

    def __call__(self, groups: Sequence[Group]) -> list[npt.NDArray[np.floating]]: ...


class PromptEmbedder(Protocol):
    """What a router reads with: prompts to vectors (P, D). `card` identifies what made them.

    `trimtab.embeddings.Encoder` and `HashedNgrams` are two. Where it also declares `blocks` (widths of parts that
    differ in kind) they are balanced.
    """

    @property
    def card(self) -> dict[str, Any]: ...

    def embed_prompts(self, prompts: Sequence[Prompt]) -> npt.NDArray[np.floating]: ...


def user_text(prompt: Prompt) -> str:
    """What a router reads: the user's messages (or raw text), joined by newlines; system messages are left out."""
    return "\n".join(message_text(m) for m in prompt.messages if m.get("role") in ("user", "text"))


def score_answered(groups: Sequence[Group], reward: RewardFn) -> list[list[Reward]]:
    """What `reward` gives, aligned with groups and completions; a completion that failed is not shown to it and gets
    NaN and its own note."""
    if not any(c.failed for g in groups for c in g.completions):
        return reward(groups)
    there = [Group(g.prompt, tuple(c for c in g.completions if not c.failed)) for g in groups]
    given = iter(reward([g for g in there if g.completions]))
    rows = [iter(next(given) if g.completions else ()) for g in there]
    return [
        [Reward(float("nan"), c.note) if c.failed else next(row) for c in g.completions]
        for g, row in zip(groups, rows, strict=True)
    ]


Preference = Callable[[Sequence[Group], Sequence[npt.NDArray[np.intp]]], list[npt.NDArray[np.float64]]]
"""Groups, and for each an (M, 2) array of completion numbers (i, j), to P(i is preferred over j), shape (M,) a group;
NaN where it could not be said. Pairwise models and judges share it."""

Router = Callable[[Sequence[Prompt]], list[dict[str, float]]]
"""Prompts to expected reward per model. Prices and budgets live outside."""

Decoder = Callable[[Sequence[Prompt]], list[Answer]]
"""Prompts to answers. What server and evaluation consume."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; dataclasses become dicts, callables their `describe` name."""
    return _CANONICAL.encode(value)


def fingerprint(value: Any) -> str:
    """32 hex digits (128 bits of SHA-256) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _as_json(x: Any) -> Any:
    if is_dataclass(x) and not isinstance(x, type):
        return asdict(x)
    if isinstance(x, np.generic):
        return x.item()
    if callable(x):
        return describe(x)
    return str(x)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_as_json)
"""Made once: making an encoder takes longer than encoding a message does."""


HALF = "half a character was replaced"


def whole_text(text: str) -> str:
    """Text in which half a surrogate pair, which no file and no tokenizer can hold, is U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def describe(fn: Any) -> str:
    """The manifest's name for a callable: a dataclass's repr, a function's `module:name`; the same in every process."""
    if not is_dataclass(fn):
        return f"{fn.__module__}:{fn.__qualname__}"
    return re.sub(r"<function (\S+) at 0x[0-9a-f]+>", r"\1", repr(fn))  # a field that is a function shows its address


def completion_seed(seed: int, prompt_id: str, index: int = 0) -> int:
    """A 31-bit seed that depends on the run's seed, the prompt and the completion's index, and on nothing else."""
    return int(fingerprint([seed, prompt_id, index])[:8], 16) & 0x7FFFFFFF


__all__ = [
    "Answer",
    "Completion",
    "Decoder",
    "Embedder",
    "Group",
    "Message",
    "Pair",
    "Preference",
    "Prompt",
    "Reward",
    "RewardFn",
    "Router",
    "Sampler",
    "SamplingParams",
    "Usage",
    "canonical_json",
    "completion_seed",
    "describe",
    "fingerprint",
    "message_text",
    "score_answered",
]
