"""A completion that failed is never scored, chosen, voted for or counted, whoever looks at the group."""

import math

import numpy as np
import pytest

from trimtab.adapters import score_answered
from trimtab.data import all_pairs, best_vs_worst, right_vs_wrong
from trimtab.decoders import BestOfN, Greedy, LogprobRerank, Longest, Majority, Plain, SoftmaxPolicy
from trimtab.decoders.model import Ranked, Routed
from trimtab.evaluation.choosing import aligned, lengths, logprob_values, mean_tokens
from trimtab.evaluation.run import compare
from trimtab.learners.token.examples import one_by_one
from trimtab.rewards import score
from trimtab.rewards.judge import Judge
from trimtab.testing import FakeSampler, prompt
from trimtab.types import Completion, Group, Reward, Usage

PROMPTS = [prompt(str(i)) for i in range(6)]
NOTE = "status 400: content_filter"


def completion(text, i, failed=False, **more):
    more = {"usage": Usage(completion_tokens=len(text))} | more
    return Completion(
        "a very long text" if failed else text,
        "m",
        i,
        i,
        "error" if failed else "stop",
        note=NOTE if failed else "",
        **more,
    )


class Half:
    """Every second completion of every prompt failed, the first one included, with the likeliest log-probs."""

    model = "m"

    def __call__(self, prompts, n, params):
        def one(i):
            logprobs = (-0.01,) if i % 2 == 0 else (-2.0 - i,) * (i + 1)
            return completion("x" * (i + 1), i, i % 2 == 0, logprobs=logprobs)

        return [Group(p, tuple(map(one, range(n)))) for p in prompts]


class None_:
    model = "m"

    def __call__(self, prompts, n, params):
        return [Group(p, tuple(completion("", i, True) for i in range(n))) for p in prompts]


def seen_by(shown):
    """Longer is better; remembers what it was shown."""

    def reward(groups):
        shown.extend(c for g in groups for c in g.completions)
        return [[Reward(float(len(c.text))) for c in g.completions] for g in groups]

    return reward


@pytest.mark.parametrize(
    "decoder, text",
    [
        (BestOfN(Half(), seen_by([]), n=4), "xxxx"),
        (SoftmaxPolicy(Half(), seen_by([]), n=4, beta=1e-3), "xxxx"),
        (Majority(Half(), lambda t: "v" if "v" in t else t[:1], n=4), None),
        (LogprobRerank(Half(), n=4), "xx"),
        (Longest(Half(), n=4), "xxxx"),
    ],
)
def test_decoders_choose_among_what_was_answered(decoder, text):
    for a in decoder(PROMPTS):
        assert not a.completion.failed and text in (a.completion.text, None)
        assert a.tokens == 2 + 4  # of the two that were answered


def test_where_nothing_was_answered_the_answer_says_so():
    for decoder in (Plain(None_()), Greedy(None_()), BestOfN(None_(), seen_by([]), n=3), Majority(None_(), len, n=3)):
        (a,) = decoder(PROMPTS[:1])
        assert a.completion.failed and NOTE in a.note and math.isnan(a.tokens)


def test_pools_pass_over_a_model_that_failed():
    good = FakeSampler(lambda p, rng: "fine", model="good")
    shown = []
    (a, *_) = Ranked({"bad": None_(), "good": good}, seen_by(shown))(PROMPTS)
    assert a.completion.text == "fine" and not any(c.failed for c in shown)
    assert math.isnan(a.group.rewards[0].value) and a.group.rewards[0].note == NOTE
    (a,) = Ranked({"bad": None_(), "good": good}, lambda gs: [[Reward(math.nan)] * len(g.completions) for g in gs])(
        PROMPTS[:1]
    )
    assert a.completion.text == "fine"
    (a,) = Routed(lambda ps: [{"bad": 1.0} for _ in ps], {"bad": None_()})(PROMPTS[:1])
    assert NOTE in a.note and math.isnan(a.tokens)


def test_no_reward_sees_it():
    shown = []
    groups = Half()(PROMPTS, 4, None)
    rows = score_answered(groups, seen_by(shown))
    scored = score(groups, seen_by(shown), workers=0, progress=False)
    assert len(shown) == 2 * 2 * len(PROMPTS) and not any(c.failed for c in shown)
    for row in [*rows, *(g.rewards for g in scored)]:
        assert [r.value for r in row][1::2] == [2, 4] and all(math.isnan(r.value) and r.note == NOTE for r in row[::2])
    for pairs in (best_vs_worst(scored), all_pairs(scored), right_vs_wrong(scored, 3)):
        assert {(p.chosen.text, p.rejected.text) for p in pairs} == {("xxxx", "xx")}
    assert {c.text for _, c, _ in one_by_one(groups)} == {"xx", "xxxx"}


def test_no_judge_is_asked_about_it():
    asked = []
    judge = Judge(FakeSampler(lambda p, rng: (asked.append(p), "[[A]]")[1]))
    (row,) = judge.compare(Half()(PROMPTS[:1], 4, None), [np.array([[0, 1], [1, 3], [2, 3]])])
    assert [math.isnan(c.preference) for c in row] == [True, False, True] and [c.calls for c in row] == [0, 2, 0]


def test_a_judge_that_fails_is_unread_and_loses_no_other():
    calls = []

    class Partly:
        model = "j"

        def __call__(self, prompts, n, params):
            calls.append(len(prompts))
            return [Group(p, (completion("[[A]]", 0, "bad" in str(p.messages)),)) for p in prompts]

    groups = [Group(prompt(t), (completion("a", 0), completion("b", 1))) for t in ("good", "bad")]
    good, bad = Judge(Partly())(groups, [np.array([[0, 1]])] * 2)
    assert good.tolist() == [0.5] and np.isnan(bad).all() and calls == [4]  # the sampler has tried its best


def test_tables_leave_it_out():
    groups = [
        Group(g.prompt, g.completions, tuple(Reward(math.nan if c.failed else len(c.text)) for c in g.completions))
        for g in Half()(PROMPTS, 4, None)
    ]
    size, unit = lengths(groups)
    assert unit == "tokens" and np.isnan(size[0]).tolist() == [True, False, True, False]
    assert np.isnan(logprob_values(groups, mean=True)[0]).tolist() == [True, False, True, False]
    assert np.isnan(aligned(groups, "r", [[9, 1, 9, 2]] * 6)[0]).tolist() == [True, False, True, False]
    assert mean_tokens(groups) == 3
    table = compare(groups, {"r": [[9, 1, 9, 2]] * 6}, extract=lambda t: "v" if "v" in t else "x", permutations=1)
    rows = {r.name: r for r in table.rows}
    assert rows["pass@1"].reward[0] == 3 and rows["r"].reward[0] == rows["longest"].reward[0] == 4
    assert rows["mean log-prob"].reward[0] == 2 and rows["pass@1"].tokens == 3 and rows["r"].tokens == 12
