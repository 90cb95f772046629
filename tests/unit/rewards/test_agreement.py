"""Programs that answer alike earn by how many they are; nothing of the tests is read."""

import math

import pytest

from trimtab.errors import InputError
from trimtab.rewards import ExecutionAgreement, resolve
from trimtab.rewards.agreement import shown_calls
from trimtab.sandbox import Sandbox
from trimtab.types import Completion, Group, Prompt


@pytest.fixture(scope="module", autouse=True)
def isolation():
    try:
        Sandbox(1).close()
    except Exception as e:
        pytest.skip(f"no isolation here: {e}")


def group(*texts: str, prompt: str = "Add two numbers.\nassert add(2, 3) == 5") -> Group:
    return Group(
        Prompt("p", ({"role": "user", "content": prompt},)),
        tuple(Completion(t, "m", 0, i) for i, t in enumerate(texts)),
    )


ADD, SUM, SUB = "def add(a, b): return a + b", "def add(x, y):\n    return y + x", "def add(a, b): return a - b"
ENDLESS, BROKEN = "def add(a, b):\n    while True: pass", "def add(a, b) return"


def values(reward, *groups: Group) -> list[list[float]]:
    return [[r.value for r in row] for row in reward(list(groups))]


def test_by_hand_on_the_shown_call():
    """add(2, 3): 5, 5, -1, no answer, not a program. Two of four others agree with nobody, so 1/4 and 0."""
    shown = ExecutionAgreement(inputs="shown", timeout_s=1, workers=1)
    assert values(shown, group(ADD, SUM, SUB, ENDLESS, BROKEN)) == [[0.25, 0.25, 0, 0, 0]]
    assert values(shown, group(ADD), group()) == [[0.0], []]


def test_generic_inputs_tell_addition_from_subtraction():
    ((a, b, c),) = values(ExecutionAgreement(workers=1), group(ADD, ADD, SUB))
    assert a == b > c > 0  # 0 - 0 and failures apart, they differ; some pairs of numbers agree
    ((a, b),) = values(ExecutionAgreement(workers=1), group("def f(a): return 1 / 0", "def f(a): return 1 / 0"))
    assert a == b == 0  # failing alike is no agreement


def test_the_name_that_most_define_is_called_whatever_helpers_stand_beside_it():
    helper = "def helper(x): return x + 1\ndef f(x): return helper(x)"
    other = "def f(x): return x + 1"
    assert values(ExecutionAgreement(workers=1), group(helper, other, other)) == [[1.0, 1.0, 1.0]]


def test_a_prompt_that_shows_no_call_is_unscored():
    (row,) = ExecutionAgreement(inputs="shown", workers=1)([group(ADD, ADD, prompt="Add two numbers.")])
    assert all(math.isnan(r.value) and "shows no call" in r.note for r in row)


def test_calls_that_a_prompt_shows():
    text = "def f(x):\n    >>> f([1, 2])\n    3\n    >>> f([1, 2])\nassert set(g('a', k=2)) == {1}\nassert True\nf(9)"
    assert shown_calls(group(prompt=text).prompt) == ["f([1, 2])", "g('a', k=2)"]
    assert shown_calls(group(prompt="assert f(12) == 7<|im_end|>\n<|im_start|>assistant").prompt) == ["f(12)"]


def test_options_are_checked_and_the_name_resolves():
    assert resolve("execution_agreement", inputs="shown") == ExecutionAgreement(inputs="shown")
    with pytest.raises(InputError, match="kind of inputs"):
        ExecutionAgreement(inputs="tests")
