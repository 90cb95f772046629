"""Rewards that are missing, at random or by design, leave the ranking of models what it is."""

import numpy as np
import pytest
import torch

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.embeddings.ngrams import HashedNgrams
from trimtab.errors import InputError
from trimtab.learners.model.common import components, filled, levels
from trimtab.learners.model.fits import HEADS, METHODS, fit_constant, fit_zooter, zooter_targets
from trimtab.learners.model.losses import silver
from trimtab.learners.model.router import fit_router
from trimtab.learners.model.tags import smooth
from trimtab.testing import prompt

NAN = np.nan
FITTED = [m for m in METHODS if m not in ("random", "routerdc")]


def holes(reward_PM, how: str, seed: int = 0):
    """Missing at random (two fifths of all cells, or most of the last model's), or by design (by halves of prompts)."""
    rng, reward = np.random.default_rng(seed), np.array(reward_PM, float)
    first = np.arange(len(reward)) < len(reward) // 2
    if how == "random":
        reward[rng.random(reward.shape) < 0.4] = NAN
    elif how == "the last":
        reward[rng.random(len(reward)) < 0.8, -1] = NAN
    elif how == "never on the first half":
        reward[first, -1] = NAN
    elif how == "in turn":  # each model skips a third
        reward[np.arange(len(reward)) % reward.shape[1], np.arange(reward.shape[1])[:, None]] = NAN
        reward = np.where(np.arange(len(reward))[:, None] % reward.shape[1] == np.arange(reward.shape[1]), NAN, reward)
    keep = ~np.isnan(reward).all(1)
    return reward[keep], keep


def test_levels_by_hand():
    """The second model was asked the easy prompt alone, where it was worse than the first by 0.2."""
    found = levels([[0.9, 0.7], [0.3, NAN]])
    np.testing.assert_allclose(found.mean_M, [0.6, 0.4])
    np.testing.assert_allclose(filled([[0.9, 0.7], [0.3, NAN]], []), [[0.9, 0.7], [0.3, 0.1]])
    whole = np.random.default_rng(0).random((5, 3))
    np.testing.assert_array_equal(levels(whole).rest_PM, whole)
    np.testing.assert_array_equal(fit_constant(whole)[1]["mean"], whole.mean(0))


@pytest.mark.parametrize("how", ["random", "the last", "never on the first half", "in turn"])
def test_levels_are_exact_where_prompt_and_model_add_up(how):
    rng = np.random.default_rng(1)
    level, merit = np.sort(rng.random(60))[:, None], np.array([0.3, 0.1, 0.0, 0.2])
    reward, keep = holes(level + merit, how)
    means = levels(reward).mean_M
    np.testing.assert_allclose(means - means.mean(), merit - merit.mean(), atol=1e-9)
    np.testing.assert_allclose(filled(reward, []), (level + merit)[keep], atol=1e-9)


def test_a_hole_is_filled_from_its_tag_first():
    """The last model is the better one on tag b, and one cell of b is missing."""
    reward = np.array([[0.5, 0.4]] * 40 + [[0.5, 0.9]] * 40)
    reward[79, 1] = NAN
    tags = [["a"]] * 40 + [["b"]] * 40
    assert filled(reward, tags)[79, 1] > 0.85 > filled(reward, [])[79, 1]


def test_models_without_common_prompts_are_named_and_not_compared_within_a_prompt():
    reward = np.full((12, 3), NAN)
    reward[:6, :2], reward[6:, 2] = np.random.default_rng(0).random((6, 2)), 0.9
    assert components(~np.isnan(reward)) == [[0, 1], [2]]
    m = ResponseMatrix(tuple(prompt(f"t{i}", id=str(i)) for i in range(12)), ("x", "y", "z"), reward)
    for method in ("zooter", "routerdc"):
        with pytest.raises(InputError, match=r"share no prompt: x, y \| z; this method compares"):
            fit_router(m, HashedNgrams(16), method=method, guard=False)
    with pytest.warns(UserWarning, match=r"share no prompt: x, y \| z"):
        assert fit_router(m, HashedNgrams(16), method="knn", guard=False).card["data"]["apart"] == "x, y | z"
    joined = np.vstack([reward, [NAN, 0.5, 0.5]])
    assert components(~np.isnan(joined)) == [[0, 1, 2]]


@pytest.mark.parametrize("how", ["random", "the last", "never on the first half", "in turn"])
@pytest.mark.parametrize(
    ("rewards", "temperature", "beta", "form"),
    [
        ((0.3, 0.1, 0.9), 1.0, 0.3, "naacl"), ((0.1, 0.6, 0.7), 0.1, 0.3, "naacl"),
        ((0.6, 0.5, 0.4), 0.2, 0.0, "naacl"),
        ((0.2, 0.4, 0.9), 1.0, 1.0, "naacl"), ((0.1, 0.6, 0.7), 0.1, 0.3, "v1"), ((2.0, -1.0, 3.0), 1.0, 0.5, "v1"),
    ],
)  # fmt: skip
def test_zooter_gives_back_the_rewards_whatever_is_missing(how, rewards, temperature, beta, form):
    reward, keep = holes(np.tile(rewards, (200, 1)), how)
    tags = [["t"] if i % 3 else ["t", "u"] for i in np.flatnonzero(keep)]
    X = np.random.default_rng(0).normal(size=(len(reward), 3)).astype(np.float32)
    head, w = fit_zooter(X, reward, tags, blocks=(3,), seed=0, temperature=temperature, beta=beta, form=form)
    value = HEADS[head](w, np.zeros((1, 3), np.float32))[0]
    np.testing.assert_allclose(np.diff(value), np.diff(rewards), atol=0.02 * np.ptp(rewards))


@pytest.mark.parametrize("loss", ["kl", "kl_reverse", "hard"])
def test_every_distillation_ranks_a_model_that_was_seldom_asked(loss):
    rng = np.random.default_rng(2)
    reward, _ = holes((rng.random((600, 3)) < [0.3, 0.5, 0.65]).astype(float), "the last")
    head, w = fit_zooter(
        rng.normal(size=(len(reward), 3)).astype(np.float32),
        reward,
        [["t"]] * len(reward),
        blocks=(3,),
        seed=0,
        loss=loss,
    )
    assert HEADS[head](w, np.zeros((1, 3), np.float32))[0].argsort().tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", ["naacl", "v1"])
def test_a_target_is_a_distribution_over_what_its_prompt_knows(form):
    reward, keep = holes(np.random.default_rng(3).random((80, 4)), "random")
    tags = [[["a"], ["b"], [], ["a", "b"]][i % 4] for i in np.flatnonzero(keep)]
    target, known = zooter_targets(reward, tags, 0.5, 0.3, form), ~np.isnan(reward)
    np.testing.assert_allclose(target.sum(1), 1)
    assert (target[known] > 0).all() and (target[~known] == 0).all()
    whole = np.random.default_rng(4).random((80, 4))
    tags = [[["a"], ["b"], [], ["a", "b"]][i % 4] for i in range(80)]
    soft = lambda r: silver(torch.tensor(r), 0.5).numpy()  # noqa: E731
    want = smooth(soft(whole), tags, 0.3) if form == "naacl" else soft(smooth(whole, tags, 0.3))
    np.testing.assert_array_equal(zooter_targets(whole, tags, 0.5, 0.3, form), want)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_smoothed_distributions_with_holes_stay_distributions(share):
    rng = np.random.default_rng(5)
    reward = rng.random((90, 5))
    reward[rng.random(reward.shape) < share] = NAN
    reward[np.isnan(reward).all(1), 0] = 0.5
    tags = [[["a"], ["b"], [], ["a", "b"]][i % 4] for i in range(90)]
    label = np.where(np.isnan(reward), NAN, silver(torch.tensor(reward), 0.3).numpy())
    mixed = smooth(label, tags, 0.3)
    np.testing.assert_allclose(np.nansum(mixed, axis=1), 1)
    np.testing.assert_array_equal(np.isnan(mixed), np.isnan(reward))
    np.testing.assert_allclose(np.nan_to_num(mixed), zooter_targets(reward, tags, 0.3, 0.3, "naacl"), atol=1e-12)
    with pytest.raises(InputError, match="no prompt has a tag"):
        smooth(label, [[]] * 90, 0.3)


def easy_and_hard(P: int, seed: int):
    """Two kinds of prompts; model 0 is the best on both, and the last one was asked the easy kind alone."""
    rng = np.random.default_rng(seed)
    hard = rng.random(P) < 0.5
    reward = np.where(hard[:, None], [0.35, 0.25, 0.2], [0.9, 0.75, 0.8]) + 0.05 * rng.normal(size=(P, 3))
    reward[hard, 2] = NAN
    return reward, [["hard" if h else "easy"] for h in hard], hard


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("method", FITTED)
def test_a_model_asked_easy_prompts_alone_does_not_become_the_best(method, told):
    reward, tags, hard = easy_and_hard(400, 5)
    X = np.random.default_rng(6).normal(size=(400, 6)).astype(np.float32)
    X[:, 0] += 4 * told * hard
    head, w = METHODS[method](*((reward,) if method == "best_single" else (X, reward, tags)), blocks=(6,), seed=0)
    assert (HEADS[head](w, X).argmax(1) == 0).mean() > 0.95
    assert np.nanmean(reward, 0).argmax() == 2  # as it seems to be


def test_the_best_single_model_of_a_router_and_its_guard_compare_common_prompts():
    reward, tags, _ = easy_and_hard(400, 7)
    prompts = tuple(prompt(f"{t[0]} {i}", id=str(i)) for i, t in enumerate(tags))
    m = ResponseMatrix(prompts, ("a", "b", "c"), reward, tuple(map(tuple, tags)))
    router = fit_router(m, HashedNgrams(32))
    assert router.card["best_single"] == "a" and router.constant == "a"
    assert router.reward(np.zeros((1, 0)))[0].argmax() == 0


@pytest.mark.parametrize("method", METHODS)
def test_holes_and_the_order_of_the_pool(method):
    reward, tags, _ = easy_and_hard(90, 8)
    reward[np.random.default_rng(9).random(reward.shape) < 0.2] = NAN
    prompts = tuple(prompt(f"{t[0]} {i}", id=str(i)) for i, t in enumerate(tags))
    m = ResponseMatrix(prompts, ("a", "b", "c"), reward, tuple(map(tuple, tags)))
    x = fit_router(m, HashedNgrams(32), method=method, guard=False)(prompts[:8])
    y = fit_router(m.pool(["c", "a", "b"]), HashedNgrams(32), method=method, guard=False)(prompts[:8])
    for a, b in zip(x, y, strict=True):
        assert a == pytest.approx(b, abs=1e-6) and np.isfinite(list(a.values())).all()
