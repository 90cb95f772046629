"""Groups with rewards, or a live decoder, to what each strategy buys, in one table.

`compare` needs no model: it reads stored groups and integrates the choice out over disjoint chunks of k (Q-Probe's
protocol, arXiv 2402.14688), all on the same chunks. `evaluate` runs a decoder and scores the answers it gives.
Neither samples completions of its own, and neither fits anything.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np

from trimtab.adapters import score_answered
from trimtab.decoders.drive import DEFAULT
from trimtab.errors import InputError
from trimtab.evaluation.choosing import Extract, Values, check_groups, chunk_index, mean_tokens, rewards_of, strategies
from trimtab.evaluation.metrics import Expected, chosen_reward, expected_max
from trimtab.evaluation.table import GREEDY, Row, Table, row
from trimtab.types import AnyReward, Decoder, Group, Prompt, SamplingParams


def compare(
    groups: Sequence[Group], rankers: Mapping[str, Values] | None = None, *,
    greedy_groups: Sequence[Group] | None = None, k: int | None = None, beta: float = 0.1,
    soft: Sequence[str] | None = None, extract: Extract | None = None, permutations: int = 16, draws: int = 10_000,
    seed: int = 0,
) -> Table:  # fmt: skip
    """What every strategy among k stored completions buys, beside its nulls and the oracle.

    `rankers` maps a name to one value a completion, aligned with `groups`; each gives a row by argmax, and those named
    in `soft` (default all) one by softmax(value/β). `greedy_groups` hold one greedy completion a prompt, scored.
    `extract` gives the answer a completion votes for. `k` defaults to the smallest group. The expectation is over
    `permutations` random permutations a prompt (the paper uses 1), each cut in disjoint chunks of k; the oracle's is
    over all subsets (pass@k). Tokens are what the strategy generates a prompt: k completions, or one.
    InputError when groups are empty, unscored, smaller than k, or do not fit the values or the greedy groups.
    """
    k = check_groups(groups, k)
    index_P = chunk_index(groups, k, permutations, seed)
    chosen_by, notes = strategies(groups, rankers or {}, beta=beta, soft=soft, extract=extract)
    once = mean_tokens(groups)
    often = k * once
    if math.isnan(once):
        notes.append("tokens spent are unknown: the sampler gave neither tokens nor log-probs")
    settings: dict[str, Any] = {"draws": draws, "seed": seed}
    greedy = None
    if greedy_groups is None:
        notes.append("no greedy completions were given: no greedy row and no difference column")
    else:
        greedy = greedy_row(groups, greedy_groups, **settings)

    means = [chosen_reward(np.full(len(g.completions), 1 / len(g.completions)), g.reward_N) for g in groups]
    rows = [_row(groups, "pass@1", means, greedy, once, settings)]
    rows += [greedy] if greedy else []
    for strategy in chosen_by:
        rows.append(_row(groups, strategy.name, rewards_of(strategy, groups, index_P), greedy, often, settings))
    oracle = [expected_max(g.reward_N, k) for g in groups]
    rows.append(_row(groups, "oracle", oracle, greedy, often, settings))
    meta = {
        "k": k, "beta": beta, "prompts": len(groups), "completions": sum(len(g.completions) for g in groups),
        "unscored_completions": int(sum(np.isnan(g.reward_N).sum() for g in groups)), "permutations": permutations,
        "draws": draws, "seed": seed, "level": 0.95,
    }  # fmt: skip
    return Table(tuple(rows), tuple(notes + _warnings(groups)), meta)


def greedy_row(groups: Sequence[Group], greedy_groups: Sequence[Group], *, draws: int = 10_000, seed: int = 0) -> Row:
    """The row of the greedy completions of the prompts of `groups`, matched by prompt id. InputError names a prompt
    without one, and says so when no greedy completion was scored."""
    by_id = {g.prompt.id: g for g in greedy_groups if g.completions}
    missing = next((g.prompt.id for g in groups if g.prompt.id not in by_id), None)
    if missing is not None:
        raise InputError(f"prompt {missing} has no greedy completion; sample every evaluated prompt at temperature 0")
    ordered = [by_id[g.prompt.id] for g in groups]
    rewards = {g.prompt.id: float(g.reward_N[0]) for g in ordered}
    if np.isnan(list(rewards.values())).all():
        raise InputError("not one greedy completion has a reward; score them first (unscored is not zero)")
    tokens = mean_tokens([replace(g, completions=g.completions[:1], rewards=()) for g in ordered])
    return row(GREEDY, rewards, tokens=tokens, draws=draws, seed=seed)


def evaluate(
    decode: Decoder, prompts: Sequence[Prompt], reward: AnyReward, params: SamplingParams = DEFAULT, *, name: str = "",
    baseline: Row | None = None, draws: int = 10_000, seed: int = 0,
) -> Row:  # fmt: skip
    """What a live decoder earns on prompts, asked with `params`: its answers scored by `reward`, with the interval.

    `baseline`, the row of another `evaluate` on the same prompts, adds the paired difference; `table.tabulate` does so
    for a list of rows. The row is called `name`, by default the decoder's own. Tokens are those the decoder reports.
    InputError when a prompt comes twice, the decoder returns another number of answers, or the reward another shape.
    """
    if twice := [i for i, count in Counter(p.id for p in prompts).items() if count > 1]:
        raise InputError(f"prompt {twice[0]} comes twice; intervals over prompts need each once")
    answers = decode(prompts, params)
    if len(answers) != len(prompts):
        raise InputError(
            f"the decoder returned {len(answers)} answers for {len(prompts)} prompts; it must give one each"
        )
    scored = score_answered([Group(p, (a.completion,)) for p, a in zip(prompts, answers, strict=True)], reward)
    if [len(r) for r in scored] != [1] * len(prompts):
        raise InputError(f"the reward returned {len(scored)} lists for {len(prompts)} answers; it must give one each")
    tokens = float(np.mean([a.tokens for a in answers])) if answers else math.nan
    title = name or (type(decode).__name__ if is_dataclass(decode) else getattr(decode, "__name__", "decoder"))
    rewards = {p.id: r.value for p, (r,) in zip(prompts, scored, strict=True)}
    return row(title, rewards, baseline=baseline, tokens=tokens, draws=draws, seed=seed)


def _row(
    groups: Sequence[Group], name: str, expected: Sequence[Expected], greedy: Row | None, tokens: float,
    settings: dict[str, Any],
) -> Row:  # fmt: skip
    rewards = {g.prompt.id: e.reward for g, e in zip(groups, expected, strict=True)}
    unscored = float(sum(e.unscored for e in expected))
    return row(name, rewards, baseline=greedy, tokens=tokens, unscored=unscored, **settings)


def _why(groups: Sequence[Group]) -> str:
    notes = Counter(r.note for g in groups for r in g.rewards if math.isnan(r.value) and r.note)
    return f" (most often: {notes.most_common(1)[0][0]})" if notes else ""


def _warnings(groups: Sequence[Group]) -> list[str]:
    reward = np.concatenate([g.reward_N for g in groups])
    unscored = int(np.isnan(reward).sum())
    notes = []
    if unscored:
        notes.append(f"{unscored:,} of {len(reward):,} completions are unscored{_why(groups)}; they count in no mean")
    if np.ptp(reward[np.isfinite(reward)]) == 0:
        notes.append("every scored completion has the same reward: no strategy can buy anything")
    if len(groups) == 1:
        notes.append("one prompt gives no interval")
    cut = sum(c.finish == "length" for g in groups for c in g.completions)
    if cut:
        notes.append(f"{cut:,} of {len(reward):,} completions were cut at the token limit")
    return notes
