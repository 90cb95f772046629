"""The figures of a calibration's card, by hand and in the long run."""

import math

import numpy as np
import pytest

from trimtab.learners.completion.reliability import reliability, risk_coverage


def test_a_perfect_readers_ece_lies_in_its_band_and_a_boasters_above():
    rng = np.random.default_rng(0)
    inside, debiased, plain, means = [], [], [], []
    for _ in range(300):
        value = rng.beta(2, 2, 400)
        right = (rng.random(400) < value).astype(float)
        found = reliability(value, right, draws=200)
        low, high = found["ece_band"]
        inside.append(low <= found["ece"] <= high)
        debiased.append(found["brier"]["reliability"])
        plain.append(sum(b["n"] * (b["value"] - b["right"]) ** 2 for b in found["bins"]) / 400)
        means.append(found["ece"])
    assert 0.91 <= np.mean(inside) <= 0.98
    assert np.mean(means) > 0.04 and np.mean(plain) > 0.002  # a perfect reader has a gap, too
    assert abs(np.mean(debiased)) < 0.0004  # less what chance adds it has none
    boast = reliability(np.clip(value + 0.2, 0, 1), right, draws=200)
    assert boast["ece"] > boast["ece_band"][1] and boast["ece_debiased"] == pytest.approx(0.2, abs=0.05)


def test_parts_of_the_brier_score_add_up_and_lack_the_bias_of_bins():
    rng = np.random.default_rng(1)
    parts = []
    for _ in range(400):
        value = np.repeat([0.2, 0.5, 0.8], 100)
        right = (rng.random(300) < value).astype(float)
        b = reliability(value, right, draws=1)["brier"]
        assert b["score"] == pytest.approx(
            b["reliability"] - b["resolution"] + b["uncertainty"] + b["within_bins"], abs=1e-12
        )
        parts.append([b["resolution"], b["uncertainty"]])
    resolution, uncertainty = np.mean(parts, axis=0)
    assert uncertainty == pytest.approx(0.25, abs=0.002)
    assert 0.05 < resolution < 0.0605  # five bins of three values: 0.06 less what bins of mixed values lose


def test_bins_have_equal_mass_and_few_answers_have_few():
    for n, bins in ((1, 1), (59, 1), (120, 2), (900, 15), (5000, 15)):
        found = reliability(np.linspace(0, 1, n), np.ones(n), draws=2)["bins"]
        assert len(found) == bins and sum(b["n"] for b in found) == n
        assert max(b["n"] for b in found) - min(b["n"] for b in found) <= 1
    lone = reliability([0.4], [1.0], draws=2)
    assert lone["ece"] == pytest.approx(0.6) and math.isnan(lone["ece_debiased"])


def test_risk_and_coverage_by_hand():
    found = risk_coverage(np.array([0.9, 0.8, 0.3, 0.1]), np.array([1.0, 0.0, 1.0, 0.0]))
    assert found["risk"] == [[0.25, 0.0], [0.5, 0.5], [0.75, pytest.approx(1 / 3)], [1.0, 0.5]]
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found["aurc_oracle"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    even = risk_coverage(np.full(4, 0.5), np.array([1.0, 0.0, 1.0, 0.0]))
    assert even["aurc"] == pytest.approx(0.5)  # ties are shared, whatever their order
