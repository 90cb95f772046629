"""Bad input and faults: bounded, reported, next. And the rarer modes."""

# ruff: noqa: E501  (programs read better whole)

import os
import signal
import time

import pytest

from trimtab.errors import EngineError, InputError
from trimtab.sandbox import Job, Limits, Sandbox, escape, launch

F = "def f(x):\n    return x + 1\n"


@pytest.fixture(scope="module")
def sandbox(way):
    with Sandbox(1, Limits(wall_s=20), way=way) as s:
        yield s


def passed(sandbox, program, tests, **more):
    (outcome,) = sandbox.run([Job(program, tests, **more)])
    return outcome.passed, outcome.note


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("# " + "x" * 10_000_000 + "\n" + F, True),
        ("s = 'ü\U0001f600'\n" + F, True),
        ("# \udcff\n" + F, False),
        ("\0" + F, False),
        ("x = " + "(" * 2000, False),
        (F + "for i in range(100_000): print(i)", True),
        ("", False),
    ],
    ids=["ten megabytes", "unicode", "surrogate", "null byte", "nesting", "100,000 lines", "empty"],
)
def test_strange_programs_are_judged(sandbox, program, expected):
    outcome, note = passed(sandbox, program, "assert f(1) == 2")
    assert outcome is expected, note
    assert passed(sandbox, F, "assert f(1) == 2") == (True, "")


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(xs):\n    xs.sort()", "a = [3, 1]\nassert f(a) is None\nassert a == [1, 3]"),
        ("def f(g, x):\n    return g(g(x))", "assert f(lambda v: v * 3, 2) == 18"),
        ("def f(n):\n    return (lambda x: x + n)", "assert f(2)(3) == 5"),
        ("def f():\n    yield from range(3)", "assert list(f()) == [0, 1, 2]\nassert sum(f()) == 3"),
        ("class C:\n    def __init__(s):\n        s.n = 0\n    def count(s):\n        s.n += 1\n        return s.n", "c = C()\nc.count()\nassert c.count() == 2 and c.n == 2"),
        ("def f(x):\n    raise KeyError(x)", "try:\n    f(1)\n    assert False\nexcept KeyError:\n    pass"),
        ("def f():\n    return {(1, 2): [3, {4}], 'a': 1 + 2j, None: b'x', 1.5: 10**30}", "assert f() == {(1, 2): [3, {4}], 'a': 1 + 2j, None: b'x', 1.5: 10**30}"),
        ("import numpy as np\ndef f():\n    return np.arange(6).reshape(2, 3)", "import numpy\nassert (f() == numpy.array([[0, 1, 2], [3, 4, 5]])).all()"),
        ("import math\ndef f(x):\n    return math.sqrt(x)", "assert math.isclose(f(2) ** 2, 2)"),
        (F, "from solution import f\nassert f(1) == 2"),
        (F, "import unittest\nclass T(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(1), 2)"),
        (F, "def test_f():\n    assert f(1) == 2"),
        (F, "def check(candidate):\n    for i in range(50):\n        assert candidate(i) == i + 1\ncheck(f)"),
        ("def sum(a, b):\n    return a + b", "assert sum(10, 15) == 25"),
    ],
)  # fmt: skip
def test_tests_of_every_style_work(sandbox, program, tests):
    assert passed(sandbox, program, tests) == (True, "")
    wrong, note = passed(sandbox, "def f(*a, **k):\n    return None\n", tests)
    assert wrong is False, note


def test_scripts_values_and_their_limits(sandbox):
    script = "import sys\nprint(sys.stdin.read().upper())\nprint('no', file=sys.stderr)\nsys.exit(3)"
    out, value, bad = sandbox.run([
        Job(script, mode="script", stdin="yes"),
        Job("def solution():\n    return {'total': (1, 2.5)}", entry_point="solution", mode="value"),
        Job("x = 1", entry_point="solution", mode="value"),
    ])  # fmt: skip
    assert (out.stdout, out.stderr, out.exit_code) == ("YES\n", "no\n", 3)
    assert value.value == {"total": (1, 2.5)}
    assert (bad.value, bad.note) == (None, "the program does not define 'solution'")


def test_commands_only_where_asked_for(way):
    with Sandbox(1, Limits(wall_s=20, processes=8), way=way, commands=True) as s:
        (out,) = s.run([Job(mode="argv", argv=("sh", "-c", "id -u; ls /home /root 2>&1 | wc -l; cat"), env={"PATH": "/usr/bin"}, stdin="in")])  # fmt: skip
    assert out.stdout == "1000\n2\nin"
    assert out.exit_code == 0


def test_output_is_bounded(way):
    with Sandbox(1, Limits(wall_s=20, output_bytes=1000), way=way) as s:
        (o,) = s.run([Job(F + "print('x' * 100_000)", "assert f(1) == 2")])
    assert o.passed and o.cut and o.stdout == "x" * 1000


def test_a_worker_that_dies_is_replaced_and_its_job_tried_again(way):
    with Sandbox(1, Limits(wall_s=20), way=way) as s:
        victim = s._state.workers[0].process.pid
        outcomes = s.run([Job(F, "assert f(1) == 2")] * 3)
        assert next(outcomes).passed
        os.kill(victim, signal.SIGKILL)
        assert [o.passed for o in outcomes] == [True, True]


def test_workers_that_keep_dying_are_given_up_and_the_job_is_unscored(way, monkeypatch):
    from trimtab.sandbox import pool

    with Sandbox(1, Limits(wall_s=20), way=way) as s:
        monkeypatch.setattr(pool, "LOSSES", 2)
        monkeypatch.setattr(pool._Worker, "read", lambda self: False)
        (o,) = s.run([Job(F, "assert f(1) == 2")])
    assert o.passed is None
    assert "the sandbox" in o.note


def test_no_isolation_is_refused_with_reasons(monkeypatch):
    monkeypatch.setattr(launch, "worth_trying", lambda: [])
    with pytest.raises(EngineError, match="gives no isolation.*unsafe=True.*without isolation a program can read"):
        Sandbox(1)
    with pytest.raises(InputError, match="needs unsafe=True"):
        Sandbox(1, way="none")
    with pytest.raises(InputError, match="unknown way of isolation 'bublewrap'; did you mean 'bubblewrap'"):
        Sandbox(1, way="bublewrap")


def test_stopping_early_leaves_a_working_sandbox(way):
    with Sandbox(1, Limits(wall_s=20), way=way) as s:
        outcomes = s.run([Job(F, "assert f(1) == 2"), Job("while True: pass", "assert f(1) == 2")])
        begun = time.monotonic()
        assert next(outcomes).passed
        outcomes.close()
        assert next(s.run([Job(F, "assert f(1) == 2")])).passed
        assert time.monotonic() - begun < 15
    assert s.closed
    with pytest.raises(EngineError, match="closed"):
        next(s.run([]))


def test_escape_shows_controls_and_keeps_lines():
    assert escape("a\x1b[2J\r\nü\u202e\0") == "a\\x1b[2J\\r\nü\\u202e\\x00"
    assert escape("x" * 10, 4) == "xxxx\n... (6 more characters)"
