"""Curves against numbers worked by hand and against the table they must agree with."""

import math

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.curves import (
    reward_against_beta,
    reward_against_k,
    reward_against_layer,
    reward_against_prompts,
    value_against_pass_rate,
)
from trimtab.evaluation.metrics import pass_at_k
from trimtab.evaluation.run import compare
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Reward


def groups_of(rewards_PN):
    return [
        Group(
            prompt(f"p{p}"),
            tuple(Completion("x", "toy@0", i, i) for i in range(len(rewards))),
            tuple(Reward(float(r)) for r in rewards),
        )
        for p, rewards in enumerate(rewards_PN)
    ]


def planted(prompts=20, n=6, seed=0):
    rng = np.random.default_rng(seed)
    reward = (rng.random((prompts, n)) < 0.4).astype(float)
    return groups_of(reward), reward + rng.normal(0, 0.7, (prompts, n))


def test_reward_against_k_starts_at_pass_at_1_and_follows_pass_at_k():
    groups, values = planted()
    figure = reward_against_k(groups, {"probe": values}, greedy_groups=[groups[i] for i in range(20)])
    by_name = {c.name: c for c in figure.curves}
    assert by_name["probe"].x == by_name["oracle"].x == (1, 2, 4, 6)
    rate = float(np.mean([g.reward_N.mean() for g in groups]))
    assert by_name["probe"].y[0].mean == by_name["oracle"].y[0].mean == pytest.approx(rate)
    assert figure.lines["pass@1"].mean == pytest.approx(rate)
    assert figure.lines["greedy"].mean == pytest.approx(np.mean([g.reward_N[0] for g in groups]))
    for k, y in zip(by_name["oracle"].x, by_name["oracle"].y, strict=True):
        exact = np.mean([pass_at_k(6, int(g.reward_N.sum()), int(k)) for g in groups])
        assert y.mean == pytest.approx(exact) and y.lower <= y.mean <= y.upper
    table = compare(groups, {"probe": values}, k=4, soft=[])
    assert by_name["probe"].y[2] == table["probe"].reward  # the same chunks, the same seed, the same number


def test_beta_curve_goes_from_argmax_to_chance():
    groups, values = planted()
    (curve,) = reward_against_beta(groups, {"probe": values}, betas=(0.0, 1e-6, 1e6)).curves
    assert curve.y[0].mean == pytest.approx(curve.y[1].mean)
    assert curve.y[2].mean == pytest.approx(np.mean([g.reward_N.mean() for g in groups]), abs=1e-4)


def test_layers_are_in_order_and_a_layer_may_lack_a_ranking():
    groups, values = planted()
    noise = np.random.default_rng(9).normal(size=(20, 6))
    figure = reward_against_layer(groups, {20: {"pg": values}, 8: {"pg": noise, "ce": noise}})
    by_name = {c.name: c for c in figure.curves}
    assert by_name["pg"].x == (8, 20) and by_name["ce"].x == (8,)
    assert by_name["pg"].y[1].mean > by_name["pg"].y[0].mean


def test_training_prompts_curve_averages_over_subsets():
    groups = groups_of([[0, 1], [0, 1]])
    asked = []

    def fit(subset):
        asked.append(tuple(subset))
        right = len(subset) >= 3 or 0 in subset
        return {"probe": [[0, 1], [0, 1]] if right else [[1, 0], [1, 0]]}

    figure = reward_against_prompts(groups, fit, [1, 4], n_train=4, repeats=8, seed=1)
    assert [len(s) for s in asked] == [1] * 8 + [4] and asked[-1] == (0, 1, 2, 3)
    (curve,) = figure.curves
    assert curve.x == (1, 4) and curve.y[1].mean == 1
    assert curve.y[0].mean == pytest.approx(np.mean([0 in s for s in asked[:8]]))
    with pytest.raises(InputError, match="size 5 is not between 1 and the 4"):
        reward_against_prompts(groups, fit, [5], n_train=4)


def test_value_against_pass_rate_by_hand():
    groups = groups_of([[0, 0], [0, 1], [1, 1]])
    # a value that only knows the prompt: all values of a prompt equal; mean 2, sd sqrt(2/3) over completions
    (about_prompt, about_completion) = value_against_pass_rate(
        groups, {"prompt": [[1, 1], [2, 2], [3, 3]], "completion": [[0, 1], [0, 1], [0, 1]]}
    )
    z = 1 / math.sqrt(2 / 3)
    assert about_prompt.pass_rate_P == (0, 0.5, 1)
    assert about_prompt.value_P == pytest.approx((-z, 0, z))
    assert about_prompt.slope == pytest.approx(2 * z) and about_prompt.intercept == pytest.approx(-z)
    assert about_prompt.accuracy.mean == 0.5 and about_completion.accuracy.mean == 1
    assert about_completion.slope == pytest.approx(0) and about_completion.accuracy.n == 1
    (flat,) = value_against_pass_rate(groups, {"flat": [[1, 1]] * 3})
    assert flat.value_P == (0, 0, 0)
    (same,) = value_against_pass_rate(groups_of([[1, 1], [1, 1]]), {"x": [[0, 1], [2, 3]]})
    assert math.isnan(same.slope)
