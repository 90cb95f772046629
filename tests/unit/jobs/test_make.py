"""One rule makes samplers, rewards, embedders and encoders from names: objects pass, words say their engine."""

from dataclasses import dataclass

import pytest

from trimtab import embeddings, samplers
from trimtab.errors import InputError
from trimtab.jobs import make
from trimtab.rewards import ExactMatch, Trl
from trimtab.testing import FakeSampler
from trimtab.types import Reward


def short(completions, **columns):
    return [float(len(c)) for c in completions]


@dataclass(frozen=True)
class Half:
    scale: float = 0.5

    def __call__(self, groups):
        return [[Reward(self.scale) for _ in g.completions] for g in groups]


@pytest.mark.parametrize(
    ("word", "settings", "made"),
    [
        ("hf:smollm2-135m", {"batch": 3}, samplers.HF("smollm2-135m", batch=3)),
        ("smollm2-135m", {"batch": 3}, samplers.OpenVINO("smollm2-135m", max_seqs=3)),
        ("smollm2-135m", {"engine": "hf"}, samplers.HF("smollm2-135m")),
    ],
)
def test_the_word_names_engine_and_model(word, settings, made):
    assert make.sampler(word, **settings) == made


def test_a_server_is_the_engine_where_an_address_is_given():
    made = make.sampler("m", base_url="http://h:1/v1", concurrency=2, timeout=3.0)
    assert isinstance(made, samplers.OpenAI) and (made.model, made.concurrency, made.timeout_s) == ("m", 2, 3.0)
    with pytest.raises(InputError, match="unknown engine 'opnvino'; did you mean 'openvino'"):
        make.sampler("m", "opnvino")
    with pytest.raises(TypeError, match="retrys"):
        make.sampler("m", retrys=2)


def test_objects_pass_and_functions_become_rewards():
    fake = FakeSampler(lambda p, rng: "x")
    assert make.sampler(fake) is fake and make.reward(Half()) == Half()
    assert isinstance(make.reward(short), Trl) and make.reward("exact_match", column="gold") == ExactMatch("gold")
    assert make.embedder("hidden_states", beside="smollm2-135m", layers=[3]).model == "smollm2-135m"
    assert make.encoder() == embeddings.HashedNgrams()


def test_a_stored_reward_has_the_same_name_however_it_is_given():
    assert make.reward_name("my.module:f") == "my.module.f"
    assert make.reward_name(short) == f"{__name__}.short"
    assert make.reward_name("exact_match", column="a") != make.reward_name("exact_match", column="b")
    assert make.reward_name(Half(0.5)) != make.reward_name(Half(0.25)) and make.reward_name(Half()).startswith("Half-")
