r"""COMPLETIONS to 0 or 1 by comparing mathematical answers, in worker processes with a time limit.

The gold answer is read whole or not at all, formulas by the grammar of math-verify (latex2sympy). Of a completion the
marked answer is read (\boxed, "the answer is ..."), else its last formula, else its last number. Nothing is evaluated
as Python; the scoring loop kills a worker that takes longer than `limit_s`.
"""

import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar

from trimtab.adapters import NAN, column, each
from trimtab.rewards import marks
from trimtab.rewards.equality import same
from trimtab.rewards.expressions import (
    Formula,
    Items,
    Number,
    Relation,
    Shape,
    Words,
    check_grammar,
    exactly,
    fold,
    read,
)
from trimtab.rewards.latex import tidy
from trimtab.rewards.magnitude import TooLarge
from trimtab.rewards.numbers import NUMBER, find_last
from trimtab.rewards.thoughts import UNFINISHED, Tags, answer_to
from trimtab.types import Completion, Group, Prompt, Reward

_WORDS = re.compile(r"\\(?:text\w*|mbox|begin|end|math\w+|operatorname\*?|overline)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_ASIDE = re.compile(
    r"([a-zA-Z-]{3,}) \(([\d.,]+)\)|(\d[^()]*) \([^()]*[a-zA-Z]{3}[^()]*\)"
)  # ten (10), 7 days (1 week)
_JOIN = re.compile(r"\s*(?:,|;|,?\s*(?:and|or))\s*")


MISSING = ("", "None", "nan", "NaN", "null", "N/A")
"""What tables write where they have no gold answer."""


@dataclass(frozen=True)
class MathAnswer:
    """1 when the completion's answer equals the gold one in `column`, else 0.

    The gold is a number, plain text ("72", "1/2"), LaTeX with or without dollars, or GSM8K's "... #### 72". One that is
    empty, prose or cannot be read whole is NaN with a note, and so is an answer too large to compute; a completion
    without an answer earns 0. A list of golds that are one answer written differently accepts that answer; a list of
    different ones means all of them. `tags`: see `thoughts`.
    """

    column: str = "answer"
    limit_s: float | None = 10.0
    tags: Tags = ()
    by_completion: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group]) -> list[list[Reward]]:
        check_grammar()  # also for an empty batch, which is how a worker warms up
        return each(self.one, groups)

    def one(self, prompt: Prompt, completion: Completion) -> Reward:
        """One completion's reward."""
        value = column(prompt, self.column)
        gold = _gold(tuple(value) if isinstance(value, list) else value)
        if gold is None:
            return Reward(NAN, f"the gold answer {str(value)[:60]!r} could not be parsed")
        text = answer_to(prompt, completion, self.tags)
        if text is None:
            return Reward(0.0, UNFINISHED)
        said = said_in(text)
        if said is None:
            return Reward(0.0, "no answer found")
        if isinstance(value, str) and tidy(said) == tidy(value):
            return Reward(1.0)
        answer = _answer(said, gold)
        if answer is None:
            return Reward(0.0, f"the answer {said[:60]!r} is no expression")
        try:
            return Reward(float(same(gold, answer)))
        except TooLarge:
            return Reward(NAN, f"the answer {said[:60]!r} has too many digits to compute")


math_answer = MathAnswer()


@lru_cache(maxsize=256, typed=True)
def _gold(value: Any) -> Shape | None:
    """The gold answer as a shape: JSON numbers by value, lists as one answer or all of them, text whole."""
    if isinstance(value, tuple):
        return _listed([_gold(v) for v in value])
    if isinstance(value, bool):
        return Words(str(value).casefold())
    if isinstance(value, int | float | Decimal | numbers.Real):
        return exactly(value if isinstance(value, int | Decimal) else float(value))
    if not isinstance(value, str) or value.strip() in MISSING:
        return None
    text = value.rsplit("####", 1)[-1].strip()
    found = None if "\\boxed" in text else read(text)
    if found is None and (said := marks.marked(value)):
        found = read(said)
    return found


def _listed(golds: Sequence[Shape | None]) -> Shape | None:
    shapes = [g for g in golds if g is not None]
    if not shapes or len(shapes) < len(golds):
        return None
    if all(same(shapes[0], g) for g in shapes[1:]):
        return shapes[0]
    return Items(",", tuple(shapes))


def said_in(text: str) -> str | None:
    """What a completion gives as its answer: marked, else its last formulas, else its last line or number."""
    marked = marks.marked(text)
    if marked and marked == marks.boxed(text):
        return _boxes(text)
    if marked:
        return marked
    found = [m for m in marks.FORMULA.finditer(text) if not re.search("[a-z]{3}", _WORDS.sub(" ", _formula(m)))]
    if found:
        return _run(text, found)
    line = next((x.strip() for x in reversed(text.splitlines()) if x.strip()), "")
    shape = read(line)
    return line if shape is not None and not isinstance(shape, Words) else find_last(text) or (line if shape else None)


def _boxes(text: str) -> str:
    r"""The contents of the boxes with which a text ends, with commas: of "\boxed{2} and \boxed{6}" too."""
    contents: list[str] = []
    start = None
    while box := marks.last_box(text, start):
        if start is not None and not _JOIN.fullmatch(text[box[1] : start].replace("$", "")):
            break
        contents.insert(0, box[2])
        start = box[0]
    return ", ".join(contents)


def _formula(found: re.Match[str]) -> str:
    return next(g for g in found.groups() if g is not None)


def _run(text: str, found: Sequence[re.Match[str]]) -> str:
    """The last formula, and those before it that belong to it: "$2$, $6$ and $11$"."""
    parts, start = [_formula(found[-1])], found[-1].start()
    for earlier in reversed(found[:-1]):
        if not _JOIN.fullmatch(text[earlier.end() : start]) or _kind(_formula(earlier)) != _kind(parts[0]):
            break
        parts.insert(0, _formula(earlier))
        start = earlier.start()
    return ", ".join(parts)


def _kind(formula: str) -> str:
    """A value, a letter with its value, or an equation: a step before the last formula is no part of the answer."""
    left, sign, _ = formula.partition("=")
    return "value" if not sign else "letter" if re.fullmatch(r"\s*[a-zA-Z](?:_\w)?\s*", left) else "equation"


def _answer(said: str, gold: Shape) -> Shape | None:
    """What was said as a shape; where that is a sentence, the formula or the number in it."""
    shape = read(said)
    if isinstance(gold, Number) and (aside := _ASIDE.fullmatch(said)):
        shape = read(aside[2] if aside[2] else aside[3]) or shape
    if isinstance(gold, Number) and not isinstance(shape, Number | Items):
        shape = read(re.sub(r"(?<=\d)\s+[mgshlLJNWVAKCF]$", "", said)) or shape  # a unit of one letter
    if shape is None and (isinstance(gold, Words) or (isinstance(gold, Formula) and len(gold.text) == 1)):
        return Words(fold(said))
    prose = isinstance(shape, Words) and isinstance(gold, Number) and not re.search(r"_\d+$", shape.text)
    if shape is not None and not prose:
        return shape
    formulas = [_formula(m) for m in marks.FORMULA.finditer(said)]
    if formulas:
        return read(formulas[-1])
    if isinstance(gold, Number | Relation) and (number := NUMBER.search(re.split("[=≈]", said)[-1])):
        return read(find_last(number[0]) or "")
    return shape
