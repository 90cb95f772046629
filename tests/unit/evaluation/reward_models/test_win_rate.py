import math

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.reward_models.win_rate import win_rates

pytestmark = pytest.mark.slow  # all together: `make quick` leaves them out


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


def by_hand(p, x, gamma=None, weight=None):
    """AlpacaEval 2's formula: coefficients by gradient descent, then the mean of sigmoid(theta + psi gamma)."""
    columns = np.stack([np.ones_like(x), x] + ([gamma] if gamma is not None else []), axis=1)
    weight, beta = np.ones_like(x) if weight is None else weight, np.zeros(columns.shape[1])
    for _ in range(15000):
        beta += 4e-3 * (columns.T @ (weight * (p - 1 / (1 + np.exp(-columns @ beta)))) - 1e-2 * beta)
    columns[:, 1] = 0
    return (weight / weight.sum() * 1 / (1 + np.exp(-columns @ beta))).sum(), beta


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("theta", "phi", "psi", "spread"), [(0.4, 0.8, 1.0, 2.0), (-1.0, 0.0, 2.0, 1.5), (0.3, -1.0, 0.0, 1.0)]
)
def test_with_difficulty_the_sigmoid_is_averaged_over_prompts_with_a_fitted_slope(theta, phi, psi, spread, weighted):
    rng = np.random.default_rng(2)
    delta, gamma = rng.normal(60, 200, 250), rng.normal(0.5, spread, 250)
    x = np.tanh(delta / delta.std())
    p = (rng.random(250) < 1 / (1 + np.exp(-theta - phi * x - psi * gamma))).astype(float)
    weight = np.where(np.arange(250) % 3 == 0, 3.0, 1.0) if weighted else None
    want, beta = by_hand(p, x, gamma, weight)
    w = win_rates(p, delta, np.zeros(250), difficulty_P=gamma, weight_P=weight, draws=200)
    assert w.length_controlled.mean == pytest.approx(want, abs=1e-4)
    assert w.length_effect.mean == pytest.approx(beta[1], abs=1e-3)
    assert w.length_controlled.lower < want < w.length_controlled.upper
    plain = win_rates(p, delta, np.zeros(250), difficulty_P=gamma * 3 - 1, weight_P=weight, draws=2)
    assert plain.length_controlled.mean == pytest.approx(want, abs=3e-3)  # another scale of gamma is the same model


def test_without_difficulty_the_win_rate_is_the_sigmoid_of_theta():
    rng = np.random.default_rng(3)
    delta = rng.normal(60, 200, 300)
    x = np.tanh(delta / delta.std())
    p = (rng.random(300) < 1 / (1 + np.exp(-0.4 - 0.8 * x))).astype(float)
    w, (want, beta) = win_rates(p, delta, np.zeros(300), draws=2), by_hand(p, x)
    assert w.length_controlled.mean == pytest.approx(want, abs=1e-5) == 1 / (1 + np.exp(-beta[0]))


def test_a_few_wins_are_no_win_rate_above_a_half():
    for wins, shown in ((5, False), (6, True)):
        found = win_rates([1.0] * wins + [0.5] * 30, [3] * (wins + 30), [3] * (wins + 30)).win_rate
        assert (found.lower > 0.5) == shown and found.mean > 0.55


def test_refusals():
    for kind in ("weight_P", "difficulty_P"):
        with pytest.raises(InputError, match="no length, weight or difficulty"):
            win_rates([1, 0, math.nan], [1, 2, 3], [1, 1, 1], **{kind: [1.0, math.nan, 1.0]})
    assert win_rates([1, 0, math.nan], [1, 2, math.nan], [1, 1, 1]).unread == 1
    with pytest.raises(InputError, match="no length, weight or difficulty"):
        win_rates([1, 0], [1, math.nan], [1, 1])
    with pytest.raises(InputError, match="not one verdict"):
        win_rates([math.nan], [1], [1])
    with pytest.raises(InputError, match="one number a prompt"):
        win_rates([1, 0], [1], [1])
