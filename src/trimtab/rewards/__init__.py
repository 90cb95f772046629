"""COMPLETIONS to REWARDS: the scoring loop, verifiers, adapters for the user's functions, and ways to combine them."""

from collections.abc import Callable
from dataclasses import is_dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from trimtab.adapters import Lifted, Trl, Verifier, adapt, lift
from trimtab.errors import InputError, unknown
from trimtab.lazy import lazy
from trimtab.named import load_named
from trimtab.rewards.agreement import ExecutionAgreement
from trimtab.rewards.combine import Clip, StandardiseInGroup, Weighted
from trimtab.rewards.extract import EXTRACTORS, extractor
from trimtab.rewards.instructions import Instructions
from trimtab.rewards.judge import Judge, RatingJudge, SkillJudge
from trimtab.rewards.match import ExactMatch, MultipleChoice, Regex
from trimtab.rewards.math_answer import MathAnswer, math_answer
from trimtab.rewards.pairwise import FromReward, WinRate
from trimtab.rewards.reasoning_gym import ReasoningGym, task_name
from trimtab.rewards.score import score, unscored
from trimtab.rewards.unit_tests import UnitTests
from trimtab.rewards.voting import extractor_for
from trimtab.types import RewardFn

if TYPE_CHECKING:
    from trimtab.rewards.choices import ChoiceJudge, PromptReward
    from trimtab.rewards.reward_model import RewardModel

_HOMES = {"ChoiceJudge": "choices", "PromptReward": "choices", "RewardModel": "reward_model"}  # these need torch
_load, _dir = lazy(__name__, _HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = _load, _dir


def _later(name: str) -> Callable[..., RewardFn]:
    """A reward that is imported when it is made."""

    def make(**options: Any) -> RewardFn:
        return _load(name)(**options)

    return make


REWARDS: dict[str, Callable[..., RewardFn]] = {
    "exact_match": ExactMatch,
    "regex": Regex,
    "multiple_choice": MultipleChoice,
    "math_answer": MathAnswer,
    "reasoning_gym": ReasoningGym,
    "unit_tests": UnitTests,
    "execution_agreement": ExecutionAgreement,
    "instructions": Instructions,
    "prompt_reward": _later("PromptReward"),
    "reward_model": _later("RewardModel"),
}
USER_LIMIT_S = 30.0


def resolve(spec: str, **options: Any) -> RewardFn:
    """A reward by name: a built-in ("math_answer", "reasoning_gym/chain_sum") or the user's "package.module:name".

    `options` are the fields of a built-in or of the user's own dataclass. A user's function may have any of the shapes
    in adapters.py; it is imported from the installed packages or the current folder, and runs in worker processes with
    at most 30 s a call. InputError: unknown name or field, nothing to import, an unknown shape.
    """
    if task := task_name(spec):
        return _make(spec, ReasoningGym, {"task": task, **options})
    if ":" in spec:
        return _users(spec, options)
    if spec not in REWARDS:
        raise unknown("reward", spec, [*REWARDS, "reasoning_gym/<task>", "package.module:function"])
    return _make(spec, REWARDS[spec], options)


def _users(spec: str, options: dict[str, Any]) -> RewardFn:
    thing = load_named(spec, "reward")
    if isinstance(thing, type):
        thing = _make(spec, thing, options)
    elif options:
        raise InputError(f"reward {spec!r} is not a class, so it takes no options ({', '.join(options)})")
    if not (callable(thing) and (isinstance(thing, FunctionType) or is_dataclass(thing))):
        raise InputError(
            f"reward {spec!r} is a {type(thing).__name__}; write a function, or a frozen dataclass with __call__"
        )
    return thing if isinstance(thing, Verifier) else adapt(thing, USER_LIMIT_S)


def _make(spec: str, make: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return make(**options)
    except TypeError as e:
        raise InputError(f"reward {spec!r} refuses its options {options}: {e}") from e


__all__ = [
    "EXTRACTORS",
    "REWARDS",
    "ChoiceJudge",
    "Clip",
    "ExactMatch",
    "ExecutionAgreement",
    "FromReward",
    "Instructions",
    "Judge",
    "Lifted",
    "MathAnswer",
    "MultipleChoice",
    "PromptReward",
    "RatingJudge",
    "ReasoningGym",
    "Regex",
    "RewardModel",
    "SkillJudge",
    "StandardiseInGroup",
    "Trl",
    "UnitTests",
    "Verifier",
    "Weighted",
    "WinRate",
    "extractor",
    "extractor_for",
    "lift",
    "math_answer",
    "resolve",
    "score",
    "unscored",
]
