from dataclasses import replace

import numpy as np
import pytest
import torch

from trimtab.errors import InputError
from trimtab.learners.completion.probe.data import make_labels
from trimtab.learners.completion.probe.minibatch import MLP, PAPER, fit_minibatch
from trimtab.learners.completion.probe.row_blocks import row_blocks

SETTINGS = {"beta": 1.0, "alpha": 1.0}


def problem(make_rows, prompts=20, n=10):
    x_PND, reward_PN = make_rows(prompts, n)
    X = x_PND.reshape(prompts * n, -1).astype(np.float32)
    return row_blocks(X, len(X)), make_labels(reward_PN.ravel(), np.repeat(np.arange(prompts), n))


def test_the_paper_takes_13800_steps():
    # 464 prompts x 200: 92 full batches an epoch for rows (1000 of 92,800) and for chunks (100 of 9,280), 150 epochs
    labels = make_labels(np.arange(92_800) % 2, np.repeat(np.arange(464), 200))
    X = np.zeros((92_800, 1), dtype=np.float32)
    for loss in ("mse", "pg"):
        fit = fit_minibatch(row_blocks(X, len(X)), labels, loss, replace(PAPER, epochs=2), settings=SETTINGS)
        assert (fit.steps, fit.steps // fit.epochs * PAPER.epochs) == (184, 13_800)


def test_the_papers_first_step_is_adamw_on_raw_rows_with_its_hidden_decay(make_rows):
    rows, labels = problem(make_rows)
    start = fit_minibatch(rows, labels, "mse", replace(PAPER, lr=0.0, epochs=1, batch=200), settings=SETTINGS)
    (w0, b0), (w1, _) = (
        f.layers[0]
        for f in (start, fit_minibatch(rows, labels, "mse", replace(PAPER, epochs=1, batch=200), settings=SETTINGS))
    )
    assert rows.array is not None
    X = rows.array.numpy()
    gradient = 2 * ((X @ w0[0] + b0 - labels.reward_R)[:, None] * X).mean(0)
    # AdamW's first step is lr g / (|g| + eps), after w (1 - lr wd)
    expected = w0[0] * (1 - 5e-5 * 0.01) - 5e-5 * gradient / (np.abs(gradient) + 1e-8)
    np.testing.assert_allclose(w1[0], expected, atol=3e-8)


@pytest.mark.parametrize("loss", ["mse", "pg", "bt"])
def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_rng_alone(make_rows, loss):
    rows, labels = problem(make_rows)
    before = torch.get_rng_state()
    fits = [fit_minibatch(rows, labels, loss, replace(PAPER, epochs=3), settings=SETTINGS, seed=s) for s in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(fits[0].layers[0][0], fits[1].layers[0][0])
    assert np.abs(fits[0].layers[0][0] - fits[2].layers[0][0]).max() > 0


def test_an_mlp_learns_what_no_linear_probe_can():
    rng = np.random.default_rng(0)
    X = rng.normal(5, 3, size=(1500, 3)).astype(np.float32)
    reward = (np.abs(X[:, 0] - 5) > 2).astype(float)  # both tails of one column: symmetric about its mean
    labels = make_labels(reward, np.arange(1500) // 10)
    fit = fit_minibatch(row_blocks(X, 1500), labels, "ce", MLP, hidden=(16,), settings=SETTINGS)
    assert [w.shape for w, _ in fit.layers] == [(16, 3), (1, 16)] and fit.epochs < MLP.epochs + 1
    hidden = np.maximum(X @ fit.layers[0][0].T + fit.layers[0][1], 0)
    value = (hidden @ fit.layers[1][0].T + fit.layers[1][1])[:, 0]
    assert ((value > 0) == (reward > 0.5)).mean() > 0.93  # the best linear rule reaches about 0.5
    assert fit.objective < 0.3


def test_early_stopping_stops_on_noise(make_rows):
    x_PND, _ = make_rows(20, 10)
    X = x_PND.reshape(200, -1).astype(np.float32)
    labels = make_labels(np.random.default_rng(3).integers(0, 2, 200), np.repeat(np.arange(20), 10))
    fit = fit_minibatch(
        row_blocks(X, 200), labels, "ce", replace(MLP, lr=1e-2, patience=5), hidden=(32,), settings=SETTINGS
    )
    assert fit.epochs < 60


def test_streamed_rows_are_refused(make_rows):
    rows, labels = problem(make_rows)
    assert rows.array is not None
    with pytest.raises(InputError, match="random order"):
        fit_minibatch(row_blocks([rows.array.numpy()], 200), labels, "ce", PAPER, settings=SETTINGS)
