import json
import math

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.rewards import FromReward, Judge, RatingJudge, SkillJudge, WinRate
from trimtab.rewards.judge import summarise
from trimtab.rewards.verdicts import (
    GRADED_TEMPLATE,
    PAIR_TEMPLATE,
    Verdict,
    dialogue,
    fill,
    parse_pair,
    parse_rating,
    parse_skills,
)
from trimtab.testing import FakeSampler, check_learned_reward, prompt
from trimtab.types import Completion, Group, Prompt, Reward


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("A is right. [[A]]", Verdict(1.0)),
        ("[[B]]", Verdict(0.0)),
        ("[[C]] a tie", Verdict(0.5)),
        ("[[ tie ]]", Verdict(0.5)),
        ("End with [[A]] or [[B]]. So: [[B]]", Verdict(0.0)),  # the last one counts
        ("My final verdict is: [[A>>B]]", Verdict(1.0, 3)),
        ("[[A>B]]", Verdict(1.0)),
        ("[[A=B]]", Verdict(0.5)),
        ("[[B>A]]", Verdict(0.0)),
        ("[[B>>A]]", Verdict(0.0, 3)),
        ("[[A<<B]]", Verdict(0.0, 3)),
        ("[[b]]", Verdict(0.0)),
        ("**B**", Verdict(0.0)),
        ("Answer A.", Verdict(1.0)),
        ("[[A>A]]", None),
        ("", None),
        ("Answer A is better than answer B.", None),
        ("[[D]]", None),
        ("[A]", Verdict(1.0)),
        ("Write [[A]] if A is better. My verdict: [[B]]", Verdict(0.0)),
        ("My verdict: [[A=B]]", Verdict(0.5)),
        ("[[A]] or [[B]], I am not able to say", None),
        ("[[A]] vs [[B]]: undecided", None),
        ("Final verdict: [[B]]\n\nI preferred it to [[A]] for its examples.", Verdict(0.0)),
        ("Answer A holds the words '[[A]]', to steer me. I will not rate it.", None),
        ('B says "[[B]]" itself; that aside, my decision is [[A]].', Verdict(1.0)),
        ("[[B]]\nA is not bad, but [[A]] would be too kind.", Verdict(0.0)),
        ("At first I leaned towards [[A]], but on reflection it is [[B]].", Verdict(0.0)),
        ("Verdict: [[A]]. Had it named its sources, [[B]] would have lost less.", Verdict(1.0)),
        ("Therefore I take [[B]] over [[A]].", Verdict(0.0)),
        ("```\n[[A]]\n```", Verdict(1.0)),
        ("<think>Leaning [[A]] so far, but</think>", None),
        ("<think>Leaning [[A]] so far, but", None),
        ("<think>[[A]]?</think>[[B]]", Verdict(0.0)),
        ("Winner: A", Verdict(1.0)),
        ("**Final verdict**: tie", Verdict(0.5)),
        ("The winner is Response B.", Verdict(0.0)),
        ('{"winner": "B"}', Verdict(0.0)),
        ("[RESULT] B", Verdict(0.0)),
        ("Output (a)", Verdict(1.0)),
        ("<verdict>B</verdict>", Verdict(0.0)),
        ("A>>B", Verdict(1.0, 3)),
        ("Preference: A<B", Verdict(0.0)),
        ("I prefer [[A]] to [[B]].", Verdict(1.0)),
        ("[[A]] [[B]]", None),
        ("`[[B]]`", Verdict(0.0)),
        ("[[A", None),
        ("[[A]] (slightly)", Verdict(1.0)),
        ("Decision: [[A]] (A is more exact)", Verdict(1.0)),
        ("{'preference': 'A'}", Verdict(1.0)),
        (r"\boxed{A}", Verdict(1.0)),
        ("The final decision is Response 2.", Verdict(0.0)),
        ('{"verdict": "[[A]]"}', Verdict(1.0)),
        ('Final verdict: [[B]]. It is not to be taken for "Final verdict: [[A]]".', Verdict(0.0)),
        ("8 6\nThe first is clearer.", Verdict(1.0)),
        ("7 7", Verdict(0.5)),
        ("[{'model': 'model_2', 'rank': 1}, {'model': 'model_1', 'rank': 2}]", Verdict(0.0)),
    ],
)
def test_verdicts(text, want):
    assert parse_pair(text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Clear.\n\n**Rating**: 7", 7),
        ("[[4]]\n\nA [[9]] would have needed examples.", 4),
        ("[[8]] because a [[10]] would need more.", 8),
        ('"[[5]]" is average, they say. Rating: [[8]]', 8),
        ("Rating: [[7]]", 7),
        ("**Rating:** [[6.5]]", 6.5),
        ("Score: 7/10", 7),
        ("The rating is 9 out of 10.", 9),
        ("I rate it 8.", 8),
        ("I would give this answer a 7 out of 10.", 7),
        ("Score (1-10): 7", 7),
        ("Rating (out of 10): 8", 8),
        ("Final score - 7", 7),
        ("Overall: 7", 7),
        ("评分：8", 8),
        ("<rating>8</rating>", 8),
        ("Score: 8, for the other had a score of 5", 8),
        ("Rating: 7-8", None),
        ("### Rating\n8", 8),
        ('{"rating": 8}', 8),
        ("7/10", 7),
        ("8\n\nGood answer.", 8),
        ("<think>[[9]]</think>[[3]]", 3),
        ("<think>[[9]]", None),
        ("Rating: 4/5", None),
        ("Rating: 85", None),
        ("Rating: [[4]]. The text claims 'The rating is: [[10]]'.", 4),
        ("Rating: [[7,5]]", None),
        ("[[8, 6]]", None),
        ("I give it [[8]] out of [[10]].", 8),
        ("`[[8]]`", 8),
        ("Rating: 1 to 10: 7", None),
        ("Score: -1", None),
        ("[[0]]", None),
        ("[[7]] or [[8]]", None),
        ("It has 3 errors and 2 typos.", None),
    ],
)
def test_ratings_by_hand(text, want):
    assert parse_rating(text, 1, 10) == want


def test_ratings_and_skills():
    assert parse_rating("good [[7]]", 1, 10) == 7 and parse_rating("[[3]] no, [[8.5/10]]", 1, 10) == 8.5
    assert parse_rating("Rating: 6", 1, 10) == 6 and parse_rating("Score is **4**", 1, 10) == 4
    assert parse_rating("[[11]]", 1, 10) is None and parse_rating("seven", 1, 10) is None
    text = "Logical Robustness: 4\n- **Factuality**: 5/5\nReadability = 9"
    assert parse_skills(text, ["logical robustness", "Factuality", "Readability"]) == {
        "logical robustness": 4,
        "Factuality": 5,
    }


def test_templates_take_texts_as_they_are():
    assert fill("{a} {b} {c}", a="{b}", b="\\1") == "{b} \\1 {c}"
    for template in (PAIR_TEMPLATE, GRADED_TEMPLATE):
        shown = fill(template, prompt="Q?", a="x", b="y", reference="")
        assert "Q?" in shown and "{" not in shown
    assert (
        dialogue(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}))
        == "[user]\na\n\n[assistant]\nb"
    )


def group(*texts: str, **columns) -> Group:
    p = Prompt("q", ({"role": "user", "content": "Which?"},), columns)
    return Group(p, tuple(Completion(t, "m", 0, i) for i, t in enumerate(texts)))


def between(text: str, tag: str) -> str:
    return text.split(f"<{tag}>\n")[1].split(f"\n</{tag}>")[0]


def fair(p: Prompt, rng) -> str:
    a, b = (len(between(p.messages[0]["content"], t)) for t in ("answer_a", "answer_b"))
    return "[[A]]" if a > b else "[[B]]" if b > a else "[[C]]"


ALL = np.array([[0, 1], [0, 2], [1, 2]])


def test_a_fair_judge_prefers_the_same_in_both_orders():
    judge = Judge(FakeSampler(fair))
    (p,) = judge([group("long", "x", "x")], [ALL])
    assert p.tolist() == [1.0, 1.0, 0.5]
    s = summarise(judge.compare([group("long", "x", "x")], [ALL]))
    assert (s.comparisons, s.unparsed, s.calls, s.position_bias, s.consistent) == (3, 0, 6, 0.0, 1.0) and s.tokens > 0


def test_a_judge_that_only_sees_the_order_is_cancelled_and_found_out():
    judge = Judge(FakeSampler(lambda p, rng: "[[A]]"))
    (p,) = judge([group("a", "b", "c")], [ALL])
    assert p.tolist() == [0.5] * 3
    s = summarise(judge.compare([group("a", "b", "c")], [ALL]))
    assert s.position_bias == 0.5 and s.consistent == 0.0
    once = Judge(FakeSampler(lambda p, rng: "[[A]]"), both_orders=False)
    assert once([group("a", "b")], [ALL[:1]])[0].tolist() == [1.0]


def test_unread_verdicts_are_asked_again_and_then_nan():
    seen: list[int] = []

    def stubborn(p, rng):
        seen.append(1)
        return "I like both" if rng.random() < 0.6 else "[[A]]"

    judge = Judge(FakeSampler(stubborn), retries=9)
    (row,) = judge.compare([group("a", "b")], [ALL[:1]])
    assert math.isfinite(row[0].preference) and row[0].calls == len(seen) >= 2
    silent = Judge(FakeSampler(lambda p, rng: "no idea"), retries=2)
    (row,) = silent.compare([group("a", "b")], [ALL[:1]])
    assert math.isnan(row[0].preference) and row[0].calls == 6 and summarise([row]).unparsed == 1


def test_one_unread_order_leaves_the_pair_unscored():
    judge = Judge(
        FakeSampler(lambda p, rng: "[[A]]" if between(p.messages[0]["content"], "answer_a") == "a" else "?"), retries=0
    )
    assert math.isnan(judge([group("a", "b")], [ALL[:1]])[0][0])


def test_the_reference_is_shown_when_there_is_one():
    shown: list[str] = []

    def look(p, rng):
        shown.append(p.messages[0]["content"])
        return "[[C]]"

    Judge(FakeSampler(look))([group("a", "b", reference="42"), group("a", "b")], [ALL[:1]] * 2)
    assert "<reference_answer>\n42\n" in shown[0]


def test_ratings_are_a_reward():
    def rate(p, rng):
        return f"[[{len(between(p.messages[0]['content'], 'answer'))}]]"

    rewards = RatingJudge(FakeSampler(rate))([group("abc", "abcdef", "x" * 40)])[0]
    assert [r.value for r in rewards[:2]] == [3, 6] and math.isnan(rewards[2].value) and "3 calls" in rewards[2].note


def test_skills_are_rated_each():
    judge = SkillJudge(FakeSampler(lambda p, rng: "logic: 4\nstyle: 2"))
    (reward,) = judge([group("x", skills=["logic", "style"])])[0]
    assert reward.value == 3 and json.loads(reward.note) == {"logic": 4, "style": 2}
    assert math.isnan(judge([group("x", skills=["logic", "wit"])])[0][0].value)
    with pytest.raises(InputError, match="no list of skills"):
        judge([group("x")])


def by_length(groups):
    return [[Reward(float(len(c.text))) for c in g.completions] for g in groups]


def test_win_rate_by_hand_and_back():
    prefer = FromReward(by_length)
    (p,) = prefer([group("aa", "a")], [np.array([[0, 1], [1, 0]])])
    assert p.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])
    s1, s2 = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    rewards = WinRate(prefer)([group("aaa", "aa", "a")])[0]
    assert [r.value for r in rewards] == pytest.approx([(s1 + s2) / 2, 0.5, 1 - (s1 + s2) / 2])
    groups = [Group(prompt(f"q{n}"), tuple(Completion("a" * (i + n), "m", 0, i) for i in range(4))) for n in range(3)]
    check_learned_reward(WinRate(prefer), groups)


def test_win_rate_leaves_unread_comparisons_out():
    rewards = WinRate(lambda gs, asked: [np.array([0.9, math.nan, math.nan])])([group("a", "b", "c")])[0]
    assert rewards[0].value == 0.9 and rewards[1].value == pytest.approx(0.1) and math.isnan(rewards[2].value)
    assert "group of one" in WinRate(FromReward(by_length))([group("a")])[0][0].note
