"""A reranker starts from the log-prob null, learns what adds to it, and ties with it when nothing does."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from trimtab.errors import InputError, ModelError
from trimtab.learners import Reranker, fit_reranker
from trimtab.learners.completion.reranker.cues import agreement, cue_rows, length, likeness, same_class, same_text
from trimtab.learners.completion.reranker.search import Form, Rows, View, choose, luck, pooled
from trimtab.learners.completion.reranker.solve import Ridge, centre, listwise
from trimtab.testing import check_learned_reward
from trimtab.types import Completion, Group, Prompt, Reward


@dataclass(frozen=True)
class Numbers:
    """Reads the numbers that a completion's text is."""

    name: str = "numbers"

    @property
    def card(self) -> dict[str, Any]:
        return {"kind": self.name}

    def __call__(self, groups):
        return [np.array([c.text.split() for c in g.completions], dtype=np.float32) for g in groups]


def make(prompts: int, state: float, logprob: float, seed: int, n: int = 8) -> list[Group]:
    """Groups whose chance of reward rises with a state and a log-prob, under large differences between prompts."""
    rng, groups = np.random.default_rng(seed), []
    for p in range(prompts):
        x_ND, lp_N, level = rng.normal(size=(n, 6)), rng.normal(size=n), 3 * rng.normal(size=6)
        chance_N = 1 / (1 + np.exp(1 - state * x_ND[:, 0] - logprob * lp_N))
        completions = tuple(
            Completion(" ".join(map(str, x)), "m@0", i, i, logprobs=(lp - 4.0, lp - 5.0))
            for i, (x, lp) in enumerate(zip(x_ND + level, lp_N.tolist(), strict=True))
        )
        rewards = tuple(Reward(float(rng.random() < c)) for c in chance_N)
        groups.append(Group(Prompt(f"{seed}-{p:03}", ({"role": "user", "content": "?"},)), completions, rewards))
    return groups


def chosen(values, groups: list[Group]) -> np.ndarray:
    return np.array([g.reward_N[int(np.argmax(v))] for g, v in zip(groups, values, strict=True)])


def by_logprob(groups: list[Group]) -> np.ndarray:
    return chosen([[np.mean(c.logprobs) for c in g.completions] for g in groups], groups)


def by(reranker: Reranker, groups: list[Group]) -> np.ndarray:
    return chosen([[r.value for r in row] for row in reranker(groups)], groups)


def test_it_adds_states_to_logprobs_where_both_tell_something():
    test = make(300, 2.0, 1.0, 2)
    reranker = fit_reranker(make(80, 2.0, 1.0, 1), Numbers())
    check_learned_reward(reranker, test[:5])
    assert reranker.form.states == "states"
    assert (by(reranker, test) - by_logprob(test)).mean() > 0.1


def test_it_ties_with_the_null_where_only_the_null_tells_something():
    test = make(300, 0.0, 2.0, 4)
    reranker = fit_reranker(make(80, 0.0, 2.0, 3), Numbers())
    assert abs((by(reranker, test) - by_logprob(test)).mean()) < 0.05


def test_the_simplest_form_is_the_null_whatever_the_rewards_say():
    groups = make(30, 0.0, -1.0, 13)  # the likelier, the worse
    reranker = fit_reranker(groups, cues=[("mean_logprob",)], pool=(False,))
    assert reranker.form.states is None and reranker.cue_C[0] > 0
    np.testing.assert_array_equal(by(reranker, groups), by_logprob(groups))


def test_the_same_groups_in_any_order_give_the_same_reranker_and_it_survives_disk(tmp_path):
    train, test = make(40, 2.0, 1.0, 5), make(6, 2.0, 1.0, 6)
    reranker = fit_reranker(train, {"a": Numbers()}, l2s=(1.0,))
    again = fit_reranker(train[::-1], {"a": Numbers()}, l2s=(1.0,))
    assert again.form == reranker.form
    np.testing.assert_array_equal(again.state_D, reranker.state_D)
    loaded = Reranker.load(reranker.save(tmp_path / "r"), Numbers())
    assert repr(loaded) == repr(reranker)
    assert loaded(test) == reranker(test)
    with pytest.raises(ModelError, match="other embeddings"):
        Reranker.load(tmp_path / "r", Numbers("others"))
    with pytest.raises(ModelError, match="same="):
        Reranker.load(tmp_path / "r", Numbers(), same=repr)
    with pytest.raises(ModelError, match="no embedder"):
        Reranker.load(tmp_path / "r")(test)
    (tmp_path / "r" / "card.json").write_text("{")
    with pytest.raises(InputError, match="no readable reranker"):
        Reranker.load(tmp_path / "r")


def test_values_are_relative_to_the_group():
    groups = make(40, 2.0, 1.0, 7)
    reranker = fit_reranker(groups, Numbers(), cues=[("mean_logprob",)], pool=(False,))
    g = groups[0]
    moved = replace(g, completions=tuple(
        replace(c, text=" ".join(str(float(x) + 5) for x in c.text.split())) for c in g.completions
    ))  # fmt: skip
    values, shifted = ([r.value for r in reranker([x])[0]] for x in (g, moved))
    np.testing.assert_allclose(values, shifted, atol=1e-4)
    assert sum(values) == pytest.approx(0, abs=1e-4)


def test_equal_answers_add_their_chances():
    """Three votes of 0 against one of 1: log(3) > 1, and log(3) < 1.2."""
    classes = np.array([0, 0, 0, 1])
    assert pooled(np.array([0.0, 0, 0, 1.0]), classes).argmax() == 0
    assert pooled(np.array([0.0, 0, 0, 1.2]), classes).argmax() == 3
    np.testing.assert_allclose(np.exp(np.diff(pooled(np.array([1.0, 2.0]), np.array([0, 1])))), math.e, rtol=1e-5)


def test_cues_by_hand():
    texts = ["x = 1", "x  =  1", "y = 2", ""]
    g = Group(Prompt("p", ()), tuple(Completion(t, "m", 0, i) for i, t in enumerate(texts)))
    np.testing.assert_array_equal(same_class(g, same_text), [0, 0, 1, 2])
    np.testing.assert_allclose(agreement(g, same_text), np.log([2, 2, 1, 1]))
    np.testing.assert_allclose(length(g, same_text), np.log1p([5, 7, 5, 0]))
    # "x = 1" and "y = 2" share one of six n-grams each: F1 = 1/6
    np.testing.assert_allclose(likeness(g, same_text), [(1 + 1 / 6) / 3, (1 + 1 / 6) / 3, (2 / 6) / 3, 0])
    with pytest.raises(InputError, match="no finite log-probs"):
        cue_rows([g], ("mean_logprob",), same_text)
    with pytest.raises(InputError, match="unknown cue"):
        cue_rows([g], ("meanlogprob",), same_text)


@pytest.mark.parametrize("without", [(), (1,), (0, 2), (2, 2)])
@pytest.mark.parametrize("l2", [10.0, 0.5, 1e-3, 1e-7])
def test_ridge_is_the_normal_equations_of_the_folds_that_are_left(without, l2):
    rng = np.random.default_rng(0)
    x, y, fold = rng.normal(size=(60, 5)).astype(np.float32), rng.normal(size=60), np.arange(60) % 4
    x[:, 4] = 0  # a column without spread
    keep = ~np.isin(fold, without)
    want = np.linalg.solve(
        x[keep].T.astype(float) @ x[keep] / keep.sum() + l2 * np.eye(5), x[keep].T @ y[keep] / keep.sum()
    )
    np.testing.assert_allclose(Ridge.of(x, y, fold).weights([l2], *without)[0], want, rtol=1e-4, atol=1e-7)


def test_ridge_of_a_badly_scaled_matrix_and_of_nothing():
    """More columns than rows and one direction a thousand times the others: the direct solve takes over."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(90, 40)) + 30 * rng.normal(size=(90, 1))).astype(np.float32)
    y, fold = rng.normal(size=90), np.arange(90) % 3
    keep = fold != 1
    gram, target = x[keep].T.astype(float) @ x[keep] / 60, x[keep].T @ y[keep] / 60
    got = Ridge.of(x, y, fold).weights([0.3, 1e-2], 1)
    for w, l2 in zip(got, (0.3, 1e-2), strict=True):
        np.testing.assert_allclose(x @ w, x @ np.linalg.solve(gram + l2 * np.eye(40), target), atol=2e-2)
    np.testing.assert_array_equal(Ridge.of(x, y, fold).weights([1.0], 0, 1, 2), 0)


def null(prompts: int, seed: int, n: int = 8, logprob: float = 0.0) -> tuple[list[Group], np.ndarray]:
    """Groups whose rewards no state knows (the log-prob does, as much as asked), and 24 numbers of noise for each."""
    rng, groups = np.random.default_rng(seed), []
    for p in range(prompts):
        right = rng.random(n) < 0.4
        lp = rng.normal(size=n) + logprob * right
        completions = tuple(Completion(f"{p} {i}", "m@0", i, i, logprobs=(x,)) for i, x in enumerate(lp.tolist()))
        groups.append(Group(Prompt(f"{p:03}", ()), completions, tuple(Reward(float(r)) for r in right)))
    return groups, rng.normal(size=(prompts, n, 24)).astype(np.float32)


@dataclass(frozen=True)
class Noise:
    """The noise of `null`, by the prompt's number."""

    x_PND: np.ndarray

    @property
    def card(self) -> dict[str, Any]:
        return {"kind": "noise"}

    def __call__(self, groups):
        return [self.x_PND[int(g.prompt.id)] for g in groups]


@pytest.mark.parametrize("fold", range(5))
def test_what_judges_a_fold_never_saw_its_rewards(fold):
    """Every reward of one fold is turned round: the values of its rows stay what they were."""
    groups, x = null(40, 1)
    rows = Rows.of(groups, 5, 0)
    turned = [
        replace(g, rewards=tuple(Reward(1 - r.value) for r in g.rewards)) if at == fold else g
        for g, at in zip(rows.groups, rows.fold_P, strict=True)
    ]
    held, values = rows.fold_P[rows.group_R] == fold, []
    for r in (rows, Rows.of(turned, 5, 0)):
        view = View.of(r, x.reshape(-1, 24), (1.0, 0.3))
        values.append(r.cross_fitted(view.judge_FSR[:, 0, :, None])[held])
    np.testing.assert_array_equal(*values)
    assert np.ptp(values[0]) > 0


@pytest.mark.parametrize(("prompts", "l2", "pool"), [(25, 1.0, False), (40, 0.3, False), (40, 3.0, True)])
def test_on_noise_the_held_out_reward_is_chance(prompts, l2, pool):
    gain = []
    for seed in range(120):
        groups, x = null(prompts, seed, n=6)
        rows = Rows.of(groups, 5, seed)
        told = [g.reward_N.mean() for g, f in zip(rows.groups, rows.fold_P, strict=True) if f >= 0]
        value_R = rows.cross_fitted(View.of(rows, x.reshape(-1, 24), (l2,)).judge_FSR[:, 0, :, None])
        if pool:  # votes of two texts a prompt, which say nothing either
            classes = rows.group_R * 2 + np.arange(len(value_R)) % 2
            value_R = np.log(np.bincount(classes, np.exp(value_R)))[classes] + 1e-6 * value_R
        gain.append(rows.chosen(value_R).mean() - np.mean(told))
    assert abs(np.mean(gain)) < 2 * np.std(gain) / np.sqrt(len(gain))


@pytest.mark.parametrize("logprob", [0.0, 0.7])
def test_states_of_noise_are_seldom_chosen(logprob):
    """One standard error is passed by luck in 16 % of null sets, and by the best of four strengths no oftener."""
    chosen_states = 0
    for seed in range(60):
        groups, x = null(40, 1000 + seed, logprob=logprob)
        reranker = fit_reranker(groups, Noise(x), cues=[("mean_logprob",)], pool=(False,), seed=seed)
        chosen_states += reranker.form.states is not None
    assert chosen_states / 60 <= 0.2


def test_the_best_of_many_needs_more_than_one_standard_error():
    """Of eight independent gains the largest exceeds 2.02 of them as often as one exceeds 1: 0.8413 = 0.9786^8."""
    gap = np.random.default_rng(0).normal(size=(4000, 8))
    assert luck(gap, 1.0) == pytest.approx(2.02, abs=0.1)
    assert luck(np.repeat(gap[:, :1], 8, axis=1), 1.0) == pytest.approx(1.0, abs=0.1)
    assert luck(gap[:, :1], 1.0) == 1.0 and luck(gap, 0.0) == 0.0 and luck(np.zeros((5, 3)), 1.0) == 1.0


def test_the_null_of_the_card_is_the_mean_logprob_whatever_was_tried_first():
    groups = make(40, 1.0, 1.0, 21)
    rows = Rows.of(groups, 5, 0)
    want = rows.chosen(np.array([np.mean(c.logprobs) for g in rows.groups for c in g.completions])).mean()
    for cues in ([("length",), ("mean_logprob",)], [("likeness",)]):
        metrics = fit_reranker(groups, cues=cues).card["metrics"]
        assert metrics["null"] == "mean_logprob" and metrics["held_out_null"] == pytest.approx(want)
    bare = [replace(g, completions=tuple(replace(c, logprobs=None) for c in g.completions)) for g in groups]
    metrics = fit_reranker(bare).card["metrics"]
    told = [g.reward_N.mean() for g in groups if np.ptp(g.reward_N) > 0]
    assert metrics["null"] == "random choice" and metrics["held_out_null"] == pytest.approx(np.mean(told))


def test_listwise_is_at_the_minimum_of_its_loss():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(30), 5)
    z, r = rng.normal(size=(150, 3)), (rng.random(150) < 0.4).astype(float)
    w = listwise(z, r, group)

    def loss(w):
        v = (z @ w).reshape(30, 5)
        rows = r.reshape(30, 5)
        mixed = rows.max(1) > rows.min(1)
        t = rows[mixed] / rows[mixed].sum(1, keepdims=True)
        logp = v[mixed] - np.log(np.exp(v[mixed]).sum(1, keepdims=True))
        return -(t * logp).sum(1).mean() + 0.005 * w @ w

    for i in range(3):
        step = np.eye(3)[i] * 1e-4
        assert abs(loss(w + step) - loss(w - step)) / 2e-4 < 1e-5
    np.testing.assert_array_equal(listwise(z, np.ones(150), group), 0)


def test_criterion_is_the_reward_of_the_highest_value():
    groups = make(30, 1.0, 0.0, 9)
    rows = Rows.of(groups, 5, 0)
    told = [g for g in sorted(groups, key=lambda g: g.prompt.id) if np.ptp(g.reward_N) > 0]
    assert rows.chosen(rows.reward_R).mean() > np.mean([g.reward_N.mean() for g in told])
    full = replace(rows, draws=[rows.draws[0], rows.draws[0]])
    assert full.chosen(rows.reward_R).mean() == 1.0  # an oracle, on prompts that can be learnt from
    assert full.chosen(np.zeros(len(rows.reward_R))).mean() == pytest.approx(np.mean([g.reward_N.mean() for g in told]))
    np.testing.assert_allclose(centre(rows.reward_R, rows.group_R).reshape(30, 8).sum(1), 0, atol=1e-12)


def test_a_more_complex_form_must_pay_for_itself():
    simple, complex_ = Form(("mean_logprob",)), Form(("mean_logprob", "length"), "states", 1.0, True)
    null, noisy, sure = np.zeros(100), np.r_[np.ones(52), -np.ones(48)], np.r_[np.ones(20), np.zeros(80)]
    assert choose([(simple, null), (complex_, noisy)], 1.0)[0] == simple  # 0.04 with a standard error of 0.1
    assert choose([(simple, null), (complex_, noisy)], 0.0)[0] == complex_
    assert choose([(complex_, sure), (simple, null)], 1.0)[0] == complex_
    assert choose([(simple, null), (complex_, null)], 0.0)[0] == simple


@dataclass(frozen=True)
class Second:
    """The second number of a text, of every third completion NaN."""

    holes: bool = False

    def __call__(self, groups):
        return [
            [Reward(math.nan if self.holes and c.index % 3 == 0 else float(c.text.split()[1])) for c in g.completions]
            for g in groups
        ]


def swapped(groups: list[Group]) -> list[Group]:
    """The number that tells is the second."""
    turn = lambda t: " ".join((t.split()[1], t.split()[0], *t.split()[2:]))  # noqa: E731
    return [replace(g, completions=tuple(replace(c, text=turn(c.text)) for c in g.completions)) for g in groups]


def test_a_signal_is_read_where_it_tells_something_and_wanted_back(tmp_path):
    train, test = swapped(make(80, 2.0, 1.0, 14)), swapped(make(200, 2.0, 1.0, 15))
    reranker = fit_reranker(train, cues=[("mean_logprob",)], pool=(False,), signals={"second": Second()})
    assert reranker.form.cues == ("mean_logprob", "second")
    assert (by(reranker, test) - by_logprob(test)).mean() > 0.1
    folder = reranker.save(tmp_path / "r")
    assert Reranker.load(folder, signals={"second": Second()})(test) == reranker(test)
    for other in (None, {"second": Second(holes=True)}, {"another": Second()}):
        with pytest.raises(ModelError, match="signal 'second'"):
            Reranker.load(folder, signals=other)
    with pytest.raises(InputError, match="name of a cue: length"):
        fit_reranker(train, signals={"length": Second()})


def test_a_signal_that_tells_nothing_ties_with_the_null_and_nan_says_nothing():
    train, test = make(80, 0.0, 2.0, 16), make(300, 0.0, 2.0, 17)
    reranker = fit_reranker(train, cues=[("mean_logprob",)], pool=(False,), signals={"second": Second()})
    assert abs((by(reranker, test) - by_logprob(test)).mean()) < 0.05
    (g,) = train[:1]
    row_N = cue_rows([g], ("s",), same_text, {"s": Second(holes=True)})[:, 0]
    np.testing.assert_allclose(row_N[[0, 3, 6]], 0, atol=1e-12)  # the mean of the others, which centring takes away
    assert np.ptp(row_N) > 0


def test_unscored_completions_are_not_learnt_from():
    groups = make(40, 2.0, 1.0, 11)
    spoiled = [replace(g, rewards=(Reward(math.nan, "died"), *g.rewards[1:])) for g in groups]
    reranker = fit_reranker(spoiled, Numbers(), l2s=(1.0,))
    assert reranker.card["unscored"] == 40
    assert np.isfinite([r.value for row in reranker(spoiled) for r in row]).all()


def test_without_logprobs_the_other_cues_are_left():
    groups = make(40, 2.0, 0.0, 12)
    bare = [replace(g, completions=tuple(replace(c, logprobs=None) for c in g.completions)) for g in groups]
    reranker = fit_reranker(bare, Numbers(), l2s=(1.0,))
    assert reranker.form.states == "states" and not any("logprob" in c for c in reranker.form.cues)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "0 of 0 prompts"),
        ([replace(g, rewards=()) for g in make(3, 1, 1, 1)], "nothing can be learnt"),
        (make(3, 1, 1, 1) + make(3, 1, 1, 1), "two groups"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(groups, message):
    with pytest.raises(InputError, match=message):
        fit_reranker(groups, Numbers())
    with pytest.raises(InputError, match="nothing to read"):
        fit_reranker(make(9, 1, 1, 1), cues=[()])
    with pytest.raises(InputError, match="at least 3 folds"):
        fit_reranker(make(9, 1, 1, 1), folds=2)
