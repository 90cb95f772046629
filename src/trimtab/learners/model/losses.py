"""Router logits and measured rewards to one loss a prompt. Pure functions, torch in, torch out.

Zooter's distillation (Lu et al., NAACL 2024, arXiv 2311.08692, eq. 2), its hard-label control, multi-label binary
cross-entropy (MLC) and RouterDC's sample-to-LLM contrast (Chen et al., NeurIPS 2024). A missing reward (NaN) takes no
part: its model has probability 0 in a target and is left out of the softmax. Tag smoothing is in tags.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_FAR = -1e9
_FLOOR = 1e-8
"""Target probabilities below this are raised to it in KL(Z||s), which is infinite at a target of 0."""


def silver(reward_PM: Tensor, temperature: float = 1.0) -> Tensor:
    """Zooter's silver labels s = softmax(reward / temperature) over the models with a reward, shape (P, M)."""
    logits = (reward_PM / temperature).masked_fill(reward_PM.isnan(), _FAR)
    return torch.softmax(logits, dim=-1)


def kl_forward(logits_PM: Tensor, target_PM: Tensor, known_PM: Tensor) -> Tensor:
    """KL(s||Z) = Σ s (log s - log Z), Z the softmax of the logits: the usual distillation, the default. Shape (P,)."""
    logz = torch.log_softmax(logits_PM.masked_fill(~known_PM, _FAR), dim=-1)
    return (torch.xlogy(target_PM, target_PM) - target_PM * logz).masked_fill(~known_PM, 0.0).sum(-1)


def kl_reverse(logits_PM: Tensor, target_PM: Tensor, known_PM: Tensor) -> Tensor:
    """KL(Z||s) = Σ Z (log Z - log s), the paper's letter KLD(Z, s): seeks one mode, huge where s is near one-hot."""
    logz = torch.log_softmax(logits_PM.masked_fill(~known_PM, _FAR), dim=-1)
    logs = target_PM.clamp_min(_FLOOR).log()
    return (logz.exp() * (logz - logs)).masked_fill(~known_PM, 0.0).sum(-1)


def hard_label(logits_PM: Tensor, target_PM: Tensor, known_PM: Tensor) -> Tensor:
    """Cross-entropy against the model with the highest target, ties shared evenly (Table 2's control). Shape (P,)."""
    top = target_PM.masked_fill(~known_PM, -torch.inf)
    best = (top == top.max(-1, keepdim=True).values).to(logits_PM.dtype)
    logz = torch.log_softmax(logits_PM.masked_fill(~known_PM, _FAR), dim=-1)
    return -(best / best.sum(-1, keepdim=True) * logz).masked_fill(~known_PM, 0.0).sum(-1)


def binary(logits_PM: Tensor, target_PM: Tensor, known_PM: Tensor) -> Tensor:
    """MLC: binary cross-entropy of each model's logit against its reward in [0, 1], mean over known. Shape (P,)."""
    target = target_PM.masked_fill(~known_PM, 0.0)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits_PM, target, reduction="none")
    return each.masked_fill(~known_PM, 0.0).sum(-1) / known_PM.sum(-1).clamp_min(1)


def contrast(logits_PM: Tensor, target_PM: Tensor, known_PM: Tensor, top: int = 3) -> Tensor:
    """RouterDC's sample-to-LLM contrast: each of the `top` best models against the `top` worst. Shape (P,).

    Σ over best i of -log(e^{l_i} / (e^{l_i} + Σ_{worst j} e^{l_j})), logits = similarity / temperature. A worst model
    with a reward in [0, 1] above 0.5 is no negative, and a best one with reward 0 no positive. A prompt that knows
    fewer than 2 · `top` models has half of them on each side.
    """
    top = min(top, max(logits_PM.shape[-1] // 2, 1))
    side_P = (known_PM.sum(-1) // 2).clamp(1, top)
    taken_PT = torch.arange(top, device=logits_PM.device) < side_P[:, None]
    order = target_PM.masked_fill(~known_PM, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    worst_first = target_PM.masked_fill(~known_PM, torch.inf).sort(dim=-1, stable=True).indices
    best, worst = order[:, :top], worst_first[:, :top]
    usable = (target_PM <= 0.5) & known_PM
    low = logits_PM.masked_fill(~usable, _FAR).gather(1, worst).masked_fill(~taken_PT, _FAR)
    high = logits_PM.gather(1, best)
    each = torch.logsumexp(torch.cat([high[..., None], low[:, None].expand(-1, top, -1)], -1), -1) - high
    return each.masked_fill(~(((target_PM > 0) & known_PM).gather(1, best) & taken_PT), 0.0).sum(-1)


RouterLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
ROUTER_LOSSES: dict[str, RouterLoss] = {
    "kl": kl_forward,
    "kl_reverse": kl_reverse,
    "hard": hard_label,
    "bce": binary,
    "contrast": contrast,
}
"""(logits_PM, target_PM, known_PM) -> loss_P."""
