"""COMPLETIONS to VECTORS: a language model's hidden states of chosen layers, pooled over each completion.

What a Q-probe reads (Li et al. 2024, arXiv 2402.14688, section 4). A layer number is Hugging Face's: 0 is the
embeddings, L the output of block L before the final norm. Every shared token is computed once (`forest`), and the
forward pass stops at the highest layer asked. It does not sample, and it refuses what exceeds the context.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trimtab.errors import InputError, unknown
from trimtab.lm.chat import end_length, template_hash
from trimtab.lm.forward import Encodes, blocks_of, encode_groups, forest_states, pack
from trimtab.lm.load import LM, chosen_dtype, resident, resident_tokenizer, revision
from trimtab.lm.tree import Forest
from trimtab.types import Group

POOLINGS = ("last", "text", "mean")
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HiddenStates:
    """Pooled hidden states: an Embedder whose vectors are those of `layers`, concatenated in the order given.

    "last" is the state after consuming the completion's last token, the end token included when the model emitted it
    (as `tokens` has it); "text" the state of the last token before that end token; "mean" averages the states of all
    the completion's tokens. Without such a token it is the state of the prompt's last one. Tokens are the engine's own
    where the completion has them.
    """

    model: str | LM
    layers: tuple[int, ...] = (20,)
    pooling: str = "last"
    batch_tokens: int = 1024
    """Tokens of one forward pass: memory grows with it (about 40 MB a thousand at 0.5 B parameters), speed hardly."""
    dtype: str | None = None
    """Of the weights and the arithmetic when `model` is a name; None takes `lm.load.chosen_dtype`."""
    device: str | None = None
    shared: bool = True
    """False runs one plain forward pass a completion, for models that cannot attend to a tree (an error says so)."""

    def __post_init__(self) -> None:
        layers = (self.layers,) if isinstance(self.layers, int) else tuple(self.layers)
        object.__setattr__(self, "layers", layers)
        if not layers or len(set(layers)) < len(layers) or min(layers) < 0:
            raise InputError(f"layers must be different numbers from 0 (embeddings) up, they are {layers}")
        if self.pooling not in POOLINGS:
            raise unknown("pooling", self.pooling, POOLINGS)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the states that a call concatenates, in order: "layer20.last"."""
        return tuple(f"layer{layer}.{self.pooling}" for layer in self.layers)

    @property
    def all_keys(self) -> tuple[str, ...]:
        """Names of all that `states` gives."""
        return tuple(f"layer{layer}.{p}" for layer in self.layers for p in POOLINGS)

    @property
    def card(self) -> dict[str, Any]:
        """What a learned object must be used with again. A catalog model is not loaded for it."""
        if isinstance(self.model, LM):
            name, rev, tokenizer = self.model.name, self.model.revision, self.model.tokenizer
            dtype: Any = self.model.model.dtype
        else:
            name, rev, tokenizer = self.model, revision(self.model), resident_tokenizer(self.model)
            dtype = chosen_dtype(self.model, self.dtype, self.device)
        return {
            "kind": "hidden_states", "model": name, "revision": rev, "layers": list(self.layers),
            "pooling": self.pooling, "template": template_hash(tokenizer), "dtype": str(dtype).removeprefix("torch."),
        }  # fmt: skip

    def __call__(self, groups: Sequence[Group]) -> list[Vectors]:
        """One (N, len(layers) * D) float32 array a group. Same errors as `states`."""
        return [np.concatenate([s[k] for k in self.keys], axis=1) for s in self.states(groups)]

    def states(self, groups: Sequence[Group]) -> list[dict[str, Vectors]]:
        """Every layer with every pooling from one pass: {"layer20.last": (N, D), "layer20.mean": (N, D), ...} a group.

        InputError for a layer that the model does not have, and for completions that with their prompt exceed the
        context (named and counted, before anything is computed); ModelError for a model that cannot attend to a tree.
        """
        lm = self.lm()
        lengths, rows = encode_groups(lm, groups)
        trees = pack(lm, rows, self.batch_tokens, shared=self.shared)
        passes = ((forest, forest_states(lm, forest, self.layers)) for forest in trees)
        width = lm.model.config.get_text_config().hidden_size
        return pooled(lm, groups, lengths, rows, passes, self.all_keys, width)

    def lm(self) -> LM:
        """The model itself: the one given, or the named one, which the process holds once."""
        lm = resident(self.model, self.dtype, self.device)
        if max(self.layers) > len(blocks_of(lm.model)):
            raise InputError(
                f"{lm.name} has layers 0 to {len(blocks_of(lm.model))}; layer {max(self.layers)} does not exist"
            )
        return lm


def pooled(
    lm: Encodes, groups: Sequence[Group], lengths: Sequence[int], rows: Sequence[list[int]],
    passes: Iterable[tuple[Forest, dict[int, Tensor]]], keys: Sequence[str], width: int,
) -> list[dict[str, Vectors]]:  # fmt: skip
    """The states of forests to vectors by key ("layer20.last"), a dictionary a group; `lengths` are the prompts'."""
    out = {k: np.empty((len(rows), width), dtype=np.float32) for k in keys}
    for forest, states in passes:
        for number, path in forest.paths:
            answer = path[lengths[number] :] if len(path) > lengths[number] else path[-1:]
            end = end_length(lm.tokenizer, rows[number][lengths[number] :], lm.ends)
            for key in keys:
                layer, pooling = key.removeprefix("layer").split(".")
                state_TD = states[int(layer)]
                if pooling == "mean":
                    out[key][number] = state_TD[answer].float().mean(0).cpu()
                else:
                    out[key][number] = state_TD[path[-1 - (end if pooling == "text" else 0)]].float().cpu()
    cuts = np.cumsum([len(g.completions) for g in groups], dtype=int)[:-1]
    parts = {k: np.split(v, cuts) for k, v in out.items()} if groups else {}
    return [{k: v[i] for k, v in parts.items()} for i in range(len(groups))]
