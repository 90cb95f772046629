r"""The one pattern of a number in running text, shared by all that read completions, and its value in plain digits.

Signs (also −), currency before or after, thousands (1,250 1 250 1.250.000 1{,}250), decimals, exponents (1e-5,
3 × 10^5), fractions (3/4, \frac{3}{4}, 1 3/8). A comma between digits parts thousands when three digits follow each;
one alone with another number of digits behind it, outside brackets and lists, is a decimal comma. Exponents, indices
and digits inside words (cm^2, x_2, H2O) are no numbers.
"""

import re
from collections import deque
from decimal import Decimal
from fractions import Fraction

_SIGN = r"(?:(?<![\w)\]}])[-−]|(?<=[=:]\s)[-−]\s)?"
_MONEY = r"(?:\\?[$£€¥₹]\s?)"
_THOUSAND = r"(?:,|\{,\}|,\\!|\\!,|\\,|\\!|[ \u00a0\u202f'’])"
_PLAIN = (
    r"\d{1,3}(?:[ \u00a0\u202f]\d{3})+,\d{1,2}(?![\d,])"  # 12 345,67
    rf"|(?<!\d,)\d{{1,3}}(?:{_THOUSAND}\d{{3}})+(?![\d,]\d)(?:\.\d+)?"  # 1,250.50
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?![\d,])"  # 12,34,567
    r"|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?![.\d])"  # 1.250,50
    r"|(?<![,\[(])\d+,\d+(?![\d,)\]]|\s*[,)\]])"  # 3,5
    r"|\d+(?:\.\d+)?|(?<![\d.])\.\d+"
)
_POWER = r"(?:[eE][-+]?\d{1,3}(?!\w)|\s?(?:\\times|\\cdot|[×x*·])\s?10\s?(?:\^|\*\*)\s?\{?\s?[-−+]?\d{1,3}\s?\}?)?"
_FRAC = r"\\[dtc]?frac\s?\{\s?[-−]?\d+\s?\}\s?\{\s?\d+\s?\}"
NUMBER = re.compile(
    rf"(?<![A-Za-z_\d^])(?<!\d[./])(?<![\^_]\{{)(?<!\^[-−])(?<!\^\{{[-−])(?P<sign>{_SIGN})(?:{_MONEY}(?P<minus>[-−]?))?"
    rf"(?:(?P<whole>\d+)?\s?(?P<frac>{_FRAC})|(?P<mixed>\d+\s)?(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/]|[.,]\d)"
    rf"|(?P<plain>{_PLAIN})(?P<power>{_POWER}))"
)
TAIL = 600


def find_last(text: str) -> str | None:
    """The last number of a text, in plain digits; None when it holds none."""
    for part in (text[-TAIL:], text) if len(text) > TAIL else (text,):
        last = next(iter(deque(NUMBER.finditer(part), maxlen=1)), None)
        if last is not None and (part is text or last.start() > 60):  # a number that the cut may have halved is not it
            return _plain_digits(last)
    return None


def alone(text: str) -> str | None:
    """A text that is one number, with its sign, currency, percent sign or emphasis, in plain digits; else None."""
    found = NUMBER.search(text)
    if found is None:
        return None
    before, after = text[: found.start()], text[found.end() :]
    bare = re.fullmatch(r"[\s*_`(\"']*\\?[$£€¥₹]?", before) and re.fullmatch(r"\s*(?:\\?[%$£€¥₹])?[\s*_`)\"'.]*", after)
    return _plain_digits(found) if bare else None


def _plain_digits(found: re.Match[str]) -> str:
    return digits_of(value_of(found)) if len(found[0]) < 1000 else found[0].strip()  # no number anybody means


def value_of(found: re.Match[str]) -> Fraction:
    """The value of a match of `NUMBER`, exact."""
    if found["frac"] or found["top"]:
        top, bottom = re.findall(r"[-−]?\d+", found["frac"] or f"{found['top']}/{found['bottom']}")
        if int(bottom) == 0:
            return Fraction(0)
        value = Fraction(int(top.replace("−", "-")), int(bottom)) + int(found["whole"] or found["mixed"] or 0)
    else:
        value = Fraction(Decimal(_point(found["plain"]))) * _scale(found["power"])
    return -value if found["sign"].strip() or found["minus"] else value


def digits_of(value: Fraction) -> str:
    """A number in plain digits without trailing zeros; a fraction that never ends as "1/3"."""
    rest = value.denominator
    twos = fives = 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def _point(text: str) -> str:
    """Digits with a point before the decimals, if there are any, and nothing between the thousands."""
    text = re.sub(r"[ \u00a0\u202f]", "", text)
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}", text):
        return text.replace(".", "").replace(",", ".")
    if re.fullmatch(r"0,\d+|\d+,(?:\d{1,2}|\d{4,})", text):
        return text.replace(",", ".")
    return re.sub(r"[^\d.]", "", text)


def _scale(power: str) -> Fraction:
    exponent = re.search(r"([-−+]?)\s?(\d+)\s?\}?$", power) if power else None
    return Fraction(10) ** int(exponent[1].replace("−", "-") + exponent[2]) if exponent else Fraction(1)
