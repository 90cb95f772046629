"""COMPLETIONS to REWARDS by a reward model behind an HTTP server (vLLM's /pooling), asked by token ids.

Token ids, not text, so that no server-side template or second BOS can change what is scored; the raw output is the
reward (vLLM's /classify would squash it). What the server refuses is NaN with its message. It loads no weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trimtab.endpoints import Connection, Fault, error_check, in_order
from trimtab.errors import EngineError
from trimtab.lm.chat import encode_completion, encode_dialogue, encode_prompt
from trimtab.lm.load import resident_tokenizer
from trimtab.returned import no_reward
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
    api_key: str | None = field(default=None, repr=False)
    retries: int = 4
    backoff_s: float = 0.5
    by_completion: ClassVar[bool] = True
    limit_s: ClassVar[float | None] = None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion. EngineError when the server cannot be reached or answers in another shape."""
        tokenizer = resident_tokenizer(self.tokenizer)
        if self.rendering == "template":
            rows = [encode_dialogue(tokenizer, g.prompt, c) for g in groups for c in g.completions]
        else:
            rows = [
                encode_prompt(tokenizer, g.prompt) + encode_completion(tokenizer, c, g.prompt)
                for g in groups
                for c in g.completions
            ]
        values: list[Reward] = []
        key = self.api_key or ""  # its own or none: the environment's is for the OpenAI API, which this server is not
        with Connection(self.base_url, key, self.timeout_s, self.retries, self.backoff_s) as connection:
            for at in range(0, len(rows), self.batch):
                values += self._batch(connection, rows[at : at + self.batch])
        flat = iter(values)
        return [[next(flat) for _ in g.completions] for g in groups]

    def _batch(self, connection: Connection, rows: list[list[int]]) -> list[Reward]:
        body = {"model": self.model, "input": rows, "encoding_format": "float"}
        try:
            payload = connection.post("/pooling", body, error_check).json
        except Fault as fault:
            if fault.blame not in ("prompt", "request"):
                raise
            if len(rows) == 1:
                return [no_reward(f"the server refused it: {fault.trouble.reason}")]
            return [r for row in rows for r in self._batch(connection, [row])]  # one text may be too long: find it
        try:
            return [_reward(row["data"]) for row in in_order(payload["data"], len(rows))]
        except (KeyError, TypeError, ValueError) as e:
            raise EngineError(f"{self.base_url}/pooling answered in another shape ({e}): {str(payload)[:200]}") from e


def _reward(value: Any) -> Reward:
    while isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{len(value)} numbers for one text: the model is served with several labels or per token")
        value = value[0]
    number = float(value)
    return Reward(number) if math.isfinite(number) else Reward(math.nan, f"the server returned {number}")
