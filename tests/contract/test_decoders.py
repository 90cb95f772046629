"""Every completion-level decoder: one answer a prompt in order, n = 1 is plain sampling, NaN never chosen, seeded."""

import math
import pickle

import numpy as np
import pytest

from trimtab import decoders
from trimtab.testing import FakeSampler, prompt
from trimtab.types import Prompt, Reward, SamplingParams

PARAMS = SamplingParams(seed=3)
PROMPTS = [prompt(f"question {i}") for i in range(12)]


def answer(p: Prompt, rng: np.random.Generator) -> str:
    return " ".join(str(rng.integers(5)) for _ in range(rng.integers(1, 6)))


def reward(groups):
    """Half the completions are unscored."""

    def one(text):
        return Reward(math.nan, "unlucky") if len(text) % 4 == 1 else Reward(float(sum(map(int, text.split()))))

    return [[one(c.text) for c in g.completions] for g in groups]


def last(text: str) -> str | None:
    return text.split()[-1] if len(text) % 4 != 1 else None


SAMPLER = FakeSampler(answer)
MADE = {
    "Plain": lambda n: decoders.Plain(SAMPLER, PARAMS),
    "Greedy": lambda n: decoders.Greedy(SAMPLER, SamplingParams(seed=3, temperature=0)),
    "BestOfN": lambda n: decoders.BestOfN(SAMPLER, reward, n, PARAMS),
    "SoftmaxPolicy": lambda n: decoders.SoftmaxPolicy(SAMPLER, reward, n, 0.5, PARAMS),
    "SoftmaxPolicy beta=0": lambda n: decoders.SoftmaxPolicy(SAMPLER, reward, n, 0.0, PARAMS),
    "Majority": lambda n: decoders.Majority(SAMPLER, last, n, PARAMS),
    "LogprobRerank mean": lambda n: decoders.LogprobRerank(SAMPLER, n, "mean", PARAMS),
    "LogprobRerank sum": lambda n: decoders.LogprobRerank(SAMPLER, n, "sum", PARAMS),
    "Longest": lambda n: decoders.Longest(SAMPLER, n, PARAMS),
    "RejectionSampler": lambda n: decoders.RejectionSampler(SAMPLER, reward, 5.0, 2.0, n, n, PARAMS),
}  # fmt: skip


def test_the_list_is_complete():
    assert {name.split()[0] for name in MADE} == {n for n in decoders.__all__ if n[0].isupper()} - OTHERS


OTHERS = {
    n for n in decoders.__all__ if n[0].isupper() and getattr(decoders, n).__module__ != "trimtab.decoders.completion"
}


@pytest.mark.parametrize("name", MADE)
def test_contract(name):
    decoder = MADE[name](8)
    answers = decoder(PROMPTS)
    assert [a.group.prompt for a in answers] == PROMPTS
    assert all(a.completion in a.group.completions for a in answers)
    assert all(a.tokens == sum(len(c.logprobs) for c in a.group.completions) for a in answers)
    assert decoder(PROMPTS) == answers == pickle.loads(pickle.dumps(decoder))(PROMPTS)
    assert [decoder([p])[0] for p in PROMPTS[::-1]][::-1] == answers  # alone or in a batch
    assert decoder([]) == []
    for a in answers:
        chosen = dict(zip(a.group.completions, a.group.rewards, strict=False)).get(a.completion)
        assert chosen is None or not math.isnan(chosen.value) or np.isnan(a.group.reward_N).all()


@pytest.mark.parametrize("name", MADE)
def test_n_of_one_is_the_plain_sampler(name):
    params = SamplingParams(seed=3, temperature=0) if name == "Greedy" else PARAMS
    plain = [a.completion for a in decoders.Plain(SAMPLER, params)(PROMPTS)]
    assert [a.completion for a in MADE[name](1)(PROMPTS)] == plain


def test_softmax_to_zero_is_best_of_n():
    best = decoders.BestOfN(SAMPLER, reward, 8, PARAMS)(PROMPTS)
    cold = decoders.SoftmaxPolicy(SAMPLER, reward, 8, 1e-9, PARAMS)(PROMPTS)
    zero = decoders.SoftmaxPolicy(SAMPLER, reward, 8, 0.0, PARAMS)(PROMPTS)
    assert zero == best == cold
