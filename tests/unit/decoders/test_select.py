"""Laws of choosing on an array of values: softmax and its limits, ties, NaN, votes, rejection."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.decoders.select import argmax, draw, expected_draws, rejection_probs, softmax_weights, vote_weights
from trimtab.errors import InputError

NAN = math.nan
numbers = st.floats(-50, 50, allow_nan=False)
values = st.lists(st.one_of(numbers, st.just(NAN), st.sampled_from([0.0, 1.0])), min_size=1, max_size=8)


def test_by_hand():
    np.testing.assert_allclose(softmax_weights([0.0, math.log(3)], 1.0), [0.25, 0.75])
    np.testing.assert_allclose(softmax_weights([0.0, 0.1 * math.log(3), NAN], 0.1), [0.25, 0.75, 0.0])
    np.testing.assert_allclose(softmax_weights([1, 2, 2, NAN], 0), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(softmax_weights([1, NAN, 7], math.inf), [0.5, 0, 0.5])
    np.testing.assert_allclose(softmax_weights([math.inf, 5, NAN], 1.0), [1, 0, 0])
    np.testing.assert_allclose(softmax_weights([-math.inf, 5, 5], 1.0), [0, 0.5, 0.5])
    np.testing.assert_allclose(softmax_weights([-math.inf, NAN], 1.0), [1, 0])
    np.testing.assert_allclose(rejection_probs([0.0, 1.0, 2.0, NAN], 0.5, 2.0), [math.exp(-2), 1, 1, 0])
    assert expected_draws([0.0, 1.0], 1.0, 1.0) == pytest.approx(2 / (1 + math.exp(-1)))
    assert expected_draws([NAN], 1.0, 1.0) == math.inf


@given(values, st.floats(0.01, 100))
def test_softmax_laws(v, beta):
    w = softmax_weights(v, beta)
    x = np.array(v)
    assert w.shape == x.shape and not w[np.isnan(x)].any()
    if np.isnan(x).all():
        assert not w.any()
        return
    assert w.sum() == pytest.approx(1)
    np.testing.assert_allclose(softmax_weights(x + 3, beta), w, atol=1e-6)  # a constant changes nothing
    np.testing.assert_allclose(softmax_weights(2 * x, 2 * beta), w, atol=1e-9)  # beta is a scale
    np.testing.assert_allclose(softmax_weights(x[::-1], beta), w[::-1], atol=1e-12)
    scored = ~np.isnan(x)
    order = np.argsort(x[scored])
    assert (np.diff(w[scored][order]) >= -1e-12).all()


@given(values)
def test_limits_of_beta(v):
    x = np.array(v)
    if np.isnan(x).all():
        return
    best = (x == np.nanmax(x)).astype(float)
    np.testing.assert_allclose(softmax_weights(v, 0.0), best / best.sum())
    gap = np.nanmax(x) - x[(x < np.nanmax(x))]
    if not gap.size or gap.min() > 1e-6:
        np.testing.assert_allclose(softmax_weights(v, 1e-9), best / best.sum(), atol=1e-12)
    scored = (~np.isnan(x)).astype(float)
    np.testing.assert_allclose(softmax_weights(v, math.inf), scored / scored.sum())
    np.testing.assert_allclose(softmax_weights(v, 1e9), scored / scored.sum(), atol=1e-6)


@given(values, st.integers(0, 3))
def test_argmax_is_a_best_one_and_seeded(v, seed):
    i = argmax(v, np.random.default_rng(seed))
    assert i == argmax(v, np.random.default_rng(seed))
    assert i is None if np.isnan(v).all() else v[i] == np.nanmax(v)


def test_ties_are_even_and_draws_follow_the_weights():
    rng = np.random.default_rng(0)
    counts = np.bincount([argmax([1, 5, NAN, 5], rng) for _ in range(2000)], minlength=4)
    assert counts[[0, 2]].sum() == 0 and abs(counts[1] - 1000) < 4 * math.sqrt(500)
    counts = np.bincount([draw([0.2, 0.0, 0.8], rng) for _ in range(2000)], minlength=3)
    assert counts[1] == 0 and abs(counts[0] - 400) < 4 * math.sqrt(320)
    assert draw([0.0, 0.0], rng) is None


def test_votes():
    np.testing.assert_allclose(vote_weights(["3", "4", "3", None]), [0.5, 0, 0.5, 0])
    np.testing.assert_allclose(vote_weights(["3", "4", None]), [0.5, 0.5, 0])
    np.testing.assert_allclose(vote_weights([None, None]), [0, 0])
    np.testing.assert_allclose(vote_weights(["a"]), [1])


@pytest.mark.parametrize("beta", [-1.0, NAN])
def test_bad_beta(beta):
    with pytest.raises(InputError, match="beta"):
        softmax_weights([1.0], beta)
    with pytest.raises(InputError, match="beta"):
        rejection_probs([1.0], beta, 0.0)
    with pytest.raises(InputError, match="infinitely many draws"):
        rejection_probs([1.0], 0.0, 0.0)
