"""A model's forward pass to the hidden states of a layer, taken by a hook on the block itself.

`hidden_states[-1]` of Hugging Face's output is behind the final norm, so the last layer can be had only like this. The
hooks are there during the forward alone, so that activation checkpointing may run blocks again without them.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from trimtab.errors import InputError, ModelError
from trimtab.learners.token.forward import base_model

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


def blocks_of(model: Any) -> nn.ModuleList:
    """The blocks of a causal language model (wrappers and adapters seen through). ModelError when it has no list."""
    base = base_model(model)
    count = base.config.get_text_config().num_hidden_layers
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"{type(base).__name__} has no list of {count} blocks, so no layer can be read")


@contextlib.contextmanager
def watched(model: Any, layers: Sequence[int], *, final_norm: bool = False) -> Iterator[dict[int, Tensor]]:
    """Within the block, a forward of `model` fills the dictionary with the output of each layer, shape (B, T, D).

    A layer is Hugging Face's number: 0 = input of the first block, L = output of block L. `final_norm` adds what
    leaves the final norm, under the key -1. InputError for a layer that the model does not have.
    """
    blocks, seen, handles = blocks_of(model), {}, []
    for layer in layers:
        if not 0 <= layer <= len(blocks):
            raise InputError(f"layer {layer} does not exist: the model has layers 0 (embeddings) to {len(blocks)}")

    def keep(name: int) -> Any:
        def hook(_module: Any, _args: Any, out: Any) -> None:
            seen[name] = out[0] if isinstance(out, tuple) else out

        return hook

    def first(_module: Any, args: Any, kwargs: Any) -> None:
        seen[0] = args[0] if args else kwargs["hidden_states"]

    try:
        for layer in set(layers):
            if layer:
                handles.append(blocks[layer - 1].register_forward_hook(keep(layer)))
            else:
                handles.append(blocks[0].register_forward_pre_hook(first, with_kwargs=True))
        if final_norm:
            handles.append(_final_norm(model).register_forward_hook(keep(-1)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _final_norm(model: Any) -> nn.Module:
    base = base_model(model)
    inner = getattr(base, base.base_model_prefix, base)
    for name in FINAL_NORMS:
        if isinstance(found := getattr(inner, name, None), nn.Module):
            return found
    raise ModelError(f"{type(base).__name__}: no final norm found among {', '.join(FINAL_NORMS)}")
