"""Are two mathematical answers the same? By value, with what the gold one's form asks for.

Whole numbers and fractions are equal or not. A decimal stands for another number where it is that number rounded or cut
to at least six digits. Formulas are compared at points: equal values at three places that no one chose by hand. An
interval is not another one with the other end closed, a pair is not a set. Numbers too large to hold are said to be.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from math import isqrt
from typing import Any

from trimtab.rewards.expressions import Formula, Items, Matrix, Number, Relation, Shape, Words, fold
from trimtab.rewards.magnitude import check_size

_NOISE = Fraction(1, 10**12)
_CLOSE = Fraction(1, 10**6)
_INTERVALS = ("()", "[]", "(]", "[)")


def same(gold: Shape, answer: Shape) -> bool:
    """True when the answer says what the gold one says. TooLarge when it could not be computed."""
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _same_words(gold, answer)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _same_relation(gold, answer)
    if isinstance(gold, Items) or isinstance(answer, Items):
        return _same_items(gold, answer)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _same_matrix(gold, answer)
    return _same_value(gold, answer)


def _same_words(gold: Shape, answer: Shape) -> bool:
    said, right = _as_words(answer), _as_words(gold)
    if said is None or right is None:
        return False
    if said == right or sorted(said.split(", ")) == sorted(right.split(", ")):
        return True
    number, _, base = right.partition("_")
    if base.isdigit():  # the question named the base, so an answer need not
        return said == number
    number, _, base = said.partition("_")
    if base.isdigit() and number == right:
        return True
    return len(right) == 1 and right.isalpha() and re.match(rf"\(?{re.escape(right)}[).:]", said) is not None


def _as_words(shape: Shape) -> str | None:
    if isinstance(shape, Words):
        return shape.text
    if isinstance(shape, Formula):
        return fold(re.sub(r"(?<=[A-Za-z]) (?=[A-Za-z]\b)", "", shape.text))
    if isinstance(shape, Number) and shape.value.denominator == 1:
        return str(shape.value)
    if isinstance(shape, Items) and shape.kind == ",":
        words = [_as_words(i) for i in shape.items]
        return ", ".join(w for w in words if w) if all(words) else None
    return None


def _same_relation(gold: Shape, answer: Shape) -> bool:
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_two_relations(gold, answer)
    relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    assert isinstance(relation, Relation)
    interval = _as_interval(relation)
    if interval is not None and isinstance(other, Items) and other.kind != ",":
        return _same_items(interval, other)
    if relation is gold and set(relation.signs) == {"="} and _computes(relation):  # 1/2 = 0.5
        return any(same(side, other) for side in (relation.sides[0], relation.sides[-1]))
    computed = relation is answer and (_computes(relation) or (isinstance(other, Number) and _names_a_sum(relation)))
    if set(relation.signs) == {"="} and (_is_name(relation.sides[0]) or computed):
        return same(relation.sides[-1], other) if relation is gold else same(other, relation.sides[-1])
    return False


def _computes(relation: Relation) -> bool:
    """2 + 2 = 4, A = (1/2) 3 * 4 = 6: the last side is the answer. x^2 + y^2 = 13 is an equation."""
    first = relation.sides[0]
    return len(relation.sides) > 2 or isinstance(first, Number) or not getattr(_expr(first), "free_symbols", {0})


def _names_a_sum(relation: Relation) -> bool:
    """100m + n = 311 to a question that asks for a number. 2x = 4 is still to be solved, x + y = 6 is a line."""
    names = {str(n) for n in getattr(_expr(relation.sides[0]), "free_symbols", ())}
    return isinstance(relation.sides[-1], Number) and len(names) > 1 and not names & {"x", "y", "z"}


def _same_two_relations(gold: Relation, answer: Relation) -> bool:
    alike = gold.signs == answer.signs and len(gold.sides) == len(answer.sides)
    if alike and all(same(g, a) for g, a in zip(gold.sides, answer.sides, strict=True)):
        return True
    if len(gold.sides) != 2 and _is_name(gold.sides[0]) and set(gold.signs) == {"="}:  # x = 4/2 = 2
        return _same_relation(Relation((gold.sides[0], gold.sides[-1]), ("=",)), answer)
    if len(answer.sides) != 2 and set(answer.signs) == {"="}:
        return _same_two_relations(gold, Relation((answer.sides[0], answer.sides[-1]), ("=",)))
    one, two = _as_interval(gold), _as_interval(answer)
    if one is not None and two is not None:
        return _name(gold) == _name(answer) and _same_items(one, two)
    if len(gold.sides) != 2 or len(answer.sides) != 2 or gold.signs != answer.signs:
        return False
    return _proportional(_difference(gold), _difference(answer), any_sign=gold.signs[0] in "=!=")


def _difference(relation: Relation) -> Any:
    left, right = (_expr(s) for s in relation.sides)
    return None if left is None or right is None else left - right


def _proportional(one: Any, two: Any, *, any_sign: bool) -> bool:
    """One is the other times a number (a positive one, for inequalities): they are zero at the same places."""
    if one is None or two is None:
        return False
    names = sorted(one.free_symbols | two.free_symbols, key=str)
    if not names or one.free_symbols != two.free_symbols:
        return False
    ratios = []
    for point in _points(names):
        a, b = _at(one, point), _at(two, point)
        if a is None or b is None or abs(b) < 1e-15:
            return False
        ratios.append(a / b)
    steady = all(abs(r - ratios[0]) <= 1e-12 * abs(ratios[0]) for r in ratios)
    return steady and abs(ratios[0]) > 1e-15 and (any_sign or ratios[0].real > 0)


def _is_name(shape: Shape) -> bool:
    if isinstance(shape, Items):  # (x, y) = (1, 2)
        return all(_is_name(i) for i in shape.items)
    return isinstance(shape, Words) or (
        isinstance(shape, Formula)
        and re.fullmatch(r"[A-Za-z\\]+(?:_\{?\w+\}?)?(?:\([\w, ]*\))?\s*", shape.text) is not None
    )


def _name(relation: Relation) -> str | None:
    return next((s.text.strip() for s in relation.sides if isinstance(s, Formula) and _is_name(s)), None)


def _as_interval(relation: Relation) -> Items | None:
    """x > 6 as (6, oo), 3 < x <= 5 as (3, 5]; None for other relations."""
    if not set(relation.signs) <= {"<", "<="} or not 2 <= len(relation.sides) <= 3:
        return None
    import sympy

    sides = list(relation.sides)
    if len(sides) == 2 and _is_name(sides[0]):
        sides, signs = [Formula(-sympy.oo, ""), *sides], ["<", *relation.signs]
    elif len(sides) == 2:
        sides, signs = [*sides, Formula(sympy.oo, "")], [*relation.signs, "<"]
    else:
        signs = list(relation.signs)
    if not _is_name(sides[1]) or _is_name(sides[0]) or _is_name(sides[2]):
        return None
    return Items(("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]"), (sides[0], sides[2]))


def _same_items(gold: Shape, answer: Shape) -> bool:
    if not isinstance(gold, Items):
        assert isinstance(answer, Items)
        return len(answer.items) == 1 and answer.kind == "{}" and same(gold, answer.items[0])
    if not isinstance(answer, Items):
        return len(gold.items) == 1 and gold.kind == "{}" and same(gold.items[0], answer)
    gold, answer = _as_union(gold, answer), _as_union(answer, gold)
    ones, twos = gold.items, answer.items
    if len(ones) != len(twos):
        return False
    in_order = all(same(g, a) for g, a in zip(ones, twos, strict=True)) if gold.kind != "u" else False
    ordered = _names(gold) != _names(answer)  # x = 1, y = 2 beside 1, 2
    if gold.kind in _INTERVALS and answer.kind in _INTERVALS:
        return in_order and gold.kind == answer.kind
    if gold.kind in _INTERVALS or answer.kind in _INTERVALS:  # brackets left out, or a list in brackets
        kinds = {gold.kind, answer.kind} - {","}
        bare = "," in (gold.kind, answer.kind) and (kinds == {"()"} or (kinds == {"[]"} and len(ones) > 2))
        free = not ordered and gold.kind == "," and (answer.kind == "()" or (answer.kind == "[]" and len(ones) > 2))
        return (bare and in_order) or (free and _in_any_order(ones, twos))
    if "u" in (gold.kind, answer.kind) and gold.kind != answer.kind:
        return False
    return in_order or (not ordered and _in_any_order(ones, twos))


def _names(items: Items) -> set[str]:
    """The different letters that a list gives values to, none where it is one letter's."""
    names = {_name(i) or "" for i in items.items if isinstance(i, Relation)}
    return names if len(names) > 1 else set()


def _as_union(items: Items, other: Items) -> Items:
    """x < 2 or x > 3 as a union of intervals, where the other answer is one."""
    if other.kind != "u" or items.kind != ",":
        return items
    pieces = [_as_interval(i) if isinstance(i, Relation) else i for i in items.items]
    return Items("u", tuple(p for p in pieces if p is not None))


def _in_any_order(ones: Sequence[Shape], twos: Sequence[Shape]) -> bool:
    left = list(twos)
    for one in ones:
        place = next((i for i, two in enumerate(left) if same(one, two)), None)
        if place is None:
            return False
        del left[place]
    return True


def _same_matrix(gold: Shape, answer: Shape) -> bool:
    if not (isinstance(gold, Matrix) and isinstance(answer, Matrix)) or gold.kind != answer.kind:
        return False
    if [len(r) for r in gold.rows] != [len(r) for r in answer.rows]:
        return False
    return all(
        same(g, a) for one, two in zip(gold.rows, answer.rows, strict=True) for g, a in zip(one, two, strict=True)
    )


def _same_value(gold: Shape, answer: Shape) -> bool:
    assert isinstance(gold, Number | Formula) and isinstance(answer, Number | Formula)
    ways = [(gold, answer)]
    if gold.percent != answer.percent:  # the question asks "what percent": 50 and 50% are one answer, 0.5 too
        return any(_same_plain(g, a) for g in _percent(gold) for a in _percent(answer))
    return all(_same_plain(g, a) for g, a in ways)


def _percent(value: Number | Formula) -> list[Number | Formula]:
    if not value.percent:
        return [value]
    if isinstance(value, Number):
        places = None if value.places is None else value.places + 2
        return [value, Number(value.value / 100, places, value.digits)]
    return [value, Formula(value.expr / 100, value.text)]


def _same_plain(gold: Number | Formula, answer: Number | Formula) -> bool:
    if isinstance(gold, Number) and isinstance(answer, Number):
        return _same_number(gold, answer)
    one, two = _expr(gold), _expr(answer)
    if one is None or two is None:
        return False
    exact_one, exact_two = _exact(gold, one), _exact(answer, two)
    if exact_one is not None and exact_two is not None:
        return _same_number(exact_one, exact_two)
    literal = next((n for n in (gold, answer) if isinstance(n, Number)), None)
    return _same_at_points(one, two, literal)


def _same_number(a: Number, b: Number) -> bool:
    x, y = a.value, b.value
    if x == y:
        return True
    if a.places is None and b.places is None:
        return False
    gap, size = abs(x - y), max(abs(x), abs(y))
    if gap <= _NOISE * size:
        return True
    for rounded, full in ((a, b), (b, a)):
        if rounded.places is not None and _endless(full):
            return gap <= Fraction(1, 10**rounded.places) and gap <= _CLOSE * size
    return False


def _endless(number: Number) -> bool:
    """A fraction like 1/3, or a float as JSON prints it."""
    if number.digits >= 13:
        return True
    rest = number.value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest != 1


def _exact(shape: Number | Formula, expr: Any) -> Number | None:
    """A formula that is a whole number or fraction (2^{12}, 5!) as one."""
    if isinstance(shape, Number):
        return shape
    import sympy

    if expr.free_symbols or expr.has(sympy.Float):
        return None
    value = expr.doit()
    return Number(Fraction(int(value.p), int(value.q))) if isinstance(value, sympy.Rational) else None


def _same_at_points(one: Any, two: Any, literal: Number | None) -> bool:
    import sympy

    floats = one.has(sympy.Float) or two.has(sympy.Float)
    infinite = [e for e in (one, two) if e in (sympy.oo, -sympy.oo)]
    if infinite:
        return one == two
    names = sorted(one.free_symbols | two.free_symbols, key=str)
    points = _points(names, both_signs=one.has(sympy.Abs) or two.has(sympy.Abs)) if names else [{}]
    for point in points:
        a, b = _at(one, point), _at(two, point)
        if a is None or b is None:
            return one == two
        gap, size = abs(a - b), max(abs(a), abs(b))
        if gap <= 1e-12 * size:
            continue
        near = (
            literal is not None and literal.places is not None and gap <= 10.0**-literal.places and gap <= 1e-6 * size
        )
        if not (near or (floats and gap <= 1e-9 * size)):
            return False
    return True


def _points(names: Sequence[Any], *, both_signs: bool = False) -> list[dict[Any, Any]]:
    """Three values for every name, irrational and far from special ones; positive, as sqrt(x^2) = x has it."""
    import sympy

    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
    return [
        {
            n: sympy.Float(f"{0.37 + k + i * 0.61 + isqrt(primes[i % 10] * 10**8) / 1e4:.12f}", 30)
            for i, n in enumerate(names)
        }
        for k in ((-3, -2, 0, 1) if both_signs else range(3))
    ]


def _at(expr: Any, point: dict[Any, Any]) -> complex | None:
    value = expr.subs(point).doit() if point else expr
    value = value.evalf(30)
    try:
        found = complex(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found == found and abs(found) != float("inf") else None


def _expr(shape: Shape) -> Any:
    """sympy's expression, i being the imaginary unit; TooLarge before anything is computed."""
    import sympy

    if isinstance(shape, Number):
        return sympy.Rational(shape.value.numerator, shape.value.denominator)
    if not isinstance(shape, Formula) or not isinstance(shape.expr, sympy.Expr):
        return None
    expr = shape.expr
    check_size(expr)
    return expr.subs({s: sympy.I for s in expr.free_symbols if str(s) == "i"})
