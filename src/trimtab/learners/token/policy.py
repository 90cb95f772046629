"""A trained policy as an object of value: log-probs of completions, and their implicit reward as a RewardFn.

Σ_t β (log π − log π_ref) scores a finished completion ("From r to Q*", arXiv 2404.12358: the reward minus V*(s₀), a
constant of the prompt). So best-of-N, the softmax policy and West-of-N can spend a DPO policy like any reward model.
Values of different prompts do not compare. For *decoding* use log π alone (`trimtab.decoders.token`).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trimtab.errors import InputError, ModelError
from trimtab.learners.token.forward import TokenIds, completion_logprobs
from trimtab.models.chat import encode_completion, encode_prompt
from trimtab.models.load import LM, load_lm
from trimtab.tensors import pad_right
from trimtab.types import Group, Reward

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Policy:
    """A language model asked for log-probabilities; `budget` is the padded tokens of one forward."""

    lm: LM
    budget: int = 4096
    share_prompt: bool = True

    def logprobs(self, groups: Sequence[Group]) -> list[list[Floats]]:
        """Per-token log π of every completion, end token included when it has one; one float32 array a completion."""
        encoded = [self.encode(g) for g in groups]
        for g, (prompt, completions) in zip(groups, encoded, strict=True):
            if (size := len(prompt) + max(map(len, completions), default=0)) > self.lm.context:
                raise InputError(f"prompt {g.prompt.id!r}: {size} tokens exceed the context of {self.lm.context}")
        rows = completion_logprobs(
            self.lm.model, [p for p, _ in encoded], [c for _, c in encoded], budget=self.budget,
            share_prompt=self.share_prompt,
        )  # fmt: skip
        return [[np.array(row, dtype=np.float32) for row in group] for group in rows]

    @torch.no_grad()
    def next_logprobs(self, tokens: Sequence[TokenIds]) -> Floats:
        """log π of every next token after each sequence of token ids, shape (B, V)."""
        ids_BT, mask_BT = pad_right(tokens, 0, device=self.lm.model.device)
        last_B, where_B = torch.unique(mask_BT.sum(1) - 1, return_inverse=True)
        logits = self.lm.model(input_ids=ids_BT, use_cache=False, logits_to_keep=last_B).logits
        rows_B = torch.arange(len(tokens), device=logits.device)
        return torch.log_softmax(logits[rows_B, where_B].float(), -1).cpu().numpy()

    def encode(self, group: Group) -> tuple[list[int], list[list[int]]]:
        """Token ids of the prompt and of each completion; those the engine gave, where it gave them."""
        tokenizer, prompt = self.lm.tokenizer, group.prompt
        return encode_prompt(tokenizer, prompt), [encode_completion(tokenizer, c, prompt) for c in group.completions]


@dataclass(frozen=True)
class ImplicitReward:
    """A preference-trained policy as RewardFn: Σ_t β (log π − log π_ref) over a completion's tokens.

    NaN for a completion without tokens. A completion cut at the length limit is scored with a note: without its end
    token the sum is a partial return, not the reward.
    """

    policy: Policy
    reference: Policy
    beta: float = 0.1

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        ours, theirs = self.policy.logprobs(groups), self.reference.logprobs(groups)
        return [
            [self._one(c.finish, a, b) for c, a, b in zip(g.completions, x, y, strict=True)]
            for g, x, y in zip(groups, ours, theirs, strict=True)
        ]

    def _one(self, finish: str, logprob_T: Floats, ref_T: Floats) -> Reward:
        if not len(logprob_T):
            return Reward(math.nan, "no tokens to score")
        value = self.beta * float((logprob_T.astype(np.float64) - ref_T).sum())
        return Reward(value, "" if finish == "stop" else "cut at the length limit: a partial return")


@dataclass(frozen=True)
class LoadedPolicy:
    """A run of `train_policy` with its reference: `policy`, `reference`, and the `beta` it was trained with."""

    policy: Policy
    reference: Policy
    beta: float
    card: dict[str, Any] = field(compare=False, repr=False, default_factory=dict)

    @property
    def reward(self) -> ImplicitReward:
        """The implicit reward, ready for best-of-N."""
        return ImplicitReward(self.policy, self.reference, self.beta)


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
    card = json.loads(card_file.read_text())
    if not card.get("finished"):
        raise ModelError(f"{run}: its training is not finished; run the same training again to continue it")
    settings = card["settings"]
    base = load_lm(settings["model"], dtype, device)
    if base.id != card["model"]:
        raise ModelError(f"{run} was trained on {card['model']}, but {settings['model']} is now {base.id}")
    lm = load_lm(str(run), dtype, device)
    reference = load_lm(settings["reference"], dtype, device) if settings.get("reference") else base
    beta = float(settings["loss"].get("beta", 0.1))
    return LoadedPolicy(Policy(lm, budget), Policy(reference, budget), beta, card)
