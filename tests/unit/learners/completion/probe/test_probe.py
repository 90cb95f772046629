import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

from trimtab.errors import InputError, ModelError
from trimtab.learners import Probe, fit_probe, fit_probe_pairs, select_probe
from trimtab.types import Pair, describe


def values(probe, groups):
    return np.array([[r.value for r in rewards] for rewards in probe(groups)])


def test_the_value_of_a_probe_by_hand(numbers, as_groups):
    layers = (
        (np.array([[1.0, -1.0], [0.0, 2.0]]), np.array([0.0, -1.0])),
        (np.array([[3.0, 1.0]]), np.array([0.5])),
    )
    probe = Probe(layers, {"loss": "ce", "embedder": numbers().card}, numbers())
    # (2, 1): hidden (1, 1) -> 3 + 1 + 0.5; (0, 1): hidden (-1 -> 0, 1) -> 1.5; (0, 0): (0, -1 -> 0) -> 0.5
    groups = as_groups(np.array([[[2, 1], [0, 1], [0, 0]]]), np.zeros((1, 3)))
    np.testing.assert_array_equal(values(probe, groups), [[4.5, 1.5, 0.5]])


def test_the_order_of_the_groups_changes_nothing(numbers, make_groups):
    groups = make_groups(20, 6)
    a, b = fit_probe(groups, numbers()), fit_probe(groups[::-1], numbers())
    np.testing.assert_array_equal(a.layers[0][0], b.layers[0][0])
    assert a.card == b.card and repr(a) == repr(b) == describe(a) and a.weights_hash in repr(a)


def test_the_card_says_what_the_probe_was_fitted_on(numbers, make_groups):
    groups = make_groups(20, 6)
    groups[0] = replace(groups[0], rewards=(replace(groups[0].rewards[0], value=math.nan), *groups[0].rewards[1:]))
    card = fit_probe(groups, numbers(), loss="pg", beta=0.5, l2=(0.1, 1.0)).card
    assert (card["loss"], card["beta"], card["prompts"], card["rows"]) == ("pg", 0.5, 20, 119)
    assert (card["dropped_rows"], card["dropped_prompts"]) == (1, 0)
    assert card["embedder"] == {"kind": "numbers", "scale": 1.0} and len(card["data_hash"]) == 32
    assert [row["l2"] for row in card["metrics"]["cross_validation"]] == [1.0, 0.1]
    assert card["l2"] in (1.0, 0.1) and card["metrics"]["train_oracle"] >= card["metrics"]["train_reward"]
    json.dumps(card, allow_nan=False)


@pytest.mark.parametrize("kwargs", [{}, {"hidden": (8, 8), "l2": 0.1}])
def test_save_and_load_give_the_same_rewards(numbers, make_groups, tmp_path, kwargs):
    groups = make_groups(20, 6)
    probe = fit_probe(groups, numbers(), **kwargs)
    loaded = Probe.load(probe.save(tmp_path / "probe"), numbers())
    np.testing.assert_allclose(values(loaded, groups), values(probe, groups), rtol=0, atol=1e-6)
    assert loaded.card == json.loads(json.dumps(probe.card)) and repr(loaded) == repr(probe)
    assert {f.name for f in (tmp_path / "probe").iterdir()} == {"probe.safetensors", "card.json"}
    again = pickle.loads(pickle.dumps(probe))
    np.testing.assert_array_equal(values(again, groups), values(probe, groups))


def test_another_embedder_is_refused_with_the_difference(numbers, make_groups, tmp_path):
    groups = make_groups(10, 4)
    probe = fit_probe(groups, numbers(), l2=0.1)
    probe.save(tmp_path)
    for use in (lambda: Probe.load(tmp_path, numbers(2.0)), lambda: replace(probe, embed=numbers(2.0))(groups)):
        with pytest.raises(ModelError, match=r"scale: fitted on 1\.0, given 2\.0"):
            use()
    bare = Probe.load(tmp_path)
    assert bare.values(np.zeros((0, 6))).shape == (0,)
    with pytest.raises(ModelError, match="no embedder"):
        bare(groups)
    with pytest.raises(InputError, match=r"takes \(N, 6\)"):
        bare.values(np.zeros((2, 5)))


def test_a_broken_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no readable probe"):
        Probe.load(tmp_path)
    (tmp_path / "card.json").write_text("{}")
    (tmp_path / "probe.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="no readable probe"):
        Probe.load(tmp_path)


def test_layers_that_do_not_fit_are_refused(tmp_path, numbers, make_groups):
    probe = fit_probe(make_groups(10, 4), numbers(), l2=0.1)
    weight, bias = probe.layers[0]
    for layers in (((weight, bias[:0]),), ((weight, bias), (weight, bias)), ((weight.repeat(2, 0), bias.repeat(2)),)):
        folder = replace(probe, layers=layers).save(tmp_path / "probe")
        with pytest.raises(InputError, match="do not fit"):
            Probe.load(folder)


def test_an_infinite_embedding_is_unscored_with_a_note(numbers, make_groups):
    groups = make_groups(10, 4)
    probe = replace(fit_probe(groups, numbers(), l2=0.1))
    bad = replace(groups[0], completions=(replace(groups[0].completions[0], text="inf 0 0 0 0 0"),), rewards=())
    ((reward,),) = probe([bad])
    assert math.isnan(reward.value) and "not finite" in reward.note
    assert probe([]) == []


def test_select_finds_the_embedding_with_the_signal(numbers, make_groups, as_groups):
    groups = make_groups(40, 6)
    noise = np.random.default_rng(9)

    class Noise(numbers):
        def __call__(self, groups):
            return [noise.normal(size=(len(g.completions), 6)).astype(np.float32) for g in groups]

    probe = select_probe(groups, {"noise": Noise(7.0), "signal": numbers()}, losses=("mse", "pg"), l2=(1.0, 0.01))
    assert probe.card["selected"] == "signal" and probe.card["embedder"]["scale"] == 1.0
    table = probe.card["selection"]
    assert len(table) == 2 * 2 * 2
    best = max(row["reward"] for row in table)
    chosen = next(
        r for r in table if (r["embedder"], r["loss"], r["l2"]) == ("signal", probe.card["loss"], probe.card["l2"])
    )
    assert chosen["reward"] == best


def test_fit_on_given_pairs_ranks_as_the_pairs_do(numbers, make_groups):
    groups = make_groups(30, 6)
    pairs = [
        Pair(g.prompt, a, b)
        for g in groups
        for a, x in zip(g.completions, g.reward_N, strict=True)
        for b, y in zip(g.completions, g.reward_N, strict=True)
        if x > y
    ]
    probe = fit_probe_pairs(pairs, numbers(), l2=0.01)
    test = make_groups(100, 6, seed=8)
    reward_PN = np.array([g.reward_N for g in test])
    chosen = reward_PN[np.arange(100), values(probe, test).argmax(1)].mean()
    assert chosen > reward_PN.mean() + 0.25 and probe.card["loss"] == "bt"
    with pytest.raises(InputError, match="no pairs"):
        fit_probe_pairs([], numbers())
    with pytest.raises(InputError, match="'bt' or 'ratio'"):
        fit_probe_pairs(pairs, numbers(), loss="ce")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"loss": "pgg"}, "did you mean 'pg'"),
        ({"optimizer": "sgd"}, "unknown optimizer"),
        ({"optimizer": "lbfgs", "hidden": (4,)}, "linear probes"),
        ({"hidden": (0,)}, "hidden widths"),
        ({"folds": 1}, "folds"),
        ({"hidden": (4,), "l2": (0.1, 1.0)}, "one l2"),
    ],
)
def test_wrong_settings_are_refused(numbers, make_groups, kwargs, message):
    with pytest.raises(InputError, match=message):
        fit_probe(make_groups(4, 4), numbers(), **kwargs)


def test_nothing_to_learn_is_said(numbers, as_groups):
    x = np.random.default_rng(0).normal(size=(3, 4, 2))
    for reward, message in (
        (np.full((3, 4), np.nan), "no completion has a reward"),
        (np.ones((3, 4)), "nothing can be learnt"),
        (np.where(np.arange(3)[:, None] > 0, np.nan, [[0.0, 1.0, 0.0, 1.0]]), "one training prompt"),
    ):
        with pytest.raises(InputError, match=message):
            fit_probe(as_groups(x, reward), numbers())
