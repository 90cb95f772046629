import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.learners.completion.probe.data import (
    check_labels,
    chosen_reward,
    embed_rows,
    fold_of_prompt,
    groups_of_pairs,
    make_labels,
    make_units,
    scored,
)
from trimtab.types import Completion, Pair, Prompt


def test_chunks_are_a_partition_of_each_prompt_by_one_shared_permutation():
    labels = make_labels(np.arange(25.0), [0] * 12 + [1] * 12 + [2])
    units = make_units(labels, "pg", chunk=5, seed=3)
    rows = [units.index_UK[u][units.mask_UK[u]] for u in range(len(units.index_UK))]
    assert [len(r) for r in rows] == [5, 5, 2, 5, 5, 2]  # the prompt with one completion has no chunk
    assert sorted(np.concatenate(rows[:3])) == list(range(12))
    np.testing.assert_array_equal(rows[0] + 12, rows[3])  # the same places in both prompts
    assert [len(m) for m in make_units(labels, "pg", chunk=5, drop_rest=True).index_UK] == [5] * 4


def test_the_paper_has_9280_chunks_of_10():
    labels = make_labels(np.zeros(92_800), np.repeat(np.arange(464), 200))
    units = make_units(labels, "pg", chunk=10, drop_rest=True)
    assert units.index_UK.shape == (9280, 10) and units.mask_UK.all()


def test_pairs_are_every_better_against_every_worse():
    labels = make_labels([1.0, 0.0, 0.5, 2.0, 2.0], [0, 0, 0, 1, 1])
    units = make_units(labels, "bt")
    assert sorted(map(tuple, units.index_UK.tolist())) == [(0, 1), (0, 2), (2, 1)]
    assert len(make_units(labels, "bt", max_pairs=2).index_UK) == 2
    with_others = make_units(labels, "ratio", others=1)
    assert {frozenset(r) for r in with_others.index_UK.tolist()} == {frozenset({0, 1, 2})}


def test_folds_depend_on_the_label_alone_and_are_even():
    names = [f"p{i}" for i in range(23)]
    fold = dict(zip(names, fold_of_prompt(names, 5, 0), strict=True))
    shuffled = names[::-1]
    assert dict(zip(shuffled, fold_of_prompt(shuffled, 5, 0), strict=True)) == fold
    assert sorted(np.bincount(list(fold.values()))) == [4, 4, 5, 5, 5]
    assert fold_of_prompt(["a", "b"], 5, 0).max() == 1


def test_chosen_reward_averages_ties():
    labels = make_labels([1.0, 0.0, 0.0, 1.0], [0, 0, 1, 1])
    np.testing.assert_array_equal(chosen_reward(np.array([2.0, 2.0, 5.0, 1.0]), labels), [0.5, 0.0])


def test_unscored_rows_and_prompts_are_dropped_and_counted(as_groups):
    x = np.arange(12.0).reshape(3, 2, 2)
    groups = as_groups(x, np.array([[1, np.nan], [np.nan, np.nan], [0, 1]]))
    kept, counts = scored(groups[::-1])
    assert [g.prompt.id for g in kept] == ["p000", "p002"]
    assert (counts.prompts, counts.rows, counts.dropped_rows, counts.dropped_prompts) == (2, 3, 3, 1)
    assert scored(groups)[1].data_hash == counts.data_hash
    with pytest.raises(InputError, match="two groups"):
        scored([groups[0], groups[0]])
    with pytest.raises(InputError, match="infinite"):
        scored(as_groups(x, np.array([[1, np.inf], [0, 0], [0, 1]])))


@pytest.mark.parametrize(
    ("reward", "prompt", "loss", "message"),
    [
        ([], [], "mse", "no completion has a reward"),
        ([1.0, 0.0], ["a", "a"], "mse", "one training prompt"),
        ([0.5, 0.5, 0.5], [0, 0, 1], "ce", "nothing can be learnt"),
        ([0.0, 2.0], [0, 1], "ce", r"rewards in \[0, 1\]"),
        ([0.0, 1.0], [0, 1], "pg", "k = 1"),
        ([0.0, 1.0], [0, 1], "bt", "k = 1"),
        ([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], "ratio", "within every prompt all rewards are equal"),
    ],
)
def test_what_cannot_be_learnt_is_refused(reward, prompt, loss, message):
    with pytest.raises(InputError, match=message):
        check_labels(make_labels(reward, prompt), loss)


def test_bad_arrays_are_refused():
    with pytest.raises(InputError, match="one length"):
        make_labels([1.0, 0.0], [0])
    with pytest.raises(InputError, match=r"reward\[1\] is nan"):
        make_labels([1.0, np.nan], [0, 1])


def test_bad_embeddings_name_the_prompt(as_groups):
    groups = as_groups(np.zeros((2, 2, 3)), np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"'p001'.*shape"):
        embed_rows(groups, [np.zeros((2, 3)), np.zeros((1, 3))])
    with pytest.raises(InputError, match=r"'p001'.*NaN"):
        embed_rows(groups, [np.zeros((2, 3)), np.full((2, 3), np.nan)])
    with pytest.raises(InputError, match="1 arrays for 2 groups"):
        embed_rows(groups, [np.zeros((2, 3))])
    assert embed_rows(groups, [np.zeros((2, 3), np.float16)] * 2).dtype == np.float16


def test_pairs_become_groups_of_distinct_completions():
    p, q = (Prompt(i, ({"role": "user", "content": i},)) for i in "pq")
    a, b, c = (Completion(s, "m@0", i, i) for i, s in enumerate("abc"))
    groups, rows = groups_of_pairs([Pair(q, a, b), Pair(p, a, b), Pair(p, c, b), Pair(p, b, c)])
    kept, _ = scored(groups)
    assert [[x.text for x in g.completions] for g in kept] == [["a", "b", "c"], ["a", "b"]]
    assert rows(kept).tolist() == [[3, 4], [0, 1], [2, 1], [1, 2]]
