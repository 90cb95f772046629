"""States read while OpenVINO samples are those that torch computes for the same texts, and belong to them."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from trimtab.embeddings import GraphStates, HiddenStates, Stored, from_card
from trimtab.errors import InputError, SettingsChanged
from trimtab.lm.load import load_lm
from trimtab.samplers import Cached, OpenVINO
from trimtab.samplers.states import StateLog
from trimtab.store import Store
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group, SamplingParams

PROMPTS = [prompt("1 + 1 ="), prompt("A much longer question about nothing at all?"), prompt("3"), prompt("1 + 1 = ")]
LAYERS = (1, 3)
PARAMS = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=9, seed=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield str(tiny_lm(tmp_path_factory.mktemp("lm")))


def near(a, b):
    return (np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max() < 5e-3  # a wrong row is off by 1


@pytest.fixture(scope="module")
def lm(model):
    """The same weights in torch: OpenVINO reads them in float16."""
    lm = load_lm(model, "float32")
    with torch.no_grad():
        for p in lm.model.parameters():
            p.copy_(p.half().float())
    return lm


@pytest.mark.parametrize("max_seqs", [256, 4])  # all at once; requests of 4 and 1 that wait for each other
def test_what_is_read_is_what_torch_computes(model, lm, max_seqs):
    got = {}
    sampler = OpenVINO(model, max_seqs, 1, layers=LAYERS, keep=lambda g, states: got.update({g.prompt.id: (g, states)}))
    groups = sampler(PROMPTS, 5, PARAMS)
    assert {c.finish for g in groups for c in g.completions} >= {"length"} and len(got) == len(PROMPTS)
    plain = replace(sampler, keep=None)(PROMPTS, 5, PARAMS)
    assert [[c.tokens for c in g.completions] for g in groups] == [[c.tokens for c in g.completions] for g in plain]
    want = HiddenStates(lm, LAYERS, "text").states(groups)
    for group, w in zip(groups, want, strict=True):
        kept, states = got[group.prompt.id]
        assert kept == group and sorted(states) == ["layer1.text", "layer3.text"]
        assert all(near(states[k], w[k]) for k in states)


def test_an_answer_without_text_has_the_state_of_the_prompts_last_token():
    """Two requests: one whose first sequence ends at once, and one that starts later."""
    log = StateLog((1,), lambda tokens: len(tokens) - 1)

    def row(*pairs):
        tokens, positions = map(np.array, zip(*pairs, strict=True))
        return [[(100.0 * tokens + positions)[:, None], tokens, positions]]

    log.asked([5, 6])
    log.step(row((5, 0), (6, 1)))
    log.asked([5])
    log.step(row((7, 2), (5, 0)))
    log.finished(0, [[9], [7, 9]])
    assert not log.settled(0)  # the second request may hold any of that step's rows
    log.step(row((8, 1)))
    log.finished(1, [[8, 9]])
    assert log.settled(0) and log.settled(1)
    assert log.states(0)["layer1.text"].tolist() == [[601.0], [702.0]]
    assert log.states(1)["layer1.text"].tolist() == [[801.0]]


def test_a_row_that_is_not_expected_loses_the_states_and_says_so():
    log = StateLog((1,), len)
    log.asked([5])
    log.step([[np.zeros((1, 4)), np.array([6]), np.array([0])]])
    log.finished(0, [[7]])
    assert log.settled(0) and log.lost and log.states(0) is None


@pytest.mark.parametrize("pooling", ["last", "text", "mean"])
def test_the_graph_gives_the_vectors_of_torch(model, lm, pooling):
    texts = ("2", "two", "2", "It is 2.", "")
    groups = [Group(p, tuple(Completion(t, "m@0", i, i) for i, t in enumerate(texts))) for p in PROMPTS]
    embed = GraphStates(model, LAYERS, pooling)
    for a, b in zip(embed(groups), HiddenStates(lm, LAYERS, pooling)(groups), strict=True):
        assert near(a, b)
    assert embed.card["engine"] == "openvino" and embed.card["dtype"] == "float32"
    assert from_card(embed.card) == embed
    with pytest.raises(InputError, match="layers 1 to 3"):
        GraphStates(model, (4,))(groups)


def test_kept_while_sampling_nothing_is_left_to_compute_and_no_other_arithmetic_is_mixed_in(
    model, tmp_path, monkeypatch
):
    store, embed = Store(tmp_path / "run"), GraphStates(model, LAYERS)
    stored = Stored(embed, store, "train")
    with stored.keeping() as keep:
        groups = Cached(OpenVINO(model, cache_gb=1, layers=LAYERS, keep=keep), store, "train")(PROMPTS, 3, PARAMS)
    want = embed(groups)
    monkeypatch.setattr("trimtab.embeddings.graph_states._load", lambda *a: pytest.fail("nothing is missing"))
    for a, b in zip(stored(groups), want, strict=True):
        assert near(a, b)
    with pytest.raises(SettingsChanged):
        Stored(HiddenStates(model, LAYERS, "text"), store, "train")(groups)
    assert Stored(None, store, "train", keys=("layer3.text",)).card == GraphStates(model, (3,)).card


def test_ctrl_c_while_states_are_read_is_ctrl_c_and_leaves_the_engine_whole(model):
    """Wherever it arrives: eight times, later each time."""
    sampler = OpenVINO(model, cache_gb=1, layers=LAYERS, keep=lambda *a: None)
    want = sampler(PROMPTS, 4, PARAMS)
    many, long = [prompt(f"question {i}") for i in range(40)], replace(PARAMS, max_tokens=60)

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for n in range(8):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.02 + 0.03 * n)
                for _ in range(100):
                    sampler(many, 8, long)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [[c.tokens for c in g.completions] for g in sampler(PROMPTS, 4, PARAMS)] == [
        [c.tokens for c in g.completions] for g in want
    ]


def test_vectors_wait_for_their_completions(model, tmp_path):
    """A kill between the two would leave a vector that a resumed run takes for another text's."""
    store, embed = Store(tmp_path / "run"), GraphStates(model, LAYERS)
    groups = [Group(p, (Completion("2", "m@0", 0, 0),)) for p in PROMPTS[:2]]
    with store.writer("completions/train", {}) as writer:
        writer.append_groups(groups[:1])
    with Stored(embed, store, "train").keeping() as keep:
        for g in groups:
            keep(g, dict.fromkeys(embed.keys, np.ones((1, 32), np.float32)))
    assert store.ids("embeddings/train") == set(store.sample_ids("train", groups[:1])[0])


def test_states_that_would_fill_the_memory_are_left_to_a_later_pass(model, monkeypatch):
    got = []
    monkeypatch.setattr("trimtab.samplers.openvino.MOST_BYTES", 0)
    OpenVINO(model, cache_gb=1, layers=LAYERS, keep=lambda *a: got.append(a))(PROMPTS[:1], 1, PARAMS)
    assert got == []
