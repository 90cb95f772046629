"""User functions of each shape become rewards; what they return is taken for what it is, failures are NaN."""

import asyncio
import math
import pickle
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from trimtab import rewards
from trimtab.decoders import BestOfN, Ranked
from trimtab.errors import InputError
from trimtab.evaluation import evaluate
from trimtab.returned import NOTE, one_line, to_reward
from trimtab.testing import FakeSampler, prompt
from trimtab.types import Completion, Group, Prompt, Reward, SamplingParams, describe


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
        (Decimal("0.25"), 0.25, ""),
        (Fraction(3, 8), 0.375, ""),
        (np.array([0.5]), 0.5, ""),
        (10**400, math.nan, "the reward returned a number that no float can hold (int too large to convert to float)"),
        (1j, math.nan, "the reward returned complex 1j where a number was expected"),
        (b"1", math.nan, "the reward returned bytes b'1' where a number was expected"),
        (np.ones(2), math.nan, "the reward returned ndarray array([1., 1.]) where a number was expected"),
        (Reward(math.inf, "mine"), math.nan, "mine"),
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
    for returned, says in (("ab", "returned str where a list"), (1.0, "returned float where a list"), ([1.0, "x"], "")):
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
        ("user_rewards:swapped", r"parameters \(completion, prompt\)"),
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
        "exact_match": "ExactMatch(column='answer', extract='whole', normalise='folded', tags=())",
        "reasoning-gym:chain_sum": "ReasoningGym(task='chain_sum', extract='auto', binary=False, tags=())",
    }
    for spec, name in specs.items():
        reward = rewards.resolve(spec)
        assert describe(reward) == name and pickle.loads(pickle.dumps(reward)) == reward


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_tensors_of_any_kind_are_their_values(dtype, shape):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([1.0, 0.0, 1.0], requires_grad=dtype.startswith("f")).to(getattr(torch, dtype)).reshape(shape)
    for returned in (tensor, list(tensor)):
        (row,) = rewards.Trl(lambda completions, r=returned: r)([group("a", "b", "c")])
        assert [r.value for r in row] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("returned", "values"),
    [
        ((1, 0.5), [1.0, 0.5]),
        (np.array([[1], [0]]), [1.0, 0.0]),
        (np.array([True, False]), [1.0, 0.0]),
        (np.array([1.0, None], dtype=object), [1.0, None]),
        (iter([2, 3]), [2.0, 3.0]),
        ([10**400, 1], [None, 1.0]),
        (["0.5", 1], [None, 1.0]),
        ([math.inf, -1], [None, -1.0]),
        ({0.1: "a", 0.2: "b"}, [None, None]),  # no order of its own
        ({0.1, 0.2}, [None, None]),
        (b"ab", [None, None]),
        (None, [None, None]),
        (np.float32(1), [None, None]),
        (np.array(1.0), [None, None]),
        (np.ones((1, 2)), [None, None]),
        (np.ones((2, 2)), [None, None]),
        ([1.0, 2.0, 3.0], [None, None]),
    ],
)
def test_what_a_trl_function_returned(returned, values):
    (row,) = rewards.Trl(lambda completions, **kw: returned)([group("a", "b")])
    assert [None if math.isnan(r.value) else r.value for r in row] == values
    assert all(r.note for r, v in zip(row, values, strict=True) if v is None)


def test_trl_keywords_that_only_a_trainer_has_are_absent():
    reward = rewards.resolve("user_rewards:trl_trainer")
    assert [r.value for r in reward([group("a", "b")])[0]] == [0.0, 0.0]
    for name in ("trainer_state", "log_metric", "log_extra", "environments"):
        f = eval(f"lambda completions, {name}, **kw: [0.0]")
        with pytest.raises(InputError, match=f"asks for '{name}', which only a trainer can give"):
            rewards.Trl(f)([group("a")])


def test_trl_counts_tokens_where_they_are_known():
    prompt = Prompt("p", ({"role": "user", "content": "q"},))
    known = Group(prompt, (Completion("a", "m", 0, 0, tokens=(4, 5)), Completion("", "m", 0, 1, tokens=())))
    for f in (lambda completion_ids, **kw: map(len, completion_ids), lambda completions_ids: map(len, completions_ids)):
        assert [r.value for r in rewards.adapt(f)([known])[0]] == [2.0, 0.0]
    unknown = Group(prompt, (known.completions[0], Completion("b", "m", 0, 1)))
    with pytest.raises(InputError, match="asks for 'completion_ids', and completions of prompt 'p' came without"):
        rewards.adapt(lambda completion_ids, **kw: [1.0])([unknown])
    (row,) = rewards.adapt(lambda completions, completion_ids=None: [float(completion_ids is None)] * 2)([unknown])
    assert [r.value for r in row] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "values"), [("later", [0.0, 0.0]), ("later_each", [1.0, 2.0]), ("later_groups", [2.0, 2.0])]
)
def test_async_functions_are_awaited_also_inside_a_running_loop(name, values):
    reward = rewards.resolve(f"user_rewards:{name}")
    g = group("a", "bb")
    assert [r.value for r in reward([g])[0]] == values

    async def in_a_loop():
        return rewards.score([g], reward, workers=0, progress=False)

    assert [r.value for r in asyncio.run(in_a_loop())[0].rewards] == values


def test_what_a_reward_prints_is_not_on_stdout(capsys):
    g = group("a", "exit")
    scored = rewards.score([g], sys.modules["user_rewards"].chatty, progress=False)
    assert capsys.readouterr() == ("", "scoring a\nscoring exit\n")
    assert [r.note for r in scored[0].rewards] == ["", "SystemExit: 3"]
    assert scored[0].rewards[0].value == 1.0


def test_notes_are_one_bounded_line():
    banner = "\n***\n  Resource punkt not found.\n\n  Use the \x1b[31mdownloader\x1b[0m\n***\n"
    assert one_line(banner) == "Resource punkt not found. Use the downloader"
    trace = "Traceback (most recent call last):\n  File 'x', line 1, in f\n    g()\nValueError: no such thing\n"
    assert one_line(trace) == "ValueError: no such thing"
    assert one_line("bell\a") == "bell\\x07" and one_line("***") == "***"

    def fails(prompt, completion):
        raise RuntimeError("x" * 5000 + "\nthe end")

    ((r,),) = rewards.lift(fails)([group("a")])
    assert len(r.note) <= NOTE and r.note.startswith("RuntimeError: xx") and r.note.endswith("the end")
    assert "\n" not in r.note


def test_a_users_function_is_adapted_where_a_reward_is_taken():
    def right(completions, **kw):
        return [None if c[0]["content"] == "b" else 1.0 for c in completions]

    def size(prompt, completion):
        return len(completion.text)

    g = group("a", "b")
    assert rewards.score([g], right, progress=False)[0].rewards[0].value == 1.0
    mixed = rewards.Weighted({right: 1.0, size: 0.5})
    assert mixed([g])[0][0].value == 1.5 and math.isnan(mixed([g])[0][1].value)
    trl = rewards.Weighted({right: 1.0, size: 0.5}, skip_unscored=True)
    assert [r.value for r in trl([g])[0]] == [1.5, 0.5] and "returned None" in trl([g])[0][1].note
    nothing = rewards.Weighted({right: 1.0}, skip_unscored=True)([g])[0][1]
    assert math.isnan(nothing.value) and "returned None" in nothing.note
    assert [r.value for r in rewards.Clip(size, 0, 0.25)([g])[0]] == [0.25, 0.25]


def length(prompt, completion):
    return len(completion.text)


def trl_length(completions, **columns):
    return [len(messages[-1]["content"]) for messages in completions]


@pytest.mark.parametrize("reward", [length, trl_length, rewards.lift(length)])
def test_any_function_serves_where_a_reward_is_taken(reward):
    sampler = FakeSampler(lambda p, rng: "x" * int(rng.integers(1, 9)))
    asked, params = [prompt("a"), prompt("b")], SamplingParams(seed=3)
    groups = rewards.score(sampler(asked, 4, params), reward)
    longest = [max(len(c.text) for c in g.completions) for g in groups]
    assert [g.reward_N.max() for g in groups] == longest
    for lever in (BestOfN(sampler, reward, n=4), Ranked({"one": sampler, "two": sampler}, reward)):
        chosen = [len(a.completion.text) for a in lever(asked, params)]
        assert evaluate(lever, asked, reward, params).reward.mean == np.mean(chosen)
    assert [len(a.completion.text) for a in BestOfN(sampler, reward, n=4)(asked, params)] == longest
