"""The call shapes: what takes one noun and gives another. Every shape takes a batch, a lever alone one prompt."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from trimtab.types.nouns import FREE, Answer, Group, Price, Prompt, Reward, SamplingParams


class Sampler(Protocol):
    """Prompts to completions: exactly n a prompt, groups in the order of the prompts. `model` is "name@revision"."""

    @property
    def model(self) -> str: ...

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]: ...


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that can also give each group when it is finished, with the place of its prompt: nobody waits for the
    longest completion of a batch."""

    def stream(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams
    ) -> Generator[tuple[int, Group], None, None]: ...


RewardFn = Callable[[Sequence[Group]], list[list[Reward]]]
"""Groups to rewards, aligned with groups and completions. Verifiers, reward models, probes and judges share it."""

AnyReward = RewardFn | Callable[..., Any]
"""A RewardFn, or your own function: f(prompt, completion), or TRL's f(completions, **columns)."""


@runtime_checkable
class Embedder(Protocol):
    """Groups to vectors: one (N, D) float array a group, row i for completion i. `card` identifies what made them."""

    @property
    def card(self) -> dict[str, Any]: ...

    def __call__(self, groups: Sequence[Group]) -> list[npt.NDArray[np.floating]]: ...


@runtime_checkable
class PromptEmbedder(Protocol):
    """What a router reads with: prompts to vectors (P, D). `card` identifies what made them.

    `trimtab.embeddings.Encoder` and `HashedNgrams` are two. Where it also declares `blocks` (widths of parts that
    differ in kind) they are balanced.
    """

    @property
    def card(self) -> dict[str, Any]: ...

    def embed_prompts(self, prompts: Sequence[Prompt]) -> npt.NDArray[np.floating]: ...


Preference = Callable[[Sequence[Group], Sequence[npt.NDArray[np.intp]]], list[npt.NDArray[np.float64]]]
"""Groups, and for each an (M, 2) array of completion numbers (i, j), to P(i is preferred over j), shape (M,) a group;
NaN where it could not be said. Pairwise models and judges share it."""

Router = Callable[[Sequence[Prompt]], list[dict[str, float]]]
"""Prompts to expected reward per model. Prices and budgets live outside."""

Decoder = Callable[[Sequence[Prompt], SamplingParams], list[Answer]]
"""Prompts to answers. What evaluation consumes; how to sample comes with each request."""


@dataclass(frozen=True)
class Ask:
    """What a lever wants next: n completions of a prompt from a model, at its price. The group comes back."""

    model: Sampler
    prompt: Prompt
    n: int
    params: SamplingParams
    price: Price = FREE


@dataclass(frozen=True)
class Read:
    """What a lever wants next: the rewards that `by` gives a group. The group comes back with them."""

    by: AnyReward
    group: Group


Steps = Generator[Ask | Read, Group, Answer]


class Lever(Protocol):
    """A way of answering one prompt, written once and without I/O: `steps` says what it wants, gets it, and returns the
    answer. A driver (`decoders.drive`) asks, reads, prices and caps, for many prompts at once."""

    def steps(self, prompt: Prompt, params: SamplingParams) -> Steps: ...
