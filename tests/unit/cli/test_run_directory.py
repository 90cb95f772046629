"""A run without a model (own sampler, no probes); then its directory alone: elsewhere, moved, its file gone."""

import json
import shutil
import sys

import pytest
from typer.testing import CliRunner

from trimtab.cli.app import app
from trimtab.errors import InputError, TrimtabError
from trimtab.store import Store
from trimtab.testing import write_jsonl

pytestmark = pytest.mark.slow  # all together: `make quick` leaves them out

MODULE = """
from trimtab.testing import FakeSampler

def answer(p, rng):
    return f"It is {rng.choice(['blue', 'red', 'green'])}"

colours = FakeSampler(answer, model="colours@1")

def is_blue(completions, answer, **columns):
    return [float(gold in c[0]["content"]) for c, gold in zip(completions, answer)]

def words(completions, **columns):
    return [len(c[0]["content"]) / 10 for c in completions]
"""
TASK = """
out = "run"
[data]
prompts = "sky.jsonl"
test = 4
[model]
engine = "paint:colours"
name = ""
[sample]
train_n = 4
test_n = 6
[reward]
name = "paint:is_blue"
[probe]
losses = []
[eval]
draws = 200
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "paint.py").write_text(MODULE)
    (folder / "task.toml").write_text(TASK)
    write_jsonl(folder / "sky.jsonl", [{"prompt": f"Colour {i}?", "answer": "blue"} for i in range(12)])
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("paint", None)
    yield folder
    sys.modules.pop("paint", None)


def run(*words):
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # one object and nothing else


def names(table):
    return [r["name"] for r in table["rows"]]


def test_the_main_job_without_probes(folder):
    table = run("run", "task.toml")
    assert {"pass@1", "greedy", "longest", "majority vote", "oracle"} <= set(names(table))
    assert not any("probe" in n for n in names(table)) and (folder / "run/report.html").stat().st_size > 1e6
    assert not Store("run").tables("embeddings") and not (folder / "run/probes").exists()
    assert run("run", "task.toml")["rows"] == table["rows"] == run("run", "run")["rows"]


@pytest.mark.parametrize("how", [["RUN"], ["--out", "RUN"]])
def test_the_directory_stands_alone_when_it_moved_and_the_file_is_gone(folder, tmp_path, monkeypatch, how):
    before = run("run", "task.toml")
    home = tmp_path / "elsewhere"
    home.mkdir()
    shutil.move(folder / "run", home / "kept")
    shutil.rmtree(folder)  # prompts, task file and the module of sampler and reward
    sys.modules.pop("paint", None)
    monkeypatch.chdir(tmp_path)
    words = [w.replace("RUN", "elsewhere/kept") for w in how]
    assert run("eval", *words)["rows"] == before["rows"]
    assert run("report", *words)["report"] == "elsewhere/kept/report.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere"], "nothing is written beside the run"


def test_an_edited_file_of_prompts_does_not_reach_a_run_that_was_begun(folder, tmp_path):
    before = run("run", "task.toml")
    write_jsonl(folder / "sky.jsonl", [{"prompt": f"Other {i}?", "answer": "red"} for i in range(12)])
    assert run("eval", "--out", "run")["rows"] == before["rows"]
    with pytest.raises(TrimtabError, match="made with other settings|already stored"):
        run("run", "task.toml")


def test_own_functions_are_found_beside_the_task_file(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(folder))])
    facts = run("sample", "project/task.toml", "--out", "far")
    assert facts["model"] == "colours@1"
    assert run("score", "far")["reward"] == "paint.is_blue"
    assert set(names(run("eval", "far"))) >= {"greedy", "oracle"}


def test_eval_before_probes_says_so_and_asks_for_none(folder):
    run("sample", "task.toml")
    run("score", "run")
    table = run("eval", "run", "--set", "probe.losses=['mse']")
    assert any("probe mse is left out: none has been fitted" in n for n in table["notes"])
    with pytest.raises(InputError, match="holds no probe; run `trimtab fit probe --loss mse`"):
        run("eval", "run", "--loss", "mse")


def test_of_several_rewards_the_tasks_own_is_taken_and_train_asks(folder):
    run("run", "task.toml")
    run("score", "run", "--reward", "paint:words")
    assert Store("run").names("rewards", "test") == ["paint.is_blue", "paint.words"]
    with pytest.raises(InputError, match=r"several rewards \(paint.is_blue, paint.words\); name one"):
        run("train", "run", "--model", "smollm2-135m", "--out", "p", "--plan")


def test_what_is_only_looked_at_changes_no_setting(folder):
    before = run("run", "task.toml")
    kept = (folder / "run/task.json").read_text()
    silent = run("eval", "run", "--set", "eval.extract=last_number", "--set", "eval.draws=50")
    assert any("found no answer in any of 24 completions" in n for n in silent["notes"])
    assert (folder / "run/task.json").read_text() == kept and run("eval", "run")["rows"] == before["rows"]


def test_a_run_made_by_hand_needs_no_task(folder):
    run("run", "task.toml")
    (folder / "run/task.json").unlink()
    table = run("eval", "run", "--set", "probe.losses=[]")
    assert {"greedy", "oracle", "majority vote"} <= set(names(table))


def test_not_scored_is_said(folder):
    (folder / "paint.py").write_text(
        MODULE + "\ndef never(completions, **columns):\n    return [None] * len(completions)\n"
    )
    run("sample", "task.toml")
    run("score", "run", "--reward", "paint:never")
    with pytest.raises(InputError, match=r"not one completion has a reward \(most often: the reward returned None\)"):
        run("eval", "run")
