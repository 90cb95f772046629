"""Routing metrics by hand."""

import math

import numpy as np
import pytest

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.errors import InputError
from trimtab.evaluation.routing.measures import (
    aiq,
    arena_score,
    confusion,
    frontier,
    gap,
    mean_rank,
    per_tag,
    route,
    routing_table,
    two_models,
    uplift,
)
from trimtab.testing import prompt


def matrix(reward):
    prompts = tuple(prompt(f"text {i}", id=str(i)) for i in range(len(reward)))
    return ResponseMatrix(prompts, tuple(f"m{i}" for i in range(reward.shape[1])), reward)


R = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.2, 0.4, 0.6], [1.0, 1.0, 0.0]])


def test_route_takes_the_preferred_model_and_never_a_missing_one():
    V = np.array([[9.0, 0, 0], [9, 8, 0], [0, 0, 9], [1, 1, 0]])
    np.testing.assert_allclose(route(V, R), [1, 0, 0.6, 1])
    holes = R.copy()
    holes[1, 0] = np.nan
    np.testing.assert_allclose(route(V, holes), [1, 1, 0.6, 1])
    with pytest.raises(InputError, match="same prompts and pool"):
        route(V[:, :2], R)


def test_gap_is_0_for_random_and_100_for_the_oracle():
    assert gap(R.max(1), R).mean == pytest.approx(100)
    assert gap(R.mean(1), R).mean == pytest.approx(0)
    half = gap((R.max(1) + R.mean(1)) / 2, R)
    assert half.mean == pytest.approx(50) and half.lower == pytest.approx(50) and half.n == 4
    assert math.isnan(gap(np.ones(3), np.ones((3, 2))).mean)


def test_table_has_the_nulls_and_prices():
    rows = {r.name: r for r in routing_table({"mine": R}, matrix(R), best=1, price_M=[1.0, 2.0, 3.0]).rows}
    assert list(rows) == ["mine", "random", "best single", "oracle"]
    assert rows["mine"].reward.mean == rows["oracle"].reward.mean == pytest.approx(0.9)
    assert rows["best single"].difference is None and rows["best single"].reward.mean == pytest.approx(0.6)
    assert rows["random"].reward.mean == pytest.approx(R.mean()) and rows["random"].more["price"] == 2
    assert rows["mine"].more["price"] == pytest.approx((1 + 2 + 3 + 1) / 4) and rows["mine"].more["share"] == 1
    dear = routing_table({"mine": R}, matrix(R), best=1, price_M=[1.0, 2.0, 3.0], exchange=10.0)["mine"]
    assert dear.more["price"] == 1 and dear.reward.mean == pytest.approx(0.55)


def test_per_tag_and_confusion():
    rows = per_tag(R.max(1), R, [["a"], ["a"], ["b"], []], best=0)
    assert [(r["tag"], r["n"], r["reward"], r["best_single"], r["oracle"]) for r in rows] == [
        ("a", 2, 1.0, 0.5, 1.0),
        ("b", 1, 0.6, 0.2, 0.6),
    ]
    table = confusion(np.tile([1.0, 0, 0], (4, 1)), R)  # always model 0; the last prompt's oracle is shared
    np.testing.assert_allclose(table[:, 0], [1.5 / 4, 1.5 / 4, 1 / 4])
    assert table.sum() == pytest.approx(1) and not table[:, 1:].any()


S = np.array([[3.0, 2.0, 1.0, 3.0], [1.0, 2.0, 3.0, 4.0]])  # 2 subsets, 3 models and an ensemble


def test_mean_rank_with_its_pool_and_tie_rule():
    np.testing.assert_allclose(mean_rank(S), [(1.5 + 4) / 2, 3, 3, 1.25])
    np.testing.assert_allclose(mean_rank(S, ties="min"), [2.5, 3, 3, 1])
    # each system against the three models: the ensemble ties once for first, then leads
    np.testing.assert_allclose(mean_rank(S, pool=[0, 1, 2]), [2, 2, 2, (1.5 + 1) / 2])


def test_uplift_with_its_tie_rule():
    np.testing.assert_allclose(uplift(S), [0.5, 0, 0, 1])
    np.testing.assert_allclose(uplift(S, ties="none"), [0, 0, 0, 0.5])
    np.testing.assert_allclose(uplift(S, ties="share"), [0.25, 0, 0, 0.75])
    np.testing.assert_allclose(uplift(S, pool=[0, 1, 2]), [0.5, 0, 0.5, 1])
    with pytest.raises(InputError, match="unknown tie rule"):
        uplift(S, ties="most")


def test_aiq_is_the_area_under_the_non_decreasing_hull():
    # hull (1, 0.2) (2, 0.8) (4, 1.0); (3, 0.7) lies below, (4, 0.9) too
    area = (0.2 + 0.8) / 2 * 1 + (0.8 + 1.0) / 2 * 2
    assert aiq([1, 2, 3, 4, 4], [0.2, 0.8, 0.7, 0.9, 1.0]) == pytest.approx(area / 4)
    assert aiq([1, 2, 4], [0.2, 0.8, 1.0], max_price=8) == pytest.approx((area + 4) / 8)
    assert aiq([1, 2], [0.5, 0.3]) == pytest.approx(0.5 * 1 / 2)
    with pytest.raises(InputError, match="positive price"):
        aiq([0.0], [1.0])


def test_arena_score_by_hand():
    c = math.log2(200 / 1) / math.log2(200 / 0.0044)
    assert arena_score(0.7, 1.0) == pytest.approx(1.1 * 0.7 * c / (0.1 * 0.7 + c))
    assert arena_score(0.7, 1e-9) == pytest.approx(1.1 * 0.7 / (0.07 + 1))
    assert arena_score(0.0, 1.0) == arena_score(0.5, 1e6) == 0


def test_apgr_and_cpt_by_hand():
    weak, strong = np.zeros(4), np.array([1.0, 1.0, 0.0, 0.0])
    best = two_models([4, 3, 2, 1], weak, strong)  # curve 0, .5, 1, 1, 1
    assert best.apgr == pytest.approx((0.25 + 0.75 + 1 + 1) / 4)
    assert best.cpt == pytest.approx({0.2: 0.1, 0.5: 0.25, 0.8: 0.4})
    worst = two_models([1, 2, 3, 4], weak, strong)
    assert worst.apgr == pytest.approx((0 + 0 + 0.25 + 0.75) / 4)
    assert math.isnan(two_models([1, 2], [1, 1], [0, 0]).apgr)


def test_frontier_falls_with_the_exchange_rate():
    points = frontier(R, R, [1.0, 2.0, 3.0], [0, 0.1, 1, 10])
    prices = [p["price"] for p in points]
    assert prices == sorted(prices, reverse=True) and points[0]["reward"] == pytest.approx(0.9)
    assert points[-1] == {"exchange": 10.0, "price": 1.0, "reward": pytest.approx(0.55)}


def easy_and_hard(rng, P=200):
    """`solid` answers everything, `weak` easy prompts only and worse; on its own prompts it looks better."""
    easy = np.arange(P) % 2 == 0
    solid = (rng.random(P) < np.where(easy, 0.9, 0.5)).astype(float)
    weak = np.where(easy, (rng.random(P) < 0.8).astype(float), np.nan)
    return np.column_stack([solid, weak]), easy


def test_models_are_compared_on_the_prompts_that_all_have():
    reward, easy = easy_and_hard(np.random.default_rng(1))
    assert np.nanmean(reward[:, 1]) > np.nanmean(reward[:, 0])  # as the plain means have it
    value = np.where(easy[:, None], [0.9, 0.8], [0.2, 0.7])  # sends hard prompts to the model nobody measured there
    with pytest.warns(UserWarning, match="compared on the 100 of 200 prompts that all 2 have"):
        rows = {r.name: r for r in routing_table({"router": value}, matrix(reward), best=0).rows}
    both = reward[easy]
    for name, want in (
        ("router", both[:, 0]), ("best single", both[:, 0]), ("random", both.mean(1)), ("oracle", both.max(1))
    ):  # fmt: skip
        assert rows[name].reward.mean == pytest.approx(want.mean()) and rows[name].reward.n == 100
    assert rows["router"].difference.mean == 0


@pytest.mark.filterwarnings("ignore:models are compared")
def test_every_figure_uses_the_common_prompts_alone():
    reward, easy = easy_and_hard(np.random.default_rng(2))
    value, tags = np.random.default_rng(3).random((200, 2)), [("easy",) if e else ("hard",) for e in easy]
    whole, mine = reward[easy], value[easy]
    routed = np.nan_to_num(route(value, reward))
    assert gap(routed, reward) == gap(routed[easy], whole)
    assert [r["tag"] for r in per_tag(routed, reward, tags, 0)] == ["easy"]
    np.testing.assert_array_equal(confusion(value, reward), confusion(mine, whole))
    assert frontier(value, reward, [1.0, 2.0], [0.0, 0.1]) == frontier(mine, whole, [1.0, 2.0], [0.0, 0.1])
    assert two_models(value[:, 0], reward[:, 1], reward[:, 0]) == two_models(mine[:, 0], whole[:, 1], whole[:, 0])
    score = np.array([[0.9, 0.8, 0.7], [0.1, np.nan, 0.3], [0.5, 0.6, 0.4]])
    np.testing.assert_array_equal(mean_rank(score), mean_rank(score[[0, 2]]))
    np.testing.assert_array_equal(uplift(score), uplift(score[[0, 2]]))


def test_nothing_in_common_is_an_error():
    apart = np.array([[1.0, np.nan], [np.nan, 0.0], [1.0, np.nan]])
    for ask in (
        lambda: routing_table({}, matrix(apart), best=0), lambda: gap([1, 0, 1], apart),
        lambda: confusion(apart, apart),
        lambda: mean_rank(apart), lambda: two_models([1, 2, 3], apart[:, 0], apart[:, 1]),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"no prompt of 3 has a reward of all 2 models .they have 2, 1."):
            ask()
    with pytest.raises(InputError, match="NaN"):
        aiq([1.0, np.nan], [0.5, 0.6])
