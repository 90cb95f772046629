r"""A completion's text to the letter it chooses among lettered options, strongest sign first.

1. A letter in <answer> or \boxed. 2. "the answer is C", "Answer: (c)". 3. "C is correct", "the correct one is C", "I
choose C". 4. A text or last line that begins with "C)" or is a letter. 5. Letters mentioned and not rejected: the last
one, unless it stands in "A or B". Rejected letters ("not B", "A and B are wrong") never count. A lower-case letter
counts only where nothing but a letter can stand: alone, before ")" or ".", or after "answer:".
"""

import re
import unicodedata

from trimtab.rewards import marks

_L = r"(?:\$\s*)?(?:\\(?:text|mathrm|mathbf|textbf)\s*\{\s*)?[\s*_`\"'(\[{]{0,6}"
_R = r"[)\]}*_`\"']{0,6}"
_OPTION = (
    r"(?:(?:the|an?|my|is|be|letter|option|choice|answer|statement|number|correct|one|definitely|clearly|probably|most|"
    r"likely|therefore|thus|indeed|simply)\s+){0,4}"
)
_UP = r"(?-i:[A-Z])(?![A-Za-z0-9]|['’][a-z]|\s?[-+=/^_]\s?[^\W_])"
_LOW = r"(?-i:[a-z])(?=[)\]}*_`\"']*\s*(?:$|[).,:;]|\n|(?:because|since)\b))"
_EITHER = rf"(?:{_UP}|{_LOW})"
_UNSURE = r"(?!\s*[)\]*]*\s*(?:\?|(?:or|/|and)\s+[(*\"]*(?-i:[A-Z])\b))"
_SAYS = re.compile(
    rf"(?:(?:answer|antwort|respuesta|réponse|choice|option|selection|decision)s?\b[\s*_`\"]{{0,6}}"
    rf"(?:[^.:=?\n]{{0,40}}?\s)??(?:(?:is|would be|should be|must be|was)(?:\s*[:：])?"
    rf"|[:：=])|答案[是为]?[:：]?|答えは)\s*"
    rf"{_L}{_OPTION}{_L}({_EITHER}){_R}{_UNSURE}",
    re.IGNORECASE | re.MULTILINE,
)
_GLUED = re.compile(
    rf"^[^\w\n]{{0,9}}(?:answer|choice|option)\W{{0,4}}({_EITHER})[^\w\n]{{0,9}}$", re.IGNORECASE | re.MULTILINE
)
_RIGHT = re.compile(
    rf"(?<![\w$\\])[(*\[]{{0,3}}({_UP}){_R}\s+(?:is|was|must be|seems?|looks)\s+(?:(?:the|clearly|indeed"
    rf"|therefore|thus|most|likely|definitely|probably|only|a)\s+)*"
    rf"(?:correct|right|true|best|answer|one)\b|"
    rf"\b(?:correct|right|best|true)\s+(?:one|option|choice|answer|statement|letter|response|is)?\s*(?:is"
    rf"|[:=])?\s*{_L}{_OPTION}{_L}({_UP}){_R}{_UNSURE}|"
    rf"\b(?:option|choice|answer)\s+\(?(?-i:([a-z]))\)?\s+(?:is|was)\s+(?:the\s+)?(?:right|correct|best)\b|"
    rf"\b(?:choose|chose|pick|select|go(?:ing)? with|settle on|opt for|left with|leaves|leaving|must be|it(?:'|’)s"
    rf"|it is|conclude)\s+{_L}{_OPTION}{_L}({_UP}){_R}{_UNSURE}(?!(?<=A)\s+(?!because|since|as)[a-z])",
    re.IGNORECASE,
)
_LEADS = re.compile(
    r"^[\s*_`\"'(\[#>-]{0,6}([A-Za-z])(?:[*_\"'`]{0,3}[).:\]][*_\"'`]{0,3}(?:\s|$)|[*_\"'`.]*$)", re.MULTILINE
)
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|neither|nor|isn't|isn’t|cannot|can't|eliminates?|eliminating|discard|exclude|excluding"
    r"|rule out|ruling out|"
    r"reject|than|instead of|except|unlike|over|against|without)\s+(?:be\s+)?(?:(?:option|choice|answer"
    r"|letter)s?\s+)?)[(*\[\"]*\Z",
    re.IGNORECASE,
)
_NONE_OF = re.compile(
    r"\bnone of\s+(?:[(*\"\s]*(?-i:[A-Z])[)*\"\s]*(?:,|\bor\b|\band\b|\bnor\b)[\s(*\"]*)*\Z", re.IGNORECASE
)
_NOT_AFTER = re.compile(
    r"^[)\]*\"]*(?:\s*[:,-])?\s*(?:is|are|was|were|can|could|does|do|would|will|has|have|fails?|seems?|looks"
    r"|contradicts?|violates?|"
    r"mentions?|only)?\s*(?:n't|n’t|not\b(?!\s+[(*]*(?-i:[A-Z])\b)|never\b|incorrect|wrong|false|fails?\b"
    r"|impossible|irrelevant|a (?:common )?distractor|"
    r"too\b|out\b|contradicts?|violates?|ruled out|eliminated|excluded|invalid|unlikely|untrue|also (?:wrong"
    r"|false|incorrect))",
    re.IGNORECASE,
)
_ALSO = re.compile(r"^[)\]*\"]*\s*(?:,|and|or|nor|&|,\s*and)\s*[(*\[\"]*([A-Z])\b")
_MATHS = re.compile(r"\$[^$\n]*\$|\\\([^\n]*?\\\)|\\[a-zA-Z]+")
_MENTION = re.compile(r"[(\[*]([A-Z])[)\]*]|(?<![\w'’.-])([A-Z])(?![\w'’]|\.[A-Z])")


def letter_of(text: str) -> str | None:
    """The letter that a text chooses, in upper case; None when it chooses none."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)  # full-width and circled letters
    inner = _inside(text)
    if inner is not None:
        return inner
    for pattern in (_SAYS, _GLUED, _RIGHT):
        found = [m for m in pattern.finditer(text) if not _rejected(text, m)]
        if found:
            return _letter(found[-1]).upper()
    return _leading(text) or _mentioned(text)


def _letter(found: re.Match[str]) -> str:
    return next(g for g in found.groups() if g)


def _inside(text: str) -> str | None:
    """A letter that is all, or the head, of what stands in a tag or a box."""
    tags = marks.TAG.findall(text)
    inner = tags[-1] if tags else marks.boxed(text)
    inner = marks.boxed(inner) or inner if inner else None
    if not inner:
        return None
    plain = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", inner).strip()
    plain = re.sub(r"^(?:option|choice|answer)?\W*", "", plain, flags=re.IGNORECASE)
    found = re.match(r"([A-Za-z])(?:\W*$|[).:\]]+\W*\s)", plain)
    return found[1].upper() if found else _says_inside(plain)


def _says_inside(plain: str) -> str | None:
    found = _SAYS.search(plain)
    return _letter(found).upper() if found else None


def _leading(text: str) -> str | None:
    """The letter with which the text begins, or that is its last line; a list of options begins with several."""
    found = list(_LEADS.finditer(text))
    letters = {m[1].upper() for m in found}
    lines = text.rstrip()
    last = next((m for m in found if lines[m.start() :].find("\n") < 0 and len(lines[m.start() :].strip()) < 8), None)
    if last:
        return last[1].upper()
    if found and not text[: found[0].start()].strip() and len(letters) == 1:
        letter, rest = found[0][1], text[found[0].end() :]
        return letter.upper() if letter.isupper() or rest.strip() or len(text.strip()) < 8 else None
    return None


def _mentioned(text: str) -> str | None:
    """The last letter that is mentioned as an option and not rejected; None where two stand side by side at the end."""
    plain = _MATHS.sub(" ", text)
    kept = [m for m in _MENTION.finditer(plain) if not _article(plain, m) and not _rejected(plain, m)]
    if not kept:
        return None
    last = kept[-1]
    if len(kept) > 1:
        between = plain[kept[-2].end() : last.start()]
        if re.fullmatch(r"[)\]*\s]*(?:or|and|/|,|vs\.?)[(\[*\s]*", between) and _letter(kept[-2]) != _letter(last):
            return None
    return _letter(last)


def _article(text: str, found: re.Match[str]) -> bool:
    """A bare "A" before a word, or "I": no option."""
    bare = found[2]
    after = text[found.end() : found.end() + 12]
    verb = re.match(r"\s+(?:is|was|seems|looks|fits|works|holds|because|since|and|or)\b", after)
    return bare == "I" or (bare == "A" and re.match(r"\s+[a-z]", after) is not None and not verb)


def _rejected(text: str, found: re.Match[str]) -> bool:
    """True when the letter is said not to be the answer: "not B", "B is wrong", "A and B are not"."""
    group = next(i for i, g in enumerate(found.groups(), 1) if g)
    start, end = found.span(group)
    before, after = text[max(0, start - 60) : start], text[end : end + 80]
    if _NOT_BEFORE.search(before) or _NONE_OF.search(before):
        return True
    for _ in range(6):
        if _NOT_AFTER.match(after):
            return True
        if not (more := _ALSO.match(after)):
            return False
        after = after[more.end() :]
    return False
