"""Names and settings to samplers, rewards, embedders and encoders of prompts: the one place, by one rule.

An object is taken as it is; a name is looked up in a dict here or in its room, and "package.module:name" is your own.
What is empty or 0 is left to what is made: its own default holds.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab import embeddings, rewards, samplers
from trimtab.adapters import as_reward
from trimtab.endpoints import key_from
from trimtab.errors import unknown
from trimtab.types import Embedder, PromptEmbedder, RewardFn, Sampler, describe, fingerprint

OWN = "package.module:name"
NGRAMS = "ngrams"


@dataclass(frozen=True)
class Server:
    """How a server is asked: the same keys in [model], a pool's [[models]], [embed] and a judge's file."""

    base_url: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    timeout: float = 120.0
    """Seconds that one request to a server may take."""
    concurrency: int = 0
    """Requests at once; 0: the engine's own default."""
    retries: int = 5
    """Further attempts at what may pass: 429, 5xx, time-outs, broken connections."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Goes into every request as it is: {min_p = 0.05}."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Renames a field of the request, or leaves it out: {max_tokens = "max_completion_tokens", seed = false}."""

    def ask(self, client: Callable[..., Any], model: str, batch: int = 0) -> Any:
        """The client of this server, its settings checked before anything is paid."""
        made = client(
            base_url=self.base_url, model=model, api_key=key_from(self.api_key_env) or "", timeout_s=self.timeout,
            retries=self.retries, extra=self.extra, fields=self.fields,
            **_given(concurrency=self.concurrency or batch),
        )  # fmt: skip
        made.check()
        return made


def sampler(
    name: str | Sampler, engine: str = "", *, device: str = "", dtype: str = "", batch: int = 0, **server: Any
) -> Sampler:
    """A sampler by the model's name: of `engine`, or of the one that the name says ("hf:NAME", package.module:name).

    `batch` completions at once. `server`: the fields of `Server`, for the engine openai; with a `base_url` it is the
    engine where none is named. InputError for an unknown engine, and what the engine itself refuses.
    """
    if not isinstance(name, str):
        return name
    asked = Server(**server)
    engine, name = engine_of(name, engine, asked.base_url)
    if ":" in engine:
        from trimtab.samplers.own import own_sampler

        return own_sampler(engine, name)
    if engine == "openai":
        return asked.ask(samplers.OpenAI, name, batch)
    if engine == "hf":
        return samplers.HF(name, **_given(batch=batch, device=device, dtype=dtype))
    if engine == "openvino":
        return samplers.OpenVINO(name, **_given(max_seqs=batch))
    raise unknown("engine", engine, ["openvino", "hf", "openai", OWN])


def engine_of(name: str, engine: str = "", base_url: str = "") -> tuple[str, str]:
    """The engine and the model's own name, where the engine may be named by the name or meant by a server's address."""
    if engine:
        return engine, name
    said = named(name)
    return said.get("engine", "openai" if base_url else "openvino"), said["name"]


def named(text: str) -> dict[str, str]:
    """A model in one word: a name, "hf:NAME", or an own sampler as "package.module:name"; the keys that it means."""
    engine, colon, name = text.partition(":")
    if colon and engine in ("openvino", "hf"):
        return {"engine": engine, "name": name}
    own = colon and engine.replace(".", "").isidentifier() and name.isidentifier()
    return {"engine": text, "name": name} if own else {"name": text}


def reward(given: str | RewardFn | Callable[..., Any], **options: Any) -> RewardFn:
    """A reward by name with its `options`, a function of any shape that `rewards` knows, or the reward it is."""
    return rewards.resolve(given, **options) if isinstance(given, str) else as_reward(given)


def reward_name(given: str | RewardFn | Callable[..., Any], **options: Any) -> str:
    """The name under which a reward is stored: two settings of one reward are two columns."""
    if not isinstance(given, str):
        name, options = describe(given).partition("(")[0], {"repr": describe(given)} if "(" in describe(given) else {}
        return re.sub(r"[^\w.-]", "_", name.replace(":", ".")) + (f"-{fingerprint(options)[:8]}" if options else "")
    return given.replace(":", ".") + (f"-{fingerprint(options)[:8]}" if options else "")


def embedder(
    kind: str | Embedder = "hidden_states", *, model: str = "", beside: str = "", layers: Sequence[int] = (20,),
    pooling: str = "last", engine: str = "", overflow: str = "head+tail", sampled_by: str = "", device: str = "",
    dtype: str = "", **server: Any,
) -> Embedder:  # fmt: skip
    """What gives vectors of completions: hidden_states of a model, an encoder, or a server's endpoint.

    `beside`: the model that answers, whose own states are read where no other `model` is named; `sampled_by` its
    engine. `engine` computes hidden states: torch or openvino; empty: openvino where it can read them while sampling.
    """
    if not isinstance(kind, str):
        return kind
    asked = Server(**server)

    def states() -> Embedder:
        if engine not in ("", "torch", "openvino"):
            raise unknown("engine of hidden states", engine, ("torch", "openvino"))
        same = sampled_by == "openvino" and model in ("", beside) and device in ("", "cpu") and not dtype
        told = pooling == "text" and min(layers, default=0) > 0 and not any(Path(beside).glob("openvino*.xml"))
        if engine == "openvino" or (not engine and same and told):
            return embeddings.GraphStates(model or beside, tuple(layers), pooling)
        given = _given(device=device, dtype=dtype)
        return embeddings.HiddenStates(model or beside, layers=tuple(layers), pooling=pooling, **given)

    makers: Mapping[str, Callable[[], Any]] = {
        "hidden_states": states,
        "encoder": lambda: embeddings.Encoder(model or "all-minilm-l6-v2", overflow, **_given(device=device)),
        "endpoint": lambda: asked.ask(embeddings.Endpoint, model),
    }
    if kind not in makers:
        raise unknown("kind of embedding", kind, makers)
    return makers[kind]()


def encoder(name: str = NGRAMS) -> PromptEmbedder:
    """What reads prompts for a router: one of four encoders, or the folder of a sentence encoder."""
    if name == "ngrams":
        return embeddings.HashedNgrams()
    if name == "static":
        return embeddings.StaticVectors()
    if name not in ("minilm", "both") and not Path(name).is_dir():
        raise unknown("encoder", name, ("ngrams", "static", "minilm", "both", "a folder"))
    sentence = embeddings.Encoder(*([name] if Path(name).is_dir() else []), overflow="head+tail")
    return embeddings.Both(sentence, embeddings.HashedNgrams()) if name == "both" else sentence


def _given(**settings: Any) -> dict[str, Any]:
    """Those that are given: what is empty or 0 is left to the engine."""
    return {k: v for k, v in settings.items() if v}
