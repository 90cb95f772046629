"""Every built-in reward: gold earns the maximum, anti-gold the minimum, our failure is NaN and a note; picklable."""

import math

import pytest

from trimtab import rewards
from trimtab.errors import InputError
from trimtab.testing import check_reward
from trimtab.types import Completion, Group, Prompt


def group(target, *texts):
    completions = tuple(Completion(t, "m@1", i, i) for i, t in enumerate(texts))
    return Group(Prompt("p", ({"role": "user", "content": "q"},), target), completions)


CHAIN = {"question": "4 - 1 =", "answer": "3", "metadata": {}}
PRIMES = {"question": "factors of 12", "answer": "2 × 2 × 3", "metadata": {"number": 12, "factors": [2, 2, 3]}}
CASES = {
    "exact_match": (
        rewards.ExactMatch(),
        group({"answer": ["Paris", "Lutetia"]}, "paris", " PARIS\n", "Lutetia"),
        group({"answer": ["Paris", "Lutetia"]}, "London", "", "Paris, France"),
    ),
    "exact_match number": (
        rewards.ExactMatch("gold", extract="last_number"),
        group({"gold": 5}, "2 + 3 = 5", "it is 5.0"),
        group({"gold": 5}, "5 + 1 = 6", "five"),
    ),
    "exact_match squad": (
        rewards.ExactMatch(normalise="squad"),
        group({"answer": "the Eiffel Tower"}, "Eiffel tower!", "An eiffel  tower"),
        group({"answer": "the Eiffel Tower"}, "tower"),
    ),
    "regex": (rewards.Regex(r"(?i)\byes\b"), group(None, "Yes.", "oh yes"), group(None, "no", "yesterday", "")),
    "exact_match marked": (
        rewards.ExactMatch("answer", extract="final"),
        group(
            {"answer": 1250},
            "$1,250",
            "The answer is 1,250 coins in all.",
            "<think>7</think>**1250.00**",
            "It is 1250 (not 1300).",
            "Answer: 1300 - 50 = 1250",
        ),
        group({"answer": 1250}, "The answer is 2 times 1250", "1251", "<think>1250"),
    ),
    "exact_match gsm8k": (
        rewards.ExactMatch(extract="final"),
        group({"answer": "40 + 2 = <<40+2=42>>42\n#### 42"}, "The answer is 42.", "#### 42"),
        group({"answer": "40 + 2 = <<40+2=42>>42\n#### 42"}, "The answer is 40."),
    ),
    "multiple_choice said": (
        rewards.MultipleChoice(),
        group({"answer": "B", "choices": ["Oslo", "Rome"]}, "The answer is Rome.", "rome"),
        group({"answer": "B", "choices": ["Oslo", "Rome"]}, "The answer is Oslo.", "The answer is Bern."),
    ),
    "multiple_choice": (
        rewards.MultipleChoice(),
        group({"answer": "b"}, "B", "The answer is (B)", "**B** because A is wrong"),
        group({"answer": "b"}, "A", "no idea", ""),
    ),
    "multiple_choice index": (rewards.MultipleChoice(), group({"answer": 2}, "C"), group({"answer": 2}, "B")),
    "multiple_choice text": (
        rewards.MultipleChoice(),
        group({"answer": "Rome", "choices": ["Oslo", "Rome"]}, "B)"),
        group({"answer": "Rome", "choices": ["Oslo", "Rome"]}, "A)"),
    ),
    "math_answer": (
        rewards.MathAnswer(),
        group({"answer": "1/2"}, r"so \boxed{\frac{2}{4}}", "The answer is $0.5$", "0.5"),
        group({"answer": "1/2"}, r"\boxed{2}", "no number", ""),
    ),
    "math_answer latex": (
        rewards.math_answer,
        group({"answer": r"\frac{\sqrt{3}}{2}"}, r"thus $\frac{\sqrt{3}}{2}$", r"\boxed{\sqrt{3}/2}"),
        group({"answer": r"\frac{\sqrt{3}}{2}"}, r"thus $\sqrt{3}$"),
    ),
    "math_answer gsm8k": (
        rewards.MathAnswer(),
        group({"answer": "70 + 2 = <<70+2=72>>72\n#### 72"}, "She sold 72.", "#### 72"),
        group({"answer": "70 + 2 = <<70+2=72>>72\n#### 72"}, "She sold 70."),
    ),
    "reasoning_gym": (
        rewards.ReasoningGym("chain_sum"),
        group(CHAIN, "3", "4 - 1 = 3", "<answer>3</answer> of 9", "03", r"\boxed{3}"),
        group(CHAIN, "4", "none", "", "3 - 1 = 2"),
    ),
    "reasoning_gym binary": (rewards.ReasoningGym("chain_sum", binary=True), group(CHAIN, "3"), group(CHAIN, "13")),
    "reasoning_gym refused": (
        rewards.ReasoningGym("prime_factorization"),  # its verifier raises on what is no number
        group(PRIMES, "2 × 2 × 3", "<answer>2 × 2 × 3</answer>"),
        group(PRIMES, "two", ""),
    ),
    "combined": (
        rewards.Clip(rewards.Weighted({rewards.Regex("a"): 0.75, rewards.Regex("b"): 0.75})),
        group(None, "ab"),
        group(None, "c"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gold_and_anti_gold(name):
    check_reward(*CASES[name])


def test_every_built_in_has_a_case():
    elsewhere = {"unit_tests", "execution_agreement"}  # in tests/unit/rewards: they need a machine that isolates
    elsewhere |= {"reward_model", "prompt_reward"}  # learned: no gold, see check_learned_reward in tests/unit/rewards
    elsewhere |= {"instructions"}  # its checks are an optional package
    assert {name.split()[0] for name in CASES} - {"combined"} == set(rewards.REWARDS) - elsewhere


@pytest.mark.parametrize(
    ("reward", "target", "says"),
    [
        (rewards.ExactMatch(), {"answer": None}, "column 'answer' holds no gold answer"),
        (rewards.MultipleChoice(), {"answer": "Rome"}, "neither a letter, an index nor one of the choices"),
        (rewards.MathAnswer(), {"answer": "no maths"}, "the gold answer 'no maths' could not be parsed"),
        (rewards.MathAnswer(), {"answer": None}, "the gold answer 'None' could not be parsed"),
        (
            rewards.ReasoningGym("prime_factorization"),
            {"question": "q", "answer": "x", "metadata": {"number": 12}},
            "the verifier of prime_factorization failed: ",
        ),
    ],
)
def test_our_failure_is_nan_with_a_note(reward, target, says):
    (row,) = reward([group(target, "5", "7")])
    assert all(math.isnan(r.value) and says in r.note for r in row), row


@pytest.mark.parametrize(
    "reward", [rewards.ExactMatch("gold"), rewards.MathAnswer("gold"), rewards.MultipleChoice("gold")]
)
def test_a_missing_column_is_the_users_to_mend(reward):
    with pytest.raises(InputError, match="prompt 'p' has no column 'gold' for the reward; it has: answer"):
        reward([group({"answer": 1}, "1")])


def test_settings_are_checked_when_made():
    for make, says in [
        (lambda: rewards.Regex("(a"), "not valid"),
        (lambda: rewards.ExactMatch(extract="lastnumber"), "did you mean 'last_number'"),
        (lambda: rewards.ExactMatch(normalise="fold"), "did you mean 'folded'"),
        (lambda: rewards.ReasoningGym("chain_sum", extract="boxd"), "did you mean 'boxed'"),
        (lambda: rewards.resolve("reasoning_gym/chainsum")([]), "did you mean 'chain_sum'"),
    ]:
        with pytest.raises(InputError, match=says):
            make()
