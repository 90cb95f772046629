"""The router's verbs end to end on a planted table."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trimtab.cli.app import app
from trimtab.errors import InputError, ModelError
from trimtab.jobs.routing import money, ranks
from trimtab.testing import write_jsonl

KINDS = {"sums": "add the numbers {} and 4", "code": "write a python function f{}"}


@pytest.fixture
def table(tmp_path):
    rows = [
        {
            "task": kind,
            "query": text.format(i),
            "scores": {"adder": float(kind == "sums"), "coder": float(kind == "code")},
        }
        for i in range(40)
        for kind, text in KINDS.items()
    ]
    return str(write_jsonl(tmp_path / "table.jsonl", rows))


def run(*args):
    verb = {"fit": ["fit", "router"], "eval": ["router", "eval"]}.get(args[0], [args[0]])
    result = CliRunner().invoke(app, [*verb, *args[1:], "--json"])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout.splitlines()[-1])


def test_fit_eval_route(table, tmp_path):
    folder = str(tmp_path / "r")
    assert run("fit", table, "--out", folder)["guard"].startswith("passed")
    facts = run("route", "add the numbers 99 and 3", "--router", folder)
    assert (
        facts["model"] == "adder"
        and max(facts["why"], key=facts["why"].get) == "sums"
        and set(facts["rewards"]) == {"adder", "coder"}
    )
    cheap = ("--price", "adder=5", "--price", "coder=0", "--exchange", "1")
    assert run("route", "add the numbers 99 and 3", "--router", folder, *cheap)["model"] == "coder"
    rows = {r["name"]: r for r in run("eval", table, "--seeds", "1")["rows"]}
    assert rows["router"]["reward"]["mean"] == 1 and rows["random"]["reward"]["mean"] == 0.5
    facts = run("eval", table, "--router", folder, "--keep-seen")
    assert {r["tag"] for r in facts["tags"]} == {"sums", "code"}


def test_report_prices_and_money_metrics(table, tmp_path):
    page = tmp_path / "r.html"
    facts = run("eval", table, "--seeds", "2", "--price", "adder=0.02", "--price", "coder=0.01", "--html", str(page))
    assert facts["html"] == str(page) and "best single" in page.read_text()
    assert {"aiq", "arena_score", "apgr", "cpt"} <= set(facts)
    with pytest.raises(InputError, match="did you mean 'adder'"):
        run("eval", table, "--seeds", "1", "--price", "ader=1")


def test_prompts_the_router_was_fitted_on_are_left_out_and_counted(table, tmp_path):
    folder = str(tmp_path / "r")
    run("fit", table, "--out", folder)
    with pytest.raises(InputError, match="fitted on every prompt"):
        run("eval", table, "--router", folder)
    rows = [json.loads(line) for line in Path(table).read_text().splitlines()]
    new = [{**r, "query": r["query"] + " please"} for r in rows[:6]]
    both = write_jsonl(tmp_path / "both.jsonl", rows[:9] + new)
    facts = run("eval", str(both), "--router", folder)
    assert facts["left_out_seen"] == 9 and sum(t["n"] for t in facts["tags"]) == 6


def test_taggers_balance_and_decontamination(table, tmp_path):
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"maths": ["add"], "programs": ["python"]}))
    out = ("--out", str(tmp_path / "r"))
    facts = run("fit", table, *out, "--tagger", f"keywords:{words}", "--balance", "30")
    assert facts["prompts"] == 60
    why = run("route", "add the numbers 7 and 4", "--router", str(tmp_path / "r"))["why"]
    assert set(why) == {"maths", "programs"}
    assert run("fit", table, *out, "--tagger", "clusters:2", "--no-guard")["head"] == "experts"
    test = write_jsonl(tmp_path / "t.jsonl", [{"query": "please add the numbers 5 and 4 now", "scores": {"adder": 1}}])
    assert run("fit", table, *out, "--away-from", str(test))["dropped_overlap"] == 1
    assert run("fit", table, *out, "--method", "always", "--set", "model=coder")["constant"] == "coder"
    with pytest.raises(InputError, match="clusters:16"):
        run("fit", table, *out, "--tagger", "clusters:many")
    with pytest.raises(InputError, match="unknown tagger 'lm'"):
        run("fit", table, *out, "--tagger", "lm:x")
    with pytest.raises(InputError, match="name=value"):
        run("fit", table, *out, "--set", "beta")


def test_money_metrics_by_hand():
    reward = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = money(reward, reward, [0.002, 0.001])
    # hull from (0.001, 1/3) to (0.005/3, 1), over the largest price
    assert found["aiq"] == pytest.approx((0.002 / 3) * (2 / 3) / (0.005 / 3))
    cheap = math.log2(200 / (5 / 3)) / math.log2(200 / 0.0044)
    assert found["arena_score"] == pytest.approx(1.1 * cheap / (0.1 + cheap))
    assert found["apgr"] == pytest.approx((0.5 + 1.5 + 1.5) / 3)  # 0, 1, 2 and 1 times the gap recovered
    assert money(reward, reward, [0.002, float("nan")]) == {}


def test_mean_task_rank_by_hand():
    reward = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = ranks(reward, reward, [("x",), ("y",)], ("a", "b"))
    assert found["mtr"] == {"a": 1.5, "b": 1.5, "router": 1.5}  # the router ties with the best model of each tag
    assert found["uplift"] == {"a": 0.5, "b": 0.5, "router": 1.0} and found["subsets"] == 2
    assert ranks(reward, reward, [(), ()], ("a", "b")) == {}


def test_errors_say_what_is_wrong(table, tmp_path):
    with pytest.raises(ModelError, match="holds no router"):
        run("route", "x", "--router", str(tmp_path / "none"))
    with pytest.raises(InputError, match="unknown encoder"):
        run("fit", table, "--out", str(tmp_path / "r"), "--encoder", "bert")
    with pytest.raises(InputError, match="unknown model 'nobody'"):
        run("fit", table, "--out", str(tmp_path / "r"), "--model", "nobody")
    run("fit", table, "--out", str(tmp_path / "r"), "--no-guard")
    with pytest.raises(InputError, match="model=dollars"):
        run("route", "x", "--router", str(tmp_path / "r"), "--price", "adder")
    for verb in (["route", "x"], ["eval", table]):
        with pytest.raises(InputError, match="was fitted with --encoder ngrams, not minilm"):
            run(*verb, "--router", str(tmp_path / "r"), "--encoder", "minilm")
