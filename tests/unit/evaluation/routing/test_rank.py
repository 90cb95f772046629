"""Ranking a pool by rewards that never saw the measured ones; pairwise rankers; what it costs."""

import numpy as np
import pytest

from trimtab.data.matrix.matrix import ResponseMatrix, from_cells
from trimtab.errors import InputError
from trimtab.evaluation.routing.measures import route, routing_table
from trimtab.evaluation.routing.rank import WinRate, longest, rank_pool, rank_price, shortest
from trimtab.testing import prompt
from trimtab.types import Completion, Group

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


def test_win_rate_asks_both_orders_and_is_fair_to_the_place():
    group = Group(prompt("q"), tuple(Completion(t, "m", 0, i) for i, t in enumerate(("a", "bb", "ccc"))))
    longer = WinRate(lambda pairs: [float(len(p.chosen.text) > len(p.rejected.text)) for p in pairs])
    assert [r.value for r in longer([group])[0]] == [0.0, 0.5, 1.0]
    first = WinRate(lambda pairs: [1.0] * len(pairs))  # always prefers what stands first
    assert [r.value for r in first([group])[0]] == [0.5, 0.5, 0.5]
    alone = Group(prompt("q"), group.completions[:1])
    assert longer([alone, group])[0][0].value == 0.5 and longer([]) == []
    silent = WinRate(lambda pairs: [float("nan")] * len(pairs))([group])[0]
    assert all(np.isnan(r.value) and "no answer" in r.note for r in silent)
    with pytest.raises(InputError, match="answered 1 of 6"):
        WinRate(lambda pairs: [1.0])([group])
