r"""One mathematical answer as people and models write it to plain LaTeX that a grammar can read.

\dfrac43, \sqrt2, 1/2, 1{,}000, 10\!,000, 60^\circ, $18.90, "pi/2", "x²": each thing gets one spelling. It only rewrites
text; what the answer means is for `expressions`. Nothing here is evaluated.
"""

import re

_WORDS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": r"\cdot ", "÷": r"\div ",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "²": "^2", "³": "^3", "θ": r"\theta ",
    "∅": r"\emptyset ",
    "½": r"\frac12 ", "¼": r"\frac14 ", "¾": r"\frac34 ", "⅓": r"\frac13 ", "⅔": r"\frac23 ", "′": "'", "’": "'",
    "\u00a0": " ", "\u202f": " ", "\u2009": " ", "（": "(", "）": ")", "，": ",", "≈": r"\approx ", "→": r"\to ",
}  # fmt: skip
_UNICODE = str.maketrans(_WORDS)
_SAME: tuple[tuple[str, str], ...] = (
    (r"\\(?:left|right|[bB]igg?[lr]?|mleft|mright)(?![a-zA-Z])\s*\.?", ""),
    (r"\\(?:displaystyle|textstyle|limits|nolimits|hfill|hline|allowbreak|mathstrut|strut)(?![a-zA-Z])", ""),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
    (r"\\(?:mathrm|mathit|rm|operatorname\*?)\s*\{\s*([ei])\s*\}", r" \1 "),  # the constants, set upright
    (r"\\(?:mathrm|text|operatorname\*?)\s*\{\s*((?:arc)?(?:sin|cos|tan)|cot|sec|csc|log|ln|exp)\s*\}", r"\\\1 "),
    (r"\\mathbb\s+([A-Z])", r"\\mathbb{\1}"),
    (r"\\(?:mbox|textrm|textnormal|textbf|textit|textsf|texttt|mathrm|mathbf|mathit|mathsf|rm|bf|operatorname\*?|underline)"
     r"(?=\s*\{)", r"\\text"),
    (r"\\text\s*\{\s*(?:degrees?|deg)\.?\s*\}", r"^\\circ "),
    (r"\\text\s*\{\s*(?:percent|per cent)\s*\}|(?<=[\d}])\s*percent\b", r"\\%"),
    (r",?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*\}|,?\s+(?:and|or)\s+", " , "),
    (r"\\text\s*\{\s*\}", " "),
    (r"\\(?:leqslant|leqq|leq)(?![a-zA-Z])|<=|=<", r"\\le "), (r"\\(?:geqslant|geqq|geq)(?![a-zA-Z])|>=", r"\\ge "),
    (r"\\lt(?![a-zA-Z])", "<"), (r"\\gt(?![a-zA-Z])", ">"), (r"\\neq(?![a-zA-Z])|!=", r"\\ne "),
    (r"\\(?:lbrace)(?![a-zA-Z])", r"\\{"), (r"\\(?:rbrace)(?![a-zA-Z])", r"\\}"),
    (r"\\(?:lbrack)(?![a-zA-Z])", "["), (r"\\(?:rbrack)(?![a-zA-Z])", "]"), (r"\\langle", "("), (r"\\rangle", ")"),
    (r"\\(?:lvert|rvert|vert|mid)(?![a-zA-Z])", "|"),
    (r"\\cup(?![a-zA-Z])", r"\\cup "), (r"\\degree(?![a-zA-Z])|\^\s*\{\s*\\circ\s*\}"
    r"|\^\s*\\circ(?![a-zA-Z])", r"^\\circ "),
    (r"\\(?:dots|ldots|cdots)(?![a-zA-Z])|\.\.\.+", r"\\ldots "),
    (r"\\color\s*\{\w+\}|^\s*\\(?:approx|sim|simeq)(?![a-zA-Z])", ""),
    (r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
    (r"\+\s*/?\s*-(?=\s*[\d\\(a-z])", r"\\pm "),
    (r"\*\*", "^"), (r"\*", r"\\cdot "),
    (r"(?<![a-zA-Z\\])(?:infinity|infty|inf|oo)(?![a-zA-Z])", r"\\infty "),
    (r"(?<![a-zA-Z\\])(pi|theta|alpha|beta)(?![a-zA-Z])", r"\\\1 "),
    (r"(?<![a-zA-Z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"), (r"(?<![a-zA-Z\\])sqrt(?=\s*[\d{])", r"\\sqrt"),
    (r"√\s*\(([^()]*)\)", r"\\sqrt{\1}"), (r"√\s*(\d+|[a-z])", r"\\sqrt{\1}"),
    (r"(?<![a-zA-Z\\])(sin|cos|tan|cot|sec|csc|log|ln|arcsin|arccos|arctan)(?![a-zA-Z])", r"\\\1 "),
    (r"(?<=\d)[eE]([+-]?\d+)(?![\da-zA-Z])", r"\\cdot 10^{\1}"),
)  # fmt: skip
SAME = tuple((re.compile(p), r) for p, r in _SAME)
_QUOTES = (("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"))
_THIN = re.compile(r"(?<!\\)\\[,;:! ]|~|\\(?:thinspace|quad|qquad|enspace)(?![a-zA-Z])")
_THOUSANDS = re.compile(r"(?<=\d)\s*(?:,\s*\\!|\\!\s*,|\{,\}|\\,|\\;|\\:|\\ |~|\\!)\s*(?:\\!)?\s*(?=\d{3}(?!\d))")
_GROUPED = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+)(?![\d,])")
_SPACED = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?: \d{3})+)(?![\d])")
_BARE_POWER = re.compile(r"\^\s*(-?\d+)")
_ROUND_POWER = re.compile(r"\^\s*\(([^(){}]*)\)")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")


def tidy(text: str) -> str:
    r"""One spelling for each thing, as far as text alone can tell; thousands lose their separators ("1{,}000")."""
    text = unwrap(text.translate(_UNICODE))
    text = _THOUSANDS.sub("", text)
    text = re.sub(r"(?<=\d)\{,\}(?=\d)", ".", text)  # a decimal comma, as much of Europe writes it
    text = re.sub(r"\\!", "", text)
    text = _THIN.sub(" ", text)
    for pattern, new in SAME:
        text = pattern.sub(new, text)
    text = _GROUPED.sub(lambda m: m[1] + m[2].replace(",", ""), text)
    text = _SPACED.sub(lambda m: m[1] + m[2].replace(" ", ""), text)
    return unwrap(re.sub(r"\s+", " ", text))


def unwrap(text: str) -> str:
    r"""Without what stands around an answer: dollars, \( \), \[ \], \boxed{}, emphasis, a last full stop."""
    while True:
        before = text = text.strip()
        text = re.sub(r"(?:(?<=[^.])\.|[;:,])$", "", text)
        for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), *_QUOTES):
            inner = text[len(opening) : -len(closing)]
            if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
                text = text if opening in inner or inner.endswith("\\") else inner
        for command in ("\\boxed", "\\fbox", "\\text"):
            rest = text[len(command) :].lstrip()
            if text.startswith(command) and rest.startswith("{") and closing_brace(rest) == len(rest) - 1:
                text = rest[1:-1] if command != "\\text" or re.fullmatch(r"[\s\d.,()$-]*", rest[1:-1]) else text
        if text.startswith("{") and closing_brace(text) == len(text) - 1:  # {2, 3} is meant as a set
            several = "," in re.sub(r"[(\[][^()\[\]]*[)\]]", "", text)
            text = "\\" + text[:-1] + "\\}" if several else text[1:-1]
        if text == before:
            return text


def closing_brace(text: str) -> int:
    """The place of the brace that closes the one that `text` begins with; -1 when none does."""
    depth = 0
    for i, c in enumerate(text):
        if c in "{}" and (i == 0 or text[i - 1] != "\\"):
            depth += 1 if c == "{" else -1
            if depth == 0:
                return i
    return -1


def for_grammar(text: str) -> str:
    r"""Tidy LaTeX of one expression with all braces set: \frac43 and \sqrt2, x^10 and 2^(1/2), degrees in sines."""
    text = _ROUND_POWER.sub(r"^{\1}", _BARE_POWER.sub(r"^{\1}", text))
    if _TRIG.search(text):
        text = re.sub(r"(\d+(?:\.\d+)?)\s*\^\\circ", r"{(\1\\cdot\\frac{\\pi}{180})}", text)
    text = re.sub(r"(\\log\s*_)\s*(\w)\s*", r"\1{\2}", text.replace(r"^\circ", ""))
    text = re.sub(
        r"(?<![\d.}/])(\d+)\s*/\s*(\d+)(?=\s*[\\a-zA-Z])", r"\\frac{\1}{\2}", text
    )  # from the left: 3/4 of pi
    text = _with_braces(text, r"\frac", 2)
    text = _with_braces(text, r"\binom", 2)
    return _with_braces(text, r"\sqrt", 1)


def _with_braces(text: str, command: str, count: int) -> str:
    places = [m.end() for m in re.finditer(re.escape(command) + r"(?![a-zA-Z])", text)]
    for at in reversed(places):  # the inner ones first
        head, rest, arguments = text[:at], text[at:], []
        if count == 1 and rest.lstrip().startswith("["):  # an n-th root
            end = rest.find("]")
            arguments.append(rest[: end + 1].strip())
            rest = rest[end + 1 :]
        for _ in range(count):
            argument, rest = _argument(rest)
            arguments.append(argument)
        text = head + "".join(arguments) + rest
    return text


def _argument(text: str) -> tuple[str, str]:
    """What a command takes next (a group, a command or one character), in braces, and the rest."""
    text = text.lstrip()
    if text.startswith("{"):
        end = closing_brace(text)
        return (text[: end + 1], text[end + 1 :]) if end > 0 else (text, "")
    found = re.match(r"\\[a-zA-Z]+|.", text)
    return ("{" + found[0] + "}", text[found.end() :]) if found else ("", "")
