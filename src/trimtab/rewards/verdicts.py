"""A judge's text to a verdict: [[A]], [[B>>A]], [[7]], skill: 4; None where it says none. Prompts are ours.

A judge's decision counts; marks that it quotes, explains or would have given do not. It asks no model.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from trimtab.rewards.thoughts import answer_of
from trimtab.types import Message, Prompt, message_text

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
_NAME = r"(?:[AB]\s*(?:>>|>|=|<|<<)\s*[AB]|A|B|C|tie)"
_PAIR_MARK = re.compile(rf"\[\[\s*(?P<it>{_NAME})\s*\]\]", re.IGNORECASE)
_RATING_MARK = re.compile(r"\[\[\s*(?P<it>-?\d+(?:\.\d+)?(?:\s*/\s*\d+)?)\s*\]\]")
_DECIDES = (
    r"\b(?:verdict|decision|judge?ment|winner|preference|conclusion|choice|answer|result|rating|score|overall|rate)\b"
    r"[^.\n\[]{0,40}?(?:\bis\b|\bgoes to\b|\bof\b|\bas\b|[:=]|\n)[\s*_:`\"]*\Z"
)
_MENTIONS = re.compile(
    r"(?:[\"'`“‘][*_]*|\b(?:not|than|over|out of|instead of|preferred (?:it )?to|versus|vs\.?|ends? with|contains?"
    r"|includes?|says|writes|wrote|"
    r"claims|inserts|instructs|asks|prints|states|would have been|either|between|output|write|respond with|use|"
    r"(?:words?|text|string|marker?|phrase|token|label)s?)\s*(?:an?\s|the\s)?[\s*_]*)\Z",
    re.IGNORECASE,
)
_RULES = re.compile(
    r"[*_\s]*(?:[\"'`”’]\s*)?(?:(?:if|would|means|when|for a tie|or|vs\.?|versus)\b|,\s*(?:\[\[|or\b)"
    r"|/\s*\[\[)",
    re.IGNORECASE,
)
_EXPLAINED = re.compile(
    r"[*_\s]*\(\s*(?:if|for|a tie|(?:the\s+)?(?:assistant|answer|response|first|second)|A\b|B\b)", re.IGNORECASE
)
_WINNER = re.compile(
    r"\b(?:verdict|decision|judge?ment|winner|preference|preferred|chosen"
    r"|result)\b[\"']?\]?[^.\n]{0,30}?(?:\bis\b|[:=\]])"
    r"[\s*_`\"'\[(]{0,8}(?:(?:the\s+)?(?:assistant|response|answer|output|model|candidate"
    r"|option)[\s_]*)?[(\[*]*(?:(?P<it>[AB]\s*(?:>>|>|=|<|<<)\s*[AB]|(?:A|B|C|tie|draw)\b(?!['’]?[a-z]))"
    r"|(?<=[a-z][\s_])(?P<nth>[12])\b)",
    re.IGNORECASE,
)
_ALONE = re.compile(
    r"\W*(?:(?:answer|output|response|assistant|model|result)\W+)?(?P<it>[AB]\s*(?:>>|>|=|<|<<)\s*[AB]|A|B|C|tie)\W*",
    re.IGNORECASE,
)
_TAGGED = re.compile(
    r"(?:\\boxed\s*\{(?:\\text\s*\{)?|<(?:verdict|answer|decision|winner|choice)>)\W*(?P<it>A|B|C"
    r"|tie)\b",
    re.IGNORECASE,
)
_RANKS = re.compile(r"['\"]model['\"]\s*:\s*['\"](?P<it>\w+)['\"]\s*,\s*['\"]rank['\"]\s*:\s*1\b")
_TWO_SCORES = re.compile(r"\W*(\d+(?:\.\d+)?)[\s,]+(\d+(?:\.\d+)?)\W*")


def parse_pair(text: str) -> Verdict | None:
    """The verdict of a judge's text: its decision, not the marks that it quotes, rules out or explains.

    Marks are [[A]], [[B]], [[C]], [[tie]], [[A>>B]], [[A=B]] (MT-Bench, Arena-Hard); "Final verdict: A", "Winner: B",
    a text that is one of these words, JudgeLM's first line "8 6" and AlpacaEval's ranking are read too. None where it
    says nothing, two things, or is still thinking.
    """
    text = (answer_of(text) or "").strip("` \n")
    said, clear = _decided(text, _PAIR_MARK)
    if said is not None or not clear:
        return None if said is None else _verdict(said)
    if "[[" in text and "]]" not in text:  # cut off
        return None
    if alone := _ALONE.fullmatch(text.strip()):
        return _verdict(alone["it"])
    if ranked := _RANKS.search(text):
        name = ranked["it"].lower()
        return (
            _verdict({"model_1": "A", "model_2": "B", "m": "A"}.get(name, ""))
            if name in ("model_1", "model_2")
            else None
        )
    if tagged := list(_TAGGED.finditer(text)):
        return _verdict(tagged[-1]["it"])
    first = text.strip().split("\n", 1)[0]
    if scores := _TWO_SCORES.fullmatch(first):
        a, b = float(scores[1]), float(scores[2])
        return Verdict(0.5 if a == b else float(a > b))
    named = {m["it"].upper() if m["it"] else "AB"[int(m["nth"]) - 1] for m in _WINNER.finditer(text)}
    return _verdict(named.pop()) if len(named) == 1 else None


def _verdict(said: str) -> Verdict | None:
    found = re.fullmatch(r"([AB])\s*(>>|>|=|<|<<)\s*([AB])", said, re.IGNORECASE)
    if found is None:
        return Verdict({"a": 1.0, "b": 0.0}.get(said.lower(), 0.5)) if said else None
    first, sign, second = found.groups()
    if first.upper() == second.upper():
        return None
    value, weight = _GRADES[sign]
    return Verdict(value if first.upper() == "A" else 1 - value, weight)


def _decided(text: str, mark: re.Pattern[str]) -> tuple[str | None, bool]:
    """What the marks of a text decide, and whether other signs may be read: not where marks contradict or are quoted.

    First the last mark after a word such as "verdict"; then one that is a line of its own; then what all others say, or
    the one that ends the text.
    """
    found = list(mark.finditer(text))
    own = [m for m in found if not _is_mention(text, m)]
    decisions = [m for m in own if re.search(_DECIDES, text[max(0, m.start() - 80) : m.start()], re.IGNORECASE)]
    final = [m for m in decisions if re.search(r"\bfinal\b", text[max(0, m.start() - 80) : m.start()], re.IGNORECASE)]
    lines = [m for m in own if _is_line(text, m)]
    for some in (final, decisions, lines):
        if some:
            return some[-1]["it"], True
    values = {re.sub(r"\s", "", m["it"].upper()) for m in own}
    beside = len(own) > 1 and not text[own[-2].end() : own[-1].start()].strip(" ,/")
    if len(values) == 1 or (own and not beside and re.fullmatch(r"[\s.*_!]*", text[own[-1].end() :])):
        return own[-1]["it"], True
    return None, not found


def _is_mention(text: str, mark: re.Match[str]) -> bool:
    before, after = text[max(0, mark.start() - 40) : mark.start()], text[mark.end() : mark.end() + 20]
    if _RULES.match(after):
        return True
    quoted = re.match(r"[\"”]", after) and before[-1:] not in ('"', "“") and re.search(r"[\"“][^\"”]*\Z", before)
    quoted = quoted or (re.match(r"['’](?!\w)", after) and re.search(r"(?:^|\s)['‘]\w[^'’]*\Z", before))
    if re.search(_DECIDES, before, re.IGNORECASE):
        return bool(quoted)
    if _EXPLAINED.match(after) or re.search(r"\bprefer\w*\b[^.\n]*\bto\s*\Z", before, re.IGNORECASE):
        return True
    listed = re.search(r"\]\]\s*(?:,\s*or|or|,|/|vs\.?|versus|and)\s*$", before, re.IGNORECASE)
    return bool(listed or _MENTIONS.search(before)) or re.match(r"[\"'”’]", after) is not None


def _is_line(text: str, mark: re.Match[str]) -> bool:
    start, end = text.rfind("\n", 0, mark.start()) + 1, text.find("\n", mark.end())
    around = text[start : mark.start()] + text[mark.end() : end if end >= 0 else len(text)]
    return re.fullmatch(r"[\s*_#>.:`-]*", around) is not None


_VALUE = (
    r"[\s*_`\"'(\[:：]*(-?\d+(?:\.\d+)?(?:\s*(?:/|out of)\s*\d+)?)(?![\d%]|\.\d|,\d|,\s?\d+\s*\]|\s?(?:[-–]|to\b)\s?\d)"
)
_RATES = re.compile(
    r"(?:\b(?:rating|score|grade|mark|overall)s?\b|评分|得分)[*_\"'`]*(?:\s*\([^)\n]{0,40}\))?[^.\n:：=\d]{0,40}?"
    rf"(?:\bis\b|[:：=]|\s[-–—]\s|\n){_VALUE}|(?:\\boxed\s*\{{|<(?:rating|score|answer)>){_VALUE}",
    re.IGNORECASE,
)
_GIVES = re.compile(
    rf"\b(?:rate|give|score)s?\s+(?:it|(?:this|the)(?:\s+\w+)?)\s+(?:an?\s+)?{_VALUE}|\b(?:rating"
    rf"|score)\s+of\s+{_VALUE}",
    re.IGNORECASE,
)
_LONE_RATING = re.compile(r"[\s*_\[(#]*(?P<it>-?\d+(?:\.\d+)?(?:\s*/\s*\d+)?)[\s*_\])./]*")
_OUT_OF = re.compile(r"(?<![\d./])(?P<it>-?\d+(?:\.\d+)?\s*(?:/|out of)\s*\d+)(?![\d/])", re.IGNORECASE)


def parse_rating(text: str, low: float, high: float) -> float | None:
    """A judge's rating: "[[7]]", "[[7/10]]", "**Rating**: 7", "Score: 7/10", or a text that is a number.

    Its decision counts, not ratings that it quotes or would have given. None outside [low, high], on another scale
    ("4/5" of 10), or where it gives none or two.
    """
    text = (answer_of(text) or "").strip("` \n")
    said, clear = _decided(text, _RATING_MARK)
    if said is None and clear:
        said = _plain_rating(text)
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*(\d+))?", said, re.IGNORECASE) if said else None
    if found is None or (found[2] and float(found[2]) != high):
        return None
    return float(found[1]) if low <= float(found[1]) <= high else None


def _plain_rating(text: str) -> str | None:
    for pattern in (_RATES, _GIVES):
        if rates := list(pattern.finditer(text)):
            return rates[-1][1] or rates[-1][2]
    if lone := _LONE_RATING.fullmatch(text.strip().split("\n", 1)[0]) or _LONE_RATING.fullmatch(
        text.strip().rsplit("\n", 1)[-1]
    ):
        return lone["it"]
    shares = {m["it"] for m in _OUT_OF.finditer(text)}
    return shares.pop() if len(shares) == 1 else None


def parse_skills(text: str, skills: Sequence[str], low: float = 1, high: float = 5) -> dict[str, float]:
    """The ratings of those `skills` that have a line "skill: number" (or "/5" behind it) within [low, high]."""
    text = answer_of(text) or ""
    out = {}
    for skill in skills:
        line = re.findall(rf"(?im)^\W*{re.escape(skill)}\W*?[:=|]\W*?(\d+(?:\.\d+)?)", text)
        if line and low <= float(line[-1]) <= high:
            out[skill] = float(line[-1])
    return out


def fill(template: str, **parts: object) -> str:
    """The template with its {fields}; what is put in is never searched for fields."""
    return re.sub(r"\{(\w+)\}", lambda m: str(parts[m.group(1)]) if m.group(1) in parts else m.group(0), template)


def dialogue(messages: Sequence[Message]) -> str:
    """A prompt as text: its content alone when it is one message, else every message under its role."""
    if len(messages) == 1:
        return message_text(messages[0])
    return "\n\n".join(f"[{m['role']}]\n{message_text(m)}" for m in messages)


def reference_of(prompt: Prompt, column: str) -> str:
    """The block that shows the judge the prompt's reference answer; empty when it has none."""
    text = prompt.columns.get(column)
    return f"\n<reference_answer>\n{text}\n</reference_answer>\n" if text else ""
