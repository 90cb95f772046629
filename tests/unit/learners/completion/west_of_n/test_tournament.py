import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.learners.completion.west_of_n.tournament import extremes, full_matrix, knock_out, pointwise
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Reward


def group(values: Sequence[float], name: str = "q") -> Group:
    completions = tuple(Completion(str(v), "m", 0, i) for i, v in enumerate(values))
    return Group(prompt(name), completions, tuple(Reward(v) for v in values))


class Counting:
    """The true preference sigmoid(difference of rewards), counting calls and comparisons."""

    pairwise = True

    def __init__(self):
        self.calls, self.asked = 0, []

    def __call__(self, groups, asked):
        self.calls += 1
        out = []
        for g, pairs in zip(groups, asked, strict=True):
            self.asked += [(g.prompt.id, *sorted(p)) for p in pairs.tolist()]
            gap = g.reward_N[pairs[:, 0]] - g.reward_N[pairs[:, 1]]
            out.append(1 / (1 + np.exp(-gap)))
        return out


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=17, unique=True), st.integers(0, 99))
def test_a_transitive_preference_gives_the_true_extremes_in_the_least_comparisons(values, seed):
    prefer = Counting()
    (got,) = knock_out([group(values)], prefer, seed=seed)
    n, least = len(values), 3 * len(values) // 2 - 2 if len(values) % 2 == 0 else 3 * (len(values) - 1) // 2
    assert (got.best, got.worst) == (int(np.argmax(values)), int(np.argmin(values)))
    assert got.confidence == pytest.approx(1 / (1 + math.exp(min(values) - max(values))))
    assert least <= got.comparisons <= least + 1 <= n * (n - 1) // 2 + 1
    assert len(prefer.asked) == len(set(prefer.asked)) == got.comparisons  # none is asked twice


def test_by_hand_four_completions():
    # draw order of seed-free logic: whoever meets whom, 2 first games + 1 for the best + 1 for the worst + 1 to confirm
    (got,) = knock_out([group([0.0, 3.0, 1.0, 2.0])], Counting())
    assert (got.best, got.worst) == (1, 0) and got.comparisons in (4, 5) and got.decided


def test_groups_play_their_rounds_together():
    prefer = Counting()
    knock_out([group(np.arange(8.0) + n, f"q{n}") for n in range(50)], prefer)
    assert prefer.calls == 3 + 2 + 1  # rounds of eight, of the four losers, and the confidences


def test_all_ties_are_undecided():
    flat = [group([1.0] * 5), group([1.0]), group([])]
    for got in (*knock_out(flat, Counting()), *full_matrix(flat, Counting())[0], *pointwise([[1, 1, 1], [1], []])):
        assert not got.decided


def test_unresolved_comparisons_are_counted_and_never_decide():
    (got,) = knock_out([group([1.0, 2.0, 3.0])], lambda gs, asked: [np.full(len(a), math.nan) for a in asked])
    assert got.unresolved == got.comparisons > 0 and not got.decided


def test_full_matrix_takes_the_most_confident_ordered_pair_of_a_cycle():
    p = {(0, 1): 0.9, (0, 2): 0.3, (1, 2): 0.6}  # 0 beats 1 beats 2 beats 0: no order exists
    (got,), (matrix,) = full_matrix(
        [group([0.0] * 3)], lambda gs, asked: [np.array([p[tuple(q)] for q in a.tolist()]) for a in asked]
    )
    assert (got.best, got.worst, got.confidence, got.comparisons) == (0, 1, 0.9, 3)
    np.testing.assert_allclose(matrix + matrix.T, 1)


def test_pointwise_ignores_nan_and_uses_sigmoid():
    (got,) = pointwise([[math.nan, 2.0, -1.0, 0.0]])
    assert (got.best, got.worst) == (1, 2) and got.confidence == pytest.approx(1 / (1 + math.exp(-3)))
    assert not pointwise([[math.nan, 1.0]])[0].decided


def test_same_seed_same_result_whatever_the_order_of_the_groups():
    rng = np.random.default_rng(0)
    groups = [group(rng.normal(size=7), f"q{n}") for n in range(6)]

    def noisy(gs, asked):
        return [
            np.random.default_rng(len(a) + int(g.prompt.id[1:])).random(len(a)) for g, a in zip(gs, asked, strict=True)
        ]

    a, b = knock_out(groups, noisy, seed=3), knock_out(groups[::-1], noisy, seed=3)[::-1]
    assert a == b and a != knock_out(groups, noisy, seed=4)


class Intransitive:
    """Merits under noise as large as themselves, a pair: no order exists."""

    pairwise = True

    def __init__(self):
        self.asked = 0

    def __call__(self, groups, asked):
        self.asked += sum(map(len, asked))
        return [self.matrix(g)[a[:, 0], a[:, 1]] for g, a in zip(groups, asked, strict=True)]

    def matrix(self, g):
        rng, n = np.random.default_rng(int(g.prompt.id[1:])), len(g.completions)
        merit = rng.normal(size=n)
        odds = np.triu(merit[:, None] - merit + rng.normal(size=(n, n)), 1)
        return 1 / (1 + np.exp(odds.T - odds))


@pytest.mark.parametrize(("n", "how"), [(2, "auto"), (3, "auto"), (4, "auto"), (5, "full_matrix"), (9, "full_matrix")])
def test_small_groups_and_full_matrices_find_the_surest_pair_of_an_intransitive_teacher(n, how):
    groups, teacher = [group([0.0] * n, f"q{i}") for i in range(40)], Intransitive()
    for g, e in zip(groups, extremes(groups, teacher, how), strict=True):
        matrix = teacher.matrix(g)
        assert (e.best, e.worst) == np.unravel_index(matrix.argmax(), matrix.shape)
        assert e.confidence == pytest.approx(matrix.max()) and e.comparisons == n * (n - 1) // 2
    assert teacher.asked == 40 * n * (n - 1) // 2


def test_auto_plays_by_the_size_of_each_group_and_a_knock_out_costs_less():
    groups, teacher = [group([0.0] * n, f"q{i}") for i, n in enumerate((16, 3, 5, 4, 16))], Intransitive()
    got = extremes(groups, teacher, seed=7)
    large = [g for g in groups if len(g.completions) > 4]
    assert [got[i] for i in (0, 2, 4)] == knock_out(large, teacher, seed=7)
    assert [e.comparisons for e in (got[1], got[3])] == [3, 6] and all(e.comparisons <= 23 for e in got)


def test_extremes_asks_the_teacher_how():
    groups = [group([0.0, 2.0, 1.0])]
    by_value = extremes(groups, lambda gs: [list(g.rewards) for g in gs])
    assert (by_value[0].best, by_value[0].worst, by_value[0].comparisons) == (1, 0, 0)
    assert extremes(groups, Counting())[0].comparisons > 0
    with pytest.raises(InputError, match="did you mean 'knock_out'"):
        extremes(groups, Counting(), "knockout")


def test_a_preference_of_the_wrong_length_is_refused():
    with pytest.raises(InputError, match="gave 0 values for 1"):
        knock_out([group([0.0, 1.0])], lambda gs, asked: [np.array([]) for _ in asked])
