"""Search inside a model, as SAMPLERS that a lever asks like any other: likelihood beams, best-of-n by chunks.

"From r to Q*" (arXiv 2404.12358, eq. 12-13): for a DPO policy, searching the reward is searching Σ log π alone, because
Σ β log π/π_ref telescopes to the reward and the shaping. So the objective is the *sum*, the end token included, with no
division by length (Hugging Face's `num_beams` divides by default). Sequences without an end token have no such value:
they are kept only when nothing ended (`require_end`). It trains nothing, and refuses stop strings.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.decoders.select import argmax
from trimtab.errors import InputError
from trimtab.lm.chat import encode_prompt, end_length
from trimtab.lm.growing_tree import TokenTree
from trimtab.lm.load import LM
from trimtab.tensors import most_likely
from trimtab.types import (
    Completion,
    Group,
    Prompt,
    Reward,
    RewardFn,
    SamplingParams,
    Usage,
    completion_seed,
    describe,
)

_Row = Sequence[tuple[int, float]]
"""Tokens and their log-probs."""


@dataclass(frozen=True)
class _Hypothesis:
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    objective: float
    ended: bool


@dataclass(frozen=True)
class BeamSearch:
    """Likelihood beam search: the completion of highest Σ log π that `width` beams find; its group is the n-best.

    objective = (Σ log π − reference_weight · Σ log π_ref) / length^length_penalty ranks the n-best and is each one's
    reward; Σ log π alone is the sum of a completion's log-probs. With the defaults the objective is the paper's.
    The search then stops as soon as no live beam can win (sums only fall), and never returns less than a beam search
    that reorders caches. `width` at or above the number of sequences makes it exhaustive.
    """

    lm: LM
    width: int = 5
    length_penalty: float = 0.0
    reference: LM | None = None
    reference_weight: float = 0.0
    require_end: bool = True
    batch: int = 8
    """Prompts searched at once."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"beam search needs a width of at least 1, got {self.width}")
        if self.reference_weight and self.reference is None:
            raise InputError("reference_weight needs a reference model")

    @property
    def model(self) -> str:
        return self.lm.id

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides the texts: part of a stored table's identity."""
        names = ("width", "length_penalty", "reference_weight", "require_end")
        reference = self.reference.id if self.reference else None
        return {"beam_search": {k: getattr(self, k) for k in names} | {"reference": reference}}

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        """The n best, best first, with the objective as reward; of `params` only max_tokens has a part in it. Where
        fewer were found the others are failed completions. InputError for n above the width."""
        _check("beam search", n, params)
        if n > self.width:
            raise InputError(f"beam search of width {self.width} cannot give {n} completions; raise the width")
        encoded = [_fitting(self.lm, p, params.max_tokens) for p in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        found: dict[int, Group] = {}
        for i in range(0, len(order), self.batch):
            part, began = order[i : i + self.batch], time.perf_counter()
            best = self._search([encoded[j] for j in part], params.max_tokens)
            seconds = (time.perf_counter() - began) / len(part)
            for j, hypotheses in zip(part, best, strict=True):
                usage = _spent(len(encoded[j]), sum(len(h.tokens) for h in hypotheses), seconds, n)
                found[j] = self._group(prompts[j], hypotheses, n, usage)
        return [found[i] for i in range(len(prompts))]

    def _group(self, prompt: Prompt, best: Sequence[_Hypothesis], n: int, usage: Usage) -> Group:
        completions = [
            _completion(self.lm, h.tokens, h.logprobs, i, h.ended, usage=usage) for i, h in enumerate(best[:n])
        ]
        rewards = [Reward(self.value(h), "" if h.ended else "cut before the end token") for h in best[:n]]
        for i in range(len(best), n):
            note = f"there are only {len(best)} answers of so few tokens"
            completions.append(Completion("", self.lm.id, 0, i, "error", note=note))
            rewards.append(Reward(math.nan, note))
        return Group(prompt, tuple(completions), tuple(rewards))

    def value(self, hypothesis: _Hypothesis) -> float:
        """The objective of a finished hypothesis."""
        return hypothesis.objective / len(hypothesis.tokens) ** self.length_penalty

    def _search(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[_Hypothesis]]:
        ends = _ends(self.lm)
        trees = [TokenTree(self.lm.model, prompts)]
        weights = [1.0]
        if self.reference is not None and self.reference_weight:
            trees.append(TokenTree(self.reference.model, prompts))
            weights.append(-self.reference_weight)
        state = _Beams(self, ends, len(prompts))
        next_KV = [t.first_logprobs_BV[:, None] for t in trees]
        for step in range(max_tokens):
            parents_BK, tokens_BK = state.extend(next_KV, weights, last=step == max_tokens - 1)
            if (kept := state.drop_done()) is not None:
                if not len(kept):
                    break
                parents_BK, tokens_BK = parents_BK[kept], tokens_BK[kept]
                for t in trees:
                    t.keep(kept)
            if step < max_tokens - 1:
                next_KV = [t.grow(parents_BK, tokens_BK) for t in trees]
        return state.results()


class _Beams:
    """Live and finished beams of a batch of prompts; the arithmetic of beam search, without a model."""

    def __init__(self, search: BeamSearch, ends: Sequence[int], prompts: int):
        self.search, self.ends = search, torch.tensor(sorted(ends))
        self.rows = list(range(prompts))
        self.finished: list[list[_Hypothesis]] = [[] for _ in range(prompts)]
        self.live: list[list[_Hypothesis]] = [[_Hypothesis((), (), 0.0, False)] for _ in range(prompts)]

    def extend(self, next_BKV: Sequence[Tensor], weights: Sequence[float], *, last: bool) -> tuple[Tensor, Tensor]:
        """One token on every live beam: the `width` best that do not end stay live, those that end are finished."""
        width, logprob_BKV = self.search.width, next_BKV[0]
        gain_BKV = sum(w * x for w, x in zip(weights, next_BKV, strict=True)) if len(weights) > 1 else logprob_BKV
        K, V = logprob_BKV.shape[1:]
        score_BK = torch.tensor(
            [[h.objective for h in self.live[r]] + [-torch.inf] * (K - len(self.live[r])) for r in self.rows]
        )
        total_BKV = score_BK.to(gain_BKV)[:, :, None] + gain_BKV
        ending_BKE = total_BKV[:, :, self.ends].clone()
        total_BKV[:, :, self.ends] = -torch.inf
        top = total_BKV.flatten(1).topk(min(width, K * V), dim=1)
        parents_BK, tokens_BK = top.indices // V, top.indices % V
        chosen_BK = logprob_BKV.flatten(1).gather(1, top.indices).tolist()
        ended = logprob_BKV[:, :, self.ends].tolist(), ending_BKE.tolist()
        for b, r in enumerate(self.rows):
            before = self.live[r]
            for k, h in enumerate(before):
                for e, token in enumerate(self.ends.tolist()):
                    self._finish(r, h, token, ended[0][b][k][e], ended[1][b][k][e])
            grown = zip(
                parents_BK[b].tolist(), tokens_BK[b].tolist(), chosen_BK[b], top.values[b].tolist(), strict=True
            )
            self.live[r] = [
                _Hypothesis((*before[p].tokens, t), (*before[p].logprobs, x), s, False)
                for p, t, x, s in grown
                if s > -torch.inf
            ]
            self.finished[r] = sorted(self.finished[r], key=self._rank)[:width]
        if last:
            self._cut()
        return parents_BK, tokens_BK

    def drop_done(self) -> Tensor | None:
        """Indices of the rows that go on, when dropping the others is worth it (all done, or at least half)."""
        going = [b for b, r in enumerate(self.rows) if not self._done(r)]
        if len(going) > len(self.rows) // 2:
            return None
        self.rows = [self.rows[b] for b in going]
        return torch.tensor(going, dtype=torch.long)

    def results(self) -> list[list[_Hypothesis]]:
        """The best hypotheses of each prompt, best first; never empty."""
        return [sorted(x, key=self._rank)[: self.search.width] for x in self.finished]

    def _rank(self, h: _Hypothesis) -> tuple[bool, float]:
        return (self.search.require_end and not h.ended, -self.search.value(h))

    def _finish(self, row: int, h: _Hypothesis, token: int, logprob: float, objective: float) -> None:
        if objective > -torch.inf:
            self.finished[row].append(_Hypothesis((*h.tokens, token), (*h.logprobs, logprob), objective, True))

    def _done(self, row: int) -> bool:
        if not self.live[row]:
            return True
        ended = [h for h in self.finished[row] if h.ended]
        if self.search.length_penalty or self.search.reference_weight:  # a longer one may still overtake
            return len(ended) >= self.search.width and self.search.value(ended[-1]) >= self.search.value(
                self.live[row][0]
            )
        return len(ended) >= 1 and ended[0].objective >= self.live[row][0].objective

    def _cut(self) -> None:
        for r in self.rows:
            self.finished[r] += self.live[r]
            self.live[r] = []


@dataclass(frozen=True)
class ChunkedBestOfN:
    """Best-of-n inside an answer: draw n continuations of `chunk` tokens, keep the best under a reward, go on from it.

    The reward sees partial answers (finish "length"); a reward that is NaN is never chosen. `chunk` at or above
    `max_tokens` is plain best-of-n. Every completion asked for is a search of its own, with its own seed.
    """

    lm: LM
    reward: RewardFn
    n: int = 4
    chunk: int = 32

    @property
    def model(self) -> str:
        return self.lm.id

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides the texts: part of a stored table's identity."""
        return {"chunked_best_of_n": {"n": self.n, "chunk": self.chunk, "reward": describe(self.reward)}}

    def __call__(self, prompts: Sequence[Prompt], n: int, params: SamplingParams) -> list[Group]:
        """Groups with the reward of each whole answer. InputError when the reward scores no partial answer."""
        _check("best-of-n by chunks", n, params)
        return [self._group(p, [self._one(p, i, params) for i in range(n)]) for p in prompts]

    def _group(self, prompt: Prompt, found: Sequence[tuple[Completion, Reward]]) -> Group:
        completions, rewards = zip(*found, strict=True)
        return Group(prompt, completions, rewards)

    def _one(self, prompt: Prompt, index: int, params: SamplingParams) -> tuple[Completion, Reward]:
        began, seed = time.perf_counter(), completion_seed(params.seed, prompt.id, index)
        rng = torch.Generator().manual_seed(seed)
        ends, row = set(_ends(self.lm)), _fitting(self.lm, prompt, params.max_tokens)
        tree = TokenTree(self.lm.model, [row])
        next_NV = tree.first_logprobs_BV.expand(self.n, -1)
        rows: list[list[tuple[int, float]]] = [[] for _ in range(self.n)]
        spent, reward = 0, Reward(math.nan)
        for step in range(params.max_tokens):
            done = [bool(r) and r[-1][0] in ends for r in rows]
            spent += self.n - sum(done)
            for i, t in enumerate(_drawn(next_NV, params, rng)):
                if not done[i]:
                    rows[i] = [*rows[i], (t, next_NV[i, t].item())]
            parents, last = list(range(self.n)), step == params.max_tokens - 1
            if (step + 1) % self.chunk == 0 or last or all(r[-1][0] in ends for r in rows):
                best, reward = self._best(prompt, rows, ends, params.seed)
                rows, parents = [rows[best]] * self.n, [best] * self.n
                if last or rows[0][-1][0] in ends:
                    break
            tokens = torch.tensor([[r[-1][0] for r in rows]])
            # parents are chosen after the draw: grow the drawn tokens under their own, then continue from the best
            next_NV = tree.grow(torch.tensor([parents]), tokens)[0]
        usage = _spent(len(row), spent, time.perf_counter() - began, 1)
        return self._written(rows[0], index, ends, seed, usage), reward

    def _best(self, prompt: Prompt, rows: Sequence[_Row], ends: set[int], seed: int) -> tuple[int, Reward]:
        """The row of the highest reward, and that reward."""
        group = Group(prompt, tuple(self._written(r, i, ends) for i, r in enumerate(rows)))
        rewards = self.reward([group])[0]
        best = argmax([r.value for r in rewards], np.random.default_rng(seed))
        if best is None:
            raise InputError(f"prompt {prompt.id!r}: the reward scored no partial answer; it cannot guide a search")
        return best, rewards[best]

    def _written(self, row: _Row, index: int, ends: set[int], seed: int = 0, usage: Usage | None = None) -> Completion:
        tokens, logprobs = zip(*row, strict=True)
        return _completion(self.lm, tokens, logprobs, index, tokens[-1] in ends, seed, usage)


def _drawn(next_NV: Tensor, params: SamplingParams, rng: torch.Generator) -> list[int]:
    """A token a row, drawn as `params` say."""
    if params.temperature == 0:
        return next_NV.argmax(-1).tolist()
    p_NV = torch.softmax(next_NV / params.temperature, -1)
    if not params.top_k and params.top_p == 1:
        return torch.multinomial(p_NV, 1, generator=rng)[:, 0].tolist()
    p_NK, token_NK = most_likely(p_NV, params.top_k, params.top_p)
    return token_NK.gather(1, torch.multinomial(p_NK, 1, generator=rng))[:, 0].tolist()


def _check(what: str, n: int, params: SamplingParams) -> None:
    if n < 1 or params.max_tokens < 1:
        raise InputError(f"{what} needs n and max_tokens of at least 1, got {n}, {params.max_tokens}")
    if params.stop:
        raise InputError(f"{what} ends an answer at the model's end token; leave out stop = {params.stop}")


def _spent(prompt: int, written: int, seconds: float, n: int) -> Usage:
    """One completion's share of a search that gave n."""
    return Usage(prompt / n, 0.0, written / n, 1 / n, seconds / n)


def _ends(lm: LM) -> list[int]:
    """Token ids that end an answer, as for a sampler. InputError when the model has none."""
    ids = sorted(lm.ends)
    if not ids:
        raise InputError(f"{lm.name} has no end token, so no answer of it can end")
    return ids


def _fitting(lm: LM, prompt: Prompt, max_tokens: int) -> list[int]:
    ids = encode_prompt(lm.tokenizer, prompt)
    if len(ids) + max_tokens > lm.context:
        raise InputError(
            f"prompt {prompt.id!r} has {len(ids)} tokens; with max_tokens {max_tokens} it exceeds the context "
            f"of {lm.name}, {lm.context}: lower max_tokens or shorten the prompt"
        )
    return ids


def _completion(
    lm: LM, tokens: tuple[int, ...], logprobs: tuple[float, ...], index: int, ended: bool, seed: int = 0,
    usage: Usage | None = None,
) -> Completion:  # fmt: skip
    end = end_length(lm.tokenizer, tokens, frozenset(tokens[-1:])) if ended else 0
    text = lm.tokenizer.decode(tokens[: len(tokens) - end], skip_special_tokens=True)
    return Completion(text, lm.id, seed, index, "stop" if ended else "length", tokens, logprobs, usage)
