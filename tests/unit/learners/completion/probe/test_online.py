"""Rounds of sample, score, refit: labels go where the policy is, and one round is the offline fit."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.learners.completion.probe.online import online_rounds
from trimtab.learners.completion.probe.probe import fit_probe
from trimtab.testing import FakeSampler, prompt
from trimtab.types import Reward, SamplingParams


@dataclass(frozen=True)
class Letters:
    @property
    def card(self):
        return {"kind": "letters"}

    def __call__(self, groups):
        return [np.array([[c.text.count(x) for x in "abc"] for c in g.completions], np.float32) for g in groups]


def score(groups):
    right = lambda c: float(c.text.count("a") > c.text.count("b"))  # noqa: E731
    return [replace(g, rewards=tuple(Reward(right(c)) for c in g.completions)) for g in groups]


SAMPLER = FakeSampler(lambda p, rng: " ".join(rng.choice(list("abc"), size=6)))
PROMPTS = [prompt(f"p{i}") for i in range(12)]


def fit(groups):
    return fit_probe(groups, Letters(), loss="ce", l2=0.1)


def test_later_rounds_label_better_completions():
    rounds = online_rounds(PROMPTS, SAMPLER, score, fit, rounds=3, n=4, k=4)
    assert [r.labels for r in rounds] == [48, 96, 144]
    assert rounds[1].mean_reward > rounds[0].mean_reward + 0.2
    assert [c.index for c in rounds[-1].groups[0].completions] == list(range(12))
    assert len({c.seed for c in rounds[-1].groups[0].completions}) == 12  # every round samples anew


def test_one_round_is_the_offline_fit_and_the_seed_decides():
    (only,) = online_rounds(PROMPTS, SAMPLER, score, fit, rounds=1, n=4)
    offline = fit(score(SAMPLER(PROMPTS, 4, SamplingParams())))
    np.testing.assert_array_equal(only.reward.layers[0][0], offline.layers[0][0])
    twice = [online_rounds(PROMPTS, SAMPLER, score, fit, rounds=2, n=2, k=2)[-1].groups for _ in range(2)]
    assert twice[0] == twice[1]


def test_wrong_settings():
    for bad in ({"rounds": 0}, {"n": 0}, {"k": 0}, {"beta": 0.0}):
        with pytest.raises(InputError, match="at least 1"):
            online_rounds(PROMPTS, SAMPLER, score, fit, **bad)
