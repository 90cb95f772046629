"""A completion's text to its answer, or None: pure functions, shared by rewards and majority vote."""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from trimtab.errors import unknown
from trimtab.named import load_named

Extractor = Callable[[str], str | None]
_NUMBER = re.compile(r"(?:(?<![\w)\]])[-−])?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_SAYS = re.compile(r"(?:answer\s*(?:is|:|=)|####)[ \t]*\**[ \t]*(.+)", re.IGNORECASE)
_CHOICES = (
    re.compile(r"(?i:answer|choice|option)\W{0,4}(?i:is|:|=)?\W{0,4}\b([A-Z])\b(?!')"),
    re.compile(r"^\W*([A-Z])(?:[).:*\]]|\W*$)"),
    re.compile(r"[(\[*]([A-Z])[)\]*]"),
    re.compile(r"\b([A-HJ-Z])\b(?!')"),  # a bare I is a pronoun
)


def last_number(text: str) -> str | None:
    """The last number, in plain digits: "4 - 1 = 3." gives "3", "$1,250.50" gives "1250.5", "x = −7" gives "-7"."""
    found = _NUMBER.findall(text)
    return number(found[-1]) if found else None


def number(text: str) -> str | None:
    """A text that is one number, in plain digits without thousands separators or trailing zeros; None otherwise."""
    try:
        value = Decimal(text.strip().replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None
    if not value.is_finite():
        return None
    return "0" if value == 0 else f"{value.normalize():f}"


def boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...}, braces matched."""
    start = text.rfind("\\boxed{")
    depth = 0
    for i in range(start + 6, len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + 7 : i].strip() or None
    return None


def answer_tag(text: str) -> str | None:
    """What stands in the last <answer>...</answer>, reasoning-gym's convention."""
    found = _TAG.findall(text)
    return (found[-1].strip() or None) if found else None


def last_line(text: str) -> str | None:
    """The last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), None)


def whole(text: str) -> str | None:
    """The whole text without surrounding space."""
    return text.strip() or None


def choice(text: str) -> str | None:
    """The letter chosen: in <answer> or boxed, "the answer is C", a leading "C)", "(C)", a lone "C"."""
    inner = answer_tag(text) or boxed(text)
    if inner and (found := re.search(r"\b([A-Z])\b", inner)):
        return found[1]
    for pattern in _CHOICES:
        if found := pattern.findall(text):
            return found[-1]
    return None


def final(text: str) -> str | None:
    """The answer however it is marked: <answer>, boxed, "answer is ..." or "#### ...", else the last line."""
    marked = answer_tag(text) or boxed(text)
    if marked is None and (says := _SAYS.findall(text)):
        marked = says[-1].strip().rstrip(".*").strip() or None
    return marked or last_line(text)


EXTRACTORS: dict[str, Extractor] = {
    "last_number": last_number,
    "boxed": boxed,
    "answer_tag": answer_tag,
    "last_line": last_line,
    "whole": whole,
    "choice": choice,
    "final": final,
}


def extractor(spec: str) -> Extractor:
    """An extractor by name, or the user's own as "package.module:function"; InputError for neither."""
    if ":" in spec:
        return load_named(spec, "extractor")
    if spec not in EXTRACTORS:
        raise unknown("answer extractor", spec, EXTRACTORS)
    return EXTRACTORS[spec]
