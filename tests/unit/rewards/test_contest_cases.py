"""Inputs and outputs in the columns of contests: right programs earn 1, wrong ones 0, columns that cannot be read NaN."""

# ruff: noqa: E501  (programs read better whole)

import base64
import json
import math
import pickle
import zlib

import pytest

from trimtab.rewards.contest_cases import read_cases, same_output
from trimtab.rewards.unit_tests import UnitTests
from trimtab.types import Completion, Group, Prompt

PAIRS = [("2\n3 4\n", "7\n"), ("3\n1 1 1\n", "3\n"), ("1\n-5\n", "-5")]
ADDS = "Read, then add:\n```python\nn = int(input())\nprint(sum(map(int, input().split())))\n```\nFor example:\n```\n2\n3 4\n```\n"
SUBTRACTS = ADDS.replace("sum(", "-sum(")
ROWS = [{"input": i, "output": o, "testtype": "stdin"} for i, o in PAIRS]
STDIN = {
    "apps": {"input_output": json.dumps({"inputs": [i for i, _ in PAIRS], "outputs": [o for _, o in PAIRS]})},
    "table": {"input_output": {"inputs": [i.split("\n") for i, _ in PAIRS], "outputs": [[o] for _, o in PAIRS]}},
    "code_contests": {"public_tests": {"input": [PAIRS[0][0]], "output": [PAIRS[0][1]]}, "private_tests": {"input": [PAIRS[1][0]], "output": [PAIRS[1][1]]}, "generated_tests": {"input": [], "output": []}},
    "livecodebench": {"public_test_cases": json.dumps(ROWS[:1]), "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(json.dumps(ROWS[1:])))).decode()},
    "codeforces": {"official_tests": [{"input": i, "output": o} for i, o in PAIRS]},
    "listed": {"tests": json.dumps(ROWS)},
    "lists": {"inputs": [i for i, _ in PAIRS], "outputs": [o for _, o in PAIRS]},
}  # fmt: skip
SOLUTION = "```python\nclass Solution:\n    def largest(self, nums: List[int], k: int) -> List[int]:\n        return sorted(nums)[-k:]\n```"
PLAIN = "def largest(nums, k):\n    return tuple(heapq.nlargest(k, nums)[::-1])"
CALLS = {
    "apps": {"input_output": {"fn_name": "largest", "inputs": [[[3, 1, 2], 2], [[5], 1]], "outputs": [[[2, 3]], [5]]}},
    "livecodebench": {"metadata": '{"func_name": "largest"}', "public_test_cases": json.dumps([{"input": "[3, 1, 2]\n2", "output": "[2, 3]", "testtype": "functional"}])},
    "deepcoder": {"tests": {"fn_name": "largest", "inputs": [[[3, 1, 2], 2]], "outputs": [[2, 3]]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def judge():
    from trimtab.sandbox import Sandbox

    try:
        Sandbox(1).close()
    except Exception as e:
        pytest.skip(f"no isolation here: {e}")
    reward = UnitTests(timeout_s=10, workers=1)

    def rewards(target, *texts):
        prompt = Prompt("p", ({"role": "user", "content": "q"},), target)
        return reward([Group(prompt, tuple(Completion(t, "m", 0, i) for i, t in enumerate(texts)))])[0]

    return rewards


@pytest.mark.parametrize("name", STDIN)
def test_programs_that_read_and_print(judge, name):
    silent, fails = "n = input()", "import sys\nprint(7)\nsys.exit('no such thing')"
    right, wrong, nothing, error, thought = judge(
        STDIN[name], ADDS, SUBTRACTS, silent, fails, f"<think>{ADDS}</think>I do not know."
    )
    assert (right.value, right.note) == (1.0, "")
    assert (wrong.value, wrong.note) == (0.0, "printed '-7' where '7' is expected")
    assert (nothing.value, error.value, thought.value) == (0.0, 0.0, 0.0)
    assert error.note == "ended with exit code 1: no such thing"


def test_only_the_last_case_fails_and_an_endless_loop_costs_one_limit(judge):
    target = {"inputs": [str(i) for i in range(12)], "outputs": [str(i) for i in range(11)] + ["x"]}
    (r,) = judge(target, "print(input())")
    assert (r.value, r.note) == (0.0, "printed '11' where 'x' is expected")


@pytest.mark.parametrize("name", CALLS)
def test_functions_and_methods_of_a_solution(judge, name):
    wrong = SOLUTION.replace("[-k:]", "[:k]")
    equal = "class Yes:\n    def __eq__(s, o): return True\ndef largest(nums, k): return Yes()"
    first, second, third, fourth = judge(CALLS[name], SOLUTION, PLAIN, wrong, equal)
    assert [r.value for r in (first, second, third, fourth)] == [1.0, 1.0, 0.0, 0.0], (first, second)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"input_output": '{"inputs": ["1"], "outputs": []}'}, "two lists of one length"),
        ({"input_output": {"inputs": [], "outputs": []}}, "not empty"),
        ({"public_test_cases": json.dumps(ROWS), "private_test_cases": "A" * 60}, "neither JSON nor packed"),
        ({"public_test_cases": [{"input": "1", "output": "2", "testtype": "functional"}]}, "without the name"),
        ({"public_test_cases": [{"input": "x y", "output": "2", "testtype": "functional"}], "metadata": {"func_name": "f"}}, "not JSON"),
        ({"inputs": ["1"], "outputs": ["2"], "starter_code": "def f(self, root: Optional[TreeNode]):"}, "linked nodes or trees"),
        ({"tests": [{"stdin": "1"}]}, "'input' and 'output'"),
        ({"inputs": ["1"], "outputs": ["9" * 70_000]}, "longer than"),
    ],
)  # fmt: skip
def test_cases_that_cannot_be_read_are_unscored(judge, target, says):
    (r,) = judge(target, "print(input())")
    assert math.isnan(r.value) and says in r.note


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        ("1 2 \n3\n\n", "1 2\n3", True), ("0.3333333", "0.33333333", True), ("1e-7", "0.0", True), ("2", "2.0", True),
        ("2.0", "2", False), ("1 2", "1\n2", False), ("Yes", "YES", False), ("0.34", "0.33", False), ("", "0", False), ("nan", "1.0", False),
    ],
)  # fmt: skip
def test_outputs_by_line_and_by_value(got, wanted, same):
    assert same_output(got, wanted) is same


def test_plain_targets_have_no_cases():
    assert read_cases({"answer": 3}) is None and read_cases({"prompt": "x", "private_tests": None}) is None
