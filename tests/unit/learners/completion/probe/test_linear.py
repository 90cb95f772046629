import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from trimtab.errors import InputError
from trimtab.learners.completion.probe.data import make_labels, make_units
from trimtab.learners.completion.probe.linear import CHUNK_DRAWS, Objective, fit_linear
from trimtab.learners.completion.probe.losses import PROBE_LOSSES

SETTINGS = {"beta": 1.0, "alpha": 1.0}


@pytest.fixture
def rows(make_rows):
    x_PND, reward_PN = make_rows(30, 8, seed=1)
    P, N, D = x_PND.shape
    scale = np.array([1, 10, 0.1, 1, 1, 1])  # columns of different size, as hidden states have
    return (x_PND * scale + 5).reshape(-1, D).astype(np.float32), reward_PN.reshape(-1), np.repeat(np.arange(P), N)


def test_mse_is_ridge_regression_on_standardised_columns(rows):
    X, reward, prompt = rows
    fit = fit_linear(X, reward, prompt, loss="mse", l2=0.3, tol=1e-6, min_gain=0)
    mean, std = X.mean(0, dtype=float), X.std(0, dtype=float)
    Z = (X - mean) / std
    # mean (Zw + b - r)^2 + 0.15 w.w: 2 Z^T (Zw + b - r) / R + 0.3 w = 0 with b the mean reward
    w = np.linalg.solve(2 * Z.T @ Z / len(Z) + 0.3 * np.eye(6), 2 * Z.T @ (reward - reward.mean()) / len(Z))
    np.testing.assert_allclose(fit.weight_D, w / std, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fit.bias, reward.mean() - (w / std) @ mean, rtol=1e-4)


def test_ce_ends_where_its_gradient_is_zero(rows):
    X, reward, prompt = rows
    fit = fit_linear(X, reward, prompt, loss="ce", l2=0.05, tol=1e-6, min_gain=0)
    mean, std = X.mean(0, dtype=float), X.std(0, dtype=float)
    p = 1 / (1 + np.exp(-(X.astype(float) @ fit.weight_D + fit.bias)))
    gradient = ((X - mean) / std).T @ (p - reward) / len(X) + 0.05 * fit.weight_D * std
    assert np.abs(gradient).max() < 1e-5 and abs((p - reward).mean()) < 1e-5


@pytest.mark.parametrize("loss", sorted(PROBE_LOSSES))
def test_the_solution_is_a_minimum_of_its_objective(rows, loss):
    X, reward, prompt = rows
    best = fit_linear(X, reward, prompt, loss=loss, l2=0.01, tol=1e-6, min_gain=0).objective
    early = [fit_linear(X, reward, prompt, loss=loss, l2=0.01, max_iter=i).objective for i in (1, 2, 4)]
    assert early == sorted(early, reverse=True) and early[-1] >= best - 1e-6
    assert fit_linear(X, reward, prompt, loss=loss, l2=1e6).objective > best  # weights forced to nothing


@pytest.mark.parametrize("loss", sorted(PROBE_LOSSES))
def test_streamed_mapped_and_half_rows_give_the_weights_of_rows_in_memory(rows, loss, tmp_path):
    X, reward, prompt = rows
    X = X.astype(np.float16).astype(np.float32)  # so that float16 holds the same numbers
    np.save(tmp_path / "half.npy", X.astype(np.float16))
    whole = fit_linear(X, reward, prompt, loss=loss)
    for source in (
        lambda: iter(np.array_split(X, 7)), [X[:100], X[100:]], np.load(tmp_path / "half.npy", mmap_mode="r"),
    ):  # fmt: skip
        fit = fit_linear(source, reward, prompt, loss=loss)
        np.testing.assert_allclose(fit.weight_D, whole.weight_D, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", sorted(PROBE_LOSSES))
def test_same_data_same_weights_and_prompts_in_any_order(rows, loss):
    X, reward, prompt = rows
    first, again = (fit_linear(X, reward, prompt, loss=loss, tol=1e-6, min_gain=0) for _ in range(2))
    np.testing.assert_array_equal(first.weight_D, again.weight_D)
    order = np.argsort(-prompt, kind="stable")  # prompts backwards, completions as they were
    backwards = fit_linear(X[order], reward[order], prompt[order], loss=loss, tol=1e-6, min_gain=0)
    np.testing.assert_allclose(backwards.weight_D, first.weight_D, rtol=1e-3, atol=1e-5)


def test_l2_is_chosen_on_held_out_prompts(make_rows):
    x_PND, reward_PN = make_rows(200, 4, dim=300, signal=4.0, seed=2)  # 800 rows, 300 columns: weak l2 overfits
    fit = fit_linear(
        x_PND.reshape(-1, 300).astype(np.float32), reward_PN.ravel(), np.repeat(np.arange(200), 4), loss="ce",
        l2=(1.0, 0.1, 1e-5),
    )  # fmt: skip
    table = dict(fit.cv)
    assert list(table) == [1.0, 0.1, 1e-5] and fit.l2 == max(table, key=lambda k: (table[k], k))
    assert table[1e-5] < max(table.values())


def test_equal_held_out_rewards_take_the_strongest_l2(make_rows):
    x_PND, reward_PN = make_rows(20, 4, dim=2)
    reward_PN[:, 0], reward_PN[:, 1], x_PND[:, 0], x_PND[:, 1] = 0.0, 1.0, -90.0, 90.0  # every l2 is right everywhere
    fit = fit_linear(x_PND.reshape(-1, 2), reward_PN.ravel(), np.repeat(np.arange(20), 4), loss="pg", l2=None)
    assert {reward for _, reward in fit.cv} == {1.0} and fit.l2 == 1.0


def hard_rows(seed: int):
    """Columns from large to small and only some that tell: long ways to the minimum where the penalty is weak."""
    g = np.random.default_rng(seed)
    P, N, D = 50, 8, 30
    X = (g.normal(size=(P, 1, D)) + g.normal(size=(P, N, D))) * np.logspace(1.5, -1, D) + 3
    Z = (X - X.mean((0, 1))) / X.std((0, 1))
    reward = g.random((P, N)) < 1 / (1 + np.exp(-2 * Z @ g.normal(size=D) / np.sqrt(D)))
    return X.reshape(-1, D).astype(np.float32), reward.reshape(-1).astype(float), np.repeat(np.arange(P), N)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("l2", [0.001, 0.004])
@pytest.mark.parametrize("loss", sorted(PROBE_LOSSES))
def test_with_a_weak_penalty_the_default_is_the_minimum_that_scipy_finds(loss, l2, seed):
    X, reward, prompt = hard_rows(seed)
    labels = make_labels(reward, prompt)
    objective = Objective(loss, labels, make_units(labels, loss, chunk=4, seed=0, draws=CHUNK_DRAWS), SETTINGS)
    Z = torch.from_numpy((X.astype(float) - X.mean(0, dtype=float)) / X.std(0, dtype=float))

    def both(theta):
        w = torch.from_numpy(theta[:-1])
        value, grad_R = objective(Z @ w + theta[-1])
        return value + l2 / 2 * float(w @ w), np.r_[(Z.T @ grad_R + l2 * w).numpy(), grad_R.sum().item()]

    fit = fit_linear(X, reward, prompt, loss=loss, l2=l2, chunk=4, seed=0)
    std = X.std(0, dtype=float)
    ours = np.r_[fit.weight_D * std, fit.bias + fit.weight_D.astype(float) @ X.mean(0, dtype=float)]
    starts = [ours] if loss == "pg" else [ours, np.zeros(31)]  # PG is not convex: another start, another minimum
    for start in starts:
        best = minimize(
            both, start, jac=True, method="L-BFGS-B", options={"maxiter": 4000, "ftol": 1e-15, "gtol": 1e-9}
        )
        assert fit.objective - best.fun < 1e-6
    assert fit.objective == pytest.approx(both(ours)[0], abs=1e-6) and fit.converged


def test_settings_of_the_stop_are_kept_where_they_are_given():
    rows = hard_rows(1)
    assert fit_linear(*rows, loss="ratio", l2=0.001, max_iter=3).iterations == 3
    early, late = (fit_linear(*rows, loss="ratio", l2=0.001, min_gain=g) for g in (3e-3, None))
    assert early.iterations < late.iterations and early.objective > late.objective + 1e-4
    assert fit_linear(*rows, loss="ce", l2=0.1).iterations < 20


def test_a_constant_column_gets_no_weight(rows):
    X, reward, prompt = rows
    X = np.concatenate([X, np.full((len(X), 1), 1234.5, dtype=np.float32)], axis=1)
    fit = fit_linear(X, reward, prompt, loss="ce")
    assert fit.weight_D[-1] == 0 and np.abs(fit.weight_D[:-1]).min() > 0


def test_given_pairs(rows):
    X, reward, prompt = rows
    all_pairs = [(i, j) for i in range(240) for j in range(240) if prompt[i] == prompt[j] and reward[i] > reward[j]]
    given = fit_linear(X, reward, prompt, loss="bt", pairs=all_pairs, tol=1e-6, min_gain=0)
    made = fit_linear(X, reward, prompt, loss="bt", tol=1e-6, min_gain=0)
    np.testing.assert_allclose(given.weight_D, made.weight_D, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"loss": "cee"}, "did you mean 'ce'"),
        ({"l2": 0.0}, "above 0"),
        ({"l2": ()}, "l2 must be"),
        ({"beta": 0.0}, "beta"),
        ({"chunk": 1}, "chunk"),
    ],
)
def test_wrong_settings_are_refused(rows, kwargs, message):
    with pytest.raises(InputError, match=message):
        fit_linear(*rows, **kwargs)
