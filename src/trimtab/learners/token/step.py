"""One optimiser step of a policy: EXAMPLES to losses, gradients and metrics.

A step is cut into micro-batches of near-equal length, prompts run once for all their completions, and log-probs come
without full logits; what a loss needs is read off the names of its arguments. `trimtab.learners.loop` runs it; it
loads, saves and decides nothing.
"""

import contextlib
import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from trimtab.errors import unknown
from trimtab.learners.loop import unwrapped
from trimtab.learners.token.examples import Example
from trimtab.learners.token.losses import PAIR_LOSSES, SINGLE_LOSSES, Loss, PairLoss, bare_loss, needs_of, sft
from trimtab.lm.forward import head_of, hidden_at, logprobs_of
from trimtab.lm.tree import BranchRows, lay_out, length_buckets
from trimtab.tensors import linear_forward_kl, linear_logprobs

log = logging.getLogger("trimtab")


def resolve_loss(loss: str | Loss, settings: Mapping[str, float] | None = None) -> Loss:
    """A loss function with its settings bound. InputError for an unknown name or keyword, with the known ones."""
    known = {**PAIR_LOSSES, **SINGLE_LOSSES}
    if isinstance(loss, str):
        if loss not in known:
            raise unknown("loss", loss, known)
        loss = known[loss]
    keywords = [n for n, p in inspect.signature(loss).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in settings or {}:
        if name not in keywords:
            raise unknown(f"setting of the loss {bare_loss(loss).__name__}", name, keywords)
    return partial(loss, **settings) if settings else loss


def loss_needs(loss: Loss) -> list[str]:
    """Names of the tensors a loss takes (its positional arguments). InputError for one the trainer cannot compute."""
    needs = needs_of(loss)
    sides = {f"{s}_{q}_B" for s in ("chosen", "rejected") for q in ("logprob", "length", "kl")}
    known = sides | {f"ref_{s}_logprob_B" for s in ("chosen", "rejected")}
    single = {"logprob_B", "ref_logprob_B", "desirable_B", "mismatched_logprob_K", "ref_mismatched_logprob_K"}
    for n in needs:
        if n not in known | single:
            raise unknown("argument of a loss", n, known | single)
    return needs


@dataclass(frozen=True)
class PolicyStep:
    """What one optimiser step computes, from examples to losses; the model comes as an argument."""

    loss: Loss
    needs: list[str]
    sft_weight: float
    budget: int
    micro_rows: int | None
    share_prompt: bool
    reference: Any = None
    """The live reference of KL terms; None = the policy with its adapter off."""
    leash: Any = None
    """A FeatureLeash whose penalty lies on the margin (`trimtab.learners.feature.leash`)."""

    @property
    def live(self) -> bool:
        """Whether the loss takes KL terms, which need the reference's distribution and not only its log-probs."""
        return any(n.endswith("_kl_B") for n in self.needs)

    def parts(self, examples: Sequence[Example]) -> list[list[int]]:
        """The micro-batches of a step, as indices of near-equal length."""
        sizes = [e.tokens if self.share_prompt else len(e.completions) * e.longest for e in examples]
        return length_buckets(sizes, self.budget, self.micro_rows)

    @torch.no_grad()
    def whole_batch(self, model: Any, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Terms that a loss takes from the whole batch: the log-probs of mismatched completions (KTO's baseline)."""
        if "mismatched_logprob_K" not in self.needs:
            return {}
        device = next(model.parameters()).device
        sums = torch.zeros(len(examples), device=device)
        for part in length_buckets([len(e.prompt) + len(e.mismatched) for e in examples], self.budget, self.micro_rows):
            chosen = [examples[i] for i in part]
            rows = lay_out([e.prompt for e in chosen], [[e.mismatched] for e in chosen], share_prompt=False).to(device)
            sums[part] = rows.sums(logprobs_of(model, rows)).to(sums.dtype)
        ref = torch.tensor([e.mismatched_reference for e in examples], device=device)
        return {"mismatched_logprob_K": sums, "ref_mismatched_logprob_K": ref}

    def losses(
        self, model: Any, examples: Sequence[Example], shared: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss (B,) with gradient, and the metrics."""
        device = next(model.parameters()).device
        rows = lay_out(
            [e.prompt for e in examples], [e.completions for e in examples], share_prompt=self.share_prompt
        ).to(device)
        with self.leash.watch(model) if self.leash else contextlib.nullcontext() as seen:
            hidden_XD, head = hidden_at(model, rows), head_of(model)
        logprob_BS = rows.sums(linear_logprobs(hidden_XD, head, rows.target_X)).view(len(examples), -1)
        length_BS = rows.length_C.view(len(examples), -1)
        terms = dict(shared)
        reference = torch.tensor([e.reference or [math.nan] * len(e.completions) for e in examples], device=device)
        for s, side in enumerate(("chosen", "rejected")[: logprob_BS.shape[1]]):
            terms[f"{side}_logprob_B"], terms[f"{side}_length_B"] = logprob_BS[:, s], length_BS[:, s]
            terms[f"ref_{side}_logprob_B"] = reference[:, s]
        if "logprob_B" in self.needs:
            terms["logprob_B"], terms["ref_logprob_B"] = logprob_BS[:, 0], reference[:, 0]
            terms["desirable_B"] = torch.tensor([e.desirable for e in examples], device=device)
        if self.live:
            kl_BS = rows.sums(self._kl(model, rows, hidden_XD)).view(len(examples), -1)
            terms["chosen_kl_B"], terms["rejected_kl_B"] = kl_BS.unbind(1)
        result = self.loss(**{n: terms[n] for n in self.needs})
        if self.leash:
            result = self._leashed(result, terms, self.leash.drift(seen, rows, examples))
        total_B = result.loss_B
        if self.sft_weight:
            total_B = total_B + self.sft_weight * sft(terms["chosen_logprob_B"], terms["chosen_length_B"]).loss_B
        return total_B, metrics(result, {k: v.detach() for k, v in terms.items()})

    def _leashed(self, plain: PairLoss, terms: dict[str, Tensor], drift: Any) -> PairLoss:
        """The loss with its margin u lowered by δ = β·penalty; the rewards stay the loss's own.

        Every margin is linear in the rejected log-prob, with slope −β (a token, where the loss takes lengths): a
        rejected completion that is likelier by the penalty lowers u by just that.
        """
        each = "rejected_length_B" in self.needs and getattr(self.loss, "keywords", {}).get("per_token", True)
        charge_B = drift.penalty_B * terms["rejected_length_B"] if each else drift.penalty_B
        terms["chosen_drift_B"], terms["rejected_drift_B"] = drift.chosen_B, drift.rejected_B
        terms["penalty_B"] = drift.penalty_B
        charged = {**terms, "rejected_logprob_B": terms["rejected_logprob_B"] + charge_B}
        return plain._replace(loss_B=self.loss(**{n: charged[n] for n in self.needs}).loss_B)

    def _kl(self, model: Any, rows: BranchRows, hidden_XD: Tensor) -> Tensor:
        with torch.no_grad(), contextlib.ExitStack() as stack:
            if self.reference is None:
                stack.enter_context(unwrapped(model).disable_adapter())
            reference = self.reference if self.reference is not None else model
            ref_hidden_XD, ref_head = hidden_at(reference, rows), head_of(reference)
        return linear_forward_kl(hidden_XD, head_of(model), ref_hidden_XD, ref_head)


@torch.no_grad()
def metrics(result: PairLoss, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the log shows of a micro-batch, by TRL's names, each (B,)."""
    margin = result.chosen_reward_B - result.rejected_reward_B
    found = {
        "rewards/chosen": result.chosen_reward_B, "rewards/rejected": result.rejected_reward_B,
        "rewards/margins": margin, "rewards/accuracies": torch.where(margin.isnan(), margin, (margin > 0).float()),
    }  # fmt: skip
    if "desirable_B" in terms:
        good_B, logprob_B, ref_B = terms["desirable_B"], terms["logprob_B"], terms["ref_logprob_B"]
        nan_B = torch.full_like(logprob_B, math.nan)
        found["logps/chosen"] = torch.where(good_B, logprob_B, nan_B)
        found["logps/rejected"] = torch.where(good_B, nan_B, logprob_B)
        found["logratios/chosen"] = torch.where(good_B, logprob_B - ref_B, nan_B)
        z0 = (terms["mismatched_logprob_K"] - terms["ref_mismatched_logprob_K"]).mean().clamp(min=0)
        found["kl"] = z0.expand_as(logprob_B)
    else:
        for side in ("chosen", "rejected"):
            if f"{side}_logprob_B" in terms:
                found[f"logps/{side}"] = terms[f"{side}_logprob_B"]
                found[f"logratios/{side}"] = terms[f"{side}_logprob_B"] - terms[f"ref_{side}_logprob_B"]
        found["nll/chosen"] = -terms["chosen_logprob_B"] / terms["chosen_length_B"]
    if "penalty_B" in terms:
        found["feature/drift_chosen"] = terms["chosen_drift_B"]
        found["feature/drift_rejected"] = terms["rejected_drift_B"]
        found["feature/penalty"] = terms["penalty_B"]
    return found


class Displacement(TrainerCallback):
    """Warns once when the chosen completions have become much less likely than under the reference."""

    warned = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        fell = (logs or {}).get("logratios/chosen", 0.0)
        if self.warned or fell > -5.0:
            return
        self.warned = True
        log.warning(
            "step %d: chosen completions are now %.1f nats less likely than under the reference. A falling chosen "
            "reward is expected when the reference was fine-tuned on the chosen completions (its mean under the "
            "reference is minus a KL divergence); if it was not, other text is taking their place: fine-tune on the "
            "chosen first (loss sft), add sft_weight, or lower the learning rate. Watch logps/chosen too.",
            state.global_step, -fell,
        )  # fmt: skip
