"""How large a number would be, from the logarithms of its parts, before anybody computes it: 8^(8^8) never is."""

from math import log10
from typing import Any

DIGITS = 200_000


class TooLarge(Exception):
    """A power or factorial with more digits than anybody will compute."""


def check_size(expr: Any) -> None:
    """TooLarge when a part of a formula has more than `DIGITS` digits."""
    import sympy

    for part in sympy.preorder_traversal(expr):
        if isinstance(part, sympy.Pow | sympy.exp) and part.is_number and _log10(part) > DIGITS:
            raise TooLarge
        if isinstance(part, sympy.factorial) and part.args[0].is_number and _log10(part.args[0]) > 4.5:
            raise TooLarge


def _log10(expr: Any) -> float:
    """About how many digits a number has, computed from the logarithms of its parts."""
    import sympy

    if isinstance(expr, sympy.exp):
        size = _log10(expr.args[0])
        return float("inf") if size > 7 else 10**size
    if isinstance(expr, sympy.Pow) and expr.exp.is_number:
        size = _log10(expr.exp)
        if size > 7:
            return float("inf")
        return abs(_log10(expr.base)) * 10**size
    if isinstance(expr, sympy.factorial):
        size = _log10(expr.args[0])
        return float("inf") if size > 7 else 10**size * max(size, 1)
    if isinstance(expr, sympy.Mul):
        return sum(_log10(a) for a in expr.args)
    if isinstance(expr, sympy.Add):
        return max(_log10(a) for a in expr.args) + 1
    if isinstance(expr, sympy.Rational):
        return log10(abs(expr.p) or 1) - log10(expr.q)
    return 1.0
