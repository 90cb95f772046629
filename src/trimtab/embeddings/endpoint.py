"""COMPLETIONS to VECTORS through any server that answers POST /v1/embeddings (llama.cpp, vLLM, OpenAI and others).

The API-only mode of the Q-probe (arXiv 2402.14688, section 5.2): the sampler's states are out of reach, another model's
vectors of prompt and completion stand in. It sends text and keeps nothing; what the server cuts, it cuts.
"""

import base64
import binascii
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.embeddings.text import by_group, completion_texts, prompt_text
from trimtab.endpoints import Connection, Fault, address, clean_key, error_check, in_order
from trimtab.errors import EngineError, unknown
from trimtab.types import Group, Prompt

Vectors = npt.NDArray[np.float32]
FIELDS = ("encoding_format", "dimensions")


@dataclass(frozen=True)
class Endpoint:
    """An embeddings server as an Embedder. `base_url` ends where "/embeddings" is added: "http://host:8080/v1".

    Refusals that pass (429, 5xx, no connection, too slow) are tried again `retries` times, each wait twice the last or
    what the server asks for; then, and at once for any other refusal, EngineError. `dimensions` is sent when given.
    `fields` renames a field or leaves it out, `extra` is merged into every request. A batch that is refused is halved,
    down to the text that the server does not take. The key is not part of the repr or the card.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    batch: int = 32
    dimensions: int | None = None
    retries: int = 4
    backoff_s: float = 0.5
    timeout_s: float = 60.0
    concurrency: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, str | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        address(self.base_url)
        for name in self.fields:
            if name not in FIELDS:
                raise unknown("field of an embeddings request", name, FIELDS)

    def check(self) -> None:
        """InputError for a key that no header may hold; nothing is sent."""
        clean_key(self.api_key)

    @property
    def card(self) -> dict[str, Any]:
        """What a learned object must be used with again (a server tells no revision)."""
        return {"kind": "endpoint", "model": self.model, "base_url": self.base_url, "dimensions": self.dimensions}

    def __call__(self, groups: Sequence[Group]) -> list[Vectors]:
        """One (N, D) float32 array a group, of prompt and completion joined. EngineError when the server fails."""
        names = [f"completion {c.index} of prompt {g.prompt.id!r}" for g in groups for c in g.completions]
        return by_group(self._embed(completion_texts(groups), names), groups)

    def embed_prompts(self, prompts: Sequence[Prompt]) -> Vectors:
        """(P, D) vectors of the prompts alone. EngineError when the server fails."""
        return self._embed([prompt_text(p) for p in prompts], [f"prompt {p.id!r}" for p in prompts])

    def _embed(self, texts: Sequence[str], names: Sequence[str]) -> Vectors:
        named = dict(zip(reversed(texts), reversed(names), strict=True))  # identical texts are paid for once
        unique = list(dict.fromkeys(texts))
        parts = [unique[i : i + self.batch] for i in range(0, len(unique), self.batch)]
        connection = Connection(
            self.base_url, self.api_key, self.timeout_s, self.retries, self.backoff_s, self.concurrency
        )
        with connection, ThreadPoolExecutor(self.concurrency) as pool:
            try:
                rows = list(pool.map(lambda part: self._ask(connection, part, named), parts))
            except BaseException:
                connection.close()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        widths = {r.shape[1] for r in rows}
        if len(widths) > 1:
            raise EngineError(f"{self._url}: vectors of different lengths ({sorted(widths)}); is it one model?")
        if not rows:
            return np.empty((0, self.dimensions or 0), dtype=np.float32)
        vectors = np.concatenate(rows)
        self._doubt(vectors)
        place = {t: n for n, t in enumerate(unique)}
        return vectors[[place[t] for t in texts]]

    @property
    def _url(self) -> str:
        return f"{address(self.base_url).root}/embeddings"

    def _ask(self, connection: Connection, texts: list[str], named: Mapping[str, str]) -> Vectors:
        """(len(texts), D), in halves where the server refuses them together."""
        body: dict[str, Any] = {"model": self.model, "input": texts}
        ours = {"encoding_format": "float", "dimensions": self.dimensions}
        names = {k: k if v is True else v for k in FIELDS if (v := self.fields.get(k, k))}
        body |= {str(names[k]): v for k, v in ours.items() if v is not None and k in names}
        body = {k: v for k, v in {**body, **self.extra}.items() if v is not None}
        sent = {str(theirs): k for k, theirs in names.items() if theirs in body}
        about = named[texts[0]] if len(texts) == 1 else ""
        try:
            return self._read(
                connection.post("/embeddings", body, error_check, about=about, fields=sent).json, texts, named
            )
        except Fault as fault:
            if fault.blame == "field":
                name = fault.trouble.field
                if name == "encoding_format":  # numbers are what servers answer anyway
                    return replace(self, fields={**self.fields, name: False})._ask(connection, texts, named)
                raise EngineError(f"{fault}. To leave it out write fields = {{{name} = false}}") from None
            if fault.blame not in ("prompt", "request"):
                raise
            if len(texts) == 1:
                raise EngineError(f"{fault}: {texts[0][:60]!r}... ({len(texts[0])} characters)") from None
        half = len(texts) // 2
        return np.concatenate([self._ask(connection, part, named) for part in (texts[:half], texts[half:])])

    def _read(self, reply: Any, texts: Sequence[str], named: Mapping[str, str]) -> Vectors:
        """(len(texts), D) from the reply, ordered by its `index` (servers may answer out of order)."""
        try:
            rows = [_vector(row) for row in in_order(_rows(reply), len(texts))]
        except (ValueError, KeyError, TypeError, binascii.Error) as e:
            why = f"{type(e).__name__}: {e}"
            raise EngineError(f"{self._url} answered no embeddings reply ({why}): {str(reply)[:200]}") from e
        if len({len(r) for r in rows}) > 1:
            raise EngineError(
                f"{self._url}: vectors of different lengths ({sorted({len(r) for r in rows})}) in a reply"
            )
        vectors = np.array(rows, dtype=np.float32)
        if vectors.size == 0:
            raise EngineError(f"{self._url} answered empty vectors")
        if not (whole := np.isfinite(vectors).all(axis=1)).all():
            which = named[texts[int(whole.argmin())]]
            raise EngineError(f"{self._url} answered a vector with NaN or infinity for {which}")
        return vectors

    def _doubt(self, vectors: Vectors) -> None:
        """Warns of vectors that look whole and say nothing."""
        empty = int((~vectors.any(axis=1)).sum())
        if empty:
            warnings.warn(f"{self._url}: {empty} of {len(vectors)} vectors are all zeros", stacklevel=2)
        elif len(vectors) > 2 and (vectors == vectors[0]).all():
            warnings.warn(f"{self._url}: {len(vectors)} different texts have one and the same vector", stacklevel=2)


def _rows(reply: Any) -> Any:
    """The rows of a reply: OpenAI's data, Ollama's and Cohere's embeddings, or the bare list of others."""
    if isinstance(reply, Mapping):
        found = reply["data"] if "data" in reply or "embeddings" not in reply else reply["embeddings"]
        return found.get("float") if isinstance(found, Mapping) else found
    return reply


def _vector(row: Any) -> npt.NDArray[np.float32]:
    """One vector: numbers, numbers in a list of one (llama.cpp), or base64 of little-endian float32."""
    value = row["embedding"] if isinstance(row, Mapping) else row
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
    if isinstance(value, list) and value and isinstance(value[0], list):
        if len(value) > 1:
            raise ValueError(f"{len(value)} vectors for one text: the server does not pool (llama.cpp: --pooling mean)")
        value = value[0]
    vector = np.array(value, dtype=np.float32)
    if vector.ndim != 1:
        raise ValueError(f"a vector is {str(value)[:60]}")
    return vector
