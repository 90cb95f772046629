"""COMPLETIONS to REWARDS by a reward model behind an HTTP server (vLLM's /pooling), asked by token ids.

Token ids, not text, so that no server-side template or second BOS can change what is scored; the raw output is the
reward (vLLM's /classify would squash it). What the server refuses is NaN with its message. It loads no weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trimtab.errors import EngineError
from trimtab.models.chat import encode_completion, encode_dialogue, encode_prompt
from trimtab.models.load import load_tokenizer
from trimtab.types import Group, Reward


@dataclass(frozen=True)
class ServedReward:
    """A reward model served as `model` at `base_url`; `tokenizer` is its folder here (names resolve as everywhere)."""

    base_url: str
    model: str
    tokenizer: str
    rendering: str = "tokens"
    batch: int = 64
    timeout_s: float = 60.0
    by_completion: ClassVar[bool] = True
    limit_s: ClassVar[float | None] = None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion. EngineError when the server cannot be reached or answers in another shape."""
        import httpx

        tokenizer = load_tokenizer(self.tokenizer)
        if self.rendering == "template":
            rows = [encode_dialogue(tokenizer, g.prompt, c) for g in groups for c in g.completions]
        else:
            rows = [
                encode_prompt(tokenizer, g.prompt) + encode_completion(tokenizer, c, g.prompt)
                for g in groups
                for c in g.completions
            ]
        values: list[Reward] = []
        with httpx.Client(timeout=self.timeout_s) as client:
            for at in range(0, len(rows), self.batch):
                values += self._batch(client, rows[at : at + self.batch])
        flat = iter(values)
        return [[next(flat) for _ in g.completions] for g in groups]

    def _batch(self, client: Any, rows: list[list[int]]) -> list[Reward]:
        import httpx

        url = f"{self.base_url.rstrip('/')}/pooling"
        try:
            reply = client.post(url, json={"model": self.model, "input": rows, "encoding_format": "float"})
        except httpx.HTTPError as e:
            raise EngineError(f"{url}: {type(e).__name__}: {e}; is the server running?") from e
        if reply.status_code == 400 and len(rows) > 1:  # one text may be too long: find it
            return [r for row in rows for r in self._batch(client, [row])]
        if reply.status_code == 400:
            return [Reward(math.nan, f"the server refused it: {reply.text[:200]}")]
        if reply.status_code != 200:
            raise EngineError(f"{url}: status {reply.status_code}: {reply.text[:200]}")
        try:
            data = sorted(reply.json()["data"], key=lambda d: d["index"])
            return [_reward(d["data"]) for d in data]
        except (KeyError, TypeError, ValueError) as e:
            raise EngineError(f"{url} answered in another shape ({e}): {reply.text[:200]}") from e


def _reward(value: Any) -> Reward:
    while isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{len(value)} numbers for one text: the model is served with several labels or per token")
        value = value[0]
    number = float(value)
    return Reward(number) if math.isfinite(number) else Reward(math.nan, f"the server returned {number}")
