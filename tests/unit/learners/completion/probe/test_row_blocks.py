import numpy as np
import pytest
import torch

from trimtab.errors import InputError
from trimtab.learners.completion.probe import row_blocks as module
from trimtab.learners.completion.probe.row_blocks import row_blocks

X = np.random.default_rng(0).normal(3.0, 2.0, size=(37, 5)).astype(np.float32)


def kinds(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return {
        "array": X,
        "float64": X.astype(np.float64),
        "tensor": torch.from_numpy(X),
        "strided": np.asfortranarray(X),
        "mapped": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "list": [X[:10], X[10:11], X[11:]],
        "function": lambda: iter(np.array_split(X, 4)),
    }


def test_every_source_gives_the_same_products_and_moments(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 5 * 8)  # eight rows at a time
    v, g = torch.arange(5.0), torch.linspace(-1, 1, 37)
    for name, source in kinds(tmp_path).items():
        rows = row_blocks(source, 37)
        np.testing.assert_allclose(rows.times(v), X.astype(float) @ v.numpy(), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(rows.transposed_times(g), X.T.astype(float) @ g.numpy(), rtol=1e-4, err_msg=name)
        mean, std = rows.moments()
        np.testing.assert_allclose(mean, X.mean(0, dtype=float), rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(std, X.std(0, dtype=float), rtol=1e-5, err_msg=name)
        np.testing.assert_array_equal(rows.take(np.array([0, 9, 10, 36])), X[[0, 9, 10, 36]], err_msg=name)
        assert (rows.array is None) == (name in ("list", "function"))


def test_moments_survive_a_mean_far_larger_than_the_spread():
    x = (1e4 + np.random.default_rng(1).normal(size=(5000, 2))).astype(np.float32)
    mean, std = row_blocks(x, 5000).moments()
    np.testing.assert_allclose(mean, x.mean(0, dtype=float), rtol=1e-7)
    np.testing.assert_allclose(std, x.std(0, dtype=float), rtol=1e-4)


def test_half_precision_is_computed_in_single():
    half = X.astype(np.float16)
    np.testing.assert_allclose(row_blocks(half, 37).times(torch.ones(5)), half.astype(float).sum(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (X[:5], "5 rows, but there are 37"),
        ((b for b in [X]), "only once"),
        (X[0], "2-d"),
        ([], "at least one"),
        ([X[0]], "2-d"),
    ],
)
def test_wrong_sources_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        row_blocks(source, 37)


def test_wrong_blocks_are_found_while_reading():
    with pytest.raises(InputError, match="hold 20 rows"):
        row_blocks([X[:20]], 37).moments()
    with pytest.raises(InputError, match="had 5 columns"):
        row_blocks([X[:20], X[20:, :4]], 37).moments()
    bad = X.copy()
    bad[30, 2] = np.nan
    with pytest.raises(InputError, match="row 30"):
        row_blocks(bad, 37).moments()


def test_a_thread_a_part_gives_the_same_products_and_leaves_torchs_threads_alone(monkeypatch):
    monkeypatch.setattr("trimtab.learners.completion.probe.row_blocks.BLOCK_BYTES", 64)
    before, X = torch.get_num_threads(), torch.randn(301, 40, dtype=torch.float64).half()
    v_D, g_R = torch.randn(40, dtype=torch.float64), torch.randn(301, dtype=torch.float64)
    torch.set_num_threads(3)
    try:
        rows = row_blocks(X, 301)
        torch.testing.assert_close(rows.times(v_D), X.double() @ v_D, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rows.transposed_times(g_R), X.double().T @ g_R, rtol=1e-4, atol=1e-3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
