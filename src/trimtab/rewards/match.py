"""COMPLETIONS to 0 or 1 by comparing text: exact match, regular expression, multiple choice."""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trimtab.adapters import NAN, column, each
from trimtab.errors import InputError, unknown
from trimtab.rewards.extract import extractor, final, number
from trimtab.rewards.letters import letter_of
from trimtab.rewards.marks import marked
from trimtab.rewards.numbers import NUMBER, find_last
from trimtab.rewards.thoughts import UNFINISHED, Tags, answer_to, names_tag
from trimtab.types import Completion, Group, Prompt, Reward


def as_is(text: str) -> str:
    """The text itself."""
    return text


def folded(text: str) -> str:
    """Case and runs of space ignored."""
    return " ".join(text.casefold().split())


def squad(text: str) -> str:
    """SQuAD's: case, punctuation, articles and runs of space ignored (Rajpurkar et al., arXiv 1606.05250)."""
    text = "".join(c for c in text.casefold() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


NORMALISERS: dict[str, Callable[[str], str]] = {"as_is": as_is, "folded": folded, "squad": squad}


@dataclass(frozen=True)
class ExactMatch:
    """1 when the extracted answer equals the gold one in `column` (text, number, or a list of accepted ones), else 0.

    `extract` names an answer extractor, `normalise` what is ignored on both sides. A number is compared by its value
    ("$1,250" is 1250), unless `normalise` is "as_is". A gold of None is NaN with a note. `tags`: see `thoughts`.
    """

    column: str = "answer"
    extract: str = "whole"
    normalise: str = "folded"
    tags: Tags = ()
    limit_s: ClassVar[float | None] = None
    by_completion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        extractor(self.extract)
        if self.normalise not in NORMALISERS:
            raise unknown("normaliser", self.normalise, NORMALISERS)

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        return each(self.one, groups)

    def one(self, prompt: Prompt, completion: Completion) -> Reward:
        """One completion's reward."""
        gold = column(prompt, self.column)
        accepted = [str(g) for g in (gold if isinstance(gold, list | tuple) else [gold]) if g is not None]
        accepted += [said for g in accepted if "####" in g and (said := marked(g))]  # GSM8K's "... #### 72"
        if not accepted:
            return Reward(NAN, f"column {self.column!r} holds no gold answer")
        text = answer_to(prompt, completion, self.tags)
        if text is None:
            return Reward(0.0, UNFINISHED)
        answer = extractor(self.extract)(text)
        if answer is None:
            return Reward(0.0, "no answer found")
        normalise = NORMALISERS[self.normalise]
        opened = self.extract in ("final", "boxed", "answer_tag")
        by_value = self.normalise != "as_is" and any(_same_number(g, answer, opened) for g in accepted)
        return Reward(float(by_value or normalise(answer) in map(normalise, accepted)))


def _same_number(gold: str, answer: str, opened: bool) -> bool:
    """Equal by value; of a marked answer the only number in it ("58 stamps in all"). Codes such as 007 are text."""
    value = number(gold)
    if value is None or re.match(r"\s*0\d", gold):
        return False
    if opened and (before := re.sub(r"\s+\([^()]*\)$", "", answer.rstrip(". "))):  # "10 (not 12)"
        answer = before
    if opened and not re.search("[a-zA-Z]", answer):
        answer = re.split("[=≈]", answer)[-1]  # 5 + 3 = 8
    found = NUMBER.findall(answer) if opened else ()
    return value == number(answer) or (len(found) == 1 and value == find_last(answer))


@dataclass(frozen=True)
class Regex:
    """1 when `pattern` (Python's syntax, flags inline as in "(?i)yes") is found anywhere in the answer, else 0.

    Thoughts are no part of it, unless the pattern itself names a tag of thoughts, as a reward for a form does.
    Python cannot interrupt a pattern that backtracks for ever: give such a one a `limit_s` and it runs in workers.
    """

    pattern: str
    limit_s: float | None = None
    by_completion: ClassVar[bool] = True

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as e:
            raise InputError(f"regular expression {self.pattern!r} is not valid: {e}") from e

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        return each(self.one, groups)

    def one(self, prompt: Prompt, completion: Completion) -> Reward:
        """One completion's reward."""
        text = completion.text if names_tag(self.pattern) else answer_to(prompt, completion)
        if text is None:
            return Reward(0.0, UNFINISHED)
        return Reward(float(re.search(self.pattern, text) is not None))


@dataclass(frozen=True)
class MultipleChoice:
    """1 when the chosen letter is the gold one, else 0. The gold in `column` is a letter, an index from 0, or one
    of the entries of the column `choices`; anything else is NaN with a note."""

    column: str = "answer"
    choices: str = "choices"
    tags: Tags = ()
    limit_s: ClassVar[float | None] = None
    by_completion: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        return each(self.one, groups)

    def one(self, prompt: Prompt, completion: Completion) -> Reward:
        """One completion's reward."""
        gold = self._letter(column(prompt, self.column), prompt.columns.get(self.choices))
        if gold is None:
            return Reward(
                NAN, f"the gold answer in {self.column!r} is neither a letter, an index nor one of the choices"
            )
        text = answer_to(prompt, completion, self.tags)
        if text is None:
            return Reward(0.0, UNFINISHED)
        choices = prompt.columns.get(self.choices)
        letter = letter_of(text) or self._named(final(text), choices)
        return Reward(float(letter == gold), "" if letter else "no choice found")

    @staticmethod
    def _named(said: str | None, choices: Any) -> str | None:
        """The letter of the option that is said in words, "The answer is Rome"."""
        if said is None or not isinstance(choices, list | tuple):
            return None
        places = [i for i, c in enumerate(choices) if folded(str(c)) == folded(said)]
        return string.ascii_uppercase[places[0]] if len(places) == 1 and places[0] < 26 else None

    @staticmethod
    def _letter(gold: Any, choices: Any) -> str | None:
        if isinstance(choices, list | tuple) and gold in choices:
            gold = choices.index(gold)
        if isinstance(gold, int) and not isinstance(gold, bool) and 0 <= gold < 26:
            return string.ascii_uppercase[gold]
        text = str(gold).strip(" ().").upper()
        return text if len(text) == 1 and text in string.ascii_uppercase else None
