"""COMPLETIONS to VECTORS: the hidden states of the OpenVINO graph that samples, in the arithmetic of the sampler.

The same layers, poolings and prefix forests as `hidden_states`, computed by `lm.graph`. What `samplers.OpenVINO` read
while it sampled ("text") are these vectors too, so `Stored` computes only what a run lacks. In float32 they differ from
torch's by 3e-4 of their length; on a CPU that rounds activations to 8 bits, by 1e-2 (29 November 2026).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from trimtab.embeddings.hidden_states import POOLINGS, Vectors, pooled
from trimtab.errors import InputError, unknown
from trimtab.lm.catalog import revision, stamp
from trimtab.lm.chat import template_hash
from trimtab.lm.forward import encode_groups
from trimtab.lm.graph import Graph, arithmetic, load_graph
from trimtab.lm.load import resident_tokenizer
from trimtab.lm.tree import forests
from trimtab.types import Group


@dataclass(frozen=True)
class GraphStates:
    """An Embedder like `HiddenStates`, of one pooling, whose model is a name that OpenVINO samples from.

    Its card names the engine and whether activations are rounded: such vectors are never mixed with others.
    """

    model: str
    layers: tuple[int, ...] = (20,)
    pooling: str = "text"
    batch_tokens: int = 512
    """Tokens of one forward pass."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers or len(set(self.layers)) < len(self.layers) or min(self.layers) < 1:
            raise InputError(f"layers must be different numbers from 1 up, they are {self.layers}")
        if self.pooling not in POOLINGS:
            raise unknown("pooling", self.pooling, POOLINGS)

    def readable(self, name: str) -> bool:
        """Whether a sampler of the model `name` reads just these states."""
        return self.model == name and self.pooling == "text"

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the states that a call concatenates, in order: "layer20.text"."""
        return tuple(f"layer{layer}.{self.pooling}" for layer in self.layers)

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The same: what a sampler reads has no other pooling."""
        return self.keys

    @property
    def card(self) -> dict[str, Any]:
        """What a learned object must be used with again. The model is not loaded for it."""
        tokenizer = resident_tokenizer(self.model)
        return {
            "kind": "hidden_states", "engine": "openvino", "model": self.model, "revision": revision(self.model),
            "layers": list(self.layers), "pooling": self.pooling, "template": template_hash(tokenizer),
            "dtype": arithmetic(self.model),
        }  # fmt: skip

    def __call__(self, groups: Sequence[Group]) -> list[Vectors]:
        """One (N, len(layers) * D) float32 array a group. Same errors as `HiddenStates`."""
        return [np.concatenate([s[k] for k in self.keys], axis=1) for s in self.states(groups)]

    def states(self, groups: Sequence[Group]) -> list[dict[str, Vectors]]:
        """Every layer: {"layer20.text": (N, D), ...} a group."""
        graph = _load(self.model, self.layers, stamp(self.model))
        lengths, rows = encode_groups(graph, groups)
        passes = (
            (forest, {k: torch.from_numpy(x) for k, x in graph(forest).items()})
            for forest in forests(rows, self.batch_tokens)
        )
        return pooled(graph, groups, lengths, rows, passes, self.keys, graph.width)


@lru_cache(maxsize=1)
def _load(name: str, layers: tuple[int, ...], stamp: str = "") -> Graph:
    return load_graph(name, layers)
