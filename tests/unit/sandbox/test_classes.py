"""Tests of classes, errors, coroutines, output and arguments: the right program passes, a forged one never does."""

import importlib.util
from pathlib import Path

import pytest

from trimtab.sandbox import Job, Limits, Sandbox

spec = importlib.util.spec_from_file_location("cases_classes", Path(__file__).with_name("cases_classes.py"))
assert spec and spec.loader
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
ZERO = {
    "equal", "unequal", "order", "in", "minus", "minus-reflected", "method", "count", "in-a-list", "as-a-key", "int",
    "float", "str", "list", "tuple", "dict", "class-for-function", "namedtuple", "self-for-data", "own-always-equal",
    "enum-equal", "awaits-yes", "lies-about-class", "lies-on-the-wire", "lies-a-base",
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(way):
    jobs = [Job(program, tests) for _, program, tests, *_ in [*cases.HONEST, *cases.FORGED]]
    with Sandbox(2, Limits(wall_s=20), way=way) as sandbox:
        return list(sandbox.run(jobs))


def test_programs_are_judged_as_python_would_or_not_at_all(outcomes):
    wrong = [
        (name, expected, o.passed, o.note)
        for (name, _, _, expected), o in zip(cases.HONEST, outcomes, strict=False)
        if o.passed is not expected or (o.passed is None and not o.note)
    ]
    assert wrong == []


def test_no_program_earns_by_deciding_for_itself(outcomes):
    forged = {name: o for (name, _, _), o in zip(cases.FORGED, outcomes[len(cases.HONEST) :], strict=True)}
    assert {name for name, o in forged.items() if o.passed} == set()
    assert {name for name in ZERO if forged[name].passed is not False} == set()
    assert all(o.note for o in forged.values())
