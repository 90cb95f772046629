import math

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.win_rate import win_rates


def test_equal_lengths_give_the_plain_win_rate():
    w = win_rates([1, 1, 0, 0.5, math.nan], [5] * 5, [5] * 5)
    assert w.win_rate.mean == 0.625 and w.unread == 1 and w.win_rate.n == 4
    assert w.length_controlled.mean == pytest.approx(0.625, abs=2e-3) and w.length_effect.mean == 0


def test_a_judge_of_length_alone_gives_a_half_after_control():
    rng = np.random.default_rng(0)
    delta = rng.normal(80, 100, 2000)  # ours are longer on average
    p = (rng.random(2000) < 1 / (1 + np.exp(-2 * np.tanh(delta / delta.std())))).astype(float)
    w = win_rates(p, 500 + delta, np.full(2000, 500.0))
    assert w.win_rate.lower > 0.6  # the plain rate is fooled
    assert w.length_controlled.lower < 0.5 < w.length_controlled.upper
    assert w.length_effect.mean == pytest.approx(2, abs=0.3)


def test_an_advantage_beside_length_is_recovered():
    rng = np.random.default_rng(1)
    delta = rng.normal(-60, 100, 4000)
    z = 0.8 + 1.5 * np.tanh(delta / delta.std())
    p = (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(float)
    w = win_rates(p, 300 + delta, np.full(4000, 300.0))
    assert w.length_controlled.mean == pytest.approx(1 / (1 + math.exp(-0.8)), abs=0.03)
    assert w.length_controlled.mean > w.win_rate.mean


def test_all_wins_stay_finite_and_weights_count():
    w = win_rates([1.0] * 6, [1, 2, 3, 4, 5, 6], [3] * 6)
    assert 0.9 < w.length_controlled.mean < 1 and w.win_rate.mean == 1
    assert win_rates([1, 0], [1, 1], [1, 1], weight_P=[3, 1]).win_rate.mean == 0.75


def test_refusals():
    with pytest.raises(InputError, match="not one verdict"):
        win_rates([math.nan], [1], [1])
    with pytest.raises(InputError, match="one number a prompt"):
        win_rates([1, 0], [1], [1])
