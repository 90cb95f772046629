"""E-values and confidence sequences: hand values, and what holds however often one looks."""

import math

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.anytime import confidence_sequence, log_mcnemar, win_sequence


def test_e_values_by_hand():
    assert math.exp(log_mcnemar(0, 0)) == 1
    assert math.exp(log_mcnemar(1, 0)) == pytest.approx(1)  # 2 · B(2, 1) = 2 / 2
    assert math.exp(log_mcnemar(8, 0)) == pytest.approx(256 / 9)
    assert math.exp(log_mcnemar(3, 2)) == pytest.approx(32 / 60)  # B(4, 3) = 3! 2! / 6!
    assert log_mcnemar(5, 9) == log_mcnemar(9, 5)


def test_the_e_value_is_a_fair_bet():
    for w, n in ((0, 0), (2, 1), (7, 3)):  # the mean of the next one under a fair coin is today's
        ahead = 0.5 * (math.exp(log_mcnemar(w + 1, n)) + math.exp(log_mcnemar(w, n + 1)))
        assert ahead == pytest.approx(math.exp(log_mcnemar(w, n)))


def test_optional_stopping_keeps_the_error_of_the_sequential_test():
    wins = (np.random.default_rng(0).random((4000, 400)) < 0.5).cumsum(axis=1)
    n = np.arange(1, 401)
    log_fact = np.cumsum(np.r_[0.0, np.log(np.arange(1, 402))])
    log_e = n * math.log(2) + log_fact[wins] + log_fact[n - wins] - log_fact[n + 1]
    assert log_e[0, 9] == pytest.approx(log_mcnemar(int(wins[0, 9]), 10 - int(wins[0, 9])))
    assert (log_e.max(axis=1) >= math.log(20)).mean() <= 0.05
    z = np.abs(2 * wins - n) / np.sqrt(n)  # looking as often with a fixed-n test
    assert (z[:, 30:].max(axis=1) >= 1.96).mean() > 0.25


def test_the_exact_sequence_excludes_zero_where_the_e_value_does():
    for w in range(0, 30):
        for losses in range(0, 12):
            found = win_sequence(w, losses, 60, alpha=0.05)
            assert (found.verdict != "no difference shown") == (log_mcnemar(w, losses) >= math.log(25)), (w, losses)
            assert found.lower <= found.mean <= found.upper


@pytest.mark.parametrize(("differ", "wins"), [(0.05, 0.9), (0.3, 0.5)])
def test_the_exact_sequence_holds_the_truth_at_every_look(differ, wins):
    rng, missed = np.random.default_rng(1), 0
    for _ in range(60):
        gap = (rng.random(400) < differ) * np.where(rng.random(400) < wins, 1, -1)
        looks = [win_sequence(int((gap[:n] > 0).sum()), int((gap[:n] < 0).sum()), n) for n in range(10, 401, 30)]
        missed += any(not i.lower <= differ * (2 * wins - 1) <= i.upper for i in looks)
    assert missed <= 3


def test_the_asymptotic_sequence_by_hand():
    gap = np.tile([0.5, -0.5], 50)  # mean 0, variance 1/4, n = 100
    found = confidence_sequence(gap, alpha=0.05, planned=100)
    assert found.upper == pytest.approx(3.0351 * math.sqrt((0.25 + 0.02) / 100), rel=1e-4)
    assert confidence_sequence(gap, alpha=0.05 / 12).upper / found.upper == pytest.approx(3.8269 / 3.0351, rel=1e-4)
    assert found.lower == -found.upper and found.n == 100
    assert math.isnan(confidence_sequence([0.3]).lower)
    with pytest.raises(InputError, match="alpha"):
        confidence_sequence(gap, alpha=0)


def test_the_asymptotic_sequence_holds_under_one_sided_ties():
    rng, missed = np.random.default_rng(2), {True: 0, False: 0}
    for _ in range(200):
        gap = (rng.random(300) < 0.03).astype(float)
        for guarded in missed:
            looks = [confidence_sequence(gap[:n]) for n in range(30, 301, 15)]
            if not guarded:  # without 2/n, as if σ² were known from so few prompts
                half = [
                    (i.upper - i.mean) * math.sqrt(v / (v + 2 / i.n)) for i in looks if (v := gap[: i.n].var()) >= 0
                ]
                looks = [i._replace(lower=i.mean - h, upper=i.mean + h) for i, h in zip(looks, half, strict=True)]
            missed[guarded] += any(not i.lower <= 0.03 <= i.upper for i in looks)
    assert missed[True] <= 10 and missed[False] > 40
