"""COMPLETIONS to preferences and ratings by an LLM judge: any `Sampler`, both orders, retries, failures unscored.

A judge prefers what it reads first (or last): every pair is asked both ways round and the mean is the answer, so that a
constant bias cancels; how large it was is reported. A verdict that cannot be read is asked for again and then NaN,
never a tie. Cost is counted in calls and tokens. Judge with another model than the one that taught. Chat files are
`data.chat_evals`'s, win rates `evaluation.reward_models.win_rate`'s.
"""

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from trimtab.errors import EngineError, InputError
from trimtab.rewards.verdicts import (
    PAIR_TEMPLATE,
    RATING_TEMPLATE,
    SKILLS_TEMPLATE,
    Verdict,
    dialogue,
    fill,
    parse_pair,
    parse_rating,
    parse_skills,
    reference_of,
)
from trimtab.types import Completion, Group, Prompt, Reward, Sampler, SamplingParams, fingerprint

T = TypeVar("T")
JUDGING = SamplingParams(temperature=0.0, top_p=1.0, max_tokens=512)


@dataclass(frozen=True)
class Comparison:
    """One pair: the judge's preference for the first completion, shown first and shown second (NaN: unread), and cost.

    `weight` is the mean of the two verdicts' weights (Arena-Hard's "much better" counts 3).
    """

    shown_first: float
    shown_second: float
    weight: float
    calls: int
    tokens: int

    @property
    def preference(self) -> float:
        """P(first is preferred): the mean over both orders; NaN unless every order asked was read."""
        return (self.shown_first + self.shown_second) / 2


@dataclass(frozen=True)
class JudgeSummary:
    """What judging cost and how far the order decided it. `position_bias`: mean preference for the one shown first,
    minus one half; `consistent`: share of pairs whose two orders agree. Both NaN with one order."""

    comparisons: int
    unparsed: int
    calls: int
    tokens: int
    position_bias: float
    consistent: float


@dataclass(frozen=True)
class Judge:
    """A pairwise judge: a `Preference` over completions of one prompt, by any sampler.

    template    fields {prompt} {a} {b} {reference}; the reference is the prompt's column `reference`, if it has one.
    retries     times an unread verdict is asked for again, sampled at temperature 0.7 with another seed.
    both_orders False asks once, first completion as A: half the price, position bias included.
    """

    sampler: Sampler
    template: str = field(default=PAIR_TEMPLATE, repr=False)
    params: SamplingParams = JUDGING
    retries: int = 2
    both_orders: bool = True
    reference: str = "reference"
    pairwise: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group], asked: Sequence[npt.NDArray[np.intp]]) -> list[npt.NDArray[np.float64]]:
        """P(first is preferred) of every pair asked, NaN where the judge could not be read."""
        return [np.array([c.preference for c in row], dtype=float) for row in self.compare(groups, asked)]

    def compare(self, groups: Sequence[Group], asked: Sequence[npt.NDArray[np.intp]]) -> list[list[Comparison]]:
        """The comparisons of every group's pairs, with both orders and cost; a pair with a completion that failed is
        not asked."""
        orders = (0, 1) if self.both_orders else (0,)
        questions: list[tuple[Group, int, int, int]] = [
            (g, int(i), int(j), order)
            for g, pairs in zip(groups, asked, strict=True)
            for i, j in np.asarray(pairs, dtype=np.intp).reshape(-1, 2)
            for order in orders
        ]
        there = [not any(g.completions[k].failed for k in (i, j)) for g, i, j, _ in questions]
        prompts = [self._prompt(*q) for q, t in zip(questions, there, strict=True) if t]
        given = iter(ask(self.sampler, prompts, self.params, _pair, self.retries))
        replies = iter([next(given) if t else (None, 0, 0) for t in there])
        out = []
        for pairs in asked:
            row = []
            for _ in range(len(np.asarray(pairs).reshape(-1, 2))):
                said = [next(replies) for _ in orders]
                value = [math.nan if v is None else v.value for v, _, _ in said]
                weight = [v.weight for v, _, _ in said if v is not None]
                second = 1 - value[1] if self.both_orders else value[0]
                row.append(
                    Comparison(value[0], second, float(np.mean(weight)) if weight else math.nan,
                               sum(c for _, c, _ in said), sum(t for _, _, t in said))
                )  # fmt: skip
            out.append(row)
        return out

    def _prompt(self, group: Group, i: int, j: int, order: int) -> Prompt:
        a, b = (group.completions[k] for k in ((i, j) if order == 0 else (j, i)))
        text = fill(
            self.template, prompt=dialogue(group.prompt.messages), a=a.text, b=b.text,
            reference=reference_of(group.prompt, self.reference),
        )  # fmt: skip
        return _question(group.prompt, "judge", text)


def summarise(comparisons: Sequence[Sequence[Comparison]]) -> JudgeSummary:
    """Cost, unread verdicts, position bias and consistency of what `Judge.compare` gave."""
    flat = [c for row in comparisons for c in row]
    both = [(c.shown_first, c.shown_second) for c in flat if math.isfinite(c.preference)]
    first = np.array([(a + 1 - b) / 2 for a, b in both])  # preference for whichever was shown first
    return JudgeSummary(
        len(flat), len(flat) - len(both), sum(c.calls for c in flat), sum(c.tokens for c in flat),
        float(first.mean() - 0.5) if len(first) else math.nan,
        float(np.mean([a == b for a, b in both])) if both else math.nan,
    )  # fmt: skip


@dataclass(frozen=True)
class RatingJudge:
    """A rating of each completion alone from `low` to `high` (MT-Bench: 1 to 10); a `RewardFn`. Unread is NaN."""

    sampler: Sampler
    low: float = 1
    high: float = 10
    template: str = field(default=RATING_TEMPLATE, repr=False)
    params: SamplingParams = JUDGING
    retries: int = 2
    reference: str = "reference"
    by_completion: ClassVar[bool] = True
    limit_s: ClassVar[float | None] = None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One rating a completion."""
        parts = {"low": f"{self.low:g}", "high": f"{self.high:g}"}
        prompts = [_about(self.template, g.prompt, c, self.reference, **parts) for g in groups for c in g.completions]
        replies = iter(
            ask(self.sampler, prompts, self.params, lambda _, t: parse_rating(t, self.low, self.high), self.retries)
        )
        return [[_rated(*next(replies)) for _ in g.completions] for g in groups]


@dataclass(frozen=True)
class SkillJudge:
    """FLASK's protocol: the prompt's column `skills` names what to rate from 1 to 5; the reward is the mean.

    The note holds the single ratings as JSON. A reply that lacks a skill is asked for again, then unscored.
    """

    sampler: Sampler
    template: str = field(default=SKILLS_TEMPLATE, repr=False)
    params: SamplingParams = JUDGING
    retries: int = 2
    skills: str = "skills"
    reference: str = "reference"
    by_completion: ClassVar[bool] = True
    limit_s: ClassVar[float | None] = None

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """One reward a completion. InputError for a prompt that names no skills."""
        skills = {g.prompt.id: self._skills(g.prompt) for g in groups}
        prompts = [
            _about(self.template, g.prompt, c, self.reference, skills=", ".join(skills[g.prompt.id]))
            for g in groups
            for c in g.completions
        ]
        names = dict(
            zip((p.id for p in prompts), (skills[g.prompt.id] for g in groups for _ in g.completions), strict=True)
        )

        def parse(asked: Prompt, text: str) -> dict[str, float] | None:
            found = parse_skills(text, names[asked.id])
            return found if len(found) == len(names[asked.id]) else None

        replies = iter(ask(self.sampler, prompts, self.params, parse, self.retries))
        return [[_skilled(*next(replies)) for _ in g.completions] for g in groups]

    def _skills(self, prompt: Prompt) -> list[str]:
        skills = prompt.columns.get(self.skills)
        if not skills or isinstance(skills, str):
            raise InputError(f"prompt {prompt.id!r} has no list of skills in its column {self.skills!r}")
        return list(skills)


def _skilled(found: dict[str, float] | None, calls: int, tokens: int) -> Reward:
    if found is None:
        return Reward(math.nan, f"the judge did not rate every skill in {calls} calls")
    return Reward(float(np.mean(list(found.values()))), json.dumps(found))


def _pair(asked: Prompt, text: str) -> Verdict | None:
    return parse_pair(text)


def ask(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    parse: Callable[[Prompt, str], T | None],
    retries: int,
) -> list[tuple[T | None, int, int]]:
    """(what `parse` read, calls, tokens) for every prompt; unread ones are asked again together, up to `retries` times.

    A retry has another seed and at least temperature 0.7 (a greedy judge would only repeat itself). Prompts with one
    id are asked once. Tokens are those generated, words where the engine does not count. A judge that gives no answer
    (the sampler has tried its best) is not asked again; one that fails while it is asked again leaves them unread.
    """
    unique = list({p.id: p for p in prompts}.values())
    said: dict[str, tuple[T | None, int, int]] = {p.id: (None, 0, 0) for p in unique}
    todo = unique
    for attempt in range(retries + 1):
        if not todo:
            break
        again = replace(params, seed=params.seed + attempt, temperature=max(params.temperature, 0.7 if attempt else 0))
        try:
            groups = sampler(todo, 1, again)
        except EngineError as e:
            if not attempt:
                raise
            warnings.warn(f"{len(todo)} verdicts stay unread: {e}", stacklevel=2)  # the others are paid for
            break
        unread = []
        for p, g in zip(todo, groups, strict=True):
            c, (_, calls, tokens) = g.completions[0], said[p.id]
            paid = len(c.text.split()) if c.paid_tokens is None else round(c.paid_tokens)
            verdict = None if c.failed else parse(p, c.text)
            said[p.id] = (verdict, calls + 1, tokens + paid)
            unread += [p] if verdict is None and not c.failed else []
        todo = unread
    return [said[p.id] for p in prompts]


def _about(template: str, prompt: Prompt, c: Completion, reference: str, **parts: Any) -> Prompt:
    text = fill(
        template, prompt=dialogue(prompt.messages), a=c.text, reference=reference_of(prompt, reference), **parts
    )
    return _question(prompt, "rate", text)


def _question(prompt: Prompt, kind: str, text: str) -> Prompt:
    # by what it says: two pairs of one prompt are two questions, the same question twice is one
    return Prompt(f"{prompt.id}/{kind}/{fingerprint(text)[:16]}", ({"role": "user", "content": text},))


def _rated(value: float | None, calls: int, tokens: int) -> Reward:
    return Reward(math.nan, f"the judge gave no rating in {calls} calls") if value is None else Reward(value)


__all__ = ["Comparison", "Judge", "JudgeSummary", "RatingJudge", "SkillJudge", "Verdict", "ask", "summarise"]
