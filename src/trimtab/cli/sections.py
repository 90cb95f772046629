"""The sections of a task file and of a pool file, as frozen dataclasses: their keys, defaults and what they mean."""

from dataclasses import dataclass, field
from typing import Any

from trimtab.errors import InputError
from trimtab.jobs.make import Server
from trimtab.types import Price


@dataclass(frozen=True)
class Data:
    """Which prompts, and how they divide: a JSONL or Parquet file, or a named task such as reasoning_gym/chain_sum."""

    prompts: str = ""
    test_prompts: str = ""
    """A second file to test on; empty: `test` of the first."""
    options: dict[str, Any] = field(default_factory=dict)
    """The named task's own settings."""
    train: int = 0
    """How many prompts train; 0: all that do not test."""
    test: float = 0.3
    """Below 1 a share (split by hash of the id), from 1 on a count."""
    seed: int = 0
    chat: bool = True
    """Text prompts become one user message; false sends them raw."""
    shots: int = 0
    """Examples in front of every prompt: right answers of the training prompts of the run `shots_from`."""
    shots_from: str = ""


@dataclass(frozen=True)
class Model(Server):
    """Which engine answers: openvino, hf, openai (any OpenAI-compatible server at `base_url`), or your own sampler as
    package.module:name."""

    name: str = "qwen2.5-coder-0.5b"
    engine: str = "openvino"
    device: str = ""
    """Where torch computes (engine hf, and the vectors of [embed]); empty: a GPU where there is one. OpenVINO: CPU."""
    dtype: str = ""
    """Of weights and arithmetic there: float32, bfloat16, float16; empty: what the device computes fast in."""
    batch: int = 0
    """Completions at once; 0: the engine's own default."""


@dataclass(frozen=True)
class Sample:
    """How many completions a prompt, and how they are sampled."""

    train_n: int = 16
    test_n: int = 32
    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 0
    max_tokens: int = 256
    stop: list[str] = field(default_factory=list)
    seed: int = 0


@dataclass(frozen=True)
class RewardSpec:
    """A built-in reward by name or `package.module:function`; `options` are the built-in's own fields."""

    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 10.0
    workers: int = 0
    """Processes; 0: one a core for rewards that ask for it, else this process."""


@dataclass(frozen=True)
class Judging:
    """A judge's file: one section."""

    model: Model = field(default_factory=Model)


@dataclass(frozen=True)
class Embed(Server):
    """What the probe reads. `kind` is hidden_states, encoder or endpoint; an empty `model` is the sampler's own."""

    kind: str = "hidden_states"
    model: str = ""
    layers: list[int] = field(default_factory=lambda: [20])
    pooling: str = "last"
    engine: str = ""
    """What computes hidden states: torch; openvino, in the sampler's arithmetic; empty: openvino where it samples the
    same model and pooling is "text", for these are read while it samples."""
    overflow: str = "head+tail"
    """What an encoder makes of texts longer than its window: head+tail keeps both ends, refuse is an error."""


@dataclass(frozen=True)
class Probe:
    """Which probes are fitted; strength of L2 and layer are chosen by cross-validation over prompts."""

    losses: list[str] = field(default_factory=lambda: ["mse", "ce", "pg"])
    l2: list[float] = field(default_factory=list)
    """Empty: the grid of `learners.fit_probe`."""
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Eval:
    """How completions are compared: majority vote, the softmax policy's beta, and intervals."""

    extract: str = ""
    """What majority vote counts: last_number, choice, final, ... or package.module:function; empty: by the reward."""
    beta: float = 0.1
    draws: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """Everything one run is made of; the sections of a task file."""

    out: str = "runs/task"
    """The run directory, from the current folder."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    sample: Sample = field(default_factory=Sample)
    reward: RewardSpec = field(default_factory=RewardSpec)
    embed: Embed = field(default_factory=Embed)
    probe: Probe = field(default_factory=Probe)
    eval: Eval = field(default_factory=Eval)
    home: str = ""
    """Where own functions are looked up beside the current folder; the task file's folder where not given."""


@dataclass(frozen=True)
class Member(Model):
    """One model of the pool: the keys of a task file's [model], and these."""

    name: str = ""
    alias: str = ""
    """Its name in the matrix; empty: `name`."""
    template: str = ""
    """A base model's text prompt with {prompt} in it; empty: chat messages."""
    stop: list[str] = field(default_factory=list)
    price_call: float = -1.0
    """US dollars a call; below 0 with `price_million`: unknown."""
    price_million: float = -1.0
    """US dollars a million generated tokens."""

    @property
    def key(self) -> str:
        """Its name in the matrix."""
        return self.alias or self.name

    def sampler(self, device: str) -> dict[str, Any]:
        """Keywords of its sampler in `jobs.pool`; `device` where it names none. InputError without a name."""
        if not self.name:
            raise InputError("a model of the pool has no name; give `name` in its [[models]] section")
        own = ("alias", "price_call", "price_million")
        return {k: v for k, v in vars(self).items() if k not in own} | {"device": self.device or device}

    def price(self) -> Price | None:
        """None: unknown."""
        if max(self.price_call, self.price_million) < 0:
            return None
        return Price(call=max(self.price_call, 0.0), million_out=max(self.price_million, 0.0))


@dataclass(frozen=True)
class Scored:
    """A built-in reward by name or `package.module:function`, for the prompts of one tag or (no tag) for the rest."""

    name: str = ""
    tag: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PoolTask:
    """A pool file."""

    out: str = "runs/pool"
    prompts: list[str] = field(default_factory=list)
    models: list[Member] = field(default_factory=list)
    rewards: list[Scored] = field(default_factory=list)
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    seed: int = 0
    batch: int = 0
    """Prompts given to a model at once: 1 measures the latency of a call alone, 0 is fastest."""
    workers: int = 0
    chat: bool = True
