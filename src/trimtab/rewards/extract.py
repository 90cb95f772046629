"""A completion's text to its answer, or None: pure functions, shared by rewards and majority vote."""

import functools
import re
from collections.abc import Callable
from typing import Any, cast

from trimtab.errors import InputError, unknown
from trimtab.named import load_named
from trimtab.rewards import marks, numbers
from trimtab.rewards.letters import letter_of
from trimtab.rewards.thoughts import answer_of

Extractor = Callable[[str], str | None]


def _of_answer(extract: Extractor) -> Extractor:
    """The same extractor, reading what is left when thoughts are gone; None while the thinking is unfinished."""

    @functools.wraps(extract)
    def read(text: str) -> str | None:
        answer = answer_of(text)
        return None if answer is None else extract(answer)

    return read


@_of_answer
def last_number(text: str) -> str | None:
    """The last number, in plain digits: "4 - 1 = 3." gives "3", "$1,250.50" gives "1250.5", "so 3/4" gives "0.75"."""
    return numbers.find_last(text)


def number(text: str) -> str | None:
    """A text that is one number, in plain digits without thousands separators or trailing zeros; None otherwise."""
    return numbers.alone(text)


@_of_answer
def boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...}, braces matched."""
    return marks.boxed(text)


@_of_answer
def answer_tag(text: str) -> str | None:
    """What stands in the last <answer>...</answer>, reasoning-gym's convention."""
    found = marks.TAG.findall(text)
    return (found[-1].strip() or None) if found else None


@_of_answer
def last_line(text: str) -> str | None:
    """The last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), None)


@_of_answer
def whole(text: str) -> str | None:
    """The whole text without surrounding space."""
    return text.strip() or None


@_of_answer
def choice(text: str) -> str | None:
    """The letter chosen: in <answer> or boxed, "the answer is C", "C is correct", a leading "C)", "(C)", a lone "C"."""
    return letter_of(text)


@_of_answer
def final(text: str) -> str | None:
    """The answer however it is marked: <answer>, boxed, "answer is ...", "#### ...", else the last line.

    A number stands in plain digits: "**$1,250**." gives "1250".
    """
    said = marks.bare(marks.marked(text) or last_line(text) or "")
    return number(said) or said or None


@_of_answer
def final_number(text: str) -> str | None:
    """The number in the marked answer ("The answer is 58 stamps, 2 more than before"), else the last of the text."""
    said = marks.marked(text)
    if said is None:
        return numbers.find_last(text)
    found = numbers.NUMBER.search(re.split("[=≈]", said)[-1])
    return numbers.find_last(found[0]) if found else None


EXTRACTORS: dict[str, Extractor] = {
    "last_number": last_number,
    "boxed": boxed,
    "answer_tag": answer_tag,
    "last_line": last_line,
    "whole": whole,
    "choice": choice,
    "final": final,
    "final_number": final_number,
}


def extractor(spec: str) -> Extractor:
    """An extractor by name, or the user's own as "package.module:function"; InputError for neither."""
    if ":" in spec:
        own: Any = load_named(spec, "extractor")
        if not callable(own):
            raise InputError(f"extractor {spec!r} is a {type(own).__name__}; write a function of the text")
        return cast(Extractor, own)
    if spec not in EXTRACTORS:
        raise unknown("answer extractor", spec, EXTRACTORS)
    return EXTRACTORS[spec]
