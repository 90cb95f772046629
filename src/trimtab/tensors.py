"""The only place that shifts tokens against logits or divides by the sum of a mask. Torch in, torch out.

Errors of this field live in masks, shifts and denominators, so they are written once, here, and tested by hand.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


def pad_right(
    rows: Sequence[Sequence[int]], value: int, *, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Ragged integer rows to (ids_BT int64, mask_BT int64), padded on the right with `value`; mask 1 = a real token."""
    width = max((len(r) for r in rows), default=0)
    ids_BT = torch.full((len(rows), width), value, dtype=torch.long)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for b, row in enumerate(rows):
        ids_BT[b, : len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask_BT[b, : len(row)] = 1
    return ids_BT.to(device), mask_BT.to(device)


def token_logprobs(logits_BTV: Tensor, ids_BT: Tensor, *, chunk: int = 1024) -> Tensor:
    """Natural log-probability of each token given the ones before it, shape (B, T - 1): entry t is token t + 1.

    The log-softmax runs over `chunk` positions at a time in float32, so no second (B, T, V) tensor exists at once.
    """
    B, T, V = logits_BTV.shape
    flat_XV = logits_BTV[:, :-1].reshape(-1, V)
    next_X = ids_BT[:, 1:].reshape(-1)
    out = [
        torch.log_softmax(flat_XV[i : i + chunk].float(), dim=-1).gather(1, next_X[i : i + chunk, None])[:, 0]
        for i in range(0, len(flat_XV), chunk)
    ]
    return torch.cat(out).view(B, T - 1) if out else logits_BTV.new_zeros((B, max(T - 1, 0)), dtype=torch.float32)


def most_likely(p_BV: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Probabilities from the highest down and whose tokens they are, both (B, K): the top k (0: all of them), and 0
    outside the smallest set whose mass reaches top_p."""
    p_BK, token_BK = p_BV.sort(dim=-1, descending=True, stable=True)
    if top_k:
        p_BK, token_BK = p_BK[:, :top_k], token_BK[:, :top_k]
    before_BK = p_BK.cumsum(-1) - p_BK
    return torch.where(before_BK < top_p * p_BK.sum(-1, keepdim=True), p_BK, 0.0), token_BK


class Head(NamedTuple):
    """A language model's output layer: logits = softcap(scale · (h Wᵀ + b)), softcap(z) = c·tanh(z/c) when c > 0."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float = 0.0


def linear_logprobs(hidden_XD: Tensor, head: Head, target_X: Tensor, *, chunk: int | None = None) -> Tensor:
    """log softmax(head(h))[target] in float32, shape (X,), without ever holding the (X, V) logits.

    `chunk` positions are projected at a time (by default as many as `chunk_logits` allows) and again in the backward
    pass, which is written out: dlogits = g·(onehot − p). Costs one more projection, saves (X, V) twice over.
    """
    dtype = _compute_dtype(hidden_XD)
    return _LinearLogprobs.apply(
        hidden_XD, head.weight_VD, head.bias_V, target_X, head.scale, head.softcap, chunk, dtype
    )


def linear_forward_kl(
    hidden_XD: Tensor, head: Head, ref_hidden_XD: Tensor, ref_head: Head, *, chunk: int | None = None
) -> Tensor:
    """KL(reference ‖ policy) over the whole vocabulary at each position, float32, shape (X,).

    The gradient goes to the policy only. Chunked like `linear_logprobs`; backward: dlogits = g·(p − p_ref).
    """
    dtype = _compute_dtype(hidden_XD)
    bias_V = None if ref_head.bias_V is None else ref_head.bias_V.detach()
    ref = ref_head._replace(weight_VD=ref_head.weight_VD.detach(), bias_V=bias_V)
    return _LinearForwardKL.apply(
        hidden_XD, head.weight_VD, head.bias_V, ref_hidden_XD.detach(), ref, head.scale, head.softcap, chunk, dtype
    )


@torch.no_grad()
def linear_entropy(hidden_XD: Tensor, head: Head, *, top: int = 0, chunk: int | None = None) -> Tensor:
    """Entropy of softmax(head(h)) in nats at each position, float32, shape (X,); no gradient, no (X, V) logits.

    `top` > 0 takes that many of the likeliest tokens, renormalised.
    """
    out = []
    for at in _slices(hidden_XD, chunk, len(head.weight_VD)):
        logits_cV = head_logits(hidden_XD[at].to(head.weight_VD.dtype), head)
        logprob_cV = torch.log_softmax(
            logits_cV.topk(min(top, logits_cV.shape[1]), -1).values if top else logits_cV, -1
        )
        out.append(-(logprob_cV.exp() * logprob_cV).sum(-1))
    return torch.cat(out) if out else hidden_XD.new_zeros(0)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What a matrix product on `x` would run in: autocast's type where it is on, else that of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def head_logits(hidden_cD: Tensor, head: Head) -> Tensor:
    """float32 (float64 for float64 input) logits of one chunk; a fresh tensor that the caller may overwrite."""
    logits_cV = torch.nn.functional.linear(hidden_cD, head.weight_VD, head.bias_V)
    logits_cV = logits_cV if logits_cV.dtype == torch.float64 else logits_cV.float()
    if head.scale != 1.0:
        logits_cV.mul_(head.scale)
    if head.softcap:
        logits_cV.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits_cV


def _through_head(grad_cV: Tensor, logits_cV: Tensor | None, head: Head) -> Tensor:
    """Gradient of the logits back through softcap and scale, in place."""
    if head.softcap and logits_cV is not None:
        grad_cV.mul_(1 - (logits_cV / head.softcap) ** 2)
    return grad_cV.mul_(head.scale) if head.scale != 1.0 else grad_cV


class _Backward:
    """Accumulates the gradients of hidden states, weight and bias from the chunks' logit gradients."""

    def __init__(self, hidden_XD: Tensor, head: Head, needs: Sequence[bool]):
        wide = torch.float64 if hidden_XD.dtype == torch.float64 else torch.float32
        self.head, (self.to_hidden, self.to_weight, self.to_bias) = head, needs
        self.hidden = torch.empty_like(hidden_XD) if self.to_hidden else None
        # accumulated in float32 whatever the weights are: sums of many bfloat16 chunks drift
        self.weight = torch.zeros_like(head.weight_VD, dtype=wide) if self.to_weight else None
        self.bias = head.weight_VD.new_zeros(len(head.weight_VD), dtype=wide) if self.to_bias else None

    def add(self, at: slice, grad_cV: Tensor, hidden_cD: Tensor) -> None:
        grad = grad_cV.to(self.head.weight_VD.dtype)
        if self.hidden is not None:
            self.hidden[at] = grad @ self.head.weight_VD
        if self.weight is not None:
            if self.weight.dtype == grad.dtype:
                self.weight.addmm_(grad.T, hidden_cD)
            else:
                self.weight += grad.T @ hidden_cD
        if self.bias is not None:
            self.bias += grad_cV.sum(0)


def chunk_logits(device: torch.device | str) -> int:
    """Logits of one chunk, in numbers. On a CPU 64 MB of them stay near the caches; an accelerator takes 512 MB, for
    every chunk reads the head once and writes its float32 gradient once (1.2 and 2.4 GB with Gemma 2's)."""
    return 2**24 if torch.device(device).type == "cpu" else 2**27


def _slices(hidden_XD: Tensor, chunk: int | None, vocabulary: int) -> list[slice]:
    n, size = len(hidden_XD), chunk or max(16, chunk_logits(hidden_XD.device) // vocabulary)
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_XD, weight_VD, bias_V, target_X, scale, softcap, chunk, dtype):
        with torch.autocast(hidden_XD.device.type, enabled=False):
            head = Head(weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype), scale, softcap)
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            out_X = hidden_XD.new_empty(len(hidden_XD), dtype=wide)
            lse_X = torch.empty_like(out_X)
            for at in _slices(hidden_XD, chunk, len(weight_VD)):
                logits_cV = head_logits(hidden_XD[at].to(dtype), head)
                out_X[at] = logits_cV.gather(1, target_X[at, None])[:, 0]
                lse_X[at] = logits_cV.logsumexp(-1)
            out_X -= lse_X
        ctx.save_for_backward(hidden_XD, weight_VD, bias_V, target_X, lse_X)
        ctx.rest = scale, softcap, chunk, dtype
        return out_X

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden_XD, weight_VD, bias_V, target_X, lse_X = ctx.saved_tensors
        scale, softcap, chunk, dtype = ctx.rest
        grad_X = grads[0]
        with torch.autocast(hidden_XD.device.type, enabled=False):
            head = Head(weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype), scale, softcap)
            total = _Backward(hidden_XD, head, ctx.needs_input_grad[:3])
            for at in _slices(hidden_XD, chunk, len(weight_VD)):
                hidden_cD = hidden_XD[at].to(dtype)
                logits_cV = head_logits(hidden_cD, head)
                kept = logits_cV.clone() if softcap else None
                grad_cV = logits_cV.sub_(lse_X[at, None]).exp_().mul_(-grad_X[at, None])
                grad_cV.scatter_add_(1, target_X[at, None], grad_X[at, None])
                total.add(at, _through_head(grad_cV, kept, head), hidden_cD)
        return (
            total.hidden,
            None if total.weight is None else total.weight.to(weight_VD.dtype),
            None if total.bias is None or bias_V is None else total.bias.to(bias_V.dtype),
            *[None] * 5,
        )


class _LinearForwardKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_XD, weight_VD, bias_V, ref_hidden_XD, ref_head, scale, softcap, chunk, dtype):
        with torch.autocast(hidden_XD.device.type, enabled=False):
            head = Head(weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype), scale, softcap)
            out = []
            for at in _slices(hidden_XD, chunk, 2 * len(weight_VD)):
                logprob_cV = torch.log_softmax(head_logits(hidden_XD[at].to(dtype), head), -1)
                ref_cV = torch.log_softmax(head_logits(ref_hidden_XD[at], ref_head), -1)
                out.append((ref_cV.exp() * (ref_cV - logprob_cV)).sum(-1))
        ctx.save_for_backward(hidden_XD, weight_VD, bias_V, ref_hidden_XD)
        ctx.rest = ref_head, scale, softcap, chunk, dtype
        return torch.cat(out) if out else hidden_XD.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden_XD, weight_VD, bias_V, ref_hidden_XD = ctx.saved_tensors
        ref_head, scale, softcap, chunk, dtype = ctx.rest
        with torch.autocast(hidden_XD.device.type, enabled=False):
            head = Head(weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype), scale, softcap)
            total = _Backward(hidden_XD, head, ctx.needs_input_grad[:3])
            for at in _slices(hidden_XD, chunk, 2 * len(weight_VD)):
                hidden_cD = hidden_XD[at].to(dtype)
                logits_cV = head_logits(hidden_cD, head)
                ref_cV = torch.softmax(head_logits(ref_hidden_XD[at], ref_head), -1)
                grad_cV = torch.softmax(logits_cV, -1).sub_(ref_cV).mul_(grads[0][at, None])
                total.add(at, _through_head(grad_cV, logits_cV, head), hidden_cD)
        return (
            total.hidden,
            None if total.weight is None else total.weight.to(weight_VD.dtype),
            None if total.bias is None or bias_V is None else total.bias.to(bias_V.dtype),
            *[None] * 6,
        )
