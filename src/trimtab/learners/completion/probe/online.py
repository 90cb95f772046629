"""PROMPTS to a probe in rounds: sample with the current probe's policy, score what it takes, refit on all so far.

Q-Probe (arXiv 2402.14688) learns offline, from samples of the base model. Online, later labels are spent where the
policy already is: softmax(value / beta) among k completions. With `rounds` = 1 it is the offline fit. Sampler, reward
and fit are arguments; it holds no model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.types import Group, Prompt, RewardFn, Sampler, SamplingParams, completion_seed

DEFAULT = SamplingParams()


@dataclass(frozen=True)
class OnlineRound:
    """What a round ended with: the reward fitted on all labels so far, and the groups it was fitted on."""

    reward: RewardFn
    groups: tuple[Group, ...]
    labels: int
    """Completions scored so far."""
    mean_reward: float
    """Of the completions that this round scored: the reward of the policy that took them."""


def online_rounds(
    prompts: Sequence[Prompt], sampler: Sampler, score: Callable[[Sequence[Group]], Sequence[Group]],
    fit: Callable[[Sequence[Group]], RewardFn], *, rounds: int = 3, n: int = 8, k: int = 4, beta: float = 0.1,
    params: SamplingParams = DEFAULT, seed: int = 0,
) -> list[OnlineRound]:  # fmt: skip
    """`rounds` rounds of n new labels a prompt; each round's fitted reward chooses what the next one labels.

    score: groups to the same groups with rewards (`rewards.score`); fit: scored groups to a RewardFn (`fit_probe`,
    `fit_reranker`). From the second round on, n x k completions a prompt are sampled and one of every k is taken by
    softmax(value / beta); beta in the units of the fitted reward's values, divided by their spread within the round.
    Each round samples by a seed of its own, and the completions of a prompt are numbered through. InputError for
    settings below 1, or beta not above 0.
    """
    if min(rounds, n, k) < 1 or not beta > 0:
        raise InputError(f"rounds {rounds}, n {n} and k {k} must be at least 1 and beta {beta:g} above 0")
    done: list[OnlineRound] = []
    pool: list[Group] = []
    for number in range(rounds):
        own = replace(params, seed=completion_seed(params.seed, "round", number) if number else params.seed)
        if not done:
            drawn = list(sampler(prompts, n, own))
        else:
            drawn = _taken(sampler(prompts, n * k, own), done[-1].reward, k, beta, seed + number)
        fresh = list(score(drawn))
        rewards = np.concatenate([g.reward_N for g in fresh])
        pool = [_joined(a, b) for a, b in zip(pool, fresh, strict=True)] if pool else fresh
        labels = sum(len(g.completions) for g in pool)
        mean = float(np.nanmean(rewards)) if np.isfinite(rewards).any() else float("nan")
        done.append(OnlineRound(fit(pool), tuple(pool), labels, mean))
    return done


def _taken(groups: Sequence[Group], reward: RewardFn, k: int, beta: float, seed: int) -> list[Group]:
    """One completion of every k by softmax(value / (beta x spread)); an unscored one is never taken."""
    values = [np.array([r.value for r in row]) for row in reward(groups)]
    spread = float(np.nanstd(np.concatenate([v - np.nanmean(v) for v in values]))) or 1.0
    out = []
    for g, v in zip(groups, values, strict=True):
        rng = np.random.default_rng(completion_seed(seed, g.prompt.id))
        chosen = []
        for chunk in np.split(rng.permutation(len(v)), len(v) // k):
            logit = np.where(np.isfinite(v[chunk]), v[chunk] / (beta * spread), -np.inf)
            weight = np.exp(logit - logit.max()) if np.isfinite(logit).any() else np.ones(k)
            chosen.append(int(rng.choice(chunk, p=weight / weight.sum())))
        out.append(Group(g.prompt, tuple(g.completions[i] for i in chosen)))
    return out


def _joined(a: Group, b: Group) -> Group:
    """Both rounds' completions of one prompt, numbered through."""
    moved: list[Any] = [replace(c, index=len(a.completions) + i) for i, c in enumerate(b.completions)]
    return Group(a.prompt, (*a.completions, *moved), (*a.rewards, *b.rewards))
