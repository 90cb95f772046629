"""The router's verbs end to end on a planted table."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from trimtab.cli.router import _money, router
from trimtab.errors import InputError, ModelError
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
    result = CliRunner().invoke(router, [*args, "--json"])
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
    assert rows["router"]["reward"][0] == 1 and rows["random"]["reward"][0] == 0.5
    assert {r["tag"] for r in run("eval", table, "--router", folder)["tags"]} == {"sums", "code"}


def test_report_prices_and_money_metrics(table, tmp_path):
    page = tmp_path / "r.html"
    facts = run("eval", table, "--seeds", "2", "--price", "adder=0.02", "--price", "coder=0.01", "--html", str(page))
    assert facts["html"] == str(page) and "best single" in page.read_text()
    assert {"aiq", "arena_score", "apgr", "cpt"} <= set(facts)
    with pytest.raises(InputError, match="did you mean 'adder'"):
        run("eval", table, "--seeds", "1", "--price", "ader=1")


def test_money_metrics_by_hand():
    reward = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = _money(reward, reward, [0.002, 0.001])
    # hull from (0.001, 1/3) to (0.005/3, 1), over the largest price
    assert found["aiq"] == pytest.approx((0.002 / 3) * (2 / 3) / (0.005 / 3))
    cheap = math.log2(200 / (5 / 3)) / math.log2(200 / 0.0044)
    assert found["arena_score"] == pytest.approx(1.1 * cheap / (0.1 + cheap))
    assert found["apgr"] == pytest.approx((0.5 + 1.5 + 1.5) / 3)  # 0, 1, 2 and 1 times the gap recovered
    assert _money(reward, reward, [0.002, float("nan")]) == {}


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
