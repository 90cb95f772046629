"""Estimators against enumeration, hand-worked numbers and known distributions."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.decoders.select import softmax_weights
from trimtab.errors import InputError
from trimtab.evaluation.metrics import (
    chosen_reward,
    chunks,
    expected_max,
    expected_reward,
    mean_interval,
    paired_bootstrap,
    pass_at_k,
    ranking_accuracy,
)

NAN = math.nan


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.integers(1, 40), st.data())
def test_chunks_are_disjoint_and_as_many_as_fit(n, data):
    k = data.draw(st.integers(1, n))
    index = chunks(n, k, rng(), permutations=1)
    assert index.shape == (n // k, k)
    assert len(set(index.ravel())) == n // k * k and set(index.ravel()) <= set(range(n))


@pytest.mark.parametrize("k", [0, 4, -1])
def test_k_outside_the_group_is_an_error(k):
    with pytest.raises(InputError, match="between 1 and 3"):
        chunks(3, k, rng())
    with pytest.raises(InputError, match="between 1 and 3"):
        expected_max([1, 2, 3], k)


def test_softmax_by_hand():
    # values 0 and ln 3 at β = 1: weights 1/4 and 3/4; at β = 1/2: 1/10 and 9/10
    value, reward = [0, math.log(3)], [2.0, 6.0]
    assert expected_reward(value, reward, 2, beta=1, rng=rng()).reward == pytest.approx(0.25 * 2 + 0.75 * 6)
    assert expected_reward(value, reward, 2, beta=0.5, rng=rng()).reward == pytest.approx(0.1 * 2 + 0.9 * 6)
    assert expected_reward(value, reward, 2, beta=0, rng=rng()).reward == 6
    assert expected_reward(value, reward, 1, beta=0, rng=rng()).reward == 4  # k = 1 is the mean


@pytest.mark.parametrize("beta", [0.0, 0.5, 1e-9, math.inf])
def test_weights_of_many_chunks_are_those_of_each(beta):
    values = np.array([[1, 2, 2.0], [NAN, 0, 1], [NAN] * 3, [math.inf, 0, NAN], [-math.inf, 0, 1], [-math.inf] * 3])
    together = softmax_weights(values, beta)
    assert together.tolist() == [softmax_weights(row, beta).tolist() for row in values]
    assert together.sum(axis=1) == pytest.approx([1, 1, 0, 1, 1, 1])


def test_ties_are_shared_evenly():
    assert expected_reward([1, 1, 0], [0, 1, 5], 3, rng=rng()) == (0.5, 0.0)
    assert expected_reward([7, 7, 7], [0, 1, 5], 3, rng=rng()).reward == pytest.approx(2)


def test_chunks_of_one_permutation_are_what_is_averaged():
    value, reward = np.arange(5.0), np.array([0.3, 0.1, 0.7, 0.2, 0.9])
    order = rng(4).permutation(5)
    by_hand = np.mean([reward[max(order[i : i + 2])] for i in (0, 2)])  # the fifth of the permutation is dropped
    assert expected_reward(value, reward, 2, rng=rng(4)).reward == pytest.approx(by_hand)


def test_many_permutations_reach_the_mean_over_every_subset():
    value, reward = rng(1).normal(size=6), rng(2).normal(size=6)
    for beta in (0.0, 0.7):
        exact = np.mean(
            [expected_reward(value[list(s)], reward[list(s)], 3, beta=beta, rng=rng()).reward
             for s in combinations(range(6), 3)]
        )  # fmt: skip
        estimate = expected_reward(value, reward, 3, beta=beta, rng=rng(), permutations=4000).reward
        assert estimate == pytest.approx(exact, abs=0.02)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8), st.floats(-50, 50), st.floats(0.1, 10))
def test_beta_laws(values, shift, scale):
    reward = np.arange(float(len(values)))
    n = len(values)

    def choose(v, beta):
        return expected_reward(v, reward, n, beta=beta, rng=rng()).reward

    v = np.round(np.array(values), 3)  # distinct values differ by at least 0.001
    assert choose(v, 1e-7) == pytest.approx(choose(v, 0.0), abs=1e-6)  # β → 0 is the argmax
    assert choose(v, 1e9) == pytest.approx(reward.mean(), abs=1e-6)  # β → ∞ is a completion at random
    assert choose(v + shift, 0.5) == pytest.approx(choose(v, 0.5), abs=1e-9)  # only differences count
    assert choose(v * scale, 0.5 * scale) == pytest.approx(choose(v, 0.5), abs=1e-9)  # β is the values' unit


def test_nan_value_is_never_chosen_and_nan_reward_is_left_out_and_counted():
    assert expected_reward([NAN, 1, 0], [9, 2, 3], 3, rng=rng()) == (2, 0)
    assert expected_reward([1, 1, 0], [NAN, 2, 3], 3, rng=rng()) == (2, 0.5)  # half of the choice is unscored
    nothing = expected_reward([NAN, NAN], [1, 2], 2, rng=rng())
    assert math.isnan(nothing.reward) and nothing.unscored == 1
    unscored = expected_reward([1, 2], [NAN, NAN], 2, rng=rng())
    assert math.isnan(unscored.reward) and unscored.unscored == 1
    # chunks: two chunks choose 1.0 and an unscored one; the mean is over the scored one
    assert chosen_reward([[1, 0], [0, 1]], [[1.0, 0.0], [0.0, NAN]]) == (1.0, 0.5)


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_against_brute_force(n):
    for c in range(n + 1):
        reward = np.array([1.0] * c + [0.0] * (n - c))
        for k in range(1, n + 1):
            brute = np.mean([reward[list(s)].max() for s in combinations(range(n), k)])
            assert pass_at_k(n, c, k) == pytest.approx(brute)
            assert expected_max(reward, k).reward == pytest.approx(brute)


def test_pass_at_k_is_exact_where_floats_overflow():
    assert pass_at_k(1000, 1, 500) == pytest.approx(0.5)
    assert [pass_at_k(10, 3, 1), pass_at_k(10, 1, 1), pass_at_k(5000, 1, 10)] == [0.3, 0.1, 0.002]
    assert pass_at_k(10.0, np.float32(3), np.int64(1)) == 0.3
    for wrong in (2.5, math.nan, None, "3"):
        with pytest.raises(InputError, match="whole numbers"):
            pass_at_k(wrong, 1, 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="c = 5"):
        pass_at_k(4, 5, 1)


@given(st.lists(st.floats(-5, 5) | st.just(NAN), min_size=1, max_size=7), st.data())
def test_expected_max_against_brute_force(rewards, data):
    n = len(rewards)
    k = data.draw(st.integers(1, n))
    subsets = [[r for r in s if not math.isnan(r)] for s in combinations(rewards, k)]
    scored = [max(s) for s in subsets if s]
    got = expected_max(rewards, k)
    assert got.unscored == pytest.approx(1 - len(scored) / len(subsets))
    assert got.reward == pytest.approx(np.mean(scored)) if scored else math.isnan(got.reward)


def test_no_ranking_beats_the_best_of_the_same_completions():
    for seed in range(20):
        value, reward = rng(seed).normal(size=8), rng(seed + 100).normal(size=8)
        best = expected_max(reward, 8).reward
        assert all(expected_reward(value, reward, 8, beta=b, rng=rng()).reward <= best + 1e-12 for b in (0, 0.3))


def test_bootstrap_of_a_known_case():
    a = rng(5).normal(2.0, 1.0, 400)
    got = paired_bootstrap(a)
    half = 1.96 * a.std() / math.sqrt(400)  # a bootstrap's spread is the plug-in standard error
    assert got.mean == pytest.approx(a.mean()) and got.n == 400
    assert got.upper - got.mean == pytest.approx(half, rel=0.05)
    assert got.mean - got.lower == pytest.approx(half, rel=0.05)
    narrower = paired_bootstrap(a, level=0.5)
    assert (narrower.upper - narrower.lower) / (got.upper - got.lower) == pytest.approx(0.6745 / 1.96, rel=0.05)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    source = rng(7)
    hits = 0
    for trial in range(300):
        x = mean_interval(source.random(60) < 0.3, draws=500, seed=trial)
        hits += x.lower <= 0.3 <= x.upper
    assert 0.90 <= hits / 300 <= 0.98


def test_pairing_cancels_what_makes_a_prompt_hard():
    hard = rng(1).normal(0, 3, 200)
    a, b = hard + rng(2).normal(0.5, 0.2, 200), hard + rng(3).normal(0.0, 0.2, 200)
    paired, alone_a, alone_b = paired_bootstrap(a, b), mean_interval(a), mean_interval(b)
    assert paired.lower > 0.4 and paired.upper < 0.6
    unpaired = math.hypot(alone_a.upper - alone_a.lower, alone_b.upper - alone_b.lower)
    assert paired.upper - paired.lower < 0.1 * unpaired


def test_bootstrap_edges():
    assert paired_bootstrap([1, 2, 3]) == paired_bootstrap([1, 2, 3])
    assert paired_bootstrap([1, 2, 3], seed=1) != paired_bootstrap([1.0, 2.5, 3], seed=2)
    assert mean_interval([2, 2, 2]) == (2, 2, 2, 3)
    assert paired_bootstrap([1, NAN, 3], [0, 5, NAN]).n == 1
    one = paired_bootstrap([0.7])
    assert one.mean == 0.7 and math.isnan(one.lower) and math.isnan(one.upper)
    none = paired_bootstrap([NAN, NAN])
    assert math.isnan(none.mean) and none.n == 0
    with pytest.raises(InputError, match="3 and 2"):
        paired_bootstrap([1, 2, 3], [1, 2])


def test_ranking_accuracy_by_hand():
    # pairs (better, worse) = (0,1), (0,2): one right, one tied
    assert ranking_accuracy([2, 1, 2], [1, 0, 0]) == 0.75
    assert ranking_accuracy([3, 2, 1], [3, 2, 1]) == 1
    assert ranking_accuracy([1, 2, 3], [3, 2, 1]) == 0
    assert math.isnan(ranking_accuracy([1, 2], [5, 5]))
    assert ranking_accuracy([1, 2, NAN], [0, 1, 9]) == 1
