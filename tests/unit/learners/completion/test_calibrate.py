"""A calibration says of the selected answer what is so: laws on simulated answers whose chances are known."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from sklearn.linear_model import LogisticRegression

from trimtab import learners
from trimtab.errors import InputError, ModelError
from trimtab.learners.completion.calibrate import (
    Calibrated,
    Tops,
    _drawn_tops,
    _exact_tops,
    _pools,
    calibrate,
)
from trimtab.learners.completion.monotone import isotonic, platt
from trimtab.types import Completion, Group, Prompt, Reward


def says(groups):
    """A scorer that reads its score from the text."""
    return [[Reward(float(c.text)) for c in g.completions] for g in groups]


def above_mean(groups):
    """A scorer that sees the other answers of the group."""
    rows = [np.array([float(c.text) for c in g.completions]) for g in groups]
    return [[Reward(float(v - r.mean())) for v in r] for r in rows]


def groups_of(score_PN, right_PN, start=0):
    return [
        Group(
            Prompt(f"p{start + p:05d}", ({"role": "user", "content": str(start + p)},)),
            tuple(Completion(f"{s:.9g}", "m", 0, i) for i, s in enumerate(s_N)),
            tuple(Reward(float(r)) for r in r_N),
        )
        for p, (s_N, r_N) in enumerate(zip(score_PN, right_PN, strict=True))
    ]


def answers(prompts, n, *, signal=1.0, seed=0, rate=0.4):
    """Right with a chance of the prompt's own; the score is a noisy look at that, and sees nothing where signal = 0."""
    rng = np.random.default_rng(seed)
    level = rng.normal(math.log(rate / (1 - rate)), 1.2, (prompts, 1))
    right = rng.random((prompts, n)) < 1 / (1 + np.exp(-level))
    return signal * right + rng.normal(size=(prompts, n)), right.astype(float)


def top(score_PN, right_PN, k):
    at = score_PN[:, :k].argmax(1)
    return score_PN[np.arange(len(at)), at], right_PN[np.arange(len(at)), at]


@pytest.mark.parametrize(("prompts", "method"), [(1500, "isotonic"), (400, "platt")])
def test_best_of_many_is_not_inflated_and_a_map_of_single_answers_is(prompts, method):
    made = calibrate(says, groups_of(*answers(prompts, 16)))
    assert {m.method for m in made.maps} == {method}
    fresh = answers(20_000, 16, seed=1)
    inflated = []
    for k in (4, 8, 16):
        score, right = top(*fresh, k)
        noise = math.sqrt(right.var() * (1 / prompts + 1 / len(right)))
        assert abs(made.chance(score, k).mean() - right.mean()) < 3 * noise
        inflated.append(made.chance(score, 1).mean() - right.mean())
    assert inflated[0] > 0.03 and inflated == sorted(inflated)


def test_what_it_serves_is_the_value_of_the_best_and_the_order_is_the_scores():
    made = calibrate(says, groups_of(*answers(1500, 8)))
    assert made.maps[-1].method == "isotonic"
    score, right = answers(300, 8, seed=2)
    score[:, 3] = score[:, 2]
    groups = groups_of(score, right)
    for row, g in zip(made(groups), groups, strict=True):
        value, s = np.array([r.value for r in row]), np.array([float(c.text) for c in g.completions])
        assert value.max() == made.chance(s.max(), 8) and value.min() > 0 and value.max() < 1
        assert (np.sign(value[:, None] - value) == np.sign(s[:, None] - s)).all()  # strict: no ties are made


def test_chances_rise_with_the_score_and_scorers_of_noise_give_the_base_rate():
    grid = np.linspace(-5, 6, 400)
    for prompts in (300, 1200):
        made = calibrate(says, groups_of(*answers(prompts, 4)))
        assert all((np.diff(made.chance(grid, k)) >= 0).all() for k in (1, 2, 3, 4))
        score, right = answers(prompts, 4, signal=0.0, seed=5)
        noise = calibrate(says, groups_of(score, right))
        served = noise.chance(top(*answers(5000, 4, signal=0.0, seed=6), 4)[0], 4)
        assert abs(served.mean() - right.mean()) < 0.05 and np.abs(served - right.mean()).mean() < 0.05
        score, right = answers(prompts, 4, signal=3.0)
        wrong_way = calibrate(says, groups_of(-score, right))  # no rising map is better than a flat one
        assert np.abs(wrong_way.chance(grid[150:250], 1) - right.mean()).max() < 0.02


def test_a_planted_signal_is_found():
    score, right = answers(600, 8, signal=6.0)
    (*_, last) = calibrate(says, groups_of(score, right)).card["by_k"]
    assert last["k"] == 8 and last["brier"]["score"] < 0.05
    assert last["aurc"] < 0.1 * (1 - last["accuracy"])
    assert last["brier"]["resolution"] > 0.9 * last["brier"]["uncertainty"]


def test_the_card_counts_and_its_figures_come_from_other_prompts():
    score, right = answers(300, 6)
    score[0, 0], right[1, 1], score[2], right[3] = np.nan, np.nan, np.nan, np.nan
    card = calibrate(says, groups_of(score, right)).card
    assert (card["prompts"], card["unscored"], card["no_score"]) == (298, 7, 7)
    assert [row["k"] for row in card["by_k"]] == [1, 2, 4, 6]
    assert [row["prompts"] for row in card["by_k"]] == [298, 298, 298, 296]
    assert len(card["by_k"][0]["bins"]) == 4 and card["apart_from_training"] == "unknown"
    # memory is of no use: a score that names its prompt and answer says nothing of other prompts
    rng = np.random.default_rng(0)
    lone = calibrate(says, groups_of(rng.random((1200, 1)), rng.integers(0, 2, (1200, 1)).astype(float)))
    assert lone.card["by_k"][0]["brier"]["score"] > 0.249


def test_the_same_data_give_the_same_maps_in_any_order():
    groups = groups_of(*answers(200, 5))
    for reward in (says, above_mean):
        one, two = (calibrate(reward, g, relative=reward is above_mean) for g in (groups, groups[::-1]))
        assert repr(one) == repr(two) and one.card["by_k"] == two.card["by_k"]
        assert [m.numbers.tolist() for m in one.maps] == [m.numbers.tolist() for m in two.maps]


def test_nan_is_said_and_so_is_a_number_of_answers_that_was_not_calibrated():
    made = calibrate(says, groups_of(*answers(100, 4)))
    ((lost, *_),) = made(groups_of([[np.nan, 1.0, 2.0]], [[0, 0, 0]]))
    assert math.isnan(lost.value) and "its score is nan" in lost.note
    ((best, *_), _) = made(groups_of([[2.0, 1.0, 0.0], [2.0, np.nan, 0.0]], np.zeros((2, 3))))
    assert best.value == made.chance(2.0, 3)
    ((row),) = made(groups_of([np.arange(5.0)], [np.zeros(5)]))
    assert all(math.isnan(r.value) and r.note == "calibrated for up to 4 answers, 5 were scored" for r in row)
    failed = Group(Prompt("x", ()), (Completion("", "m", 0, 0, finish="error", note="no answer"),))
    assert made([failed])[0][0].note == "no answer"


def test_subsets_are_counted_exactly():
    tops = _exact_tops([np.array([3.0, 1.0, 2.0, 2.0])], [np.array([1.0, 0.0, 1.0, 0.0])])
    assert {k: t.weight @ t.right for k, t in tops.items()} == {
        1: 0.5, 2: pytest.approx(3 / 6 + 3 / 6 * 0.5), 3: pytest.approx(3 / 4 + 1 / 4 * 0.5), 4: 1.0,
    }  # fmt: skip
    assert all(t.weight.sum() == pytest.approx(1) for t in tops.values())


def test_drawn_subsets_agree_with_exact_ones_and_a_scorer_that_sees_the_group_is_asked_anew():
    score, right = answers(300, 5)
    groups = groups_of(score, right)
    drawn, exact = _drawn_tops(says, groups, list(right), 8, 0), _exact_tops(list(score), list(right))
    for k in range(1, 6):
        assert drawn[k].weight @ drawn[k].right == pytest.approx(exact[k].weight @ exact[k].right, abs=6)
        assert np.bincount(drawn[k].prompt, drawn[k].weight) == pytest.approx(1)
    assert set(_drawn_tops(above_mean, groups, list(right), 2, 0)[1].score) == {0.0}


def test_thin_numbers_of_answers_share_a_map():
    rng = np.random.default_rng(0)
    sizes = [2] * 60 + [3] * 45 + [4] * 4 + [5] * 2  # fifty-one have 3 or more, six have 4
    tops = _exact_tops([rng.random(n) for n in sizes], [np.ones(n) for n in sizes])
    pools = _pools(tops)
    assert [sizes for sizes, _ in pools] == [(1, 1), (2, 2), (3, 5)]
    for _, rows in pools:
        weight = np.bincount(rows.prompt, rows.weight)
        assert weight[weight > 0] == pytest.approx(1) and (weight > 0).sum() >= 50


def test_isotonic_is_scipys_and_platt_is_logistic_regression_on_smoothed_targets():
    rng = np.random.default_rng(3)
    score = np.sort(rng.normal(size=3000))
    rate, weight = (rng.random(3000) < 1 / (1 + np.exp(-score))).astype(float), rng.random(3000) + 0.1
    knots = isotonic(score, rate, weight)
    assert np.interp(score, *knots) == pytest.approx(isotonic_regression(rate, weights=weight).x, abs=1e-9)
    slope, intercept = platt(score, rate, weight)
    plus, minus = weight @ rate, weight @ (1 - rate)
    target = np.where(rate == 1, (plus + 1) / (plus + 2), 1 / (minus + 2))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(np.r_[score, score][:, None], np.repeat([1, 0], 3000), np.r_[weight * target, weight * (1 - target)])
    assert (slope, intercept) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), abs=1e-4)
    parted = platt(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([50.0, 50.0]))
    assert np.isfinite(parted).all() and 1 / (1 + np.exp(-parted.sum())) == pytest.approx(51 / 52, abs=1e-6)


def test_save_and_load_keep_the_values_and_another_reward_is_refused(tmp_path):
    for prompts in (1100, 200):
        groups = groups_of(*answers(prompts, 3))
        made = calibrate(says, groups)
        again = Calibrated.load(made.save(tmp_path / str(prompts)), says)
        old, new = (np.array([[r.value for r in row] for row in x(groups)]) for x in (made, again))
        np.testing.assert_allclose(new, old, atol=1e-6)
        assert repr(again) == repr(made) and again.card == made.card
    with pytest.raises(ModelError, match="calibrates .*:says, given .*:above_mean"):
        Calibrated.load(tmp_path / "200", above_mean)
    alone = Calibrated.load(tmp_path / "200")
    assert alone.chance(1.0, 3) == made.chance(1.0, 3)
    with pytest.raises(ModelError, match="nothing scores here"):
        alone(groups)


@dataclass(frozen=True)
class Same:
    @property
    def card(self):
        return {"kind": "numbers"}

    def __call__(self, groups):
        return [np.array([[float(c.text)] for c in g.completions], np.float32) for g in groups]


def test_prompts_that_the_scorer_was_fitted_on_are_refused():
    train, rest = groups_of(*answers(60, 4, signal=2.0)), groups_of(*answers(80, 4, signal=2.0, seed=1), start=60)
    for scorer in (learners.fit_probe(train, Same(), l2=1.0), learners.fit_reranker(train, Same(), folds=3)):
        with pytest.raises(InputError, match=r"2 of 82 prompts \('p00000' first\)"):
            calibrate(scorer, [*train[:2], *rest])
        card = calibrate(scorer, rest).card
        assert card["apart_from_training"] == "checked" and len(scorer.card["trained_on"]) == 60


def test_nothing_to_learn_from_is_said():
    score, right = answers(3, 2)
    with pytest.raises(InputError, match="0 prompts have answers with a reward and a score"):
        calibrate(says, groups_of(score, right * np.nan))
    groups = groups_of(score, right)
    with pytest.raises(InputError, match="comes in two groups"):
        calibrate(says, [*groups, groups[0]])


def test_tops_can_be_chosen():
    rows = Tops(np.arange(3.0), np.zeros(3), np.ones(3), np.arange(3))
    assert rows.where(np.array([True, False, True])).prompt.tolist() == [0, 2]
