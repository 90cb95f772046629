"""Log-probabilities of chosen and rejected completions to a loss a pair: every preference loss, as a pure function.

The names of a loss's arguments say what it needs, and the trainer computes exactly that: `ref_*` the reference's
log-probabilities, `*_length_B` token counts, `*_kl_B` the summed forward KL. All log-probabilities are natural and
summed over the completion's tokens, the end token included. Every tensor has shape (B,); nothing is reduced, so the
trainer owns means and weights. Rewards are detached and for reading only.

Sources: DPO arXiv 2305.18290, IPO 2310.12036, robust DPO 2403.00409, SLiC 2305.10425, SimPO 2405.14734, ORPO
2403.07691, CPO 2401.08417, KTO 2402.01306, TDPO 2404.11999, FPO 2411.07618. A new loss is one function
here and one line in `PAIR_LOSSES`.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu


class PairLoss(NamedTuple):
    """A loss an example and the implicit rewards it implies; NaN where an example has no such side."""

    loss_B: Tensor
    chosen_reward_B: Tensor
    rejected_reward_B: Tensor


def dpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    *,
    beta: float = 0.1,
) -> PairLoss:
    """DPO: −log σ(β(h_w − h_l)), h = log π − log π_ref (arXiv 2305.18290)."""
    h_w, h_l = chosen_logprob_B - ref_chosen_logprob_B, rejected_logprob_B - ref_rejected_logprob_B
    return _result(-logsigmoid(beta * (h_w - h_l)), beta * h_w, beta * h_l)


def cdpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    *,
    beta: float = 0.1,
    flip_rate: float = 0.1,
) -> PairLoss:
    """Conservative DPO: cross-entropy against labels that are flipped with probability `flip_rate` (ε).

    −(1−ε) log σ(u) − ε log σ(−u), u = β(h_w − h_l). Its optimum is a finite margin, log((1−ε)/ε).
    """
    h_w, h_l = chosen_logprob_B - ref_chosen_logprob_B, rejected_logprob_B - ref_rejected_logprob_B
    u_B = beta * (h_w - h_l)
    return _result(-(1 - flip_rate) * logsigmoid(u_B) - flip_rate * logsigmoid(-u_B), beta * h_w, beta * h_l)


def robust(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    *,
    beta: float = 0.1,
    flip_rate: float = 0.1,
) -> PairLoss:
    """Robust DPO: an unbiased estimate of the DPO loss on clean labels, `flip_rate` ε < 1/2 (arXiv 2403.00409).

    [−(1−ε) log σ(u) + ε log σ(−u)] / (1 − 2ε), u = β(h_w − h_l). It may be negative.
    """
    h_w, h_l = chosen_logprob_B - ref_chosen_logprob_B, rejected_logprob_B - ref_rejected_logprob_B
    u_B = beta * (h_w - h_l)
    loss_B = (-(1 - flip_rate) * logsigmoid(u_B) + flip_rate * logsigmoid(-u_B)) / (1 - 2 * flip_rate)
    return _result(loss_B, beta * h_w, beta * h_l)


def ipo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float = 0.1,
    per_token: bool = True,
) -> PairLoss:
    """IPO: (h_w − h_l − 1/(2β))² (arXiv 2310.12036, eq. 17, its τ is β).

    `per_token` divides each h by its completion's length, as TRL does after asking the authors; False sums, as printed.
    """
    h_w, h_l = chosen_logprob_B - ref_chosen_logprob_B, rejected_logprob_B - ref_rejected_logprob_B
    if per_token:
        h_w, h_l = h_w / chosen_length_B, h_l / rejected_length_B
    return _result((h_w - h_l - 1 / (2 * beta)) ** 2, beta * h_w, beta * h_l)


def ln_dpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float = 0.1,
) -> PairLoss:
    """Length-normalised DPO: −log σ(β[h_w/|y_w| − h_l/|y_l|]) (TRL's `sigmoid_norm`, Tülu 3; FPO without its leash)."""
    h_w = (chosen_logprob_B - ref_chosen_logprob_B) / chosen_length_B
    h_l = (rejected_logprob_B - ref_rejected_logprob_B) / rejected_length_B
    return _result(-logsigmoid(beta * (h_w - h_l)), beta * h_w, beta * h_l)


def fpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float = 0.1,
) -> PairLoss:
    """FPO without its leash, which is `ln_dpo`; `train_policy` takes it together with a FeatureLeash only.

    −log σ(β[h_w/|y_w| − h_l/|y_l|] − δ), δ = αβ(D_l − sg D_w) of the leash (arXiv 2411.07618).
    """
    return ln_dpo(
        chosen_logprob_B, rejected_logprob_B, ref_chosen_logprob_B, ref_rejected_logprob_B, chosen_length_B,
        rejected_length_B, beta=beta,
    )  # fmt: skip


def hinge(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    *,
    beta: float = 0.1,
) -> PairLoss:
    """SLiC's hinge on log-ratios: max(0, 1 − β(h_w − h_l)) (arXiv 2305.10425; with a reference as in 2309.06657)."""
    h_w, h_l = chosen_logprob_B - ref_chosen_logprob_B, rejected_logprob_B - ref_rejected_logprob_B
    return _result(relu(1 - beta * (h_w - h_l)), beta * h_w, beta * h_l)


def simpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
) -> PairLoss:
    """SimPO: −log σ(β ℓ_w/|y_w| − β ℓ_l/|y_l| − γ), no reference (arXiv 2405.14734; γ/β is 0.25)."""
    reward_w, reward_l = beta * chosen_logprob_B / chosen_length_B, beta * rejected_logprob_B / rejected_length_B
    return _result(-logsigmoid(reward_w - reward_l - gamma), reward_w, reward_l)


def orpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: float = 0.1,
) -> PairLoss:
    """ORPO: NLL of the chosen − λ log σ(log odds ratio), λ is `beta`, no reference (arXiv 2403.07691).

    odds = P/(1−P) with P = exp(mean log-prob). The NLL is a mean over the completion's tokens; the paper's code also
    counts the prompt's (its `--disable_prompt_loss` is what is done here).
    """
    mean_w, mean_l = chosen_logprob_B / chosen_length_B, rejected_logprob_B / rejected_length_B
    log_odds_B = (mean_w - mean_l) - (_log1mexp(mean_w) - _log1mexp(mean_l))
    return _result(-mean_w - beta * logsigmoid(log_odds_B), beta * mean_w, beta * mean_l)


def cpo(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    chosen_length_B: Tensor,
    *,
    beta: float = 0.1,
    nll_weight: float = 1.0,
) -> PairLoss:
    """CPO: −log σ(β(ℓ_w − ℓ_l)) + `nll_weight` · mean NLL of the chosen, no reference (arXiv 2401.08417)."""
    nll_B = -chosen_logprob_B / chosen_length_B
    loss_B = -logsigmoid(beta * (chosen_logprob_B - rejected_logprob_B)) + nll_weight * nll_B
    return _result(loss_B, beta * chosen_logprob_B, beta * rejected_logprob_B)


def tdpo1(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    chosen_kl_B: Tensor,
    rejected_kl_B: Tensor,
    *,
    beta: float = 0.1,
) -> PairLoss:
    """TDPO1: −log σ(β[h_w − h_l] − β[D_l − D_w]), D = Σ_t KL(π_ref ‖ π) (arXiv 2404.11999)."""
    h_w, h_l = chosen_logprob_B - ref_chosen_logprob_B, rejected_logprob_B - ref_rejected_logprob_B
    u_B = (h_w - h_l) - (rejected_kl_B - chosen_kl_B)
    return _result(-logsigmoid(beta * u_B), beta * (h_w + chosen_kl_B), beta * (h_l + rejected_kl_B))


def tdpo2(
    chosen_logprob_B: Tensor,
    rejected_logprob_B: Tensor,
    ref_chosen_logprob_B: Tensor,
    ref_rejected_logprob_B: Tensor,
    chosen_kl_B: Tensor,
    rejected_kl_B: Tensor,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> PairLoss:
    """TDPO2: −log σ(β[h_w − h_l] − αβ[D_l − sg(D_w)]), sg stops the gradient (arXiv 2404.11999)."""
    h_w, h_l = chosen_logprob_B - ref_chosen_logprob_B, rejected_logprob_B - ref_rejected_logprob_B
    u_B = (h_w - h_l) - alpha * (rejected_kl_B - chosen_kl_B.detach())
    return _result(-logsigmoid(beta * u_B), beta * (h_w + chosen_kl_B), beta * (h_l + rejected_kl_B))


def sft(chosen_logprob_B: Tensor, chosen_length_B: Tensor) -> PairLoss:
    """Supervised fine-tuning: the mean NLL of the chosen completion's tokens, every example weighing the same.

    Alone it is SFT; as `sft_weight` of the trainer it is the term that RPO and friends add to keep the chosen likely.
    """
    nll_B = -chosen_logprob_B / chosen_length_B
    return _result(nll_B, -nll_B, torch.full_like(nll_B, torch.nan))


def kto(
    logprob_B: Tensor,
    ref_logprob_B: Tensor,
    desirable_B: Tensor,
    mismatched_logprob_K: Tensor,
    ref_mismatched_logprob_K: Tensor,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> PairLoss:
    """KTO, unpaired: λ_D(1 − σ(β(h − z₀))) if desirable, else λ_U(1 − σ(β(z₀ − h))) (arXiv 2402.01306).

    z₀ = max(0, mean of log π/π_ref over completions under prompts that are not theirs), without gradient; `desirable_B`
    is boolean. Rewards are β h on the side that an example has and NaN on the other.
    """
    h_B = logprob_B - ref_logprob_B
    z0 = (mismatched_logprob_K - ref_mismatched_logprob_K).detach().mean().clamp(min=0)
    good_B = desirable_weight * (1 - torch.sigmoid(beta * (h_B - z0)))
    bad_B = undesirable_weight * (1 - torch.sigmoid(beta * (z0 - h_B)))
    nan_B = torch.full_like(h_B, torch.nan)
    reward_B = beta * h_B
    return _result(
        torch.where(desirable_B, good_B, bad_B),
        torch.where(desirable_B, reward_B, nan_B),
        torch.where(desirable_B, nan_B, reward_B),
    )


def _result(loss_B: Tensor, chosen_reward_B: Tensor, rejected_reward_B: Tensor) -> PairLoss:
    return PairLoss(loss_B, chosen_reward_B.detach(), rejected_reward_B.detach())


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 − eˣ) for x < 0, accurate at both ends; x is kept below −1e-7: probability 1 has no odds."""
    x = x.clamp(max=-1e-7)
    return torch.where(
        x > -0.6931472,
        torch.log(-torch.expm1(x)),
        torch.log1p(-torch.exp(x.clamp(max=-0.6931472))),
    )


Loss = Callable[..., PairLoss]
"""What `train_policy` accepts: any function with arguments named as here, or a `functools.partial` of one."""


def bare_loss(loss: Loss) -> Any:
    """The function inside `functools.partial`."""
    return bare_loss(loss.func) if isinstance(loss, partial) else loss


def needs_of(loss: Loss) -> list[str]:
    """Names of the tensors a loss takes: its arguments that are no settings."""
    return [n for n, p in inspect.signature(loss).parameters.items() if p.kind is not p.KEYWORD_ONLY]


PAIR_LOSSES: Mapping[str, Loss] = {
    "dpo": dpo, "cdpo": cdpo, "robust": robust, "ipo": ipo, "ln_dpo": ln_dpo, "fpo": fpo, "hinge": hinge,
    "simpo": simpo, "orpo": orpo, "cpo": cpo, "tdpo1": tdpo1, "tdpo2": tdpo2,
}  # fmt: skip
SINGLE_LOSSES: Mapping[str, Loss] = {"sft": sft, "kto": kto}
"""Losses of single completions: SFT takes the chosen alone, KTO desirable and undesirable ones without pairing."""
