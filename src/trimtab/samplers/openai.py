"""Completions from any OpenAI-compatible server: /chat/completions for messages, /completions for raw text.

Concurrent, with bounded retries that honour Retry-After. It knows no tokenizer: tokens are absent, log-probs are what
the server reports (servers report the model's own, before temperature), and the server counts the context.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from trimtab.endpoints import headers, post_json
from trimtab.errors import EngineError
from trimtab.models.chat import is_raw
from trimtab.samplers.requests import check
from trimtab.types import Completion, Group, Prompt, SamplingParams, completion_seed

FINISH = {"stop": "stop", "tool_calls": "stop", "function_call": "stop", "length": "length", "content_filter": "length"}


@dataclass(frozen=True)
class OpenAI:
    """Samples from the server at `base_url` (with its /v1). `model` is the server's name for it; a server does not tell
    its revision, so completions carry the name alone.

    One request a prompt asks for all n; what a server that ignores `n` leaves out is asked for one by one. Seeds: that
    of completion 0 goes with the request for all n, its own with a request for one. Servers may ignore seeds.
    `retries` after the first attempt at 429, 5xx, time-outs and broken connections, waiting `backoff_s` * 2^attempt or
    what Retry-After says. `extra` is merged into every request's JSON.
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

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        """Exactly n completions a prompt, in order. EngineError after the last retry, or for an answer that is none."""
        check(n, params)
        timeout = httpx.Timeout(self.timeout_s, connect=min(10.0, self.timeout_s))
        limits = httpx.Limits(max_connections=self.concurrency)
        with (
            httpx.Client(headers=headers(self.api_key), timeout=timeout, limits=limits) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            try:
                completions = list(pool.map(partial(self._ask, client, n, params, 0), prompts))
                rest = [(p, i) for p, had in enumerate(completions) for i in range(len(had), n)]
                single = list(pool.map(lambda job: self._ask(client, 1, params, job[1], prompts[job[0]])[0], rest))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for (p, _), completion in zip(rest, single, strict=True):
            completions[p].append(completion)
        return [Group(prompt, tuple(had)) for prompt, had in zip(prompts, completions, strict=True)]

    def _ask(
        self, client: httpx.Client, n: int, params: SamplingParams, index: int, prompt: Prompt
    ) -> list[Completion]:
        """At least one and at most n completions of a prompt, numbered from `index`."""
        raw = is_raw(prompt)
        seed = completion_seed(params.seed, prompt.id, index)
        body: dict[str, Any] = {"model": self.model, "temperature": params.temperature, "top_p": params.top_p,
                                "max_tokens": params.max_tokens, "seed": seed}  # fmt: skip
        body |= {"prompt": prompt.messages[0]["content"]} if raw else {"messages": [dict(m) for m in prompt.messages]}
        body |= {"n": n} if n > 1 else {}
        body |= {"stop": list(params.stop)} if params.stop else {}
        body |= {"top_k": params.top_k} if params.top_k else {}
        body |= {"logprobs": 1 if raw else True} if self.logprobs else {}
        url = f"{self.base_url.rstrip('/')}/{'completions' if raw else 'chat/completions'}"
        about, retry = f"prompt {prompt.id!r}", {"retries": self.retries, "backoff_s": self.backoff_s}
        answer = post_json(client, url, {**body, **self.extra}, about=about, **retry)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices:
            raise EngineError(f"{url}: the answer for prompt {prompt.id!r} has no choices: {str(answer)[:200]}")
        return [self._read(url, prompt, c, seed, index + i) for i, c in enumerate(choices[:n])]

    def _read(self, url: str, prompt: Prompt, choice: Any, seed: int, index: int) -> Completion:
        try:
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            finish = FINISH[choice["finish_reason"]]
        except (KeyError, TypeError) as e:
            raise EngineError(
                f"{url}: a choice for prompt {prompt.id!r} lacks text or a known finish_reason: {str(choice)[:200]}"
            ) from e
        return Completion(text or "", self.model, seed, index, finish, None, _logprobs(choice.get("logprobs")))


def _logprobs(block: Any) -> tuple[float, ...] | None:
    """Per-token log-probs of a choice in either API's form; None where the server does not give every one."""
    if not isinstance(block, dict):
        return None
    if isinstance(block.get("content"), list):
        values = [t.get("logprob") if isinstance(t, dict) else None for t in block["content"]]
    else:
        values = block.get("token_logprobs") or []
    numbers = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return tuple(min(x, 0.0) for x in numbers) if numbers and len(numbers) == len(values) else None
