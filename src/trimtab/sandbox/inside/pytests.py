"""What tests written for pytest use most, and a runner for them: pytest itself is not in the sandbox.

`raises`, `approx` for numbers and collections of them, `mark.parametrize`, `skip`. Whatever else is asked for, fixtures
above all, leaves the tests unscored.
"""

# few imports inside, and running programs is the point:
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
import contextlib
import inspect
import itertools
import math
import re
import sys
import types

from .standins import Unrepresented


class Skipped(Exception):
    """Raised by the tests' own `pytest.skip`."""


class _Raised:
    value = type = None

    def match(self, pattern):
        return bool(re.search(pattern, str(self.value)))


@contextlib.contextmanager
def _expecting(kinds, match):
    info = _Raised()
    try:
        yield info
    except kinds as e:
        info.value, info.type = e, type(e)
        if match is not None and not re.search(match, str(e)):
            raise AssertionError(f"{str(e)!r} does not match {match!r}") from None
    else:
        raise AssertionError(f"did not raise {kinds!r}")


def raises(kinds, *call, match=None, **kwargs):
    """A `with` that wants an exception, or a call that must raise it."""
    if not call:
        return _expecting(kinds, match)
    with _expecting(kinds, match) as info:
        call[0](*call[1:], **kwargs)
    return info


def fail(reason=""):
    """Fails the test."""
    raise AssertionError(reason)


def skip(reason=""):
    """Leaves the test out."""
    raise Skipped(reason)


class approx:  # noqa: PLW1641
    """Equal to numbers near it, or to collections of such numbers in the same places."""

    def __init__(self, expected, rel=None, abs=None, nan_ok=False):
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, other):
        return self._near(other, self.expected)

    def _near(self, got, expected):
        if isinstance(expected, dict):
            return (
                isinstance(got, dict) and got.keys() == expected.keys()
                and all(self._near(got[k], v) for k, v in expected.items())
            )  # fmt: skip
        if type(expected).__name__ == "ndarray" or type(got).__name__ == "ndarray":
            expected, got = list(expected), list(got)
        if isinstance(expected, list | tuple):
            fits = isinstance(got, list | tuple) and len(got) == len(expected)
            return fits and all(map(self._near, got, expected))
        if isinstance(expected, bool) or not isinstance(expected, int | float):
            return got == expected
        if not isinstance(got, int | float):
            return False
        if math.isnan(expected):
            return self.nan_ok and math.isnan(got)
        margin = max((1e-6 if self.rel is None else self.rel) * abs(expected), 1e-12 if self.abs is None else self.abs)
        if self.abs is not None and self.rel is None:
            margin = self.abs
        return got == expected or abs(got - expected) <= margin


class _Mark:
    def parametrize(self, names, values, ids=None):
        names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)

        def mark(f):
            rows = [dict(zip(names, v if len(names) > 1 else [v], strict=True)) for v in map(_values, values)]
            f.__dict__.setdefault("_t_rows", []).append(rows)
            return f

        return mark

    def __getattr__(self, name):
        if name in ("skip", "xfail", "skipif"):
            raise Unrepresented(f"the tests use pytest.mark.{name}")
        return lambda *a, **k: (
            a[0] if len(a) == 1 and callable(a[0]) and not k else lambda f: f
        )  # slow, timeout, asyncio


def _values(v):
    return v.values if isinstance(v, _Param) else v


class _Param:
    def __init__(self, *values, **_):
        self.values = values if len(values) > 1 else values[0]


def _missing(name):
    raise Unrepresented(f"the tests use pytest.{name}, which the sandbox does not have")


def install():
    """Makes `import pytest` work for the tests of this process."""
    module = types.ModuleType("pytest")
    module.__dict__.update(
        raises=raises, approx=approx, fail=fail, skip=skip, mark=_Mark(), param=_Param, __getattr__=_missing
    )
    sys.modules["pytest"] = module


def run(test, *first):
    """Runs a test function for every row of its parameters."""
    rows = [
        {k: v for part in parts for k, v in part.items()} for parts in itertools.product(*vars(test).get("_t_rows", ()))
    ]
    parameters = list(inspect.signature(test).parameters.values())[len(first) :]
    for row in rows:
        if lacking := [p.name for p in parameters if p.default is p.empty and p.name not in row]:
            raise Unrepresented(
                f"the test {test.__name__} wants {lacking[0]!r}, a fixture that the sandbox does not have"
            )
        try:
            result = test(*first, **row)
            if inspect.iscoroutine(result):
                import asyncio

                asyncio.run(result)
        except Skipped:
            continue


def run_class(cls):
    """Runs a class of pytest's: a fresh instance for every method."""
    if "__init__" in vars(cls):
        return
    for name in [n for n in dir(cls) if n.startswith("test") and isinstance(getattr(cls, n), types.FunctionType)]:
        case = cls()
        for before in ("setup_class", "setup_method"):
            if before in dir(cls):
                _with_fitting(getattr(case, before), name)
        run(getattr(cls, name), case)
        if "teardown_method" in dir(cls):
            _with_fitting(case.teardown_method, name)


def _with_fitting(method, name):
    method(*[name] * bool(inspect.signature(method).parameters))
