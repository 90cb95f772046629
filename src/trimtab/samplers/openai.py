"""Completions from any OpenAI-compatible server: /chat/completions for messages, /completions for raw text.

Concurrent, with bounded retries that honour what the server asks for. It knows no tokenizer: tokens are absent,
log-probs are what the server reports (servers report the model's own, before temperature), and the server counts the
context. What differs between servers is met in `shape`, `answers` and `endpoints`.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from trimtab.endpoints import Connection, address, clean_key
from trimtab.errors import InputError
from trimtab.samplers.asking import TOLERATED, Asking, Health
from trimtab.samplers.requests import check
from trimtab.samplers.shape import Shape, check_shape
from trimtab.samplers.watch import Watch
from trimtab.types import Group, Prompt, SamplingParams, whole_text


@dataclass(frozen=True)
class OpenAI:
    """Samples from the server at `base_url` (with its /v1). `model` is the server's name for it; a server does not tell
    its revision, so completions carry the name alone.

    One request a prompt asks for all n; where a server takes fewer at once, or ignores `n`, more requests follow.
    The seed of its first completion goes with a request; servers may ignore it. `retries` after the first attempt at
    429, 5xx, time-outs and broken connections, waiting `backoff_s` * 2^attempt or what the server asks for.
    `fields` renames a field ({"max_tokens": "max_completion_tokens"}) or leaves it out ({"seed": False}).
    `extra` is merged into every request's JSON. The key is part of no repr, error or manifest.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 8
    timeout_s: float = 120.0
    retries: int = 5
    backoff_s: float = 1.0
    logprobs: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, str | bool] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides the texts, beside model and parameters: part of a stored table's identity."""
        return {k: dict(v) for k, v in (("extra", self.extra), ("fields", self.fields)) if v}

    def check(self) -> None:
        """InputError for an address, key or field that cannot be meant so; nothing is sent."""
        address(self.base_url)
        clean_key(self.api_key)
        if whole_text(self.model) != self.model:
            raise InputError(f"model {self.model!r}: half a surrogate pair is no character; write the server's name")
        check_shape(self.fields, self.extra)

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        """Exactly n completions a prompt, in order; those that failed have `finish` "error" and a note.

        EngineError where every prompt would fail (key, model, address, a field of the request, a server that is down),
        and where nothing was answered.
        """
        call = self._asking(prompts, n, params)
        with closing(call.groups()) as finished:
            groups = dict(finished)
        fault = call.health.first or (call.health.own if len(groups) > 1 else None)
        if fault and all(c.failed for g in groups.values() for c in g.completions):
            raise fault
        call.watch.tell()
        return [groups[p] for p in range(len(prompts))]

    def stream(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams
    ) -> Generator[tuple[int, Group], None, None]:
        """The same groups as they are finished, each with the place of its prompt."""
        call = self._asking(prompts, n, params)
        yield from call.groups()
        call.watch.tell()

    def _asking(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> Asking:
        check(n, params)
        self.check()
        connection = Connection(
            self.base_url, self.api_key, self.timeout_s, self.retries, self.backoff_s, self.concurrency
        )
        watch = Watch(address(self.base_url).root, self.model, params)
        shape, health = Shape(self.fields, self.logprobs), Health(max(TOLERATED, 2 * self.concurrency))
        return Asking(connection, self.model, prompts, n, params, shape, dict(self.extra), watch, health)
