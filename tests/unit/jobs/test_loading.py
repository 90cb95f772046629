"""`trimtab.load` gives back whatever was saved, by its card, and refuses the rest by name."""

import json

import numpy as np
import pytest

import trimtab
from trimtab import learners
from trimtab.embeddings import Both, HashedNgrams, HiddenStates, OfPrompts, prompts_from_card
from trimtab.errors import InputError, ModelError
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group, Reward


def answered(models: list[str]) -> list[Group]:
    """Scored groups: completion i is that of models[i], and every second answer is right."""
    texts = ("yes", "no", "perhaps", "never")
    rows = [[Completion(texts[(p + i) % 4], m, 0, i) for i, m in enumerate(models)] for p in range(8)]
    return [
        Group(prompt(f"p{p} of these"), tuple(row), tuple(Reward(float(c.text in "yes no")) for c in row))
        for p, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def groups():
    return answered(["m"] * 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_lm(tmp_path_factory.mktemp("lm")))


def test_a_probe_and_a_reranker_come_with_the_embedder_of_their_card(groups, folder, tmp_path):
    embed = HiddenStates(folder, layers=(1,))
    probe = learners.fit_probe(groups, embed=embed)
    probe.save(tmp_path / "probe")
    again = trimtab.load(tmp_path / "probe")
    assert isinstance(again, learners.Probe) and again(groups) == probe(groups)
    reranker = learners.fit_reranker(groups, embed)
    reranker.save(tmp_path / "reranker")
    assert trimtab.load(tmp_path / "reranker", embed=embed)(groups) == reranker(groups)


def test_a_router_comes_with_its_encoder(tmp_path):
    router = learners.fit_router(answered(["a", "b"]), HashedNgrams(64), guard=False)
    router.save(tmp_path / "router")
    again = trimtab.load(tmp_path / "router")
    assert isinstance(again, learners.RewardRouter)
    assert again([prompt("p1")]) == router([prompt("p1")])


@pytest.mark.parametrize("embed", [HashedNgrams(32), Both(HashedNgrams(16), HashedNgrams(32))])
def test_embedders_of_prompts_are_made_again_from_their_cards(embed):
    asked = [prompt("how many are 2 + 3?")]
    np.testing.assert_array_equal(prompts_from_card(embed.card).embed_prompts(asked), embed.embed_prompts(asked))


def test_an_embedder_of_completions_reads_no_prompts_by_itself(folder):
    states = HiddenStates(folder, layers=(1,))
    assert prompts_from_card(OfPrompts(states).card).card == OfPrompts(states).card
    with pytest.raises(InputError, match="hidden_states.* reads completions"):
        prompts_from_card(states.card)
    with pytest.raises(ModelError, match="fit again"):
        prompts_from_card({**HashedNgrams(16).card, "version": 0})


def test_a_run_directory_is_a_store(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"tables": {}}))
    assert isinstance(trimtab.load(tmp_path), trimtab.Store)


def test_what_is_not_ours_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        trimtab.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds none of policy.json"):
        trimtab.load(tmp_path)
    (tmp_path / "card.json").write_text('{"kind": "oracle"}')
    with pytest.raises(InputError, match="of the kind 'oracle'; known are q_probe"):
        trimtab.load(tmp_path)
