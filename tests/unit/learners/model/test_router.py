"""fit_router: planted signal is recovered, noise gives the constant, bad input is refused by name."""

import json

import numpy as np
import pytest

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.embeddings.ngrams import HashedNgrams
from trimtab.errors import InputError, ModelError
from trimtab.learners.model.experts import ridge
from trimtab.learners.model.fits import METHODS
from trimtab.learners.model.router import check_pool, fit_router, load_router
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Reward

WORDS = (("sum", "apples"), ("code", "loop"), ("poem", "moon"))


def matrix(rewards, tags=(), texts=None):
    P, M = np.shape(rewards)
    prompts = tuple(prompt(t, id=str(i)) for i, t in enumerate(texts or [f"text {i}" for i in range(P)]))
    return ResponseMatrix(prompts, tuple(f"m{j}" for j in range(M)), np.array(rewards, float), tuple(tags))


def planted(P=120, seed=0, noise=0.05):
    """Three kinds of prompts, model k is right on kind k: the oracle is a function of the text."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, P)
    texts = [f"{' '.join(2 * WORDS[k])} number {seed}{i}" for i, k in enumerate(kind)]
    reward = np.eye(3)[kind] * 0.8 + noise * rng.normal(size=(P, 3))
    return matrix(reward, [(WORDS[k][0],) for k in kind], texts), kind


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("best_single", "random")])
def test_planted_oracle_is_recovered_on_new_prompts(method):
    train, _ = planted(seed=0)
    test, kind = planted(seed=1)
    router = fit_router(train, HashedNgrams(128), method=method)
    assert router.head != "constant", router.card["guard"]
    assert router.card["guard"].startswith("passed") and router.card["gain"]["lower"] > 0.25
    rewards = router(test.prompts)
    right = [max(r, key=r.__getitem__) == f"m{k}" for r, k in zip(rewards, kind, strict=True)]
    assert np.mean(right) > 0.95


@pytest.mark.parametrize("method", ["tags", "zooter", "bce", "knn", "mf"])
def test_noise_gives_the_constant_and_says_so(method):
    rng = np.random.default_rng(3)
    m = matrix(rng.normal(size=(160, 4)) + np.eye(4)[1] / 2, [(f"t{i % 3}",) for i in range(160)])
    router = fit_router(m, HashedNgrams(64), method=method)
    assert router.constant == "m1" and "use this one model" in router.card["guard"]
    assert router(m.prompts[:2])[0] == router(m.prompts[5:6])[0]


@pytest.mark.parametrize("method", METHODS)
def test_order_of_the_pool_never_matters_and_save_load_agrees(method, tmp_path):
    m, _ = planted(60)
    embed = HashedNgrams(64)
    a = fit_router(m, embed, method=method, guard=False)
    b = fit_router(m.pool(["m2", "m0", "m1"]), embed, method=method, guard=False)
    c = load_router(a.save(tmp_path / method), embed)
    for x, y, z in zip(a(m.prompts[:9]), b(m.prompts[:9]), c(m.prompts[:9]), strict=True):
        assert x == pytest.approx(y, abs=1e-6) and x == pytest.approx(z, abs=1e-6)
    assert set(x) == set(m.models)
    assert json.loads((tmp_path / method / "router.json").read_text())["method"] == method


def test_zooter_by_its_definition_on_constant_features():
    # without features only the bias is left: Z = the mean silver label, rewards = log-odds around the pool's mean
    m = matrix([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    router = fit_router(m, vectors=np.zeros((3, 2)), method="zooter", beta=1.0, guard=False)
    p = np.e / (1 + np.e)
    z = (2 * p + (1 - p)) / 3
    half = (np.log(z) - np.log(1 - z)) / 2
    np.testing.assert_allclose(router.reward(np.zeros((1, 2)))[0], [0.5 + half, 0.5 - half], atol=1e-3)


def test_ridge_leave_one_out_is_exact_in_both_shapes():
    rng = np.random.default_rng(0)
    for P, D in ((12, 5), (5, 12)):
        X, Y = rng.normal(size=(P, D)).astype(np.float32), rng.normal(size=(P, 2)).astype(np.float32)
        found = ridge(X, Y, 0.7)
        for i in range(P):
            a, b = np.delete(X, i, 0), np.delete(Y, i, 0)
            W = np.linalg.solve(a.T @ a + 0.7 * np.eye(D), a.T @ b)
            np.testing.assert_allclose(found.loo[i], X[i] @ W, atol=1e-4)


def test_missing_cells_and_untagged_prompts_are_fine():
    m, _ = planted(90)
    reward = m.reward_PM.copy()
    reward[::7, 0] = np.nan
    reward[3] = np.nan
    holes = ResponseMatrix(m.prompts, m.models, reward)
    for method in METHODS:
        options = {"beta": 1.0} if method == "zooter" else {}
        router = fit_router(holes, HashedNgrams(64), method=method, guard=False, **options)
        assert np.isfinite([list(r.values()) for r in router(m.prompts)]).all()
        assert router.card["data"]["left_out"] == 1


def test_a_guard_by_tags_asks_about_kinds_never_seen():
    m, _ = planted(150)  # each kind has its own model, so what holds in one says nothing about another
    assert fit_router(m, HashedNgrams(128)).card["guard"].startswith("passed")
    strict = fit_router(m, HashedNgrams(128), guard_by="tags")
    assert strict.constant and "prompts of held-out tags is not above zero" in strict.card["guard"]
    assert strict.card["gain"]["n"] == 150
    # where the wording decides across tags, routing passes: words of the task in every topic
    rng = np.random.default_rng(0)
    kind, topic = rng.integers(0, 2, 240), rng.integers(0, 8, 240)
    texts = [f"{' '.join(2 * WORDS[k])} topic{t} {i}" for i, (k, t) in enumerate(zip(kind, topic, strict=True))]
    general = matrix(np.eye(2)[kind], [(f"topic{t}",) for t in topic], texts)
    assert fit_router(general, HashedNgrams(128), method="bce", guard_by="tags").card["guard"].startswith("passed")
    with pytest.raises(InputError, match="unknown way to hold out"):
        fit_router(m, HashedNgrams(16), guard_by="tag")


def test_constants_take_one_model_whatever_the_prompt():
    m, _ = planted(60)
    price = np.broadcast_to([3.0, 1.0, 2.0], m.reward_PM.shape)
    priced = ResponseMatrix(m.prompts, m.models, m.reward_PM, m.tags, price_PM=price)
    assert fit_router(priced, method="cheapest").constant == "m1"
    last = fit_router(m, method="always", model="m2")
    assert last.constant == "m2" and all(max(r, key=r.__getitem__) == "m2" for r in last(m.prompts[:4]))
    with pytest.raises(InputError, match="m0, m1, m2 has no price"):
        fit_router(m, method="cheapest")
    with pytest.raises(InputError, match="unknown model 'm9'"):
        fit_router(m, method="always", model="m9")


def test_random_is_fair_repeatable_and_by_the_prompt():
    m = matrix(np.random.default_rng(0).random((300, 3)))
    router = fit_router(m, HashedNgrams(64), method="random")
    choice = [max(r, key=r.__getitem__) for r in router(m.prompts)]
    assert all(70 < choice.count(x) < 130 for x in m.models)
    assert choice[::-1] == [max(r, key=r.__getitem__) for r in router(m.prompts[::-1])]
    assert router(m.prompts[:1])[0]["m0"] == pytest.approx(m.reward_PM.mean())


def test_router_knows_what_it_was_fitted_on_and_the_guard_never_judges_on_it(tmp_path):
    m, _ = planted(40)
    router = load_router(fit_router(m, HashedNgrams(32), guard=False).save(tmp_path), HashedNgrams(32))
    assert router.seen(
        [m.prompts[3], prompt(m.prompts[5].messages[0]["content"].upper() + " "), prompt("new")]
    ).tolist() == [True, True, False]
    # every text stands twice with noise for rewards: memorising would pass a guard that lets texts cross the split
    rng = np.random.default_rng(0)
    texts = [f"{a} {b}" for a in "abcdefgh" for b in "ijklmnop"]
    reward = np.repeat(rng.random((64, 2)), 2, axis=0)
    twice = matrix(reward, texts=[t for t in texts for _ in range(2)])
    assert fit_router(twice, HashedNgrams(64), method="knn", k=1).head == "constant"


def test_scored_groups_serve_as_well_as_a_matrix():
    m, _ = planted(40)
    cell = lambda p, name, v: Group(p, (Completion("x", name, 0, 0),), (Reward(float(v)),))  # noqa: E731
    groups = [cell(p, n, v) for j, n in enumerate(m.models) for p, v in zip(m.prompts, m.reward_PM[:, j], strict=True)]
    a = fit_router(groups, HashedNgrams(32), method="bce", guard=False)
    b = fit_router(m, HashedNgrams(32), method="bce", guard=False)
    assert a(m.prompts[:1])[0] == pytest.approx(b(m.prompts[:1])[0], abs=1e-6)


def test_degenerate_pools_are_constants():
    one = fit_router(matrix([[1.0], [0.0]]), HashedNgrams(16))
    assert one.constant == "m0" and "one model" in one.card["guard"]
    equal = fit_router(matrix([[1.0, 1.0], [1.0, 1.0]]), HashedNgrams(16))
    assert "all rewards equal 1" in equal.card["guard"]


def test_refusals():
    m, _ = planted(30)
    with pytest.raises(InputError, match="did you mean 'zooter'"):
        fit_router(m, HashedNgrams(16), method="zoter")
    with pytest.raises(InputError, match="needs `embed`"):
        fit_router(m)
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        fit_router(m, vectors=np.zeros((2, 3)))
    with pytest.raises(InputError, match="prompt 4 is not finite"):
        fit_router(m, vectors=np.where(np.arange(30)[:, None] == 4, np.nan, np.ones((30, 2))))
    with pytest.raises(InputError, match="no reward for m1"):
        fit_router(matrix([[1.0, np.nan], [0.0, np.nan]]), HashedNgrams(16))
    with pytest.raises(InputError, match="at least two"):
        fit_router(matrix([[1.0, 0.0]]), HashedNgrams(16))
    with pytest.raises(InputError, match="no prompt has a tag"):
        fit_router(ResponseMatrix(m.prompts, m.models, m.reward_PM), HashedNgrams(16), method="zooter", guard=False)


def test_cards_that_do_not_match_are_errors(tmp_path):
    m, _ = planted(60)
    folder = fit_router(m, HashedNgrams(64), guard=False).save(tmp_path / "r")
    with pytest.raises(ModelError, match="encoder"):
        load_router(folder, HashedNgrams(32))
    with pytest.raises(ModelError, match="give that encoder"):
        load_router(folder)
    with pytest.raises(ModelError, match="holds no router"):
        load_router(tmp_path / "nothing")
    card = folder / "router.json"
    whole = json.loads(card.read_text())
    for broken in ({"models": ["m0", "m1"]}, {"head": "nonsense"}, {"models": 7}, {"width": "x"}, {"width": 3}):
        card.write_text(json.dumps({**whole, **broken}))
        with pytest.raises(ModelError, match="holds no router"):
            load_router(folder, HashedNgrams(64))
    card.write_text(json.dumps(whole))
    router = load_router(folder, HashedNgrams(64))
    check_pool(router, ["m2", "m1", "m0"])
    with pytest.raises(ModelError, match=r"server lacks m2, the router does not know x"):
        check_pool(router, ["m0", "m1", "x"])
    assert router.why(HashedNgrams(64).embed_prompts(m.prompts[:1])[0])[0][0] == m.tags[0][0]
