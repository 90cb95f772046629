"""Rows of a matrix: joined splits keep every prompt, tags are balanced, shared n-grams are dropped and counted."""

import numpy as np
import pytest

from trimtab.data.matrix.matrix import ResponseMatrix, split_matrix
from trimtab.data.matrix.rows import balanced, join_matrices, without_overlap
from trimtab.errors import InputError
from trimtab.testing import prompt


def make(texts, tags=()):
    reward = np.arange(2.0 * len(texts)).reshape(-1, 2)
    return ResponseMatrix(tuple(prompt(t, id=str(i)) for i, t in enumerate(texts)), ("a", "b"), reward, tuple(tags))


def test_joined_splits_keep_rows_and_make_ids_unique():
    m = make([f"text {i}" for i in range(10)], [(f"t{i % 2}",) for i in range(10)])
    sides = [split_matrix(m, 0.5, seed)[1] for seed in range(3)]
    joined = join_matrices(sides)
    np.testing.assert_array_equal(joined.reward_PM, np.concatenate([s.reward_PM for s in sides]))
    assert len({p.id for p in joined.prompts}) == len(joined) == 15
    assert joined.tags == tuple(t for s in sides for t in s.tags) and any(p.id.endswith("#2") for p in joined.prompts)
    with pytest.raises(InputError, match="same models"):
        join_matrices([m, m.pool(["b", "a"])])
    with pytest.raises(InputError, match="same models"):
        join_matrices([])


def test_balanced_takes_so_many_of_each_tag_and_each_prompt_once():
    m = make([f"text {i}" for i in range(34)], [("a",)] * 30 + [("b",)] * 3 + [("a", "c")])
    some = balanced(m, 10, seed=1)
    count = {t: sum(t in row for row in some.tags) for t in "abc"}
    assert count["b"] == 3 and count["c"] == 1 and 10 <= count["a"] <= 11 and len(some) in (13, 14)
    assert [p.id for p in some.prompts] == [p.id for p in balanced(m, 10, seed=1).prompts]
    with pytest.raises(InputError, match="needs tags"):
        balanced(make(["x", "y"]))


def test_decontamination_drops_what_shares_six_words_in_a_row_with_any_test_set():
    train = make(["one two three four five six seven", "quite another text of more than six words", "short text"])
    first = make(["ONE, two three: four five six!"])
    second = make(["short text"])
    clean, dropped = without_overlap(train, first)
    assert dropped == 1 and [p.id for p in clean.prompts] == ["1", "2"]
    clean, dropped = without_overlap(train, [first, second])
    assert dropped == 2 and [p.id for p in clean.prompts] == ["1"]
    with pytest.raises(InputError, match="every one of 3"):
        without_overlap(train, train)
