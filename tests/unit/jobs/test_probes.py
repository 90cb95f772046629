"""A run's reranker on a store without a model: what it saves is what it gives back on other groups."""

import re

import numpy as np
import pytest

from trimtab import embeddings, rewards, samplers
from trimtab.errors import InputError
from trimtab.jobs import probes
from trimtab.learners import Reranker
from trimtab.rewards import extractor
from trimtab.store import Store
from trimtab.testing import FakeSampler, prompt
from trimtab.types import SamplingParams

from .letters import Letters, more_a_than_b


@pytest.fixture
def store(tmp_path):
    sampler = FakeSampler(lambda p, rng: " ".join(rng.choice(list("abc"), size=6)))
    store = Store(tmp_path / "run")
    for name, n in (("train", 30), ("test", 40)):
        prompts = [prompt(f"{name} {i}") for i in range(n)]
        store.add_prompts(prompts, name, {})
        groups = samplers.Cached(sampler, store, name)(prompts, 6, SamplingParams())
        rewards.score(groups, rewards.lift(more_a_than_b), store=store, name=name, reward_name="r")
        embeddings.Stored(Letters(), store, name)(groups)
    return store


def test_fit_save_and_values(store):
    same = extractor("whole")
    facts = probes.fit_reranker(store, store.groups("train", "r"), same=same, states=True, folds=3, seed=0)
    assert facts["states"] == "vector" and facts["held_out_reward"] > facts["held_out_null"]
    assert facts["null"] in ("mean_logprob", "random choice")
    groups = store.groups("test", "r")
    ((name, values),) = probes.reranked(store, "test", groups, same).items()
    chosen = [g.reward_N[np.argmax(v)] for g, v in zip(groups, values, strict=True)]
    assert name == "reranker"
    assert np.mean(chosen) > np.mean([g.reward_N.mean() for g in groups]) + 0.3
    assert isinstance(Reranker.load(store.path / probes.RERANKER, same=same), Reranker)


def test_cues_alone_need_no_vectors_and_no_reranker_is_no_row(store):
    assert probes.reranked(store, "test", store.groups("test", "r"), extractor("whole")) == {}
    facts = probes.fit_reranker(
        store, store.groups("train", "r"), same=extractor("whole"), states=False, folds=3, seed=0
    )
    assert facts["states"] == "none"


def test_vectors_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(InputError, match=re.escape("run `trimtab embed` first")):
        probes.fit_reranker(Store(tmp_path), [], same=extractor("whole"), states=True, folds=3, seed=0)
