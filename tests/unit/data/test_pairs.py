"""Pairs follow the rewards: worked by hand, and as laws over random rewards with ties and NaN."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab import data
from trimtab.types import Completion, Group, Prompt, Reward

NAN = math.nan


def group(values, texts=None, role="user", name="p"):
    texts = texts or [f"t{i}" for i in range(len(values))]
    completions = tuple(Completion(t, "m@1", 10 + i, i) for i, t in enumerate(texts))
    rewards = tuple(Reward(v, "why" if math.isnan(v) else "") for v in values)
    return Group(Prompt(name, ({"role": role, "content": "q"},), source="s"), completions, rewards)


def shape(pairs):
    return [(p.chosen.index, p.rejected.index, p.margin) for p in pairs]


def test_by_hand():
    g = group([0.5, NAN, 1.0, 0.0, 1.0])
    assert shape(data.best_vs_worst([g])) == [(2, 3, 1.0)]
    assert shape(data.all_pairs([g])) == [(0, 3, 0.5), (2, 0, 0.5), (2, 3, 1.0), (4, 0, 0.5), (4, 3, 1.0)]
    assert shape(data.all_pairs([g], margin=0.5)) == [(2, 3, 1.0), (4, 3, 1.0)]
    assert shape(data.right_vs_wrong([g])) == [(2, 0, 0.5), (4, 3, 1.0)]


def test_nothing_to_prefer():
    same_text = group([0.0, 1.0], texts=["a", "a"])  # a flaky reward, no preference
    unscored = Group(same_text.prompt, same_text.completions)
    for g in (group([1.0, 1.0]), group([NAN, NAN]), group([NAN, 1.0]), group([1.0]), group([]), same_text, unscored):
        assert data.best_vs_worst([g]) == data.all_pairs([g]) == data.right_vs_wrong([g]) == []


values = st.lists(st.sampled_from([NAN, 0.0, 0.25, 1.0]), max_size=6)


@given(st.lists(values, max_size=4))
def test_laws(rows):
    groups = [group(v, name=f"p{i}") for i, v in enumerate(rows)]
    every = data.all_pairs(groups)
    for p in every:
        g = groups[int(p.prompt.id[1:])]
        assert g.reward_N[p.chosen.index] - g.reward_N[p.rejected.index] == p.margin > 0
    assert all(p in every for p in data.best_vs_worst(groups) + data.right_vs_wrong(groups))
    for g in groups:
        v = [x for x in g.reward_N if not math.isnan(x)]
        expected = max(v) - min(v) if len(set(v)) > 1 else None
        assert [p.margin for p in data.best_vs_worst([g])] == ([expected] if expected else [])


def test_to_trl_rows():
    g = group([1.0, 0.0], texts=["5", "6"])
    (row,) = data.to_trl(data.best_vs_worst([g]), [g])
    assert row["prompt"] == [{"role": "user", "content": "q"}]
    assert row["chosen"] == [{"role": "assistant", "content": "5"}]
    assert row["rejected"] == [{"role": "assistant", "content": "6"}]
    assert (row["chosen_score"], row["rejected_score"], row["margin"]) == (1.0, 0.0, 1.0)
    assert (row["source"], row["prompt_id"]) == ("s", "p") and len(row["id"]) == 32
    (raw,) = data.to_trl(data.best_vs_worst([group([1.0, 0.0], role="text")]))
    assert (raw["prompt"], raw["chosen"], raw["rejected"], raw["chosen_score"]) == ("q", "t0", "t1", None)


@pytest.mark.parametrize(
    ("rewards", "make", "why"),
    [
        ([[0.1, 0.4], [0.3, 0.2]], data.right_vs_wrong, "graded, from 0.1 to 0.4, and none is above the threshold 0.5"),
        ([[2.0, 5.0], [9.0, 7.0]], data.right_vs_wrong, "graded, from 2 to 9, and all are above .*best_vs_worst"),
        ([[-3.0, -1.0]], data.right_vs_wrong, "none is above the threshold 0.5; give another"),
        ([[0.0, 0.0], [1.0, 1.0]], data.right_vs_wrong, "within every one of 2 groups all rewards are equal"),
        ([[0.0, 0.2], [1.0, 0.8]], data.right_vs_wrong, "no group has rewards on both sides of the threshold 0.5"),
        ([[NAN, NAN]], data.best_vs_worst, r"not one completion of 1 groups has a reward \(most often: why\)"),
        ([[0.5, 0.5]], data.best_vs_worst, "all rewards are equal: sample more"),
        ([[0.1, 0.2]], lambda g: data.all_pairs(g, margin=0.5), "no two of a group differ by more than the margin 0.5"),
    ],
)
def test_no_pairs_is_said_and_why(rewards, make, why):
    with pytest.warns(UserWarning, match=why):
        assert make([group(r, name=str(i)) for i, r in enumerate(rewards)]) == []


def test_pairs_and_empty_input_are_silent(recwarn):
    assert data.right_vs_wrong([]) == [] and len(data.right_vs_wrong([group([0.9, 0.1])])) == 1
    assert not recwarn.list
