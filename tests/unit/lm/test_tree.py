"""The forest holds every sequence once, in order, and its mask is exactly each sequence's causal mask."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MistralConfig

from trimtab.lm.tree import attention, branch_rows, forests, length_buckets, single

sequences = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=12)


def windowed(sees, position, window=3):
    """The mask that a forward takes for layers with a window."""
    rows = [torch.as_tensor(x).reshape(-1, *x.shape[-n:]) for x, n in ((sees, 2), (position, 1))]
    config = MistralConfig(sliding_window=window, attn_implementation="sdpa")
    given = attention(SimpleNamespace(config=config, dtype=torch.float32), rows[0], rows[1], rows[1])
    assert given["position_ids"] is rows[1]
    return (given["attention_mask"][:, 0] == 0).numpy().reshape(sees.shape)


@given(sequences, st.integers(1, 30))
def test_paths_spell_the_sequences_and_masks_are_causal_within_them(rows, limit):
    built = list(forests(rows, limit))
    numbers = [n for f in built for n, _ in f.paths]
    assert numbers == list(range(len(rows)))
    for f in built:
        assert len(f.token_T) <= limit or len(f.paths) == 1 or len(f.token_T) <= max(map(len, rows))
        mask, near = f.sees_TT, windowed(f.sees_TT, f.position_T)
        for number, path in f.paths:
            assert f.token_T[path].tolist() == rows[number]
            assert f.position_T[path].tolist() == list(range(len(path)))
            for i, node in enumerate(path):
                assert sorted(np.flatnonzero(mask[node])) == sorted(path[: i + 1])
                assert sorted(np.flatnonzero(near[node])) == sorted(path[max(0, i - 2) : i + 1])


@given(sequences)
def test_each_prefix_is_computed_once(rows):
    (f,) = forests(rows, 10_000)
    assert len(f.token_T) == len({tuple(r[:i]) for r in rows for i in range(1, len(r) + 1)})


def test_by_hand():
    (f,) = forests([[1, 2, 3], [1, 2, 4], [1, 2, 3]], 10)
    assert f.token_T.tolist() == [1, 2, 3, 4]
    assert f.parent_T.tolist() == [-1, 0, 1, 1]
    assert f.position_T.tolist() == [0, 1, 2, 2]
    assert [p.tolist() for _, p in f.paths] == [[0, 1, 2], [0, 1, 3], [0, 1, 2]]
    assert f.sees_TT.astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert not f.is_chain
    assert all(g.is_chain for g in single([[1, 2, 3], [1, 2, 4]]))
    assert [len(g.token_T) for g in forests([[1, 2, 3], [4, 5], [1]], 4)] == [3, 3]


def test_branch_rows_by_hand():
    rows = branch_rows([[1, 2], [3]], [[[4, 5], [6]], [[7], []]], 0)
    assert rows.ids_BT.tolist() == [[1, 2, 4, 5, 6], [3, 7, 0, 0, 0]]
    assert rows.position_BT.tolist() == [[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]
    assert rows.branch_BT.tolist() == [[0, 0, 1, 1, 2], [0, 1, -1, -1, -1]]
    assert rows.source_X.tolist() == [1, 2, 1, 5]  # 6 is predicted at the prompt's last token, as 4 is
    assert rows.target_X.tolist() == [4, 5, 6, 7]
    assert rows.owner_X.tolist() == [0, 0, 1, 2]
    assert rows.length_C.tolist() == [2, 1, 1, 0]
    assert rows.sums(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [3.0, 3.0, 4.0, 0.0]
    with pytest.raises(ValueError, match="row 0"):
        branch_rows([[]], [[[1]]], 0)


def test_branch_mask_by_hand():
    rows = branch_rows([[1, 2], [3]], [[[4, 5], [6]], [[7], []]], 0)
    may = rows.sees_BTT.int().tolist()
    assert may[0] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert may[1][2] == [0, 0, 1, 0, 0]  # padding sees itself alone
    near = windowed(rows.sees_BTT, rows.position_BT, 2)[0].astype(int).tolist()
    assert near[3] == [0, 0, 1, 1, 0] and near[4] == [0, 1, 0, 0, 1]


def test_own_places_and_rowed_sums_of_branches_by_hand():
    rows = branch_rows([[1, 2], [3]], [[[5, 6], [7]], [[8]]], 0)  # rows: 1 2 5 6 7 / 3 8 . . .
    assert rows.own_X.tolist() == [2, 3, 4, 6]
    assert rows.ids_BT.flatten()[rows.own_X].tolist() == rows.target_X.tolist()
    values = torch.tensor([[1.0, 10], [2, 20], [3, 30], [4, 40]])
    assert rows.sums(values).tolist() == [[3, 30], [3, 30], [4, 40]]


def test_buckets_by_hand():
    assert length_buckets([3, 9, 4, 1], 12) == [[1], [2, 0, 3]]
    assert (
        length_buckets([5, 5, 5], 10) == [[0, 1], [2]]
        and length_buckets([], 5) == []
        and length_buckets([99], 5) == [[0]]
    )
