"""The only place that shifts tokens against logits or divides by the sum of a mask. Torch in, torch out.

Errors of this field live in masks, shifts and denominators, so they are written once, here, and tested by hand.
"""

from collections.abc import Sequence

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


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over the last axis where mask is 1, shape (B,). Masked entries may be anything, NaN included."""
    return torch.where(mask_BT.bool(), values_BT, torch.zeros_like(values_BT)).sum(-1)


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the last axis where mask is 1, shape (B,); NaN for a row whose mask is empty."""
    return masked_sum(values_BT, mask_BT) / mask_BT.sum(-1)
