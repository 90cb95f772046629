"""COMPLETIONS to VECTORS through any server that answers POST /v1/embeddings (llama.cpp, vLLM, OpenAI and others).

The API-only mode of the Q-probe (arXiv 2402.14688, section 5.2): the sampler's states are out of reach, another model's
vectors of prompt and completion stand in. It sends text and keeps nothing; what the server cuts, it cuts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.embeddings.text import by_group, completion_texts, prompt_text
from trimtab.endpoints import headers, post_json
from trimtab.errors import EngineError, InputError
from trimtab.types import Group, Prompt

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Endpoint:
    """An embeddings server as an Embedder. `base_url` ends where "/embeddings" is added: "http://host:8080/v1".

    Refusals that pass (429, 5xx, no connection, too slow) are tried again `retries` times, each wait twice the last or
    what the server asks for; then, and at once for any other refusal, EngineError. `dimensions` is sent when given. The
    key is not part of the repr or the card.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    batch: int = 32
    dimensions: int | None = None
    retries: int = 4
    backoff_s: float = 0.5
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise InputError(
                f"base_url {self.base_url!r} must begin with http:// or https://, and end in /v1 as a rule"
            )

    @property
    def card(self) -> dict[str, Any]:
        """What a learned object must be used with again (a server tells no revision)."""
        return {"kind": "endpoint", "model": self.model, "base_url": self.base_url, "dimensions": self.dimensions}

    def __call__(self, groups: Sequence[Group]) -> list[Vectors]:
        """One (N, D) float32 array a group, of prompt and completion joined. EngineError when the server fails."""
        return by_group(self._embed(completion_texts(groups)), groups)

    def embed_prompts(self, prompts: Sequence[Prompt]) -> Vectors:
        """(P, D) vectors of the prompts alone. EngineError when the server fails."""
        return self._embed([prompt_text(p) for p in prompts])

    def _embed(self, texts: Sequence[str]) -> Vectors:
        import httpx

        unique = list(dict.fromkeys(texts))  # identical completions are paid for once
        rows: list[Vectors] = []
        with httpx.Client(timeout=self.timeout_s, headers=headers(self.api_key)) as client:
            for i in range(0, len(unique), self.batch):
                part = unique[i : i + self.batch]
                rows.append(self._read(self._post(client, part), len(part)))
        widths = {r.shape[1] for r in rows}
        if len(widths) > 1:
            raise EngineError(f"{self._url}: vectors of different lengths ({sorted(widths)}); is it one model?")
        if not rows:
            return np.empty((0, self.dimensions or 0), dtype=np.float32)
        place = {t: n for n, t in enumerate(unique)}
        return np.concatenate(rows)[[place[t] for t in texts]]

    @property
    def _url(self) -> str:
        return self.base_url.rstrip("/") + "/embeddings"

    def _post(self, client: Any, texts: list[str]) -> Any:
        body = {"model": self.model, "input": texts, "encoding_format": "float"}
        body |= {"dimensions": self.dimensions} if self.dimensions is not None else {}
        return post_json(client, self._url, body, retries=self.retries, backoff_s=self.backoff_s)

    def _read(self, reply: Any, count: int) -> Vectors:
        """(count, D) from the reply, ordered by its `index` (servers may answer out of order)."""
        try:
            data = reply["data"]
            indices = sorted(int(d["index"]) for d in data)
            vectors = np.array([d["embedding"] for d in sorted(data, key=lambda d: d["index"])], dtype=np.float32)
        except (ValueError, KeyError, TypeError) as e:
            why = f"{type(e).__name__}: {e}"
            raise EngineError(f"{self._url} answered no embeddings reply ({why}): {str(reply)[:200]}") from e
        if indices != list(range(count)) or vectors.ndim != 2:
            raise EngineError(f"{self._url} answered {len(indices)} vectors of shape {vectors.shape} for {count} texts")
        if not np.isfinite(vectors).all():
            raise EngineError(f"{self._url} answered vectors with NaN or infinity")
        return vectors
