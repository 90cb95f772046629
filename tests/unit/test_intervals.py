"""A difference is shown by luck as seldom as is stated, however few prompts differ; other intervals stay."""

import math
from itertools import product

import numpy as np
import pytest

from trimtab.evaluation.table import row, tabulate
from trimtab.intervals import Interval, mean_interval, paired_bootstrap, sign_flip_tail
from trimtab.learners.model.router import _gain

M = 40
"""Prompts of a comparison; most do not differ."""


@pytest.mark.parametrize("m", [*range(1, 15), 17, 20, 22, 27, 33])
def test_equal_differences_pass_as_better_in_at_most_a_fortieth_of_null_comparisons(m):
    """Exactly: over all numbers of wins among m prompts that differ, each way with chance one half."""
    passed = 0.0
    for wins in range(m + 1):
        gap = np.r_[np.ones(wins), -np.ones(m - wins), np.zeros(M - m if m < M else 0)]
        found = paired_bootstrap(gap, draws=1000)
        passed += math.comb(m, wins) / 2**m * (found.lower > 0)
    assert passed <= 0.025
    assert (passed > 0) == (m >= 6)


@pytest.mark.parametrize(("m", "same"), [(3, False), (4, True), (5, False), (6, True), (7, False), (9, True)])
def test_unequal_differences_too(m, same):
    """Exactly: over all signs of m sizes; `same`: every prompt differs, and there are no others."""
    rng = np.random.default_rng(m)
    size = rng.exponential(size=m) + 0.1
    rest = np.zeros(0 if same else M - m)
    passed = [paired_bootstrap(np.r_[size * s, rest], draws=400).lower > 0 for s in product((-1, 1), repeat=m)]
    assert np.mean(passed) <= 0.025


@pytest.mark.parametrize(
    ("gap", "tail"),
    [
        ([1] * 5, 1 / 32), ([-1] * 6 + [0, 0, math.nan], 1 / 64), ([1] * 9 + [-1], 11 / 1024), ([0, 0], 1.0), ([], 1.0),
        ([0.5, 0.5, -0.5], 1 / 2), ([3, 2, 1], 1 / 8), ([3, -1, -1], 1 / 2), ([0.1] * 3000 + [-0.1] * 3000, 0.505),
    ],
)  # fmt: skip
def test_sign_flips_by_hand(gap, tail):
    assert sign_flip_tail(gap) == pytest.approx(tail, abs=1e-3 if len(gap) > 99 else 1e-9)


def test_random_signs_agree_with_all_signs():
    gap = np.random.default_rng(0).normal(0.5, 1, 16)
    every = np.array(list(product((-1.0, 1.0), repeat=16))) @ np.abs(gap)
    assert sign_flip_tail(gap) == pytest.approx((every >= gap.sum() - 1e-9).mean(), abs=0.005)


@pytest.mark.parametrize("mean", [-0.6, 0.0, 0.2, 0.9])
def test_elsewhere_the_interval_is_the_percentile_interval(mean):
    gap = np.random.default_rng(1).normal(mean, 1, 80)
    assert paired_bootstrap(gap) == mean_interval(gap)


def test_a_bound_that_is_not_shown_is_zero_and_the_level_counts():
    gap = np.r_[np.ones(4), np.zeros(60)]
    found, plain = paired_bootstrap(gap, np.zeros(64)), mean_interval(gap)
    assert plain.lower > 0 and found == plain._replace(lower=0.0)
    assert paired_bootstrap(-gap).upper == 0.0 and paired_bootstrap(-gap).lower < 0
    assert paired_bootstrap(gap, level=0.8).lower > 0  # 1/16 is below 10 %
    assert mean_interval([1, 1, 1, 0.0]).lower == 0.25 and math.isnan(paired_bootstrap([0.4]).lower)


@pytest.mark.parametrize(("wins", "verdict"), [(4, "no difference shown"), (5, "no difference shown"), (6, "better")])
def test_tables_and_the_guard_of_routers_say_the_same(wins, verdict):
    other = np.zeros(60)
    mine = np.where(np.arange(60) < wins, 1.0, other)
    table = tabulate([row(name, dict(enumerate(r))) for name, r in (("greedy", other), ("mine", mine))])
    assert table["mine"].verdict == verdict
    # a router that sends the held-out prompts of vector 1 to the second model, which is right there
    X, reward = np.zeros((120, 1), np.float32), np.zeros((120, 2))
    held = np.random.default_rng(0).permutation(120)[:60]
    X[held[:wins]], reward[held[:wins], 1] = 1, 1
    reward[np.setdiff1d(np.arange(120), held), 0] = 0.1
    weights = {"x_mean": np.zeros(1), "x_scale": np.ones(1), "W": np.array([[0.0, 2.0]]), "b": np.array([1.0, 0.0])}
    text = np.arange(120, dtype=np.uint64)
    fit = lambda *_, **__: ("linear", weights)  # noqa: E731
    found = _gain(fit, X, reward, [[]] * 120, text, 0.5, {"seed": 0}, "prompts")
    assert found["n"] == 60 and found["mean"] == pytest.approx(wins / 60)
    assert (found["lower"] > 0) == (verdict == "better")


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.25, 0.125, 0.5, 9), "0.250 [0.125, 0.500]"),
        (Interval(math.nan, math.nan, math.nan, 0), "not scored"),
        (Interval(0.5, math.nan, math.nan, 1), "0.500 (one prompt)"),
        (Interval(0.5, math.nan, math.nan, 7), "0.500 (no interval)"),
    ],
)
def test_an_interval_never_reads_nan(interval, text):
    assert str(interval) == text and interval.show("+.1f").count("nan") == 0
