"""A pool fills a matrix: by hand, resumed without paying twice, priced, timed."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from trimtab.errors import InputError, SettingsChanged
from trimtab.jobs.pool import Pool, fill_pool
from trimtab.rewards import lift
from trimtab.store import Store
from trimtab.testing import FakeSampler
from trimtab.types import Price, Prompt, SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=9)


@dataclass(frozen=True)
class Counting:
    """A sampler that notes which prompts it was asked for with more than the one token of a warm-up."""

    inner: FakeSampler
    asked: list = field(default_factory=list)
    fail_at: int = -1

    @property
    def model(self):
        return self.inner.model

    def __call__(self, prompts, n, params):
        if params.max_tokens > 1:
            self.asked.extend(p.id for p in prompts)
            if 0 <= self.fail_at < len(self.asked):
                raise RuntimeError("the engine died")
        return self.inner(prompts, n, params)


def says(word):
    return FakeSampler(lambda p, rng: word, f"{word}@0")


def task(id, target, source):
    return Prompt(id, ({"role": "user", "content": f"Say {target}."},), target, source)


PROMPTS = [task("p0", "yes", "first"), task("p1", "no", "second"), task("p2", "yes", "second")]


def right(p, c):
    return float(c.text == p.target)


def test_matrix_by_hand_with_prices_tokens_and_latency(tmp_path):
    pool = Pool({"Y": says("yes"), "N": says("no")}, {"Y": Price(call=0.5, million_out=1e6)})
    m = fill_pool(PROMPTS, pool, lift(right), Store(tmp_path), params=GREEDY)
    assert m.models == ("Y", "N") and [p.id for p in m.prompts] == ["p0", "p1", "p2"]
    np.testing.assert_array_equal(m.reward_PM, [[1, 0], [0, 1], [1, 0]])
    np.testing.assert_array_equal(m.tokens_PM, np.full((3, 2), 2))  # the word and the end
    np.testing.assert_allclose(m.price_PM[:, 0], 0.5 + 2)  # a dollar a token
    assert np.isnan(m.price_PM[:, 1]).all() and (m.latency_PM > 0).all() and m.text_PM[1] == ("yes", "no")
    assert m.tags == (("first",), ("second",), ("second",)) and m.prompts[0].target == "yes"


def test_a_reward_a_source_and_own_tags(tmp_path):
    rewards = {"first": lift(right), "second": lift(lambda p, c: 7.0)}
    m = fill_pool(PROMPTS, Pool({"N": says("no")}), rewards, Store(tmp_path), tags={"p0": ["a", "b"]}, params=GREEDY)
    assert m.reward_PM[:, 0].tolist() == [0, 7, 7] and m.tags == (("a", "b"), (), ())
    with pytest.raises(InputError, match="no reward for prompts of 'second'"):
        fill_pool(PROMPTS, Pool({"N": says("no")}), {"first": lift(right)}, Store(tmp_path), params=GREEDY)


def test_unscored_is_missing_and_samples_are_averaged(tmp_path):
    reward = lift(lambda p, c: math.nan if p.id == "p1" else float(c.index))
    m = fill_pool(PROMPTS, Pool({"Y": says("yes")}), reward, Store(tmp_path), n=3, params=GREEDY)
    assert m.missing == 1 and m.reward_PM[0, 0] == 1.0


def test_a_second_start_pays_only_for_what_is_missing(tmp_path):
    dies = Counting(says("yes"), fail_at=2)
    with pytest.raises(RuntimeError):
        fill_pool(PROMPTS, Pool({"Y": dies}), lift(right), Store(tmp_path), params=GREEDY, batch=1)
    again = Counting(says("yes"))
    m = fill_pool(PROMPTS, Pool({"Y": again}), lift(right), Store(tmp_path), params=GREEDY, batch=1)
    assert again.asked == ["p2"] and m.reward_PM[:, 0].tolist() == [1, 0, 1] and not np.isnan(m.latency_PM).any()
    third = Counting(says("yes"))
    fill_pool(PROMPTS, Pool({"Y": third, "N": says("no")}), lift(right), Store(tmp_path), params=GREEDY, batch=1)
    assert third.asked == []
    with pytest.raises(SettingsChanged):
        fill_pool(PROMPTS, Pool({"Y": says("maybe")}), lift(right), Store(tmp_path), params=GREEDY)


def test_refusals():
    with pytest.raises(InputError, match="at least one model"):
        Pool({})
    with pytest.raises(InputError, match="prices for X"):
        Pool({"Y": says("yes")}, {"X": Price()})
    with pytest.raises(InputError, match="'a/b' and 'a_b'|'a_b' and 'a/b'"):
        Pool({"a/b": says("yes"), "a_b": says("no")})
