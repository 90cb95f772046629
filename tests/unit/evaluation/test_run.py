"""A table worked by hand, what is left out of it, and live decoders."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.choosing import ByValue, ByVote, choices, strategies
from trimtab.evaluation.run import compare, evaluate
from trimtab.evaluation.table import Table, tabulate
from trimtab.testing import prompt
from trimtab.types import Answer, Completion, Group, Reward, Usage

NAN = math.nan


def completion(text, index, logprobs=None, tokens=None, finish="stop"):
    return Completion(text, "toy@0", index, index, finish, tokens, logprobs)


def group(name, texts, rewards, logprobs=None):
    cs = [completion(t, i, logprobs[i] if logprobs else None) for i, t in enumerate(texts)]
    return Group(prompt(name), tuple(cs), tuple(Reward(r, "" if r == r else "why") for r in rewards))


def toy():
    """Three prompts of three completions. The comments give mean and sum of the log-probs and the length."""
    groups = [
        group("p", "aab", [1, 1, 0], [(-1.0, -1.0), (-0.9,), (-0.2, -0.2, -0.2)]),  # -1 -2 2 | -.9 -.9 1 | -.2 -.6 3
        group("q", "abc", [0, 0, 1], [(-0.5, -0.5), (-2.0,), (-0.4, -0.4)]),  # -.5 -1 2 | -2 -2 1 | -.4 -.8 2
        group("r", "abb", [1, 0, 0], [(-3.0,), (-1.0, -1.0), (-1.0, -1.0)]),  # -3 -3 1 | -1 -2 2 | -1 -2 2
    ]
    greedy = [group(n, ["g"], [r], [(-1.0,) * t]) for n, r, t in (("r", 0, 2), ("p", 1, 3), ("q", 1, 4))]
    return groups, greedy


def test_every_row_by_hand():
    groups, greedy = toy()
    values = {"good": [[2, 1, 0], [0, 0, 5], [1, 1, 0]], "flat": [[0, 0, 0]] * 3}
    table = compare(groups, values, greedy_groups=greedy, extract=lambda text: text, soft=["good"], beta=1.0)
    by_hand = {
        "pass@1": (2 / 3, 1 / 3, 1 / 3),
        "greedy": (1, 1, 0),  # matched by prompt, not by position
        "longest": (0, 1 / 2, 0),  # q: a tie of 2 tokens; r: a tie of two wrong ones
        "mean log-prob": (0, 1, 0),
        "sum log-prob": (0, 1, 0),
        "majority vote": (1, 1 / 3, 0),  # q: three answers with a vote each
        "good": (1, 1, 1 / 2),
        "flat": (2 / 3, 1 / 3, 1 / 3),
        "good, softmax β=1": (
            (math.e**2 + math.e) / (math.e**2 + math.e + 1), math.e**5 / (math.e**5 + 2), math.e / (2 * math.e + 1),
        ),
        "oracle": (1, 1, 1),
    }  # fmt: skip
    assert [r.name for r in table.rows] == list(by_hand)
    for name, reward_P in by_hand.items():
        row = table[name]
        assert list(row.rewards.values()) == pytest.approx(reward_P), name
        assert row.reward.mean == pytest.approx(np.mean(reward_P)), name
        assert row.unscored == 0 and row.n == 3
        if name == "greedy":
            assert row.difference is None
        else:
            assert row.difference.mean == pytest.approx(np.mean(np.subtract(reward_P, (1, 1, 0)))), name
    # tokens: p 2+1+3, q 2+1+2, r 1+2+2 over three prompts; greedy 3, 4, 2
    assert table["good"].tokens == table["oracle"].tokens == pytest.approx(16 / 3)
    assert table["pass@1"].tokens == pytest.approx(16 / 9) and table["greedy"].tokens == 3
    assert table.meta["k"] == 3 and table.notes == ()


def test_choosing_among_two_of_three_averages_over_pairs():
    groups = [group("p", "abc", [3, 2, 1])]
    table = compare(groups, {"right": [[3, 2, 1]], "wrong": [[1, 2, 3]]}, k=2, permutations=3000, soft=[])
    assert table["oracle"].reward.mean == pytest.approx((3 + 3 + 2) / 3)  # exact: over every pair
    assert table["right"].reward.mean == pytest.approx((3 + 3 + 2) / 3, abs=0.05)
    assert table["wrong"].reward.mean == pytest.approx((2 + 1 + 1) / 3, abs=0.05)
    assert table["pass@1"].reward.mean == pytest.approx(2)


def test_what_cannot_be_had_is_left_out_with_a_note_and_never_zero():
    groups = [group("p", ["aa", "b"], [1, 0]), group("q", ["a", "bb"], [1, NAN])]
    table = compare(groups)
    assert [r.name for r in table.rows] == ["pass@1", "longest", "oracle"]
    assert all(r.difference is None and math.isnan(r.tokens) for r in table.rows)
    text = " ".join(table.notes)
    for words in (
        "mean log-prob is left out", "sum log-prob is left out", "majority vote is left out", "no greedy",
        "by characters", "tokens spent are unknown", "1 of 4 completions are unscored",
    ):  # fmt: skip
        assert words in text
    assert table["longest"].rewards["p"] == 1 and math.isnan(table["longest"].rewards["q"])
    assert table["longest"].unscored == 1 and table["longest"].reward.n == 1
    assert table["pass@1"].rewards == {"p": 0.5, "q": 1} and table["pass@1"].unscored == 0.5


def test_a_completion_without_logprobs_is_never_chosen_by_them():
    groups = [group("p", "abc", [0, 1, 5], [(-1.0,), (-0.5,), None])]
    table = compare(groups)
    assert table["mean log-prob"].reward.mean == 1
    assert any("1 completions have no log-probs" in n for n in table.notes)


def test_all_rewards_equal_is_said():
    table = compare([group("p", "ab", [1, 1]), group("q", "ab", [1, 1])])
    assert any("no strategy can buy anything" in n for n in table.notes)


def test_a_planted_signal_is_better_and_noise_shows_no_difference():
    rng = np.random.default_rng(0)
    groups, greedy, signal, noise = [], [], [], []
    for p in range(120):
        reward = (rng.random(8) < 0.4).astype(float)
        groups.append(group(f"p{p}", "abcdefgh", reward))
        greedy.append(group(f"p{p}", "g", [float(rng.random() < 0.4)]))
        signal.append(reward + rng.normal(0, 0.5, 8))
        noise.append(rng.normal(0, 1, 8))
    table = compare(groups, {"signal": signal, "noise": noise}, greedy_groups=greedy, soft=[])
    assert table["signal"].verdict == "better" and table["noise"].verdict == "no difference shown"
    same = compare(groups[::-1], {"signal": signal[::-1]}, k=3, soft=[])
    assert same["signal"].rewards == compare(groups, {"signal": signal}, k=3, soft=[])["signal"].rewards


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda g, v: ([], v, {}), "no groups"),
        (lambda g, v: (g, v, {"k": 9}), "k = 9, but prompt p has 3"),
        (lambda g, v: (g, {"x": v["x"][:2]}, {}), "values for 2 prompts, there are 3"),
        (lambda g, v: (g, {"x": [*v["x"][:2], [1, 2]]}, {}), r"'x', prompt r: values of shape \(2,\) for 3"),
        (lambda g, v: (g, v, {"soft": ["y"]}), "soft names 'y'"),
        (lambda g, v: (g, v, {"greedy_groups": toy()[1][:2]}), "prompt q has no greedy"),
        (lambda g, v: ([replace(x, rewards=()) for x in g], v, {}), "not one completion has a reward"),
        (lambda g, v: ([g[0], g[0], g[1]], v, {}), "prompt p has more than one group"),
    ],
)
def test_bad_input_is_named(change, words):
    groups, rankers, rest = change(toy()[0], {"x": [[0, 0, 0]] * 3})
    with pytest.raises(InputError, match=words):
        compare(groups, rankers, **rest)


def test_majority_by_hand():
    vote = ByVote("vote", [["a", "b", "a", "a"], ["x", None, None, None], ["a", "a", "b", "b"]])
    pairs = np.array([[0, 1], [2, 3]])
    assert vote(0, pairs).tolist() == [[0.5, 0.5], [0.5, 0.5]]  # a tie of answers, then a tie within one
    assert vote(1, pairs).tolist() == [[1, 0], [0.5, 0.5]]  # no answer: no vote; none at all: even over all
    assert vote(2, np.array([[0, 1, 2], [0, 2, 3]])).tolist() == [[0.5, 0.5, 0], [0, 0.5, 0.5]]


@pytest.mark.parametrize(
    "answers, voted, note",
    [
        ({}, False, "left out: the extractor found no answer in any of 9 completions"),
        ({"a": "1"}, True, "no answer was found in 5 of 9 completions; 1 prompts have none at all"),
        ({"a": "1", "b": "2", "c": "3"}, True, ""),
    ],
)
def test_a_vote_without_answers_is_said(answers, voted, note):
    texts = ("aab", "bbb", "aac")
    groups = [group(name, text, [1.0, 0, 0]) for name, text in zip("pqr", texts, strict=True)]
    found, notes = strategies(groups, {}, extract=answers.get)
    assert ("majority vote" in [w.name for w in found]) is voted
    assert [n for n in notes if n.startswith("majority") and note in n] or not note
    assert not [n for n in notes if n.startswith("majority")] or note


def test_choices_name_every_tied_completion():
    groups, _ = toy()
    found, _ = strategies(groups, {"x": [[0, 1, 1], [NAN, NAN, NAN], [5, NAN, 6]]}, soft=[], extract=lambda t: t)
    picked = choices(groups, found)
    assert picked["x"] == [(1, 2), (), (2,)]
    assert picked["longest"] == [(2,), (0, 2), (1, 2)]
    assert picked["majority vote"] == [(0, 1), (0, 1, 2), (1, 2)]
    assert choices(groups[:1], [ByValue("soft", [np.array([0.0, 1, 2])], 0.5)])["soft"] == [(2,)]


def test_the_table_is_shown_with_verdicts_and_kept_as_json():
    groups, greedy = toy()
    table = compare(groups, {"a|b": [[2, 1, 0], [0, 0, 5], [1, 1, 0]]}, greedy_groups=greedy, soft=[])
    text, markdown, loaded = str(table), table.to_markdown(), json.loads(table.to_json())
    lines = text.splitlines()
    assert "minus greedy" in lines[0] and "no difference shown" in text and "Note: majority vote is left out" in text
    assert len({len(line) for line in lines[1:2]}) == 1 and max(map(len, lines)) < 120
    assert "| a\\|b | 0.833 [0.500, 1.000] |" in markdown
    assert loaded["rows"][0]["reward"]["mean"] == pytest.approx(4 / 9) and loaded["rows"][1]["difference"] is None
    with pytest.raises(InputError, match="did you mean 'oracle'"):
        table["oracel"]


def test_a_table_is_loaded_again_and_joined_by_prompt_id(tmp_path):
    groups, greedy = toy()
    table = compare([*groups, group("s", "aab", [NAN] * 3)], greedy_groups=[*greedy, group("s", ["g"], [1.0])])
    (tmp_path / "table.json").write_text(table.to_json())
    again = Table.load(tmp_path)
    assert again.to_json() == table.to_json() and str(again) == str(table)
    longest = again["longest"]
    turned = replace(longest, rewards=dict(reversed(longest.rewards.items())), name="turned")
    joined = tabulate([again["greedy"], longest, turned])
    assert joined["longest"] == longest and joined["turned"].difference == longest.difference
    with pytest.raises(InputError, match="'s' is in one only"):
        tabulate([again["greedy"], replace(longest, rewards={k: v for k, v in longest.rewards.items() if k != "s"})])


@pytest.mark.parametrize(
    "text, words",
    [("[]", "it is list"), ('{"rows": []}', "no notes"), ("{", "not JSON"),
     ('{"rows": [{}], "notes": [], "meta": {}, "baseline": "greedy"}', "a row cannot be read")],
)  # fmt: skip
def test_a_broken_table_is_named(tmp_path, text, words):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InputError, match=rf"t.json.*{words}.*trimtab eval"):
        Table.load(tmp_path / "t.json")


@dataclass(frozen=True)
class Says:
    """A decoder that always answers the same."""

    text: str

    def __call__(self, prompts, params):
        groups = [Group(p, (completion(self.text, 0), completion("other", 1))) for p in prompts]
        return [Answer(g.completions[0], g, Usage(completion_tokens=7)) for g in groups]


def exact(groups):
    return [[Reward(float(c.text == g.prompt.target)) for c in g.completions] for g in groups]


def test_evaluate_scores_the_answers_of_a_live_decoder():
    prompts = [prompt("p", "a"), prompt("q", "b"), prompt("r", "a")]
    greedy = evaluate(Says("b"), prompts, exact, name="greedy")
    row = evaluate(Says("a"), prompts, exact, baseline=greedy)
    assert (row.name, row.rewards, row.tokens) == ("Says", {"p": 1, "q": 0, "r": 1}, 7)
    assert row.difference.mean == pytest.approx(1 / 3)
    assert "no difference shown" in str(row) and "+0.333" in str(row)
    table = tabulate([greedy, evaluate(Says("a"), prompts, exact)])
    assert table["Says"].difference == row.difference
    assert tabulate([row]).notes == ("no row is called 'greedy': no difference column",)


def test_evaluate_refuses_what_does_not_fit():
    prompts = [prompt("p", "a"), prompt("q", "b")]
    with pytest.raises(InputError, match="1 answers for 2 prompts"):
        evaluate(lambda ps, params: Says("a")(ps[:1], params), prompts, exact)
    with pytest.raises(InputError, match="one each"):
        evaluate(Says("a"), prompts, lambda groups: exact(groups)[:1])
    with pytest.raises(InputError, match="prompt p comes twice"):
        evaluate(Says("a"), [prompts[0], *prompts], exact)
    unscored = evaluate(Says("a"), prompts, lambda groups: [[Reward(NAN, "down")], [Reward(1.0)]])
    assert unscored.unscored == 1 and unscored.reward.n == 1 and unscored.reward.mean == 1
