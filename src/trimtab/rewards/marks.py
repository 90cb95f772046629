r"""Where a completion says its answer, strongest sign first; shared by the extractors and by mathematics.

Strong: <answer>...</answer>, \boxed{...}, "#### ...", "final answer: ...", {"answer": ...}; of these the last one
counts. Then "the answer is ..." and "Answer: ...", the last one again. A tag or a box inside what is marked is opened.
"""

import re
from collections import deque

TAG = re.compile(r"<(?:final_)?answer>((?:(?!<(?:final_)?answer>).)*?)</(?:final_)?answer>", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_JSON_VALUE = re.compile(r"\"((?:[^\"\\\n]|\\.)+)\"|[^,}\]\n\"]+")
_BARE_BOX = re.compile(r"\d+(?:\.\d+)?|[A-Za-z](?![a-z])")
_BRACE = re.compile(r"(?<!\\)[{}]")
_WORD = r"(?:answers?|antwort|réponse|reponse|respuesta|resposta|risposta|答案|答え|ответ)"
_IS = (
    r"(?:\b(?:(?:would|should|must|will) be|is|are|was|equals|comes (?:out )?to"
    r"|ist|lautet|est|es|é|è)\b(?!\s+(?:not|n't)\b)"
    r"|[:：=是为は])"
)
_BETWEEN = r"[\s*_`\"]{0,20}(?:[^.:=\n]{0,50}?)"
_FINAL = re.compile(
    rf"[\"']{_WORD}[\"']\s*:\s*(?=\S)|"
    rf"(?:final|overall|correct final)[\s*_]{{1,6}}{_WORD}{_BETWEEN}(?:{_IS}|\n)[\s*_:#]*|^[ \t]*####[ \t]*(?=\S)|"
    rf"(?<=[.\s])####[ \t]*(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_SAYS = re.compile(
    rf"(?:(?<![a-z]){_WORD}{_BETWEEN}{_IS}|^[^\w\n]{{0,9}}{_WORD}[*_]*\s[-–—]+\s)[\s*_:]*"
    r"(?:(?:therefore|thus|hence|then|indeed|simply|equal to)\b[\s,:]*)*",
    re.IGNORECASE | re.MULTILINE,
)
_STOP = re.compile(
    r"(?<=[^.\s])(?<!\b[DMS][rst])(?<!\bMrs)(?<!\b[A-Z]\. [A-Z])"
    r"(?<!\b[A-Z]\.[A-Z])\.(?!\s[A-Z]\.)(?=\s+[A-Z(\\$*]|\s*$)"
    r"|,?\s+(?:because|since|which|so that|as the|where)\b|;\s|[!?。](?=\s|$)"
    r"|\s[-–—]+\s(?=[A-Za-z])"
)
FORMULA = re.compile(
    r"\$\$((?:(?!\$\$).)+)\$\$|(?<!\\)\$((?:[^$\n\\]|\\.)+)\$(?!\d)|"
    r"(?<!\\)\\\(((?:(?!\\\().)+?)\\\)|(?<!\\)\\\[((?:(?!\\\[).)+?)\\\]",
    re.DOTALL,
)


def boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} (or \fbox), braces matched; "\boxed 5" is 5. None when it is cut off."""
    found = last_box(text)
    return found[2] if found else None


def last_box(text: str, before: int | None = None) -> tuple[int, int, str] | None:
    """Where the last box begins and ends (before a place), and what is in it; None without one, or one cut off."""
    start = max(text.rfind("\\boxed", 0, before), text.rfind("\\fbox", 0, before))
    command = _BOX.match(text, start) if start >= 0 else None
    if command is None:
        return None
    at = command.end()
    if not text.startswith("{", at):
        bare = _BARE_BOX.match(text, at)
        return (start, bare.end(), bare[0]) if bare else None
    depth = 0
    for brace in _BRACE.finditer(text, at):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            inner = text[at + 1 : brace.start()].strip()
            return (start, brace.end(), inner) if inner else None
    return None


def marked(text: str) -> str | None:
    """What the strongest sign of an answer marks, as it stands there; None without any."""
    places = []
    if tag := _last(TAG, text):
        places.append((tag.start(), tag[1].strip()))
    if box := last_box(text):
        places.append((box[0], box[2]))
    if final := _last(_FINAL, text):
        places.append((final.start(), _said(text, final.end())))
    places = [(at, said) for at, said in places if said]
    if not places and (says := _last(_SAYS, text)):
        places = [(says.start(), _said(text, says.end()))]
    if not places:
        return None
    said = max(places)[1]
    inner = boxed(said) or said if "\\boxed" in said or "\\fbox" in said else said
    return inner or None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _said(text: str, at: int) -> str:
    """What follows a sign: a JSON value or a formula in dollars whole, else the line or statement."""
    if re.search(r"[\"']\s*:\s*\Z", text[max(0, at - 6) : at]) and (value := _JSON_VALUE.match(text, at)):
        return (value[1] or value[0]).strip()
    if maths := FORMULA.match(text, at):
        rest = text[maths.end() : maths.end() + 40]
        if not re.match(r"\s*(?:,|and\b|or\b|,\s*and\b)\s*(?:\$|\\\()", rest):
            return maths[0]
    line = text[at : (text.find("\n", at) + 1 or len(text) + 1) - 1]
    cut = _STOP.search(line)
    return (line[: cut.start()] if cut else line).strip()


def bare(said: str) -> str:
    """What is marked without emphasis, quotes, dollars around it and a full stop behind it."""
    before = None
    while said != before:
        before = said
        said = (
            re.sub(r"\*\*|__|</?(?:b|i|u|p|em|strong|code|span)>|<br\s*/?>", "", said)
            .strip()
            .strip('*_`"')
            .rstrip(".")
            .strip()
        )
        for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
            inner = said[len(opening) : -len(closing)]
            if (
                len(said) > 2 * len(opening)
                and said.startswith(opening)
                and said.endswith(closing)
                and "$" not in inner
            ):
                said = inner
    return said
