"""Completions from a transformers model: runs anything that transformers loads.

A prompt runs once and its cache is repeated for its completions; a row that ends leaves the batch. Every completion has
its own stream of uniform numbers, so its text does not depend on n or on its neighbours (up to floating-point noise of
the batch's shape). Log-probs are the model's own. For speed on a CPU use `OpenVINO`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.lm.load import LM, resident
from trimtab.lm.load import revision as revision_of
from trimtab.samplers.requests import check, completion, counted, encode
from trimtab.tensors import most_likely
from trimtab.types import Completion, Group, Prompt, SamplingParams, completion_seed


@dataclass(frozen=True)
class HF:
    """Samples from a catalogue model, a folder or an LM with torch; `batch` completions at once.

    `dtype` None means bfloat16 where the machine computes in it, else float32.
    """

    name: str | LM
    batch: int = 32
    device: str | None = None
    dtype: str | None = None

    @property
    def model(self) -> str:
        return self.name.id if isinstance(self.name, LM) else f"{self.name}@{revision_of(self.name)}"

    @property
    def context(self) -> int:
        """The most tokens that prompt and completion may have together."""
        return self._lm.context

    @property
    def _lm(self) -> LM:
        return resident(self.name, self.dtype, self.device)

    def lengths(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt, template included."""
        from trimtab.lm.chat import encode_prompt

        return [len(encode_prompt(self._lm.tokenizer, p)) for p in prompts]

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        """Exactly n completions a prompt, in order. InputError for prompts that do not fit the context."""
        check(n, params)
        lm = self._lm
        rows = encode(lm.tokenizer, prompts, params, lm.context, self.model)
        ends = lm.ends
        jobs = [(p, i) for p in sorted(range(len(prompts)), key=lambda p: len(rows[p])) for i in range(n)]
        groups: list[list[Completion]] = [[] for _ in prompts]
        for start in range(0, len(jobs), self.batch):
            chunk = jobs[start : start + self.batch]
            seeds = [completion_seed(params.seed, prompts[p].id, i) for p, i in chunk]
            began = time.perf_counter()
            written = _generate(lm, [rows[p] for p, _ in chunk], seeds, params, ends)
            seconds = (time.perf_counter() - began) / len(chunk)
            for (p, i), seed, (tokens, logprobs) in zip(chunk, seeds, written, strict=True):
                c = completion(lm.tokenizer, ends, lm.id, seed, i, tokens, logprobs, params.stop)
                groups[p].append(counted(c, len(rows[p]), n, seconds))
        return [Group(p, tuple(cs)) for p, cs in zip(prompts, groups, strict=True)]


@torch.inference_mode()
def _generate(
    lm: LM, prompts: list[list[int]], seeds: list[int], params: SamplingParams, ends: frozenset[int]
) -> list[tuple[list[int], list[float]]]:
    """(tokens, own log-probs) of each row; the end token is included. Equal prompts that stand together run once."""
    device = lm.model.device
    uniform_BT = np.stack([np.random.default_rng(s).random(params.max_tokens) for s in seeds])
    starts = [b for b, row in enumerate(prompts) if b == 0 or row != prompts[b - 1]]
    owner_B = torch.as_tensor(np.searchsorted(starts, np.arange(len(prompts)), side="right") - 1)
    logits_BV, cache, mask_BT = _prefill(lm, [prompts[b] for b in starts])
    cache.batch_select_indices(owner_B.to(device))
    logits_BV, mask_BT = logits_BV[owner_B], mask_BT[owner_B]
    out: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]
    alive = list(range(len(prompts)))
    for t in range(params.max_tokens):
        chosen_B = choose_tokens(logits_BV.float(), torch.as_tensor(uniform_BT[alive, t], device=device), params)
        logprob_B = torch.log_softmax(logits_BV.float(), -1).gather(1, chosen_B[:, None])[:, 0]
        for b, token, logprob in zip(alive, chosen_B.tolist(), logprob_B.tolist(), strict=True):
            out[b][0].append(token)
            out[b][1].append(min(logprob, 0.0))
        keep = [k for k, b in enumerate(alive) if not _done(lm, out[b][0], params, ends)]
        if not keep or t == params.max_tokens - 1:
            break
        if len(keep) < len(alive):
            kept = torch.as_tensor(keep, device=device)
            cache.batch_select_indices(kept)
            mask_BT, chosen_B = mask_BT[kept], chosen_B[kept]
            alive = [alive[k] for k in keep]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(alive), 1)], dim=1)
        position_B1 = mask_BT.sum(-1, keepdim=True) - 1
        logits_BV = lm.model(
            chosen_B[:, None], attention_mask=mask_BT, position_ids=position_B1, past_key_values=cache, use_cache=True
        ).logits[:, -1]
    return out


def _prefill(lm: LM, prompts: list[list[int]]) -> tuple[Tensor, Any, Tensor]:
    """Next-token logits (B, V), cache and mask (B, T) of prompts padded on the left, so that they end together."""
    from transformers import DynamicCache

    width = max(map(len, prompts))
    ids_BT = torch.zeros((len(prompts), width), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for b, row in enumerate(prompts):
        ids_BT[b, width - len(row) :] = torch.as_tensor(row)
        mask_BT[b, width - len(row) :] = 1
    ids_BT, mask_BT = ids_BT.to(lm.model.device), mask_BT.to(lm.model.device)
    cache = DynamicCache(config=lm.model.config)
    result = lm.model(
        ids_BT, attention_mask=mask_BT, position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0), past_key_values=cache,
        use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    return result.logits[:, -1], cache, mask_BT


def choose_tokens(logits_BV: Tensor, uniform_B: Tensor, params: SamplingParams) -> Tensor:
    """One token a row by inverting the cumulative distribution at `uniform_B`, shape (B,); temperature 0 is the argmax.

    Temperature first, then top-k, then top-p: the smallest set of most likely tokens whose mass reaches top_p.
    """
    if params.temperature == 0:
        return logits_BV.argmax(-1)
    p_BV = torch.softmax(logits_BV / params.temperature, -1)
    order_BV = None
    if params.top_k or params.top_p < 1:
        p_BV, order_BV = most_likely(p_BV, params.top_k, params.top_p)
    mass_BV = p_BV.double().cumsum(-1)
    at_B1 = torch.searchsorted(mass_BV, uniform_B.double()[:, None] * mass_BV[:, -1:], right=True)
    at_B1 = at_B1.clamp(max=p_BV.shape[-1] - 1)
    return (at_B1 if order_BV is None else order_BV.gather(1, at_B1))[:, 0]


def _done(lm: LM, tokens: list[int], params: SamplingParams, ends: frozenset[int]) -> bool:
    if tokens[-1] in ends:
        return True
    if not params.stop:
        return False
    # the end of the text is enough: an earlier stop string would have ended the row already
    window = max(len(s.encode()) for s in params.stop) + 8
    tail = lm.tokenizer.decode(tokens[-window:], skip_special_tokens=True)
    return any(s in tail for s in params.stop)
