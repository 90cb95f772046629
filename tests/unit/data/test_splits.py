"""Disjoint, stable when rows are added, and one question never on both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data import split_by_id
from trimtab.errors import InputError
from trimtab.types import Prompt


def make(texts):
    return [Prompt(f"{i}", ({"role": "user", "content": t},)) for i, t in enumerate(texts)]


@given(st.lists(st.text(max_size=3), min_size=1, max_size=40), st.floats(0.05, 0.95), st.integers(0, 5))
def test_shares_are_disjoint_whole_and_stable(texts, share, seed):
    prompts = make(texts)
    train, test = split_by_id(prompts, share, seed)
    assert sorted(p.id for p in train + test) == sorted(p.id for p in prompts)
    assert not {p.messages[0]["content"] for p in train} & {p.messages[0]["content"] for p in test}
    few_train, few_test = split_by_id(prompts[: len(prompts) // 2], share, seed)
    assert set(map(id, few_train)) <= set(map(id, train)) and set(map(id, few_test)) <= set(map(id, test))


def test_share_number_and_seed():
    prompts = make([f"question {i}" for i in range(2000)])
    train, test = split_by_id(prompts, 0.3)
    assert abs(len(test) / 2000 - 0.3) < 0.04  # 4 standard deviations
    assert split_by_id(prompts, 0.3, seed=1)[1] != test
    train, test = split_by_id(prompts, 100)
    assert (len(train), len(test)) == (1900, 100)
    assert [p.id for p in train] == sorted((p.id for p in train), key=int)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.5, 5, -1, True, "0.3"])
def test_refuses(bad):
    with pytest.raises(InputError, match="test"):
        split_by_id(make(["a", "b", "c", "d", "e"]), bad)
