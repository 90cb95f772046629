"""All pairs at once: coverage, joins by id, samples of a prompt, ties, the sentence, the picture."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation import compare_values, interval_plot
from trimtab.evaluation.simultaneous import all_differences
from trimtab.intervals import paired_bootstrap


def named(interval):
    return interval.verdict in ("better", "worse")


def test_equal_systems_are_told_apart_in_at_most_five_percent_of_data_sets():
    rng, ours, pairwise = np.random.default_rng(0), 0, 0
    for s in range(100):
        values = (rng.random((80, 12)) < rng.beta(1, 1, (80, 1))).astype(float)
        found = all_differences(values, draws=500, seed=s)
        ours += any(map(named, found.values()))
        if s < 12:
            each = (paired_bootstrap(values[:, i], values[:, j], draws=300, seed=s) for i, j in found)
            pairwise += any(map(named, each))
    assert ours <= 5
    assert pairwise >= 6  # in most: 7 of 10


def test_all_intervals_hold_the_truth_together():
    rng, missed = np.random.default_rng(1), 0
    truth = np.array([0.0, 0.1, 0.5, 0.5])
    for s in range(400):
        values = truth + rng.normal(size=(60, 1)) + rng.normal(size=(60, 4)) * [0.2, 1, 1, 2]
        found = all_differences(values, draws=1000, seed=s)
        missed += any(not i.lower <= truth[a] - truth[b] <= i.upper for (a, b), i in found.items())
    assert missed <= 28  # 5 % and what 400 data sets allow


def test_one_pair_is_as_wide_as_the_paired_bootstrap():
    values = np.random.default_rng(2).normal(size=(400, 2))
    mine, theirs = all_differences(values)[0, 1], paired_bootstrap(*values.T)
    assert mine.mean == pytest.approx(theirs.mean)
    assert mine.upper - mine.lower == pytest.approx(theirs.upper - theirs.lower, rel=0.1)


def test_few_prompts_that_differ_need_the_exact_test():
    def pair(differ, systems=2):
        values = np.zeros((300, systems))
        values[:differ, 0] = 1
        return all_differences(values)[0, 1]

    assert not named(pair(5)) and named(pair(8))  # 2^-5 > 0.025
    assert not named(pair(8, systems=6))  # five such pairs among 15: Holm asks 2^-m ≤ 0.025 / 15
    assert pair(0) == (0.0, 0.0, 0.0, 300)


def test_values_are_joined_by_id_and_not_by_position():
    rng = np.random.default_rng(3)
    a = {f"p{i}": float(rng.random() < 0.5) for i in range(60)}
    b = dict(reversed(a.items()))
    found = compare_values({"a": a, "b": b})
    assert found["a", "b"] == (0.0, 0.0, 0.0, 60) and found.verdict == "No pair can be told apart."


def test_samples_of_a_prompt_count_once():
    rng = np.random.default_rng(4)
    one = {name: {str(i): float(rng.random()) for i in range(40)} for name in "ab"}
    many = {name: {i: [v] * 50 for i, v in of.items()} for name, of in one.items()}
    assert compare_values(many)["a", "b"] == pytest.approx(compare_values(one)["a", "b"])


def test_what_one_system_lacks_is_left_out_of_all_and_counted():
    a = {str(i): 1.0 for i in range(30)} | {"30": float("nan")}
    b = {str(i): [float("nan"), 0.0] for i in range(5, 31)}
    found = compare_values({"a": a, "b": b})
    assert found.means["a"].n == 25 and found.means["a"].mean == 1 and found.means["b"].mean == 0
    assert found.notes == (
        "5 prompts of a are not in all: left out", "1 prompts of a have no value: left out of all",
        "25 prompts in common",
    )  # fmt: skip
    assert found.verdict == "a is better than b."
    with pytest.raises(InputError, match="no prompt id in common"):
        compare_values({"a": a, "c": {"x": 1.0}})
    with pytest.raises(InputError, match="two or more"):
        compare_values({"a": a})


def test_anytime_is_exact_for_0_1_and_scales_what_is_not():
    a, b = {str(i): 1.0 for i in range(50)}, {str(i): float(i > 12) for i in range(50)}
    found = compare_values({"b": b, "a": a}, kind="anytime")
    assert found.pairs[0].first == "a" and found.pairs[0].e_value == pytest.approx(2**13 / 14)
    assert named(found["a", "b"]) and "exact sequential McNemar" in found.notes[-1]
    big = compare_values({n: {k: 100 * v for k, v in of.items()} for n, of in {"a": a, "b": b}.items()}, kind="anytime")
    assert "values from 0 to 100 scaled" in big.notes[-1] and big.pairs[0].e_value is None
    small = compare_values({"a": a, "b": {k: v + 1e-12 * (v == 0) for k, v in b.items()}}, kind="anytime")
    assert big["a", "b"].upper == pytest.approx(100 * small["a", "b"].upper)


def test_words_json_and_picture_of_many_systems():
    rng = np.random.default_rng(5)
    values = {f"s<{k}>": {str(i): float(rng.random() < 0.2 + 0.05 * k) for i in range(150)} for k in range(8)}
    found = compare_values(values, draws=500)
    plain = json.loads(json.dumps(found.plain()))
    assert len(plain["pairs"]) == 28 and plain["verdict"] == found.verdict and next(iter(plain["means"])) == "s<7>"
    apart = sum(p["verdict"] != "no difference shown" for p in plain["pairs"])
    assert f"{apart} of 28 pairs can be told apart. s<7> is better than" in str(found) and "--json has all" in str(
        found
    )
    page = ET.fromstring(interval_plot(found))
    marks = page.findall(".//{*}g")
    assert len(marks) == 8 and marks[0].get("class") == "best"
    assert sum(m.get("class") == "apart" for m in marks) == sum(named(found["s<7>", n]) for n in values if n != "s<7>")
