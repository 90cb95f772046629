"""Cells of a table, as spreadsheets, pandas and JSON write them, to numbers: nothing is guessed, missing is NaN."""

import math
import re
from typing import Any

from trimtab.data.rows import short
from trimtab.errors import InputError

MISSING = frozenset({"", "nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "none"})
"""Texts that mean "not measured", in any case."""
TRUTH = {"true": 1.0, "false": 0.0}
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+|[+-]?\d{1,3}(,\d{3}){2,}", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+", re.ASCII)
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_DOLLARS = re.compile(r"([+-]?)\s*(?:US)?\$\s*", re.ASCII)


def number(place: str, field: str, value: Any, *, column: str = "") -> float:
    """The cell as a number; NaN where it is missing. InputError with place and field for anything else.

    Text may have a decimal comma, groups of thousands, or (`field` "price") a dollar sign; as `reward` true is 1 and
    false 0. "1,234" could be two numbers and is refused. `column`: what complaints call the field, if not by its kind.
    """
    if type(value) is float and -math.inf < value < math.inf:
        return value
    found = _read(field, value)
    if found is None:
        hint = "; is it 1234 or 1.234?" if isinstance(value, str) and _EITHER.fullmatch(value.strip()) else ""
        raise InputError(f"{place}: field {(column or field)!r} must be a number or null, got {short(value)}{hint}")
    if math.isinf(found):
        raise InputError(
            f"{place}: field {(column or field)!r} is infinite ({short(value)}); clip it, or leave it empty"
        )
    return found


def as_number(value: Any) -> float:
    """The cell as a reward; NaN where it is missing or no number."""
    found = _read("reward", value)
    return math.nan if found is None else found


def _read(field: str, value: Any) -> float | None:
    """The number, NaN where the cell is missing, None where it is neither."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        return _of_text(value.strip(), field) if len(value) < 64 else None
    if isinstance(value, bool):
        return float(value) if field == "reward" else None
    return _of_number(value)


def _of_text(text: str, field: str) -> float | None:
    if text.lower() in MISSING:
        return math.nan
    if field == "reward" and text.lower() in TRUTH:
        return TRUTH[text.lower()]
    if field == "price":
        text = _DOLLARS.sub(r"\1", text, count=1)
    if _PLAIN.fullmatch(text) or text.lower().lstrip("+-") in ("inf", "infinity"):
        return float(text)
    if _THOUSANDS.fullmatch(text):
        return float(text.replace(",", ""))
    if _DECIMAL_COMMA.fullmatch(text) and not _EITHER.fullmatch(text):
        return float(text.replace(".", "").replace(",", "."))
    return None


def _of_number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:
        return math.inf
