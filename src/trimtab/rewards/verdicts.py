"""A judge's text to a verdict: [[A]], [[B>>A]], [[7]], skill: 4; None where it says none. Prompts are ours.

The last marker counts, for judges quote the instructions before they decide. It asks no model.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from trimtab.types import Message, Prompt

PAIR_TEMPLATE = """You compare two answers to the same request. Judge how well each does what was asked: correctness \
first, then completeness, then clarity. Their length and their order say nothing about their quality.

<request>
{prompt}
</request>
{reference}
<answer_a>
{a}
</answer_a>

<answer_b>
{b}
</answer_b>

Think it over in a few sentences. End with exactly one of [[A]] (A is better), [[B]] (B is better) or [[C]] (a tie)."""

GRADED_TEMPLATE = PAIR_TEMPLATE.replace(
    "End with exactly one of [[A]] (A is better), [[B]] (B is better) or [[C]] (a tie).",
    "End with exactly one of [[A>>B]] (A is much better), [[A>B]] (A is better), [[A=B]] (about equal), [[B>A]] (B is "
    "better) or [[B>>A]] (B is much better).",
)
"""Arena-Hard's five grades."""

RATING_TEMPLATE = """Rate the last answer of this conversation from {low} (useless) to {high} (could not be better): \
does it do what was asked, is it correct, complete and clear?

<conversation>
{prompt}
</conversation>
{reference}
<answer>
{a}
</answer>

Think it over in a few sentences. End with the rating in double brackets, for example [[{low}]]."""

SKILLS_TEMPLATE = """Rate the answer on each of these skills from 1 (poor) to 5 (excellent).

<request>
{prompt}
</request>
{reference}
<answer>
{a}
</answer>

Skills: {skills}

Write one line a skill, in the form "skill: number", and nothing else."""


class Verdict(NamedTuple):
    """`value` 1: A is better, 0: B is, 0.5: a tie; `weight` 3 for Arena-Hard's "much better", else 1."""

    value: float
    weight: int = 1


_GRADES = {">>": (1.0, 3), ">": (1.0, 1), "=": (0.5, 1), "<": (0.0, 1), "<<": (0.0, 3)}
_MARK = re.compile(r"\[\[\s*(?:([AB])\s*(>>|>|=|<|<<)\s*([AB])|(A|B|C|tie))\s*\]\]", re.IGNORECASE)
_ALONE = re.compile(r"^\W*(?:answer\s+)?(A|B|C|tie)\W*$", re.IGNORECASE)


def parse_pair(text: str) -> Verdict | None:
    """The verdict of the last [[A]], [[B]], [[C]], [[tie]], [[A>>B]], [[A=B]], ...; or of a text that is one of these
    words and nothing else. None for anything else, [[A>A]] included."""
    found = list(_MARK.finditer(text))
    if not found:
        alone = _ALONE.match(text.strip())
        return _named(alone.group(1)) if alone else None
    first, sign, second, name = found[-1].groups()
    if name:
        return _named(name)
    if first.upper() == second.upper():
        return None
    value, weight = _GRADES[sign]
    return Verdict(value if first.upper() == "A" else 1 - value, weight)


def parse_rating(text: str, low: float, high: float) -> float | None:
    """The last number in double brackets, "[[7]]" or "[[7/10]]", else of a "Rating: 7"; None outside [low, high]."""
    found = re.findall(r"\[\[\s*(-?\d+(?:\.\d+)?)\s*(?:/\s*\d+)?\s*\]\]", text)
    found = found or re.findall(r"(?i)\b(?:rating|score)\s*(?:is|:|=)\s*\**\s*(-?\d+(?:\.\d+)?)", text)
    if not found or not low <= float(found[-1]) <= high:
        return None
    return float(found[-1])


def parse_skills(text: str, skills: Sequence[str], low: float = 1, high: float = 5) -> dict[str, float]:
    """The ratings of those `skills` that have a line "skill: number" (or "/5" behind it) within [low, high]."""
    out = {}
    for skill in skills:
        line = re.findall(rf"(?im)^\W*{re.escape(skill)}\W*?[:=]\W*?(\d+(?:\.\d+)?)", text)
        if line and low <= float(line[-1]) <= high:
            out[skill] = float(line[-1])
    return out


def fill(template: str, **parts: object) -> str:
    """The template with its {fields}; what is put in is never searched for fields."""
    return re.sub(r"\{(\w+)\}", lambda m: str(parts[m.group(1)]) if m.group(1) in parts else m.group(0), template)


def dialogue(messages: Sequence[Message]) -> str:
    """A prompt as text: its content alone when it is one message, else every message under its role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in messages)


def reference_of(prompt: Prompt, column: str) -> str:
    """The block that shows the judge the prompt's reference answer; empty when it has none."""
    text = prompt.columns.get(column)
    return f"\n<reference_answer>\n{text}\n</reference_answer>\n" if text else ""


def _named(name: str) -> Verdict:
    return Verdict({"a": 1.0, "b": 0.0}.get(name.lower(), 0.5))
