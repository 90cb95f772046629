"""COMPLETIONS to REWARDS or preferences by one token of a prompted language model: "Prompt RM" and a small local judge.

Not a sampled verdict but the model's own probabilities of the choices at the first answer token: log P(Yes) - log
P(No) for one completion (the prompted reward model of Q-Probe's Table 1), P(A) against P(B) in both orders for two.
Deterministic, one forward pass a question, nothing to parse. It trains nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from trimtab.errors import InputError
from trimtab.lm.chat import encode_prompt
from trimtab.lm.forward import head_of
from trimtab.lm.load import LM, resident
from trimtab.lm.tree import length_buckets
from trimtab.rewards.verdicts import dialogue, fill
from trimtab.tensors import head_logits, pad_right
from trimtab.types import Completion, Group, Prompt, Reward

YES_NO = """Request:
{prompt}

Answer:
{a}

Does this answer do what was asked, correctly? Reply with Yes or No."""

A_OR_B = """Request:
{prompt}

Answer A:
{a}

Answer B:
{b}

Which answer does better what was asked? Reply with A or B."""


@dataclass(frozen=True)
class PromptReward:
    """log P(yes) - log P(no) at the first token of the model's reply; a `RewardFn`. Over-long questions are NaN."""

    model: str | LM
    template: str = field(default=YES_NO, repr=False)
    yes: str = "Yes"
    no: str = "No"
    batch_tokens: int = 2048
    dtype: str | None = None
    device: str | None = None
    by_completion: ClassVar[bool] = True
    limit_s: ClassVar[float | None] = None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion."""
        texts = [
            fill(self.template, prompt=dialogue(g.prompt.messages), a=c.text) for g in groups for c in g.completions
        ]
        lm = resident(self.model, self.dtype, self.device)
        odds = iter(log_odds(lm, texts, (self.yes, self.no), batch_tokens=self.batch_tokens))
        note = f"over-long: the question does not fit the {lm.context} tokens of {lm.name}"
        return [[Reward(v, note if math.isnan(v) else "") for v in (next(odds) for _ in g.completions)] for g in groups]


@dataclass(frozen=True)
class ChoiceJudge:
    """P(first is preferred) from the model's probabilities of "A" and "B", log-odds averaged over both orders."""

    model: str | LM
    template: str = field(default=A_OR_B, repr=False)
    batch_tokens: int = 2048
    both_orders: bool = True
    dtype: str | None = None
    device: str | None = None
    pairwise: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group], asked: Sequence[npt.NDArray[np.intp]]) -> list[npt.NDArray[np.float64]]:
        """A `Preference`; NaN where a question does not fit the model's context."""
        ways = ((0, 1), (1, 0)) if self.both_orders else ((0, 1),)
        texts = [
            self._text(g.prompt, g.completions[pair[a]], g.completions[pair[b]])
            for g, pairs in zip(groups, asked, strict=True)
            for pair in np.asarray(pairs, dtype=np.intp).reshape(-1, 2)
            for a, b in ways
        ]
        lm = resident(self.model, self.dtype, self.device)
        odds_QW = np.array(log_odds(lm, texts, ("A", "B"), batch_tokens=self.batch_tokens)).reshape(-1, len(ways))
        mean_Q = (odds_QW * np.array([1, -1])[: len(ways)]).mean(1)
        flat = 1 / (1 + np.exp(-mean_Q))
        cuts = np.cumsum([len(np.asarray(p).reshape(-1, 2)) for p in asked], dtype=int)[:-1]
        return list(np.split(flat, cuts)) if len(asked) else []

    def _text(self, prompt: Prompt, a: Completion, b: Completion) -> str:
        return fill(self.template, prompt=dialogue(prompt.messages), a=a.text, b=b.text)


@torch.inference_mode()
def log_odds(lm: LM, texts: Sequence[str], choices: tuple[str, str], *, batch_tokens: int = 2048) -> list[float]:
    """log P(first choice) - log P(second) at the first token after each user message, NaN where it does not fit.

    InputError when a choice has no token of its own (both begin with the same token).
    """
    ids = [lm.tokenizer(c, add_special_tokens=False)["input_ids"] for c in choices]
    if not all(ids) or ids[0][0] == ids[1][0]:
        raise InputError(f"{lm.name} writes the choices {choices} with the same first token; take other words")
    question_of = {t: i for i, t in enumerate(dict.fromkeys(texts))}  # equal completions are asked about once
    rows = [encode_prompt(lm.tokenizer, Prompt("question", ({"role": "user", "content": t},))) for t in question_of]
    out = [math.nan] * len(rows)
    fitting = [i for i, r in enumerate(rows) if len(r) < lm.context]
    for part in length_buckets([len(rows[i]) for i in fitting], batch_tokens):
        places = [fitting[i] for i in part]
        ids_BT, mask_BT = pad_right([rows[i] for i in places], 0, device=lm.model.device)
        last_B = mask_BT.sum(1) - 1
        states = lm.model(ids_BT, attention_mask=mask_BT, use_cache=False, output_hidden_states=True, logits_to_keep=1)
        state_BD = states.hidden_states[-1][torch.arange(len(places)), last_B]
        logit_BV = head_logits(state_BD, head_of(lm.model))
        for i, odds in zip(places, (logit_BV[:, ids[0][0]] - logit_BV[:, ids[1][0]]).tolist(), strict=True):
            out[i] = odds
    return [out[question_of[t]] for t in texts]
