"""A reward and its PROMPTS to the name of the extractor that finds what completions can be counted by in a vote."""

from collections.abc import Sequence
from typing import Any

from trimtab.rewards.combine import Clip, StandardiseInGroup, Weighted
from trimtab.rewards.extract import number
from trimtab.rewards.instructions import Instructions
from trimtab.rewards.match import ExactMatch, MultipleChoice
from trimtab.rewards.math_answer import MathAnswer
from trimtab.rewards.reasoning_gym import ReasoningGym
from trimtab.rewards.unit_tests import UnitTests
from trimtab.types import Prompt, RewardFn

GOLDS = ("answer", "target", "gold", "label")


def extractor_for(reward: RewardFn | None, prompts: Sequence[Prompt]) -> str | None:
    """The name of the extractor for a majority vote among completions that this reward judges; None: nothing to count.

    The reward's own where it has one; else by the prompts' golds: "final_number" where all are numbers, "choice" where
    all are single letters, "final" for other texts. Programs, instructions and prompts without
    a gold have no answer that could be counted.
    """
    if isinstance(reward, Weighted):
        names = [extractor_for(part, prompts) for part, weight in reward.parts if weight > 0]
        return next((n for n in names if n is not None), None)
    if isinstance(reward, Clip | StandardiseInGroup):
        return extractor_for(reward.reward, prompts)
    if isinstance(reward, UnitTests | Instructions):
        return None
    if isinstance(reward, MultipleChoice):
        return "choice"
    if isinstance(reward, ReasoningGym) and reward.extract != "auto":
        return reward.extract
    if isinstance(reward, ExactMatch) and reward.extract != "whole":
        return reward.extract
    return _by_golds([_gold(reward, p) for p in prompts])


def _gold(reward: RewardFn | None, prompt: Prompt) -> Any:
    named = reward.column if isinstance(reward, ExactMatch | MathAnswer) else None
    gold = prompt.columns.get(named or next((c for c in GOLDS if c in prompt.columns), "answer"))
    return gold[0] if isinstance(gold, list | tuple) and gold else gold


def _by_golds(golds: Sequence[Any]) -> str | None:
    known = [str(g).rsplit("####", 1)[-1].strip() for g in golds if isinstance(g, str | int | float)]
    if not known:
        return None
    if all(number(g) is not None for g in known):
        return "final_number"
    if all(len(g.strip("()")) == 1 and g.strip("()").isalpha() for g in known):
        return "choice"
    return "final"
