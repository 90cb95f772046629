"""A language model's forward pass: hidden states of any layer, the head, and log-probabilities of given tokens.

Works through the public forward of any Hugging Face causal LM, so that PEFT, DDP and activation checkpointing see
nothing unusual; the (tokens x vocabulary) logits never exist. A layer number is Hugging Face's: 0 is the embeddings, L
the output of block L before the final norm (`hidden_states[-1]` is behind it, so layers are read by hooks). It does not
sample and does not train.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trimtab.errors import InputError, ModelError
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.load import LM
from trimtab.lm.tree import (
    BranchRows,
    Forest,
    TokenIds,
    attention_masks,
    branch_mask,
    forests,
    lay_out,
    length_buckets,
    narrowed,
    single,
)
from trimtab.tensors import Head, linear_logprobs, token_logprobs
from trimtab.types import Group

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


def hidden_at(model: Any, rows: BranchRows) -> Tensor:
    """The head's input where each completion token is predicted, shape (X, D), with gradient when it is enabled."""
    config = base_model(model).config.get_text_config()
    extra: dict[str, Any] = {}
    if int(rows.branch_BT.max()) > 1:  # one branch a row is plain causal attention: padding on the right is never seen
        sdpa = config._attn_implementation == "sdpa"

        def mask(window: int | None) -> Tensor:
            may = branch_mask(rows, window)
            return may if sdpa else torch.zeros_like(may, dtype=model.dtype).masked_fill_(~may, -torch.inf)

        extra = {"attention_mask": attention_masks(config, mask), "position_ids": rows.position_BT}
    out = model(input_ids=rows.ids_BT, use_cache=False, output_hidden_states=True, logits_to_keep=1, **extra)
    return out.hidden_states[-1].flatten(0, 1)[rows.source_X]


def computed_in(model: Any) -> str:
    """How a forward computes now, for the key of what is stored: "bfloat16", or "float32 computed in bfloat16"."""
    weights, kind = str(model.dtype).removeprefix("torch."), next(model.parameters()).device.type
    if not torch.is_autocast_enabled(kind):
        return weights
    return f"{weights} computed in {str(torch.get_autocast_dtype(kind)).removeprefix('torch.')}"


def head_of(model: Any) -> Head:
    """The output layer of a Hugging Face model. ModelError when it is not a plain linear layer (a LoRA on it, say)."""
    base = base_model(model)
    layer, config = base.get_output_embeddings(), base.config.get_text_config()
    if not isinstance(layer, torch.nn.Linear):
        raise ModelError(
            f"the output layer is a {type(layer).__name__}, not a plain linear layer: leave lm_head out of the LoRA's "
            "target modules and unquantised"
        )
    scale = getattr(config, "logit_scale", None) or 1.0
    scale = scale / (getattr(config, "logits_scaling", None) or 1.0)
    return Head(layer.weight, layer.bias, scale, getattr(config, "final_logit_softcapping", None) or 0.0)


def logprobs_of(model: Any, rows: BranchRows) -> Tensor:
    """Natural log-probability of every completion token, float32, shape (X,)."""
    return linear_logprobs(hidden_at(model, rows), head_of(model), rows.target_X)


@torch.no_grad()
def branch_logprobs(
    model: Any, prompts: Sequence[TokenIds], branches: Sequence[Sequence[TokenIds]], *, budget: int = 4096,
    share_prompt: bool = True,
) -> list[list[list[float]]]:  # fmt: skip
    """Per-token log-probabilities of each prompt's completions, without gradient; lists in the order given."""
    sizes = [len(p) + sum(map(len, bs)) for p, bs in zip(prompts, branches, strict=True)]
    out: list[list[list[float]]] = [[] for _ in prompts]
    device = next(model.parameters()).device
    for batch in length_buckets(sizes, budget):
        rows = lay_out([prompts[i] for i in batch], [branches[i] for i in batch], share_prompt=share_prompt)
        flat = iter(logprobs_of(model, rows.to(device)).tolist())
        for i in batch:
            out[i] = [[next(flat) for _ in completion] for completion in branches[i]]
    return out


@torch.no_grad()
def check_forward(model: Any, prompt: TokenIds, completions: Sequence[TokenIds], *, share_prompt: bool = True) -> None:
    """ModelError unless the shared, chunked forward gives the log-probs of the model's plain forward on this example.

    Catches what no list of model families could: recurrent layers, odd position codes, an unusual output layer. A
    sliding window is looked at too: one wider than half the example is narrowed to that for the check.
    """
    text = [*prompt, *max(completions, key=len)]
    with narrowed(base_model(model).config.get_text_config(), max(1, len(text) // 2)):
        _check_forward(model, prompt, completions, share_prompt)


def _check_forward(model: Any, prompt: TokenIds, completions: Sequence[TokenIds], share_prompt: bool) -> None:
    ours = branch_logprobs(model, [prompt], [completions], share_prompt=share_prompt)[0]
    low = model.dtype in (torch.bfloat16, torch.float16)
    tolerance = 0.25 if low else 2e-3  # a token's log-prob; 16-bit kernels differ by this much between layouts
    for got, completion in zip(ours, completions, strict=True):
        ids_BT = torch.tensor([[*prompt, *completion]], device=next(model.parameters()).device)
        logits = model(input_ids=ids_BT, use_cache=False, logits_to_keep=len(completion) + 1).logits
        want_T = token_logprobs(logits, ids_BT[:, -logits.shape[1] :])[0]
        worst = (want_T - torch.tensor(got, device=want_T.device)).abs().max().item() if completion else 0.0
        if not worst <= tolerance:
            raise ModelError(
                f"{type(base_model(model)).__name__}: log-probs of the fast forward differ by {worst:.3g} from the "
                f"model's own; {'pass share_prompt=False' if share_prompt else 'this architecture is not supported'}"
            )


def base_model(model: Any) -> Any:
    """The Hugging Face model inside DDP, FSDP or PEFT wrappers."""
    from accelerate.utils import extract_model_from_parallel
    from transformers import PreTrainedModel

    model = extract_model_from_parallel(model)
    return model if isinstance(model, PreTrainedModel) else model.get_base_model()


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


def completion_logprobs(
    lm: LM, groups: Sequence[Group], *, batch_tokens: int = 1024, shared: bool = True, chunk: int = 256
) -> list[list[npt.NDArray[np.float32]]]:
    """log pi(token | prompt and the completion's earlier tokens), one float32 array a completion, (tokens,) long.

    The tokens are the completion's own, or its text's with the end token (`lm.chat.encode_completion`). The head
    runs on `chunk` positions at a time, so the logits never exceed chunk x vocabulary. InputError when a completion
    with its prompt exceeds the context; ModelError for a model whose logits are not those of its head.
    """
    _check_head(lm)
    starts, rows = encode_groups(lm, groups)
    out = [np.empty(0, dtype=np.float32)] * len(rows)
    for forest in pack(lm, rows, batch_tokens, shared=shared):
        wanted = np.unique(np.concatenate([path[starts[n] :] for n, path in forest.paths]))
        if not len(wanted):
            continue
        states_TD = run_final(lm, forest)
        value_T = np.full(len(forest.token_T), np.nan, dtype=np.float32)
        for nodes in np.split(wanted, range(chunk, len(wanted), chunk)):
            with torch.inference_mode():
                logits_BV = _head(lm, states_TD[torch.from_numpy(forest.parent_T[nodes])])
                # Each node is the second token of a two-token row whose first token is its parent.
                tokens_B2 = torch.from_numpy(forest.token_T[np.stack([forest.parent_T[nodes], nodes], axis=1)])
                logits_B2V = logits_BV[:, None].expand(-1, 2, -1)
                value_T[nodes] = token_logprobs(logits_B2V, tokens_B2.to(logits_BV.device))[:, 0].cpu().numpy()
        for n, path in forest.paths:
            out[n] = value_T[path[starts[n] :]]
    return [out[a:b] for a, b in pairwise(np.cumsum([0, *(len(g.completions) for g in groups)]))]


def _head(lm: LM, states_BD: torch.Tensor) -> torch.Tensor:
    """Logits (B, V) of normed states; Gemma 2 caps them softly between head and softmax."""
    logits_BV = lm.model.get_output_embeddings()(states_BD)
    cap = getattr(lm.model.config.get_text_config(), "final_logit_softcapping", None)
    return torch.tanh(logits_BV / cap) * cap if cap else logits_BV


@lru_cache(maxsize=8)
def _check_head(lm: LM) -> None:
    # Some models scale their logits after the head; log-probs without that would be wrong without an error.
    (chain,) = single([[5, 6, 7]])
    with torch.inference_mode():
        want_TV = lm.model(torch.tensor([[5, 6, 7]], device=lm.model.device), use_cache=False).logits[0].float()
        got_TV = _head(lm, run_final(lm, chain)).float()
    difference = float((got_TV - want_TV).norm() / want_TV.norm())
    if not difference < (1e-3 if lm.model.dtype in (torch.float32, torch.float64) else 0.1):
        raise ModelError(
            f"{lm.name} ({type(lm.model).__name__}) changes its logits after the head (relative difference "
            f"{difference:.2g}); its log-probs cannot be had this way: take them from a sampler"
        )
