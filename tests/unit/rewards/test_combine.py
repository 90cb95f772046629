"""Sums, clips and standardised rewards by hand; NaN goes through with its note."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab import rewards
from trimtab.errors import InputError
from trimtab.rewards import Clip, ExactMatch, MathAnswer, Regex, StandardiseInGroup, Verifier, Weighted, lift
from trimtab.types import Completion, Group, Prompt, Reward


def group(values):
    completions = tuple(Completion(str(v), "m@1", i, i) for i, v in enumerate(values))
    return Group(Prompt("p", ({"role": "user", "content": "q"},)), completions)


def as_written(prompt, completion):
    value = float(completion.text)
    return Reward(value, "unlucky" if math.isnan(value) else "")


VALUE = lift(as_written)


def numbers(reward, values):
    return [r.value for r in reward([group(values)])[0]]


def test_weighted():
    reward = Weighted({VALUE: 2.0, Regex(r"^1"): -0.5})
    assert numbers(reward, [1.0, 3.0]) == [1.5, 6.0]
    (bad,) = reward([group([math.nan])])[0]
    assert math.isnan(bad.value) and bad.note.endswith("test_combine:as_written): unlucky")
    assert reward([]) == [] and eval(repr(Weighted({Regex("a"): 1})).split("* ")[1][:-1]) == Regex("a")
    with pytest.raises(InputError, match="at least one reward"):
        Weighted({})
    with pytest.raises(InputError, match="finite weights"):
        Weighted({VALUE: math.nan})


def test_clip():
    np.testing.assert_array_equal(numbers(Clip(VALUE, -1, 2), [-5.0, 0.5, 7.0, math.nan]), [-1, 0.5, 2, math.nan])
    with pytest.raises(InputError, match="must not exceed"):
        Clip(VALUE, 2, 1)


def test_standardise_by_hand():
    np.testing.assert_allclose(numbers(StandardiseInGroup(VALUE), [1.0, 3.0, math.nan]), [-1, 1, math.nan])
    assert numbers(StandardiseInGroup(VALUE), [0.1, 0.1, 0.1]) == [0.0, 0.0, 0.0]
    assert numbers(StandardiseInGroup(VALUE), [5.0]) == [0.0]
    assert np.isnan(numbers(StandardiseInGroup(VALUE), [math.nan, math.nan])).all()
    assert numbers(StandardiseInGroup(VALUE), []) == []


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.floats(-9, 9), st.floats(0.5, 9))
def test_standardised_has_mean_0_and_deviation_1_whatever_the_scale(values, shift, scale):
    z = np.array(numbers(StandardiseInGroup(VALUE), values))
    assert abs(z.mean()) < 1e-6
    if np.std(values) > 1e-3:
        assert abs(z.std() - 1) < 1e-6
        moved = numbers(StandardiseInGroup(VALUE), [scale * v + shift for v in values])
        np.testing.assert_allclose(moved, z, atol=1e-6)


def test_how_combinations_run():
    cheap, slow = ExactMatch(), MathAnswer(limit_s=4.0)
    probe = sum  # any callable that is no Verifier
    cases = [
        (Weighted({cheap: 1, slow: 1}), True, 4.0),
        (Weighted({cheap: 1}), True, None),
        (Weighted({slow: 1, probe: 1}), False, None),
        (Clip(slow), True, 4.0),
        (Clip(probe), False, None),
        (StandardiseInGroup(slow), False, 4.0),
        (rewards.Trl(len), False, None),
        (rewards.Trl(len, 3.0, whole_group=False), True, 3.0),
    ]
    for reward, by_completion, limit_s in cases:
        assert isinstance(reward, Verifier) and (reward.by_completion, reward.limit_s) == (by_completion, limit_s), (
            reward
        )
