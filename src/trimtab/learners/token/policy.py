"""A trained policy as an object of value: log-probs of completions, and their implicit reward as a RewardFn.

After DPO Σ_t β (log π − log π_ref) scores a finished completion ("From r to Q*", arXiv 2404.12358: the reward minus
V*(s₀), a constant of the prompt). So best-of-N, the softmax policy and West-of-N can spend a DPO policy like any reward
model; other losses have other rewards, and each policy is read by its own.
Values of different prompts do not compare. For *decoding* use log π alone (`trimtab.decoders.token`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trimtab.errors import ModelError
from trimtab.json_file import NUMBER, read_json
from trimtab.learners.token.losses import PAIR_LOSSES, SINGLE_LOSSES, Loss, bare_loss, dpo, needs_of, sft
from trimtab.lm import trained
from trimtab.lm.forward import branch_logprobs, encode_branches, next_logprobs
from trimtab.lm.load import LM, chosen_dtype, resident
from trimtab.lm.tree import TokenIds
from trimtab.tensors import pad_right
from trimtab.types import Group, Reward, describe

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Policy:
    """A language model asked for log-probabilities; `budget` is the padded tokens of one forward."""

    lm: LM
    budget: int = 4096
    share_prompt: bool = True

    def logprobs(self, groups: Sequence[Group]) -> list[list[Floats]]:
        """Per-token log π of every completion, end token included when it has one; one float32 array a completion."""
        encoded = encode_branches(self.lm, groups)
        rows = branch_logprobs(
            self.lm.model, [p for p, _ in encoded], [c for _, c in encoded], budget=self.budget,
            share_prompt=self.share_prompt,
        )  # fmt: skip
        return [[np.array(row, dtype=np.float32) for row in group] for group in rows]

    def next_logprobs(self, tokens: Sequence[TokenIds]) -> Floats:
        """log π of every next token after each sequence of token ids, shape (B, V)."""
        ids_BT, mask_BT = pad_right(tokens, 0, device=self.lm.model.device)
        return next_logprobs(self.lm.model, ids_BT, mask_BT, use_cache=False).cpu().numpy()

    def encode(self, group: Group) -> tuple[list[int], list[list[int]]]:
        """Token ids of the prompt and of each completion; those the engine gave, where it gave them."""
        return encode_branches(self.lm, [group])[0]


@dataclass(frozen=True)
class ImplicitReward:
    """A preference-trained policy as RewardFn: what its `loss` calls the reward of a completion.

    For DPO and its kin Σ_t β (log π − log π_ref); for LN-DPO and FPO its mean over the tokens; for SimPO and ORPO
    β · the mean log π without a reference; for CPO the sum. NaN for a completion without tokens. One that was cut at
    the length limit is scored with a note: without its end token it has a partial return, not its reward. ModelError
    for a loss whose reward log-probs of a completion do not hold: TDPO's has a KL of every step, SFT compares nothing.
    """

    policy: Policy
    reference: Policy
    beta: float = 0.1
    loss: Loss = dpo

    def __post_init__(self) -> None:
        none = torch.zeros(0)
        self._arguments(none, none, none)

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        rows = self.policy.logprobs(groups)
        needed = any(n.startswith("ref_") for n in needs_of(self.loss))
        theirs = self.reference.logprobs(groups) if needed else rows
        return [
            [self._one(c.finish, a, b) for c, a, b in zip(g.completions, x, y, strict=True)]
            for g, x, y in zip(groups, rows, theirs, strict=True)
        ]

    def _one(self, finish: str, logprob_T: Floats, ref_T: Floats) -> Reward:
        if not len(logprob_T):
            return Reward(math.nan, "no tokens to score")
        sums = (logprob_T.astype(np.float64).sum(), ref_T.astype(np.float64).sum(), len(logprob_T))
        ours_B, ref_B, length_B = (torch.tensor([x], dtype=torch.float64) for x in sums)
        arguments = self._arguments(ours_B, ref_B, length_B)
        value = self.loss(**arguments, beta=self.beta).chosen_reward_B.item()
        return Reward(value, "" if finish == "stop" else "cut at the length limit: a partial return")

    def _arguments(self, logprob_B: torch.Tensor, ref_B: torch.Tensor, length_B: torch.Tensor) -> dict[str, Any]:
        """The loss's arguments with the completion on both sides; the reward of one side does not see the other."""
        known = {"desirable_B": torch.ones(len(logprob_B), dtype=torch.bool)}
        known |= dict.fromkeys(("chosen_logprob_B", "rejected_logprob_B", "logprob_B"), logprob_B)
        known |= dict.fromkeys(("ref_chosen_logprob_B", "ref_rejected_logprob_B", "ref_logprob_B"), ref_B)
        known |= dict.fromkeys(("chosen_length_B", "rejected_length_B"), length_B)
        known |= dict.fromkeys(("mismatched_logprob_K", "ref_mismatched_logprob_K"), torch.zeros(1))
        needs, name = needs_of(self.loss), describe(bare_loss(self.loss))
        if bare_loss(self.loss) is sft or not set(needs) <= set(known):
            raise ModelError(
                f"{name} has no reward that the log-probs of one completion hold; "
                "ImplicitReward(policy, reference, beta) is the log-ratio with the reference, whatever was trained"
            )
        return {n: known[n] for n in needs}


@dataclass(frozen=True)
class LoadedPolicy:
    """A run of `train_policy` with its reference: `policy`, `reference`, and the `beta` it was trained with."""

    policy: Policy
    reference: Policy
    beta: float
    card: dict[str, Any] = field(compare=False, repr=False, default_factory=dict)

    @property
    def reward(self) -> ImplicitReward:
        """The implicit reward of the loss it was trained with, ready for best-of-N. ModelError for a loss that has none
        (SFT, TDPO), or that is not one of trimtab's: name it yourself, ImplicitReward(..., loss=...)."""
        trained = dict(self.card.get("settings", {}).get("loss", {}))
        name, known = trained.pop("name", describe(dpo)), {**PAIR_LOSSES, **SINGLE_LOSSES}
        loss = next((f for f in known.values() if describe(f) == name), None)
        if loss is None:
            raise ModelError(
                f"trained with {name}, whose reward is unknown here: ImplicitReward(..., loss=...) names it"
            )
        trained.pop("beta", None)
        return ImplicitReward(self.policy, self.reference, self.beta, partial(loss, **trained) if trained else loss)


def load_policy(
    run: str | Path, *, dtype: str | None = None, device: str | None = None, budget: int = 4096
) -> LoadedPolicy:
    """Loads what `train_policy` wrote: the full model, or the adapter on its base model (merged in memory).

    ModelError when the folder holds no finished run, or when its base model is not the one it was trained on.
    """
    run = Path(run)
    card_file = run / "policy.json"
    if not card_file.is_file():
        raise ModelError(f"{run} holds no policy.json: give the folder that train_policy (or `trimtab train`) wrote")
    card = read_json(card_file, "a policy's card", trained.KINDS, error=ModelError)
    if not card.get("finished"):
        raise ModelError(f"{run}: its training is not finished; run the same training again to continue it")
    needs = {"settings.loss": dict, "settings.loss.beta?": NUMBER, "settings.reference?": (str, type(None))}
    settings = read_json(card_file, "a policy's card", needs, error=ModelError)["settings"]
    wanted = chosen_dtype(str(run), dtype, device)  # of both: a log-ratio between two precisions is noise
    base = resident(trained.base_of(run), wanted, device)  # a ModelError when it is another one by now
    lm = resident(str(run), wanted, device)
    reference = resident(settings["reference"], wanted, device) if settings.get("reference") else base
    beta = float(settings["loss"].get("beta", 0.1))
    return LoadedPolicy(Policy(lm, budget), Policy(reference, budget), beta, card)
