"""Completions from any OpenAI-compatible server: /chat/completions for messages, /completions for raw text.

Concurrent, with bounded retries that honour Retry-After. It knows no tokenizer: tokens are absent, log-probs are what
the server reports (servers report the model's own, before temperature), and the server counts the context.
"""

import email.utils
import math
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from trimtab.errors import EngineError, InputError
from trimtab.models.chat import is_raw
from trimtab.samplers.requests import check
from trimtab.types import Completion, Group, Prompt, SamplingParams, completion_seed

FINISH = {"stop": "stop", "tool_calls": "stop", "function_call": "stop", "length": "length", "content_filter": "length"}
ADVICE = {
    400: "the server refuses the request",
    401: "check the API key",
    403: "the API key may not use this model",
    404: "check base_url (it usually ends in /v1) and the model's name",
    413: "the prompt is too long for the server",
    422: "the server refuses the request",
}
LONGEST_WAIT_S = 300.0


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
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        timeout = httpx.Timeout(self.timeout_s, connect=min(10.0, self.timeout_s))
        limits = httpx.Limits(max_connections=self.concurrency)
        with (
            httpx.Client(headers=headers, timeout=timeout, limits=limits) as client,
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
        answer = self._post(client, url, {**body, **self.extra}, prompt)
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

    def _post(self, client: httpx.Client, url: str, body: dict[str, Any], prompt: Prompt) -> Any:
        """The JSON of a 2xx answer. Retries what may pass; EngineError says what will not."""
        reason = ""
        for attempt in range(self.retries + 1):
            wait = self.backoff_s * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, no secret
            try:
                reply = client.post(url, json=body)
            except httpx.TimeoutException:
                reason = (
                    f"no answer within {self.timeout_s:g} s; raise timeout_s or lower concurrency ({self.concurrency})"
                )
            except httpx.TransportError as e:
                reason = f"cannot reach the server ({e}); is it running?"
            except httpx.InvalidURL as e:
                raise InputError(f"base_url {self.base_url!r} is not a URL ({e})") from e
            else:
                if reply.is_success:
                    try:
                        return reply.json()
                    except ValueError as e:
                        raise EngineError(f"{url}: the answer is not JSON: {reply.text[:200]!r}") from e
                reason = f"status {reply.status_code}: {_message(reply)}"
                if reply.status_code not in (408, 409, 429) and reply.status_code < 500:
                    advice = ADVICE.get(reply.status_code, "the server refuses the request")
                    raise EngineError(f"{url}: prompt {prompt.id!r}: {reason} ({advice})")
                wait = _retry_after(reply, wait)
                if wait > LONGEST_WAIT_S:
                    raise EngineError(f"{url}: {reason}; the server asks to wait {wait:.0f} s: try again later")
            if attempt < self.retries:
                time.sleep(wait)
        raise EngineError(f"{url}: prompt {prompt.id!r}: {reason} (tried {self.retries + 1} times)")


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


def _message(reply: httpx.Response) -> str:
    try:
        error = reply.json().get("error")
        return str(error.get("message", error) if isinstance(error, dict) else error or reply.text)[:300]
    except (ValueError, AttributeError):
        return reply.text[:300]


def _retry_after(reply: httpx.Response, otherwise: float) -> float:
    """Seconds that Retry-After asks for (a number or a date), else `otherwise`."""
    value = reply.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return otherwise
