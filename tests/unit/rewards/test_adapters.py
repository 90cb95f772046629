"""User functions of each shape become rewards; what they return is taken for what it is, failures are NaN."""

import math
import pickle
import sys

import numpy as np
import pytest

from trimtab import rewards
from trimtab.errors import InputError
from trimtab.rewards.adapters import to_reward
from trimtab.types import Completion, Group, Prompt, Reward, describe


@pytest.fixture(autouse=True)
def here(monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", list(sys.path))


def group(*texts, role="user", question="q", target=None):
    completions = tuple(Completion(t, "m@1", i, i) for i, t in enumerate(texts))
    return Group(Prompt("p1", ({"role": role, "content": question},), target), completions)


@pytest.mark.parametrize(
    ("value", "number", "note"),
    [
        (1, 1.0, ""),
        (True, 1.0, ""),
        (np.float32(0.5), 0.5, ""),
        (np.bool_(True), 1.0, ""),
        (Reward(2.0, "kept"), 2.0, "kept"),
        (None, math.nan, "the reward returned None"),
        (math.nan, math.nan, "the reward returned nan"),
        (math.inf, math.nan, "the reward returned inf"),
        ("1.0", math.nan, "the reward returned str '1.0' where a number was expected"),
        ([1.0], math.nan, "the reward returned list [1.0] where a number was expected"),
        (Reward(math.nan, "mine"), math.nan, "mine"),
        (Reward(math.nan), math.nan, "the reward returned nan"),
    ],
)
def test_what_a_function_returned(value, number, note):
    r = to_reward(value)
    assert r.note == note and (r.value == number or (math.isnan(number) and math.isnan(r.value)))


def test_trl_chat_gets_messages_and_columns():
    reward = rewards.resolve("user_rewards:trl")
    g = group("5", "6", target={"answer": "5"})
    assert [r.value for r in reward([g])[0]] == [1.0, 0.0]
    with pytest.raises(InputError, match="asks for column 'answer', which prompt 'p1' lacks; it has: gold"):
        reward([group("5", target={"gold": "5"})])


def test_trl_raw_gets_text_and_none_is_unscored():
    reward = rewards.resolve("user_rewards:trl_prompts")
    (row,) = reward([group("b", "skip", role="text", question="a b", target={"unused": 1})])
    assert row[0] == Reward(1.0) and row[1].note == "the reward returned None"


def test_trl_wrong_shapes():
    (row,) = rewards.resolve("user_rewards:trl_short")([group("a", "b")])
    assert {r.note for r in row} == {"the reward returned 1 values for 2 completions"}
    for returned, says in (("ab", "returned str where a list"), (1.0, "TypeError"), ([1.0, "x"], "")):
        (row,) = rewards.Trl(lambda completions, r=returned: r)([group("a", "b")])
        assert math.isnan(row[1].value) and (says in row[0].note)
    one_by_one = rewards.Trl(lambda completions, **kw: [1 / len(completions[0][0]["content"])], whole_group=False)
    assert [r.note for r in one_by_one([group("a", "")])[0]] == ["", "ZeroDivisionError: division by zero"]


def test_shapes_are_told_apart():
    resolve = rewards.resolve
    assert resolve("user_rewards:length") == rewards.lift(sys.modules["user_rewards"].length, limit_s=30.0)
    assert [r.value for r in resolve("user_rewards:by_groups")([group("a", "b")])[0]] == [2.0, 2.0]
    assert [r.value for r in resolve("user_rewards:Longer", than=1)([group("a", "ab")])[0]] == [0.0, 1.0]
    for spec, says in [
        ("user_rewards:later", "is async"),
        ("user_rewards:odd", r"parameters \(a, b, c\); write f\(prompt, completion\)"),
        ("user_rewards:NOT_A_REWARD", "is a int; write a function"),
        ("user_rewards:missing", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
        ("mathanswer", "unknown reward 'mathanswer'; did you mean 'math_answer'"),
    ]:
        with pytest.raises(InputError, match=says):
            resolve(spec)
    with pytest.raises(InputError, match="takes no options"):
        resolve("user_rewards:length", by=2)
    with pytest.raises(InputError, match="refuses its options"):
        resolve("exact_match", colum="a")


def test_descriptions_are_stable_and_rewards_pickle():
    specs = {
        "user_rewards:length": "Lifted(user_rewards:length)",
        "user_rewards:trl": "Trl(user_rewards:trl)",
        "exact_match": "ExactMatch(column='answer', extract='whole', normalise='folded')",
        "reasoning-gym:chain_sum": "ReasoningGym(task='chain_sum', extract='auto', binary=False)",
    }
    for spec, name in specs.items():
        reward = rewards.resolve(spec)
        assert describe(reward) == name and pickle.loads(pickle.dumps(reward)) == reward
