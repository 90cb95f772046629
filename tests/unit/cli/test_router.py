"""The router's verbs end to end on a planted table."""

import json

import pytest
from typer.testing import CliRunner

from trimtab.cli.router import router
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
