"""Probe VALUES and rewards to a loss: the five losses of a Q-probe, as pure functions.

Q-Probe (Li et al., ICML 2024, arXiv 2402.14688), section 3 and appendix B. A value is the raw output of the probe,
Q(x, a) = w . phi(x, a) + b; nothing is squashed outside a loss. No reduction: the caller takes means.
It does not know vectors, solvers or which rows make a chunk or a pair (`data.py` does).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus


class ProbeLoss(NamedTuple):
    """`loss_B`, one entry a row, chunk or pair, and what the loss takes the values to say: `predicted`."""

    loss_B: Tensor
    predicted: Tensor
    """mse: the reward; ce: the chance of success; pg: the chance that each completion is chosen, (B, K); bt and ratio:
    the chance that chosen beats rejected."""


def mse(value_B: Tensor, reward_B: Tensor) -> ProbeLoss:
    """Squared error of the value as a prediction of the reward, (Q - r)^2 per row.

    L_Q of Q-Probe: the raw value against the reward, also when rewards are 0 and 1. Shapes (B,).
    """
    return ProbeLoss((value_B - reward_B) ** 2, value_B)


def ce(value_B: Tensor, reward_B: Tensor) -> ProbeLoss:
    """Cross-entropy of sigmoid(Q) against a reward in [0, 1]: -(r log s(Q) + (1 - r) log(1 - s(Q))) per row.

    Q-Probe Eq. 3, which lacks the minus sign in print (the authors' code has it). The policy uses the logit Q, not
    s(Q). Shapes (B,). Written as softplus(Q) - r Q, which does not overflow.
    """
    return ProbeLoss(softplus(value_B) - reward_B * value_B, torch.sigmoid(value_B))


def pg(
    value_BK: Tensor, reward_BK: Tensor, mask_BK: Tensor | None = None, *, beta: float = 1.0, baseline: float = 0.0
) -> ProbeLoss:
    """Negative expected reward of the probe's own policy within a chunk: -sum_i (r_i - baseline) rho_i.

    rho = softmax(Q / beta) over the K completions of one prompt, mask 1 = a real completion. L_PG of Q-Probe in the
    multi-sample form of the authors' code, which trains at beta = 1. Since rho sums to 1 the baseline only shifts the
    printed loss (its gradient is zero), a chunk of equal rewards has no gradient, and beta only rescales Q.
    """
    logits_BK = value_BK / beta
    if mask_BK is not None:
        logits_BK = logits_BK.masked_fill(~mask_BK.bool(), -torch.inf)
        reward_BK = reward_BK.masked_fill(~mask_BK.bool(), 0.0)
    rho_BK = torch.softmax(logits_BK, dim=-1)
    return ProbeLoss(-((reward_BK - baseline) * rho_BK).sum(-1), rho_BK)


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor, *, beta: float = 1.0) -> ProbeLoss:
    """Bradley-Terry on pairs: -log sigmoid((Q_chosen - Q_rejected) / beta), shapes (B,).

    L_QP of Q-Probe (beta = 1). "DPO on the probe's policy" with log-ratios is this loss with scale alpha / beta: the
    normalisers cancel.
    """
    margin_B = (chosen_B - rejected_B) / beta
    return ProbeLoss(-logsigmoid(margin_B), torch.sigmoid(margin_B))


def ratio(
    chosen_B: Tensor, rejected_B: Tensor, others_BK: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0
) -> ProbeLoss:
    """Appendix B's direct policy loss: -log sigmoid(alpha rho_chosen - alpha rho_rejected), shapes (B,) and (B, K).

    rho = softmax(Q / beta) over chosen, rejected and the `others` of the prompt (none needed; a NaN other is absent).
    The argument is bounded by alpha, so confident pairs lose their gradient and alpha = 1 caps the preference
    probability at sigmoid(1) = 0.73. The authors: "not useful in practice".
    """
    columns = [chosen_B[:, None], rejected_B[:, None]]
    if others_BK is not None:
        columns.append(torch.where(others_BK.isnan(), -torch.inf, others_BK))
    rho_BK = torch.softmax(torch.cat(columns, dim=1) / beta, dim=-1)
    margin_B = alpha * (rho_BK[:, 0] - rho_BK[:, 1])
    return ProbeLoss(-logsigmoid(margin_B), torch.sigmoid(margin_B))


PROBE_LOSSES: dict[str, Callable[..., ProbeLoss]] = {
    "mse": mse, "ce": ce, "pg": pg, "bt": bradley_terry, "ratio": ratio,
}  # fmt: skip
LOSS_UNITS = {"mse": "row", "ce": "row", "pg": "chunk", "bt": "pair", "ratio": "pair"}
"""What one entry of `loss_B` is about: a completion, several of one prompt, or a chosen and a rejected one."""
