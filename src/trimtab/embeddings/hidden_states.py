"""COMPLETIONS to VECTORS: a language model's hidden states of chosen layers, pooled over each completion.

The Q-probe's features (Li et al. 2024, arXiv 2402.14688, section 4). A layer number is Hugging Face's: 0 is the
embeddings, L the output of block L before the final norm. Every shared token is computed once (`forest`), and the
forward pass stops at the highest layer asked. It does not sample, and it refuses what exceeds the context.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab.embeddings.forest import Forest, forests, single
from trimtab.errors import InputError, ModelError, unknown
from trimtab.lm.attention import attention_masks, narrowed
from trimtab.lm.catalog import stamp
from trimtab.lm.chat import encode_completion, encode_prompt, end_length, end_tokens, template_hash
from trimtab.lm.load import LM, chosen_dtype, load_lm, load_tokenizer, revision
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
            name, rev, tokenizer = self.model, revision(self.model), _tokenizer(self.model)
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
        prompts, rows = encode_groups(lm, groups)
        ends = end_tokens(lm.tokenizer, lm.model.generation_config.eos_token_id)
        width = lm.model.config.get_text_config().hidden_size
        out = {k: np.empty((len(rows), width), dtype=np.float32) for k in self.all_keys}
        for forest in pack(lm, rows, self.batch_tokens, shared=self.shared):
            for layer, state_TD in run_blocks(lm, forest, self.layers).items():
                for number, path in forest.paths:
                    answer = path[prompts[number] :] if len(path) > prompts[number] else path[-1:]
                    end = end_length(lm.tokenizer, rows[number][prompts[number] :], ends)
                    out[f"layer{layer}.last"][number] = state_TD[path[-1]].float().cpu()
                    out[f"layer{layer}.text"][number] = state_TD[path[-1 - end]].float().cpu()
                    out[f"layer{layer}.mean"][number] = state_TD[answer].float().mean(0).cpu()
        cuts = np.cumsum([len(g.completions) for g in groups], dtype=int)[:-1]
        parts = {k: np.split(v, cuts) for k, v in out.items()} if groups else {}
        return [{k: v[i] for k, v in parts.items()} for i in range(len(groups))]

    def lm(self) -> LM:
        """The model itself: the one given, or the named one, loaded once (the last one used stays in memory)."""
        lm = self.model if isinstance(self.model, LM) else _load(self.model, self.dtype, self.device, stamp(self.model))
        if max(self.layers) > len(blocks(lm)):
            raise InputError(f"{lm.name} has layers 0 to {len(blocks(lm))}; layer {max(self.layers)} does not exist")
        return lm


def encode_groups(lm: LM, groups: Sequence[Group]) -> tuple[list[int], list[list[int]]]:
    """Tokens of every completion with its prompt before it, and the prompt's length, one entry a completion in order.

    InputError when any exceeds the model's context: nothing is ever cut.
    """
    lengths, rows, too_long = [], [], []
    for group in groups:
        prompt = encode_prompt(lm.tokenizer, group.prompt)
        for c in group.completions:
            rows.append(prompt + encode_completion(lm.tokenizer, c, group.prompt))
            lengths.append(len(prompt))
            if len(rows[-1]) > lm.context:
                too_long.append(f"prompt {group.prompt.id!r} completion {c.index} ({len(rows[-1])} tokens)")
    if too_long:
        named = "; ".join(too_long[:3]) + ("; ..." if len(too_long) > 3 else "")
        raise InputError(
            f"{len(too_long)} of {len(rows)} completions exceed the context of {lm.name}, {lm.context} tokens with "
            f"their prompt: {named}. Drop them, or use another model."
        )
    return lengths, rows


def pack(lm: LM, rows: Sequence[Sequence[int]], limit: int, *, shared: bool = True) -> Iterator[Forest]:
    """The rows as forests of at most `limit` tokens, or one chain a row when not `shared`. ModelError when the model
    gives other states on a tree than on a chain (checked once a model, on nine tokens)."""
    if not shared:
        yield from single(rows)
        return
    _check_tree(lm)
    yield from forests(rows, limit)


def run_blocks(lm: LM, forest: Forest, layers: Sequence[int]) -> dict[int, Tensor]:
    """Hidden states (T, D) of every node at each layer, stopping after the highest one."""
    with _capturing(blocks(lm), layers) as states, torch.inference_mode():
        try:
            decoder(lm)(**_inputs(lm, forest), use_cache=False)
        except _Enough:
            pass
        except (TypeError, ValueError) as e:
            if forest.is_chain:
                raise
            raise ModelError(f"{lm.name} does not take a tree mask or positions ({e}); pass shared=False") from e
    return {layer: states[layer][0] for layer in layers}


def run_final(lm: LM, forest: Forest) -> Tensor:
    """States (T, D) after the final norm, ready for the head."""
    with torch.inference_mode():
        return decoder(lm)(**_inputs(lm, forest), use_cache=False).last_hidden_state[0]


def decoder(lm: LM) -> Any:
    """The model without its head."""
    return lm.model.get_decoder()


def blocks(lm: LM) -> Any:
    """The decoder's list of blocks: its module list with one entry a layer. ModelError when there is none."""
    count = lm.model.config.get_text_config().num_hidden_layers
    for module in decoder(lm).modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"{lm.name}: no list of {count} blocks in {type(lm.model).__name__}; hidden states need one")


class _Enough(Exception):
    """The highest layer asked has been seen."""


@contextmanager
def _capturing(blocks: Any, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    # Hooks, not output_hidden_states: that keeps every layer and its last entry is after the final norm.
    states: dict[int, Tensor] = {}
    top = max(layers)

    def keep(layer: int, state: Tensor) -> None:
        states[layer] = state
        if layer == top:
            raise _Enough

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(0, args[0] if args else kwargs["hidden_states"])

    def after(layer: int) -> Any:
        return lambda module, args, output: keep(layer, output[0] if isinstance(output, tuple) else output)

    hooks = [
        blocks[layer - 1].register_forward_hook(after(layer))
        if layer
        else blocks[0].register_forward_pre_hook(before, with_kwargs=True)
        for layer in layers
    ]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def _inputs(lm: LM, forest: Forest) -> dict[str, Any]:
    """Keyword arguments of the decoder for one forest; a chain needs neither mask nor positions."""
    device = lm.model.device
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(forest.token_T)[None].to(device)}
    if forest.is_chain:
        return inputs
    inputs["position_ids"] = torch.from_numpy(forest.position_T)[None].to(device)
    config = lm.model.config.get_text_config()
    inputs["attention_mask"] = attention_masks(config, lambda window: _additive(lm, forest, window))
    return inputs


def _additive(lm: LM, forest: Forest, window: int | None) -> Tensor:
    dtype = lm.model.dtype
    allowed_TT = torch.from_numpy(forest.mask_TT(window)).to(lm.model.device)
    mask_TT = torch.zeros(allowed_TT.shape, dtype=dtype, device=lm.model.device)
    return mask_TT.masked_fill_(~allowed_TT, torch.finfo(dtype).min)[None, None]


@lru_cache(maxsize=8)
def _check_tree(lm: LM) -> None:
    # Recurrent, ALiBi and flash-attention-only models would give wrong states without an error: so look, once.
    rows = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 11, 12], [5, 6, 7, 11, 13]]
    with narrowed(lm.model.config.get_text_config(), 3):  # a window is looked at too
        _check_rows(lm, rows)


def _check_rows(lm: LM, rows: list[list[int]]) -> None:
    top = len(blocks(lm))
    (forest,) = forests(rows, 64)
    tree_TD = run_blocks(lm, forest, [top])[top].float()
    tolerance = 1e-3 if lm.model.dtype in (torch.float32, torch.float64) else 0.1
    for (_, path), chain in zip(forest.paths, single(rows), strict=True):
        want_TD = run_blocks(lm, chain, [top])[top].float()
        difference = float((tree_TD[path] - want_TD).norm() / want_TD.norm())
        if not difference < tolerance:
            raise ModelError(
                f"{lm.name} ({type(lm.model).__name__}) gives other states on a token tree (relative difference "
                f"{difference:.2g}): its layers do not follow a mask; pass shared=False"
            )


@lru_cache(maxsize=1)
def _load(name: str, dtype: str | None, device: str | None, stamp: str = "") -> LM:
    return load_lm(name, dtype, device)


@lru_cache(maxsize=4)
def _tokenizer(name: str) -> Any:
    return load_tokenizer(name)
