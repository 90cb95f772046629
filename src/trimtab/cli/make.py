"""Sections of a task or pool file to samplers and embedders: the one place where the command line makes what runs."""

from collections.abc import Callable, Mapping
from typing import Any

from trimtab import embeddings, samplers
from trimtab.cli.config import Embed, Model
from trimtab.endpoints import key_from
from trimtab.errors import unknown
from trimtab.types import Embedder, Sampler

OWN = "package.module:name"


def openvino(m: Model) -> Sampler:
    """The fastest engine on a CPU."""
    return samplers.OpenVINO(m.name, **_given(max_seqs=m.batch))


def hf(m: Model) -> Sampler:
    """Whatever transformers loads, on any device."""
    return samplers.HF(m.name, **_given(batch=m.batch, device=m.device, dtype=m.dtype))


def openai(m: Model) -> Sampler:
    """Any OpenAI-compatible server."""
    made = samplers.OpenAI(
        base_url=m.base_url, model=m.name, api_key=key_from(m.api_key_env), timeout_s=m.timeout, retries=m.retries,
        extra=m.extra, fields=m.fields, **_given(concurrency=m.concurrency or m.batch),
    )  # fmt: skip
    made.check()  # before anything is paid
    return made


ENGINES: dict[str, Callable[[Model], Sampler]] = {"openvino": openvino, "hf": hf, "openai": openai}


def sampler(m: Model) -> Sampler:
    """The sampler of a [model] section: an engine by name, or the user's own as package.module:name."""
    if ":" in m.engine:
        from trimtab.samplers.own import own_sampler

        return own_sampler(m.engine, m.name)
    return _named(ENGINES, "engine", m.engine, OWN)(m)


def named(text: str) -> dict[str, Any]:
    """A model in one word: a name, "hf:NAME", or an own sampler as "package.module:name"; the keys that it means."""
    engine, colon, name = text.partition(":")
    if colon and engine in ("openvino", "hf"):
        return {"engine": engine, "name": name}
    own = colon and engine.replace(".", "").isidentifier() and name.isidentifier()
    return {"engine": text, "name": name} if own else {"name": text}


def hidden_states(e: Embed, m: Model) -> Embedder:
    """States of the model that answers, or of another one that stands in for it."""
    return embeddings.HiddenStates(
        e.model or m.name, layers=tuple(e.layers), pooling=e.pooling, **_given(device=m.device, dtype=m.dtype)
    )


def encoder(e: Embed, m: Model) -> Embedder:
    """A sentence encoder's vectors of prompt and completion."""
    return embeddings.Encoder(e.model or "all-minilm-l6-v2", e.overflow, **_given(device=m.device))


def endpoint(e: Embed, m: Model) -> Embedder:
    """Vectors from a server's /v1/embeddings."""
    made = embeddings.Endpoint(
        base_url=e.base_url, model=e.model, api_key=key_from(e.api_key_env), timeout_s=e.timeout, retries=e.retries,
        extra=e.extra, fields=e.fields, **_given(concurrency=e.concurrency),
    )  # fmt: skip
    made.check()
    return made


EMBEDDERS: dict[str, Callable[[Embed, Model], Embedder]] = {
    "hidden_states": hidden_states, "encoder": encoder, "endpoint": endpoint,
}  # fmt: skip


def embedder(e: Embed, m: Model) -> Embedder:
    """The embedder of an [embed] section, beside the [model] that answers."""
    return _named(EMBEDDERS, "kind of embedding", e.kind)(e, m)


def _given(**settings: Any) -> dict[str, Any]:
    """Those that the file gives: what is empty or 0 there is left to the engine."""
    return {k: v for k, v in settings.items() if v}


def _named(table: Mapping[str, Any], kind: str, name: str, *also: str) -> Any:
    if name not in table:
        raise unknown(kind, name, [*table, *also])
    return table[name]
