r"""One mathematical answer to what it is: number, formula, list, pair or interval, equation, matrix, words.

The whole text is read or nothing: no part of it stands for it. Structure (brackets, commas, signs of relation, rows) is
read here, formulas by latex2sympy's grammar (the one math-verify uses). Nothing is evaluated.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import Any

from trimtab.errors import InputError
from trimtab.rewards.latex import for_grammar, tidy


@dataclass(frozen=True)
class Number:
    """A plain number, exact. `places`: digits after the point where it was written with one, else None."""

    value: Fraction
    places: int | None = None
    digits: int = 0
    percent: bool = False


@dataclass(frozen=True)
class Formula:
    """Anything else that latex2sympy reads, unevaluated; `text` is what it read."""

    expr: Any
    text: str
    percent: bool = False


@dataclass(frozen=True)
class Words:
    """An answer in words, folded: "evelyn", "(c)", "no solution"."""

    text: str


@dataclass(frozen=True)
class Items:
    """Several answers. `kind`: "," without brackets, "{}" a set, "()" "[]" "(]" "[)" in order, "u" a union."""

    kind: str
    items: tuple["Shape", ...]


@dataclass(frozen=True)
class Relation:
    """Sides with a sign between any two: "=", "<", "<=", "!="; written so that < never is >."""

    sides: tuple["Shape", ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of entries; `kind` "matrix", or "vmatrix" for a determinant."""

    kind: str
    rows: tuple[tuple["Shape", ...], ...]


Shape = Number | Formula | Words | Items | Relation | Matrix

_NUMBER = re.compile(r"([+-]?)\s*(?:(\d+)(?:\.(\d*))?|\.(\d+))")
_POWER_OF_TEN = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(?:\\cdot|\\times)\s*10\s*\^\s*\{?\s*([+-]?\d{1,4})\s*\}?")
_BASED = re.compile(r"([+-]?[\dA-Z.]+)\s*_\s*\{?\s*(\d+)\s*\}?")
_LETTERS = r"(?:abcd?|bcd|pqrs?|rst|uvw|w?xyz|ijk|lmn|mnp)(?![a-zA-Z])"
_SHORT = (
    r"(?:[cmkdn]?m|ft|in|yd|mi|[kmµ]?g|lb|oz|hr|ms|[mdk]?[lL]|k?Hz|k?W|[kMGT]B|[ap]m|pt|qt|sq|cu|of|k?J|[kM]?Pa"
    r"|k?N|mV|mA|ha)(?![a-zA-Z])"
)
_WORD_UNIT = rf"(?:(?!{_LETTERS})[a-zA-Z]{{3,}}|(?=[a-zA-Z]{{2}}){_SHORT})"
_UNIT = re.compile(  # 3ab and 2xyz are products
    rf"\s*\\text\s*\{{[^{{}}]*\}}\s*(?:\^\s*\{{?\d\}}?)?$|(?<=[\d}}%])\s*(?:{_WORD_UNIT}\.?\s*){{1,4}}(?:\^\s*\{{?\d\}}?)?$"
)
_RATE = re.compile(
    r"(?<=[\d}])\s+[a-zA-Z]+\s?(?:/|per)\s?(?:s|h|hr|min|sec|second|minute|hour|day|week|month|year|kg|g|L|m|km)"
    r"(?:\^\{?\d\}?)?$"
)
_CURRENCY = re.compile(r"\\?[$£€¥₹]\s*|\b(?:USD|EUR|GBP)\b\s*|\\(?:pounds|euro)(?![a-zA-Z])")
_SIGNS = re.compile(r"\\(?:le|ge|ne|approx|equiv)(?![a-zA-Z])|[<>=]")
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|smallmatrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_LEAD = re.compile(
    r"^\s*(?:\\text\s*\{[^{}]*\}|[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?)\s*(?:\\in(?![a-zA-Z])|:(?=\s))\s*"
)
_SUCH_THAT = re.compile(r"\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?[|:](.*)\\\}")
_REPEATS = re.compile(r"([+-]?)(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_WORD = re.compile(rf"(?<![A-Za-z])(?!{_LETTERS})[A-Za-z]{{3,}}")
_PROSE = re.compile(r"\b[A-Za-z]{2,}\s+\w")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
LONGEST = 1000
_PLAIN_SIGNS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\approx": "=", "\\equiv": "="}


def read(text: str) -> Shape | None:
    """What a text is, None when it cannot be read whole. Prose (two words or more outside \\text) cannot."""
    try:
        return _read(tidy(text)) if text.strip() and len(text) < LONGEST else None
    except RecursionError:
        return None


@lru_cache(maxsize=1024)
def _read(text: str) -> Shape | None:
    if not text or _depth(text) != 0:
        return None
    if words := _words(text):
        return words
    if lead := _LEAD.match(text):
        return _read(text[lead.end() :].strip())
    if those := _SUCH_THAT.fullmatch(text):
        return _read(those[1].strip())
    for separator, kind in ((";", ","), (",", ",")):
        parts = _split(text, re.compile(re.escape(separator)))
        if len(parts) > 1:
            return _listed([p for p in parts if p.strip()] or parts, kind)
    if len(parts := _split(text, re.compile(r"\\cup(?![a-zA-Z])"))) > 1:
        return _several(parts, "u")
    if len(_split(text, _SIGNS)) > 1:
        return _relation(text)
    if found := _MATRIX.fullmatch(text):
        return _matrix(*found.groups())
    return _bracketed(text) or _plus_minus(text) or _single(text)


def _words(text: str) -> Words | None:
    """Words alone: \\text{Monday}, \\text{(C)}, Monday, 4:30; several plain words are prose, which is no answer."""
    inner = _TEXT.fullmatch(text) or re.fullmatch(r"\((\\text\s*\{[^{}]*\})\)", text)
    if (
        text == "\\ldots"
        or inner
        or re.fullmatch(
            r"\(?[A-Za-z]\)|(?=[A-Za-z'-]*[A-Za-z]{3})[A-Za-z][A-Za-z'-]+|\d{1,2}:\d\d(?:\s*(?:\\text\s*\{\s*)?[aApP]\.?[mM]\.?\s*\}?)?|\d+:\d+",
            text,
        )
    ):
        return Words(fold(text))
    return None


def fold(text: str) -> str:
    """Words as they are compared: without \\text, case, dollars, brackets around all, full stops and runs of space."""
    plain = _TEXT.sub(r" \1 ", text.replace("$", "")).replace("\\", "")
    plain = " ".join(re.sub(r"[.\"'{}]", "", plain).casefold().split())
    return re.sub(r"\s*,\s*", ", ", plain).strip("() ,:;!")


def _listed(parts: Sequence[str], kind: str) -> Shape | None:
    """Answers with commas between; "x = 1, 2" names x once for all of them."""
    sides = [_split(p, _SIGNS) for p in parts]
    if len(sides[0]) == 2 and all(len(s) == 1 for s in sides[1:]) and re.fullmatch(r"\s*[a-zA-Z]\s*", sides[0][0]):
        parts = [sides[0][1], *parts[1:]]
    return _read(parts[0].strip()) if len(parts) == 1 else _several(parts, kind)


def _several(parts: Sequence[str], kind: str) -> Items | None:
    items: list[Shape] = []
    for part in parts:
        item = _read(part.strip())
        if item is None:
            return None
        inner = item.kind == kind if isinstance(item, Items) else False
        items += item.items if isinstance(item, Items) and inner else [item]
    return Items(kind, tuple(items))


def _relation(text: str) -> Relation | None:
    sides = [_read(side.strip()) for side in _split(text, _SIGNS)]
    signs = [m[0] for m in _SIGNS.finditer(text) if _depth(text[: m.start()]) == 0]
    if None in sides:
        return None
    signs = [_PLAIN_SIGNS.get(s, s) for s in signs]
    found = [s for s in sides if s is not None]
    if all(s[0] in ">" or s == "=" for s in signs) and any(s[0] == ">" for s in signs):
        found, signs = found[::-1], [s.replace(">", "<") for s in reversed(signs)]
    return Relation(tuple(found), tuple(signs))


def _matrix(kind: str, body: str) -> Matrix | None:
    rows = [[_read(tidy(e)) for e in row.split("&")] for row in re.split(r"\\\\", body) if row.strip()]
    if not rows or any(e is None for row in rows for e in row):
        return None
    return Matrix(
        "vmatrix" if kind == "vmatrix" else "matrix", tuple(tuple(e for e in r if e is not None) for r in rows)
    )


def _bracketed(text: str) -> Shape | None:
    """(1, 2), (2, 9], \\{1, 2\\}; brackets around one thing say nothing, but braces make it a set."""
    opening = "\\{" if text.startswith("\\{") else text[0]
    closing = "\\}" if text.endswith("\\}") else text[-1]
    inner = text[len(opening) : -len(closing)].strip()
    if opening not in ("(", "[", "\\{", "]") or closing not in (")", "]", "\\}", "[") or _depth(inner) or not inner:
        return None
    if _closes_early(inner):  # (a + b)(c + d)
        return None
    content = _read(inner)
    if content is None:
        return None
    kind = (opening + closing).replace("\\", "").replace("][", "()")
    if isinstance(content, Items) and content.kind == ",":
        return Items(kind, content.items)
    if kind == "{}":
        return Items(kind, (content,))
    return content if kind in ("()", "[]") else None


def _closes_early(inner: str) -> bool:
    depth = 0
    for bracket in re.findall(r"[()\[\]{}]", inner):
        depth += 1 if bracket in "([{" else -1
        if depth < 0:
            return True
    return False


def _plus_minus(text: str) -> Items | None:
    if not re.search(r"\\(?:pm|mp)(?![a-zA-Z])", text):
        return None
    ways = []
    for plus, minus in (("+", "-"), ("-", "+")):
        way = re.sub(r"\\mp(?![a-zA-Z])", minus, re.sub(r"\\pm(?![a-zA-Z])", plus, text))
        ways.append(_read(re.sub(r"^\s*\+", "", way).strip()))
    return Items(",", (ways[0], ways[1])) if ways[0] is not None and ways[1] is not None else None


def _single(text: str) -> Shape | None:
    """A number or a formula, with its unit, currency or percent sign taken off."""
    text = _CURRENCY.sub("", text).strip()
    text = _RATE.sub("", text)
    while (bare := _UNIT.sub("", text).strip()) != text and bare:
        text = bare
    percent = re.search(r"\s*\\?%$", text)
    text = text[: percent.start()].strip() if percent else text
    degrees = re.sub(r"\s*(?:\^\\circ\s*[CF]?|[ΩΩ℃℉Å])$", "", text)
    if (number := _number(degrees, percent is not None)) is not None:
        return number
    if based := _BASED.fullmatch(text):
        return Words(f"{based[1]}_{based[2]}".casefold())
    plain = _without_commands(text)
    if _PROSE.search(plain) or (_WORD.search(plain) and not re.search(r"[-+^=*/\\()]", text)):
        return None
    spelled = for_grammar(text)
    expr = None if re.search(r"\d\s+\d", spelled) else _grammar(spelled)
    return None if expr is None else Formula(expr, text, percent is not None)


def _number(text: str, percent: bool) -> Number | None:
    """A plain number in any of the forms of one: 12, -.5, 3/4, \\frac{3}{4}, 1 3/8, 1\\frac{3}{8}, 2 \\cdot 10^{5}."""
    if found := _NUMBER.fullmatch(text):
        sign, whole, after, only = found.groups()
        places = after if after is not None else only
        value = Fraction(Decimal(f"{sign}{whole or 0}.{places or 0}"))
        return Number(
            value, None if places is None else len(places), _significant(f"{whole or ''}{places or ''}"), percent
        )
    if found := _POWER_OF_TEN.fullmatch(text):
        value = Decimal(found[1]).scaleb(int(found[2]))
        exponent = int(value.as_tuple().exponent)
        return Number(Fraction(value), max(0, -exponent) if exponent < 0 else None, _significant(found[1]), percent)
    if found := _REPEATS.fullmatch(text):  # 0.1\overline{6}
        sign, whole, once, again = found.groups()
        value = Fraction(
            int(f"{whole}{once}{again}") - int(f"{whole}{once}" or 0), 10 ** len(once) * (10 ** len(again) - 1)
        )
        return Number(-value if sign == "-" else value, percent=percent)
    bare = re.sub(r"\\frac(\d)(\d)$", r"\\frac{\1}{\2}", for_grammar(text)) if "\\frac" in text else text
    found = re.fullmatch(r"([+-]?)\s*(?:(\d+)\s*)?\\frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}", bare)
    found = found or re.fullmatch(r"([+-]?)\s*(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)", bare)
    if not found or int(found[4]) == 0:
        return None
    part = Fraction(int(found[3]), int(found[4]))
    value = part + int(found[2] or 0)
    return Number(-value if found[1] == "-" else value, percent=percent)


def exactly(value: int | float | Decimal) -> Number | None:
    """A JSON number as what it is; None for infinity and NaN."""
    try:
        shown = value if isinstance(value, Decimal) else Decimal(repr(value))
    except InvalidOperation:
        return None
    if not shown.is_finite():
        return None
    if isinstance(value, int):
        return Number(Fraction(value))
    exponent = int(shown.as_tuple().exponent)
    return Number(Fraction(shown), max(0, -exponent), len(shown.as_tuple().digits))


def _significant(digits: str) -> int:
    return len(digits.lstrip("0"))


def _without_commands(text: str) -> str:
    return re.sub(r"\\[a-zA-Z]+", " ", text)


def _depth(text: str) -> int:
    """Open brackets of any kind at the end of a text; intervals may mix round and square ones."""
    plain = re.sub(r"\\begin\{.*?\}|\\end\{.*?\}", lambda m: "(" if m[0].startswith("\\b") else ")", text)
    return sum(plain.count(c) for c in "([{") - sum(plain.count(c) for c in ")]}")


def _split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The parts of a text between matches that stand in no brackets."""
    parts, start, depth, last = [], 0, 0, 0
    for found in pattern.finditer(text):
        depth += _depth(text[last : found.start()])
        last = found.start()
        if depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def check_grammar() -> None:
    """Imports what reads formulas. InputError when it is not installed."""
    try:
        import latex2sympy2_extended.latex2sympy2  # noqa: F401
    except ImportError as e:
        raise InputError("math-verify is not installed: pip install 'trimtab[tasks]'") from e


def _grammar(text: str) -> Any:
    """latex2sympy's tree of one expression, None when it is none; letters keep their case."""
    check_grammar()
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    try:
        return latex2sympy(
            text, is_real=False, normalization_config=None, conversion_config=ConversionConfig(lowercase_symbols=False)
        )
    except Exception:  # the grammar raises whatever it meets
        return None
