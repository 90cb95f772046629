"""A language model's forward pass: hidden states of any layer, the head, and log-probabilities of given tokens.

Branch rows go through the public forward of any Hugging Face causal LM, so that PEFT, DDP and activation checkpointing
see nothing unusual; forests through the model without its head. The (tokens × vocabulary) logits never exist. A layer
number is Hugging Face's: 0 is the embeddings, L the output of block L before the final norm. `hidden_states[-1]` is
behind that norm, so layers are read by hooks on the blocks. It does not sample and does not train.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

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
    attention,
    forests,
    lay_out,
    length_buckets,
    narrowed,
    single,
)
from trimtab.tensors import Head, head_logits, linear_logprobs, token_logprobs
from trimtab.types import Group

FINAL_NORM = -1
"""The number that stands for what leaves the final norm, where layers are asked for."""
_FOLLOWS_TREE: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
_PLAIN_HEAD: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Models that passed a check once; weak, so that a model nobody uses can leave the memory."""


def base_model(model: Any) -> Any:
    """The Hugging Face model inside DDP, FSDP or PEFT wrappers."""
    from accelerate.utils import extract_model_from_parallel
    from transformers import PreTrainedModel

    model = extract_model_from_parallel(model)
    return model if isinstance(model, PreTrainedModel) else model.get_base_model()


def blocks_of(model: Any) -> nn.ModuleList:
    """The blocks of a causal language model (wrappers and adapters seen through). ModelError when it has no list."""
    base = base_model(model)
    count = base.config.get_text_config().num_hidden_layers
    for module in base.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"{type(base).__name__} has no list of {count} blocks, so no layer can be read")


class _Enough(Exception):
    """The highest layer asked has been seen."""


@contextlib.contextmanager
def watched(model: Any, layers: Sequence[int], *, stop: bool = False) -> Iterator[dict[int, Tensor]]:
    """Within the block, a forward of `model` fills the dictionary with the output of each layer, shape (B, T, D).

    Layers may hold `FINAL_NORM`. With `stop` the forward ends, and the block with it, at the highest layer asked.
    InputError for a layer that the model does not have. The hooks are there during the forward alone, so that
    activation checkpointing may run blocks again without them; another thread's forward of the same model is not seen.
    """
    blocks, seen, mine = blocks_of(model), {}, threading.get_ident()
    for layer in layers:
        if not (0 <= layer <= len(blocks) or layer == FINAL_NORM):
            raise InputError(f"layer {layer} does not exist: the model has layers 0 (embeddings) to {len(blocks)}")
    top = max(layers, default=FINAL_NORM) if stop and FINAL_NORM not in layers else None

    def keep(layer: int, state: Any) -> None:
        if threading.get_ident() != mine:
            return
        seen[layer] = state if isinstance(state, Tensor) else state[0]
        if layer == top:
            raise _Enough

    def after(layer: int) -> Any:
        return lambda _module, _args, out: keep(layer, out)

    def before(_module: Any, args: Any, kwargs: Any) -> None:
        keep(0, args[0] if args else kwargs["hidden_states"])

    handles = []
    try:
        for layer in set(layers):
            if layer:
                module = base_model(model).get_decoder() if layer == FINAL_NORM else blocks[layer - 1]
                handles.append(module.register_forward_hook(after(layer)))
            else:
                handles.append(blocks[0].register_forward_pre_hook(before, with_kwargs=True))
        yield seen
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


def head_of(model: Any) -> Head:
    """The output layer of a Hugging Face model. ModelError when it is not a plain linear layer (a LoRA on it, say)."""
    base = base_model(model)
    layer, config = base.get_output_embeddings(), base.config.get_text_config()
    if not isinstance(layer, nn.Linear):
        raise ModelError(
            f"the output layer is a {type(layer).__name__}, not a plain linear layer: leave lm_head out of the LoRA's "
            "target modules and unquantised"
        )
    scale = getattr(config, "logit_scale", None) or 1.0
    scale = scale / (getattr(config, "logits_scaling", None) or 1.0)
    return Head(layer.weight, layer.bias, scale, getattr(config, "final_logit_softcapping", None) or 0.0)


def computed_in(model: Any) -> str:
    """How a forward computes now, for the key of what is stored: "bfloat16", or "float32 computed in bfloat16"."""
    weights, kind = str(model.dtype).removeprefix("torch."), next(model.parameters()).device.type
    if not torch.is_autocast_enabled(kind):
        return weights
    return f"{weights} computed in {str(torch.get_autocast_dtype(kind)).removeprefix('torch.')}"


@torch.no_grad()
def next_logprobs(model: Any, ids_BT: Tensor, mask_BT: Tensor, **more: Any) -> Tensor:
    """log π of every next token after rows padded on the right, float32, shape (B, V); `more` goes to the forward."""
    places, where_B = torch.unique(mask_BT.sum(1) - 1, return_inverse=True)  # rows end at different places
    logits = model(input_ids=ids_BT, logits_to_keep=places, **more).logits
    return torch.log_softmax(logits[torch.arange(len(ids_BT), device=logits.device), where_B].float(), -1)


def hidden_at(model: Any, rows: BranchRows) -> Tensor:
    """The head's input where each completion token is predicted, shape (X, D), with gradient when it is enabled."""
    extra: dict[str, Any] = {}
    if int(rows.branch_BT.max()) > 1:  # one branch a row is plain causal attention: padding on the right is never seen
        extra = attention(base_model(model), rows.sees_BTT, rows.position_BT, rows.position_BT)
    out = model(input_ids=rows.ids_BT, use_cache=False, output_hidden_states=True, logits_to_keep=1, **extra)
    return out.hidden_states[-1].flatten(0, 1)[rows.source_X]


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
    tolerance = 0.25 if _rough(model) else 2e-3  # a token's log-prob; 16-bit kernels differ by this between layouts
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


def _rough(model: Any) -> bool:
    return model.dtype in (torch.bfloat16, torch.float16)


class Encodes(Protocol):
    """What is asked of a model before it runs."""

    @property
    def name(self) -> str: ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def context(self) -> int: ...

    @property
    def ends(self) -> frozenset[int]: ...


def encode_branches(lm: Encodes, groups: Sequence[Group]) -> list[tuple[list[int], list[list[int]]]]:
    """Token ids of each group's prompt and of its completions (those that the engine gave, where it gave them).

    InputError when a completion with its prompt exceeds the model's context: nothing is ever cut.
    """
    out, too_long = [], []
    for group in groups:
        prompt = encode_prompt(lm.tokenizer, group.prompt)
        out.append((prompt, [encode_completion(lm.tokenizer, c, group.prompt) for c in group.completions]))
        sizes = [len(prompt) + len(c) for c in out[-1][1]]
        too_long += [
            f"prompt {group.prompt.id!r} completion {c.index} ({size} tokens)"
            for c, size in zip(group.completions, sizes, strict=True)
            if size > lm.context
        ]
    if too_long:
        named = "; ".join(too_long[:3]) + ("; ..." if len(too_long) > 3 else "")
        raise InputError(
            f"{len(too_long)} of {sum(len(cs) for _, cs in out)} completions exceed the context of {lm.name}, "
            f"{lm.context} tokens with their prompt: {named}. Drop them, or use another model."
        )
    return out


def encode_groups(lm: Encodes, groups: Sequence[Group]) -> tuple[list[int], list[list[int]]]:
    """Lengths of the prompts, and rows of prompt and completion, one entry a completion in order; same error."""
    pairs = [(prompt, c) for prompt, completions in encode_branches(lm, groups) for c in completions]
    return [len(prompt) for prompt, _ in pairs], [prompt + c for prompt, c in pairs]


def pack(lm: LM, rows: Sequence[Sequence[int]], limit: int, *, shared: bool = True) -> Iterator[Forest]:
    """The rows as forests of at most `limit` tokens, or one chain a row when not `shared`. ModelError when the model
    gives other states on a tree than on a chain (checked once a model, on nine tokens)."""
    if not shared:
        yield from single(rows)
        return
    _check_tree(lm)
    yield from forests(rows, limit)


@torch.inference_mode()
def forest_states(lm: LM, forest: Forest, layers: Sequence[int]) -> dict[int, Tensor]:
    """Hidden states (T, D) of every node at each layer (`FINAL_NORM` too), stopping after the highest one."""
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(forest.token_T)[None].to(lm.model.device)}
    if not forest.is_chain:
        sees_TT, position_T = (
            torch.from_numpy(x)[None].to(lm.model.device) for x in (forest.sees_TT, forest.position_T)
        )
        inputs |= attention(lm.model, sees_TT, position_T, position_T)
    with watched(lm.model, layers, stop=True) as states:
        try:
            lm.model.get_decoder()(**inputs, use_cache=False)
        except (TypeError, ValueError) as e:
            if forest.is_chain:
                raise
            raise ModelError(f"{lm.name} does not take a tree mask or positions ({e}); pass shared=False") from e
    return {layer: states[layer][0] for layer in layers}


@torch.no_grad()
def completion_logprobs(
    lm: LM, groups: Sequence[Group], *, batch_tokens: int = 1024, shared: bool = True
) -> list[list[npt.NDArray[np.float32]]]:
    """log π(token | prompt and the completion's earlier tokens), one float32 array a completion, (tokens,) long.

    For engines that give no log-probs of the model's own distribution: temperature 1, whole vocabulary, on forests. The
    tokens are the completion's own, or its text's with the end token (`lm.chat.encode_completion`). InputError when a
    completion with its prompt exceeds the context; ModelError for a model whose logits are not those of its head.
    """
    _check_head(lm)
    starts, rows = encode_groups(lm, groups)
    out = [np.empty(0, dtype=np.float32)] * len(rows)
    for forest in pack(lm, rows, batch_tokens, shared=shared):
        nodes = np.unique(np.concatenate([path[starts[n] :] for n, path in forest.paths]))
        if not len(nodes):
            continue
        state_TD = forest_states(lm, forest, [FINAL_NORM])[FINAL_NORM]
        parent_X, target_X = (torch.from_numpy(x[nodes]).to(state_TD.device) for x in (forest.parent_T, forest.token_T))
        value_T = np.full(len(forest.token_T), np.nan, dtype=np.float32)
        value_T[nodes] = linear_logprobs(state_TD[parent_X], head_of(lm.model), target_X).cpu().numpy()
        for n, path in forest.paths:
            out[n] = value_T[path[starts[n] :]]
    return [out[a:b] for a, b in pairwise(np.cumsum([0, *(len(g.completions) for g in groups)]))]


def _check_tree(lm: LM) -> None:
    # Recurrent, ALiBi and flash-attention-only models would give wrong states without an error: so look, once.
    if lm.model in _FOLLOWS_TREE:
        return
    rows = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 11, 12], [5, 6, 7, 11, 13]]
    top = len(blocks_of(lm.model))
    with narrowed(lm.model.config.get_text_config(), 3):  # a window is looked at too
        (forest,) = forests(rows, 64)
        tree_TD = forest_states(lm, forest, [top])[top]
        for (_, path), chain in zip(forest.paths, single(rows), strict=True):
            if (far := _apart(tree_TD[path], forest_states(lm, chain, [top])[top])) is not None:
                raise ModelError(
                    f"{lm.name} ({type(lm.model).__name__}) gives other states on a token tree (relative difference "
                    f"{far:.2g}): its layers do not follow a mask; pass shared=False"
                )
    _FOLLOWS_TREE.add(lm.model)


def _check_head(lm: LM) -> None:
    # Some models change their logits after the head; log-probs without that would be wrong without an error.
    if lm.model in _PLAIN_HEAD:
        return
    (chain,) = single([[5, 6, 7]])
    want_TV = lm.model(torch.tensor([[5, 6, 7]], device=lm.model.device), use_cache=False).logits[0]
    got_TV = head_logits(forest_states(lm, chain, [FINAL_NORM])[FINAL_NORM], head_of(lm.model))
    if (far := _apart(got_TV, want_TV)) is not None:
        raise ModelError(
            f"{lm.name} ({type(lm.model).__name__}) changes its logits after the head (relative difference "
            f"{far:.2g}); its log-probs cannot be had this way: take them from a sampler"
        )
    _PLAIN_HEAD.add(lm.model)


def _apart(got: Tensor, want: Tensor) -> float | None:
    """The relative difference of two results that should be one; None where it is rounding."""
    far = float((got.float() - want.float()).norm() / want.float().norm())
    return None if far < (0.1 if _rough(want) else 1e-3) else far
