"""Token ids of prompts and completions to the log-probability of every completion token, prompts run once.

The prompt's forward is shared by its completions (`trimtab.tensors.branch_rows`), batches are cut by padded tokens and
not by rows, and the (tokens × vocabulary) logits never exist. Works through the public forward of any Hugging Face
causal LM, so that PEFT, DDP and activation checkpointing see nothing unusual. It does not tokenise and does not train.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.lm.attention import attention_masks, narrowed
from trimtab.tensors import BranchRows, Head, branch_mask, branch_rows, linear_logprobs, token_logprobs

TokenIds = Sequence[int]


def length_buckets(lengths: Sequence[int], budget: int, most: int | None = None) -> list[list[int]]:
    """Indices in batches of near-equal length: rows × longest ≤ `budget` tokens, at most `most` rows, at least one.

    Longest first, so that what does not fit in memory fails at once. Deterministic.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        last = batches[-1] if batches else None
        if last and lengths[last[0]] * (len(last) + 1) <= budget and (most is None or len(last) < most):
            last.append(i)
        else:
            batches.append([i])
    return batches


def lay_out(prompts: Sequence[TokenIds], branches: Sequence[Sequence[TokenIds]], *, share_prompt: bool) -> BranchRows:
    """Rows for `hidden_at`: one row a prompt with all its completions, or (`share_prompt=False`) one a completion.

    Completions are numbered the same way in both.
    """
    if share_prompt:
        return branch_rows(prompts, branches, 0)
    flat = [(p, [c]) for p, completions in zip(prompts, branches, strict=True) for c in completions]
    return branch_rows([p for p, _ in flat], [c for _, c in flat], 0)


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
def completion_logprobs(
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
    ours = completion_logprobs(model, [prompt], [completions], share_prompt=share_prompt)[0]
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
