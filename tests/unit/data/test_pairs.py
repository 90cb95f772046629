"""Pairs follow the rewards: worked by hand, and as laws over random rewards with ties and NaN."""

import math

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
