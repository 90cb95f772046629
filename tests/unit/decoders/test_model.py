"""Prices and budgets outside the router; routed and ranked pools."""

import numpy as np
import pytest

from trimtab.decoders.model import (
    Ranked,
    Routed,
    choose,
    exchange_for,
    exchange_for_quality,
    threshold_for,
    utility,
)
from trimtab.errors import InputError, ModelError
from trimtab.testing import FakeSampler, prompt
from trimtab.types import Reward

POOL = {m: FakeSampler(lambda p, rng, m=m: f"{m} says {p.id}", m) for m in ("a", "b")}


def router(prompts):
    return [{"a": 1.0, "b": 0.9} if p.id < "m" else {"a": 0.0, "b": 0.5} for p in prompts]


def test_utility_and_choice_by_hand():
    np.testing.assert_allclose(utility([[1.0, 0.9]], [0.3, 0.1], 1.0), [[0.7, 0.8]])
    assert choose([[1.0, 2.0], [np.nan, 0.0], [3.0, 3.0]]).tolist() == [1, 1, 0]
    with pytest.raises(InputError, match="prompt 1 has no value"):
        choose([[1.0, 2.0], [np.nan, np.nan]])
    with pytest.raises(InputError, match="no price"):
        utility([[1.0]], [np.nan], 1.0)
    with pytest.raises(InputError, match="negative"):
        utility([[1.0]], [1.0], -1.0)


def test_caps_keep_the_prompts_with_most_to_lose():
    value = np.array([[1.0, 0.9], [1.0, 0.1], [1.0, 0.5], [1.0, 0.4]])
    assert choose(value, [0.5, 1.0]).tolist() == [1, 0, 1, 0]
    with pytest.raises(InputError, match="room for 2 of 4"):
        choose(value, [0.25, 0.25])


def test_exchange_meets_a_budget():
    rng = np.random.default_rng(0)
    value, price = rng.random((200, 3)), np.array([1.0, 2.0, 5.0])
    rate = exchange_for(value, price, 1.5)
    spent = price[choose(utility(value, price, rate))].mean()
    assert 1.3 < spent <= 1.5 and exchange_for(value, price, 9.0) == 0
    with pytest.raises(InputError, match="raise the budget"):
        exchange_for(value, price, 0.5)


def test_quality_at_the_lowest_cost():
    value, price = np.array([[0.9, 0.8], [0.9, 0.2]]), np.array([10.0, 1.0])
    rate = exchange_for_quality(value, price, 0.85)  # the first prompt may go to the cheap model: mean 0.85
    assert choose(utility(value, price, rate)).tolist() == [1, 0]
    assert choose(utility(value, price, exchange_for_quality(value, price, 0.9))).tolist() == [0, 0]
    assert choose(utility(value, price, exchange_for_quality(value, price, 0.1))).tolist() == [1, 1]
    with pytest.raises(InputError, match=r"reaches an expected reward of 0\.9"):
        exchange_for_quality(value, price, 0.95)


def test_threshold_keeps_the_share_of_strong_calls():
    gain = np.array([0.5, 0.1, 0.3, 0.3, -0.2])
    for share, calls in ((0.0, 0), (0.2, 1), (0.4, 1), (0.6, 3), (0.8, 4), (1.0, 5)):
        assert (gain >= threshold_for(gain, share)).sum() == calls, share
    with pytest.raises(InputError, match="share between 0 and 1"):
        threshold_for(gain, 1.5)


def test_routed_keeps_the_caps_of_a_batch():
    prompts = [prompt(t) for t in ("a1", "a2", "a3", "a4")]
    answers = Routed(router, POOL, shares={"a": 0.5})(prompts)
    assert [a.completion.model for a in answers].count("a") == 2
    with pytest.raises(ModelError, match="share is given to c"):
        Routed(router, POOL, shares={"c": 0.5})(prompts)


def test_routed_sends_each_prompt_to_one_model_and_prices_it():
    prompts = [prompt("apple"), prompt("zebra"), prompt("bee")]
    answers = Routed(router, POOL, prices={"a": 0.2, "b": 0.1})(prompts)
    assert [a.completion.text for a in answers] == ["a says apple", "b says zebra", "a says bee"]
    assert [a.price for a in answers] == [0.2, 0.1, 0.2] and all(len(a.group.completions) == 1 for a in answers)
    thrifty = Routed(router, POOL, prices={"a": 0.2, "b": 0.05}, exchange=1.0)(prompts)
    assert [a.completion.model for a in thrifty] == ["b", "b", "b"]
    assert Routed(router, POOL)([]) == []
    with pytest.raises(ModelError, match=r"different models \(b\)"):
        Routed(router, {"a": POOL["a"]})(prompts)
    with pytest.raises(InputError, match="no price"):
        Routed(router, POOL, exchange=1.0)(prompts)


def test_ranked_asks_all_keeps_the_best_and_never_nan():
    def by_name(groups):
        return [[Reward(float("nan"), "x") if c.model == "a" else Reward(-5.0) for c in g.completions] for g in groups]

    (answer,) = Ranked(POOL, by_name, prices={"a": 0.2, "b": 0.1})([prompt("q")])
    assert answer.completion.model == "b" and answer.price == pytest.approx(0.3) and len(answer.group.completions) == 2
    (blind,) = Ranked(POOL, lambda gs: [[Reward(float("nan"), "x")] * 2 for _ in gs])([prompt("q")])
    assert blind.completion.model == "a" and "nothing could be scored" in blind.note
