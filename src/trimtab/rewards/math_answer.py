"""COMPLETIONS to 0 or 1 by comparing mathematical answers with math-verify, in worker processes with a time limit.

math-verify's own limits use signal.alarm, which works only in a main thread and misses code that does not return to
Python; they are switched off, and the scoring loop kills a worker that takes longer than `limit_s`.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from trimtab.errors import InputError
from trimtab.rewards.adapters import NAN, column, each
from trimtab.types import Completion, Group, Prompt, Reward


@dataclass(frozen=True)
class MathAnswer:
    """1 when math-verify finds the completion's final answer equal to the gold one in `column`, else 0.

    The gold is plain ("72", "1/2"), LaTeX with or without dollars, or GSM8K's "... #### 72". A gold that cannot be
    parsed is NaN with a note; a completion without an answer earns 0.
    """

    column: str = "answer"
    limit_s: float | None = 10.0
    by_completion: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        _math_verify()  # also for an empty batch, which is how a worker warms up
        return each(self.one, groups)

    def one(self, prompt: Prompt, completion: Completion) -> Reward:
        """One completion's reward."""
        text = column(prompt, self.column)
        gold = () if text is None else _gold(str(text))
        if not gold:
            return Reward(NAN, f"the gold answer {str(text)[:60]!r} could not be parsed")
        answer = _parse(completion.text)
        if not answer:
            return Reward(0.0, "no answer found")
        return Reward(float(_math_verify().verify(list(gold), answer, timeout_seconds=None)))


math_answer = MathAnswer()


@lru_cache(maxsize=256)
def _gold(text: str) -> tuple[Any, ...]:
    text = text.rsplit("####", 1)[-1].strip()
    found = _parse(text)
    if not found and ("\\" in text or not re.search("[A-Za-z]{3}", text)):  # $none$ would parse as n * o * n * e
        found = _parse(f"${text}$")
    return tuple(found)


def _parse(text: str) -> list[Any]:
    return _math_verify().parse(text, parsing_timeout=None)


@lru_cache(maxsize=1)
def _math_verify() -> Any:
    try:
        import math_verify
    except ImportError as e:
        raise InputError("math-verify is not installed: pip install 'trimtab[tasks]'") from e
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own limits are off, as they must be
    return math_verify
