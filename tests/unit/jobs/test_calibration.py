"""A run's probe and reranker calibrated on its test completions, loaded again by their folder, and drawn."""

import re

import numpy as np
import pytest

import trimtab
from trimtab import embeddings, evaluation, rewards, samplers
from trimtab.errors import InputError
from trimtab.jobs import calibration, probes
from trimtab.learners.completion.calibrate import Calibrated
from trimtab.rewards import extractor
from trimtab.store import Store
from trimtab.testing import FakeSampler, prompt
from trimtab.types import SamplingParams

from .letters import Letters, more_a_than_b


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    sampler = FakeSampler(lambda p, rng: " ".join(rng.choice(list("abc"), size=6)))
    store = Store(tmp_path_factory.mktemp("calibration") / "run")
    for name, n in (("train", 30), ("test", 70)):
        prompts = [prompt(f"{name} {i}") for i in range(n)]
        store.add_prompts(prompts, name, {})
        groups = samplers.Cached(sampler, store, name)(prompts, 4, SamplingParams())
        rewards.score(groups, rewards.lift(more_a_than_b), store=store, name=name, reward_name="r")
        embeddings.Stored(Letters(), store, name)(groups)
    probes.fit(store, store.groups("train", "r"), losses=("mse", "ce"), folds=3)
    probes.fit_reranker(store, store.groups("train", "r"), same=extractor("whole"), folds=3)
    return store


@pytest.mark.parametrize("by", ["probe", "probe:mse", "reranker"])
def test_what_is_saved_is_what_load_gives(store, by):
    facts = calibration.calibrated(store, by=by, extract="whole")
    assert (facts["completions"], facts["prompts"], facts["k"], "note" in facts) == ("test", 70, 4, False)
    given = {"embed": Letters()} | ({"same": extractor("whole")} if by == "reranker" else {})
    made = trimtab.load(facts["saved"], **given)
    assert isinstance(made, Calibrated) and made.card["apart_from_training"] == "checked"
    best = [max(r.value for r in row) for row in made(store.groups("test", "r"))]
    right = [
        g.reward_N[np.argmax(v)]
        for g, v in zip(store.groups("test", "r"), probes.numbers(made, store.groups("test", "r")), strict=True)
    ]
    assert abs(np.mean(best) - np.mean(right)) < 0.06 and facts["right"] > 0.8


def test_the_report_draws_it_beside_a_perfect_readers_band(store):
    calibration.calibrated(store, by="probe:ce")
    figure = next(f for f in probes.calibrations(store) if "best of 4" in f.title)
    right, perfect = figure.curves
    assert right.x == perfect.x == tuple(y.mean for y in perfect.y)
    assert all(y.lower <= y.mean <= y.upper for y in right.y) and "cross-fitted" in figure.note


def test_wilsons_bounds_by_hand():
    bins = [{"value": 0.6, "right": 0.8, "n": 10, "perfect": [0.3, 0.9]}]
    row = {
        "k": 2,
        "prompts": 10,
        "bins": bins,
        "ece": 0.2,
        "ece_band": [0.0, 0.3],
        "brier": {"score": 0.2},
        "aurc": 0.1,
    }
    ((interval,), _) = (c.y for c in evaluation.reliability({"reward": "f", "by_k": [row]}).curves)
    assert (interval.lower, interval.upper) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    with pytest.raises(InputError, match="figures for k = 2, not for 3"):
        evaluation.reliability({"reward": "f", "by_k": [row]}, 3)


def test_training_completions_and_what_was_not_fitted_are_refused(store, tmp_path):
    with pytest.raises(InputError, match="30 of 30 prompts .* that the reward was fitted on"):
        calibration.calibrated(store, split="train")
    with pytest.raises(InputError, match="holds no probe; run `trimtab fit probe --loss pg`"):
        calibration.calibrated(store, by="probe:pg")
    with pytest.raises(InputError, match=re.escape("unknown fitted thing 'judge'")):
        calibration.calibrated(store, by="judge")
