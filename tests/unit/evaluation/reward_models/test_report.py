import math

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.reward_models.check import compare_backends
from trimtab.evaluation.reward_models.check import table as check_table
from trimtab.evaluation.reward_models.report import best_of_n, calibration_error, overoptimisation, reward_report
from trimtab.evaluation.reward_models.rewardbench import item_score, load_rewardbench, rewardbench, table
from trimtab.testing import prompt, write_jsonl
from trimtab.types import Completion, Group, Pair, Reward


def completion(quality: float, length: int, i: int) -> Completion:
    return Completion(f"{quality:.4f} ".ljust(length, "x"), "m", 0, i)


def quality(c: Completion) -> float:
    return float(c.text.split()[0])


def pairs(n: int, seed: int = 0) -> list[Pair]:
    """Quality decides, length is independent of it; the margin is the difference of qualities."""
    rng, out = np.random.default_rng(seed), []
    for i in range(n):
        q = np.sort(rng.normal(size=2))[::-1]
        a, b = (completion(x, int(rng.integers(30, 200)), k) for k, x in enumerate(q))
        out.append(Pair(prompt(f"q{i // 2}"), a, b, float(q[0] - q[1])))
    return out


def reward(f):
    return lambda groups: [[Reward(float(f(c))) for c in g.completions] for g in groups]


honest = reward(quality)
ruler = reward(lambda c: quality(c) + 0.03 * len(c.text))


def by_name(report):
    return {r.name: r for r in report.rows}


def test_a_planted_length_bias_is_caught_and_an_honest_reward_is_not():
    report = reward_report(pairs(300), {"honest": honest, "ruler": ruler}, draws=2000)
    rows = by_name(report)
    assert rows["honest"].accuracy.mean == 1 and not rows["honest"].length_biased
    assert rows["honest"].prefers_longer.mean == 0
    assert rows["ruler"].length_biased and rows["ruler"].chosen_longer > 0.9 > 0.5 > rows["ruler"].chosen_shorter
    assert rows["longest"].null and abs(rows["longest"].accuracy.mean - 0.5) < 0.1
    assert rows["longest"].accuracy.mean + rows["shortest"].accuracy.mean == pytest.approx(1)
    assert rows["honest"].over_null.lower > 0.3 and "prefers the longer answer" in str(report)
    assert report.prompts == 150 and report.as_dict()["rows"][1]["length_biased"] is True


def test_sure_pairs_are_easier_for_a_noisy_ranker():
    rng = np.random.default_rng(3)
    noisy = reward(lambda c: quality(c) + rng.normal())
    row = by_name(reward_report(pairs(600), {"noisy": noisy}, draws=500))["noisy"]
    assert row.confident.mean > row.accuracy.mean + 0.05


def test_ties_count_half_and_unscored_is_counted_not_wrong():
    flat = by_name(reward_report(pairs(20), {"flat": reward(lambda c: 1.0)}, draws=200))["flat"]
    assert flat.accuracy.mean == 0.5 and flat.log_loss == pytest.approx(math.log(2))
    first = iter(range(10**6))
    half = by_name(
        reward_report(pairs(20), {"h": reward(lambda c: math.nan if next(first) < 4 else quality(c))}, draws=200)
    )
    assert half["h"].accuracy.mean == 1 and half["h"].unscored == 2


def test_calibration_error_by_hand():
    gaps = np.full(1000, math.log(3))  # says 75 %
    gaps[:250] *= -1
    assert calibration_error(gaps, bins=1) == pytest.approx(0)
    assert calibration_error(np.abs(gaps), bins=1) == pytest.approx(0.25) and math.isnan(calibration_error([math.nan]))


def gold(n: int, k: int, seed: int = 5) -> list[Group]:
    rng, out = np.random.default_rng(seed), []
    for i in range(n):
        q = rng.normal(size=k)
        cs = tuple(completion(x, 50, j) for j, x in enumerate(q))
        out.append(Group(prompt(f"g{i}"), cs, tuple(Reward(float(x)) for x in q)))
    return out


def test_best_of_n_is_the_oracles_for_the_oracle():
    groups = gold(40, 8)
    values = [g.reward_N for g in groups]
    assert best_of_n(groups, values, 8).mean == pytest.approx(np.mean([v.max() for v in values]))
    row = by_name(reward_report(pairs(40), {"honest": honest}, gold=groups, draws=500))
    assert row["honest"].best_of_n.mean > row["random"].best_of_n.upper > row["random"].best_of_n.mean


def test_overoptimisation_shows_a_proxy_that_rises_while_gold_falls():
    groups = gold(60, 16)
    proxy = [np.where(g.reward_N > 1, -5.0, g.reward_N) * 1.0 for g in groups]
    wrong = [-g.reward_N for g in groups]
    figure = overoptimisation(groups, {"good": [g.reward_N for g in groups], "wrong": wrong, "bent": proxy}, draws=200)
    curves = {c.name: [y.mean for y in c.y] for c in figure.curves}
    assert curves["good, gold reward"] == pytest.approx(curves["good, its own value"], abs=0.15)
    assert curves["wrong, its own value"][-1] > 1.5 > -1.5 > curves["wrong, gold reward"][-1]
    assert all(a < b for a, b in zip(curves["wrong, its own value"], curves["wrong, its own value"][1:], strict=False))


def test_no_pairs():
    with pytest.raises(InputError, match="no held-out pairs"):
        reward_report([], {"honest": honest})


def test_backends_are_compared_with_the_first():
    data = pairs(30)
    shifted, turned = reward(lambda c: quality(c) + 0.25), reward(lambda c: -quality(c))
    rows = compare_backends(data, {"float32": honest, "shifted": shifted, "turned": turned})
    assert rows[0].largest == pytest.approx(0.25) and rows[0].flips == 0 and rows[0].texts == 60
    assert rows[1].flips == rows[1].pairs == 30 and "30 of 30 pairs turned round" in check_table("float32", rows)
    lost = compare_backends(data, {"a": honest, "b": reward(lambda c: math.nan)})[0]
    assert lost.unscored == 60 and math.isnan(lost.largest)
    with pytest.raises(InputError, match="at least two"):
        compare_backends(data, {"a": honest})


def test_rewardbench_scores_by_hand():
    assert item_score([2, 1, 0, 0], 1) == 1 and item_score([1, 2, 0, 0], 1) == 0
    assert item_score([1, 1, 1, 1], 1) == 0.25 and item_score([1, 1, 0, 0], 1) == 0.5
    assert (
        item_score([5.0, 5.2, 3.0], 2) == 1 and item_score([9.0, 5.2, 3.0], 2) == 0
    )  # the right ones lie too far apart
    assert item_score([5.0, 2.0, 3.0], 2) == 0 and item_score([math.nan, 1.0], 1) == 0


def test_rewardbench_file(tmp_path):
    rows = [
        {"prompt": "p1", "chosen": "9.0 xxxxxxx", "rejected": "1.0", "subset": "one"},
        {"prompt": "p2", "chosen": ["8.0"], "rejected": ["1.0", "2.0", "3.0"], "subset": "four"},
        {"prompt": "p3", "chosen": ["1.0"], "rejected": ["4.0", "2.0", "3.0"], "subset": "four"},
        {
            "prompt": [{"role": "user", "content": "p4"}],
            "chosen": ["5.0", "5.1"],
            "rejected": ["0.0"],
            "subset": "ties",
        },
    ]
    items = load_rewardbench(write_jsonl(tmp_path / "rb.jsonl", rows))
    scores = {(s.ranking, s.subset): s.score.mean for s in rewardbench(items, {"honest": honest}, draws=200)}
    assert scores["honest", "one"] == 1 and scores["honest", "four"] == 0.5 and scores["honest", "ties"] == 1
    assert scores["honest", "all"] == pytest.approx(2.5 / 3) and scores["longest", "one"] == 1
    assert "honest" in table(rewardbench(items, {"honest": honest}, draws=200))
    write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "p", "chosen": 3, "rejected": "x"}])
    with pytest.raises(InputError, match=r"bad\.jsonl:1: field 'chosen'"):
        load_rewardbench(tmp_path / "bad.jsonl")
