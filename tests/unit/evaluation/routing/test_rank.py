"""Ranking a pool by rewards that never saw the measured ones; pairwise rankers; what it costs."""

import numpy as np
import pytest

from trimtab.data.matrix.matrix import ResponseMatrix, from_cells
from trimtab.evaluation.routing.measures import route, routing_table
from trimtab.evaluation.routing.rank import longest, rank_pool, rank_price, shortest
from trimtab.testing import prompt

CELLS = [
    {"prompt": "p", "model": "a", "reward": 1.0, "text": "long answer", "price": 2.0},
    {"prompt": "p", "model": "b", "reward": 0.0, "text": "short", "price": 1.0},
    {"prompt": "q", "model": "a", "reward": None, "text": "unscored", "price": 2.0},
    {"prompt": "q", "model": "b", "reward": 0.5, "text": "x", "price": 1.0},
]


def test_rankers_by_hand_and_their_cost():
    m = from_cells(CELLS)
    seen = []

    def spy(groups):
        seen.extend(g.rewards for g in groups)
        return shortest(groups)

    values = rank_pool(m, {"longest": longest, "spy": spy})
    np.testing.assert_array_equal(values["longest"], [[11, 5], [np.nan, 1]])
    assert seen == [(), ()]  # the ranker never sees the measured rewards
    assert route(values["longest"], m.reward_PM).tolist() == [1.0, 0.5]
    assert route(values["spy"], m.reward_PM).tolist() == [0.0, 0.5]
    assert rank_price(m) == pytest.approx((3 + 1) / 2)
    assert rank_price(m, ranker=0.1) == pytest.approx((3.2 + 1.1) / 2)


def test_the_table_prices_ranking_at_the_whole_pool():
    reward = np.array([[1.0, 0.0], [0.0, 1.0]])
    values, m = {"RMR": reward, "router": reward}, ResponseMatrix((prompt("p"), prompt("q")), ("a", "b"), reward)
    table = routing_table(values, m, best=0, price_M=[2.0, 1.0], ranked=["RMR"])
    assert [table[name].more["price"] for name in ("RMR", "router", "best single")] == [3.0, 1.5, 2.0]
