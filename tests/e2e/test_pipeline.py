"""The whole job on a tiny LM built in code: every verb, resumed, refused when settings change, plain errors."""

import json
import os
import subprocess
import sys

import pytest

from trimtab.testing import tiny_lm, write_jsonl

REWARD = """
def vowels(completions, weight=None, **columns):
    texts = [c[0]["content"] if isinstance(c, list) else c for c in completions]
    return [sum(ch in "aeiouAEIOU" for ch in t) / 8 if t else None for t in texts]

def constant(completions, **columns):
    return [1.0 for _ in completions]

def too_short(completions, **columns):
    return [1.0]

def raises(completions, **columns):
    raise RuntimeError("no luck")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    tiny_lm(folder / "model")
    write_jsonl(folder / "tasks.jsonl", [{"prompt": f"Say {i} words.", "weight": i} for i in range(14)])
    (folder / "my_rewards.py").write_text(REWARD)
    (folder / "task.toml").write_text(
        f"""
out = "{folder}/run"
[data]
prompts = "tasks.jsonl"
test = 5
[model]
name = "{folder}/model"
engine = "hf"
[sample]
train_n = 6
test_n = 8
temperature = 1.0
max_tokens = 8
[reward]
name = "my_rewards:vowels"
[embed]
layers = [1, 2]
[probe]
losses = ["mse", "pg"]
folds = 3
[eval]
extract = "last_line"
draws = 500
"""
    )
    return folder


def trimtab(folder, *argv, check=True):
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *argv], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def table(folder):
    return json.loads(trimtab(folder, "run", "task.toml", "--json").stdout.splitlines()[-1])


def test_the_table_has_every_row_and_its_nulls(table):
    names = [r["name"] for r in table["rows"]]
    for name in ("pass@1", "greedy", "longest", "mean log-prob", "sum log-prob", "majority vote", "oracle"):
        assert name in names
    assert sum("probe" in n for n in names) >= 3  # two losses and the softmax policy
    by_name = {r["name"]: r for r in table["rows"]}
    oracle, once = by_name["oracle"]["reward"]["mean"], by_name["pass@1"]["reward"]["mean"]
    assert all(r["reward"]["mean"] <= oracle + 1e-9 for r in table["rows"]) and once < oracle
    assert by_name["greedy"]["tokens"] < by_name["oracle"]["tokens"]


def test_a_second_run_resumes_and_says_the_same(folder, table):
    before = {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*.parquet")}
    again = json.loads(trimtab(folder, "run", "task.toml", "--json").stdout.splitlines()[-1])
    assert again["rows"] == table["rows"]
    assert {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*.parquet")} == before


def test_one_json_object_and_nothing_of_other_libraries_on_the_terminal(folder):
    done = trimtab(folder, "sample", "task.toml", "--out", "quiet", "--json")
    assert json.loads(done.stdout)["greedy"] == "5 x 1"
    ours = ("loading ", "sampling ", "trimtab sample")
    assert all(line.startswith(ours) for line in done.stderr.splitlines()), done.stderr


def test_verbs_one_by_one_need_only_the_run_directory(folder, table):
    for verb in (["sample"], ["score"], ["embed"], ["fit", "probe"]):
        facts = json.loads(trimtab(folder, *verb, "--out", "run", "--json").stdout.splitlines()[-1])
        assert facts
    assert "oracle" in trimtab(folder, "eval", "--out", "run").stdout
    report = trimtab(folder, "report", "--out", "run", "--json").stdout.splitlines()[-1]
    assert (folder / json.loads(report)["report"]).stat().st_size > 1_000_000  # plotly is inside


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--set", "sample.temperature=0.5"], "made with other settings:\n  .*temperature"),
        (["--set", "model.engine=vlm"], "unknown engine 'vlm'"),
        (["--set", "reward.name=math_anser"], "unknown reward 'math_anser'; did you mean 'math_answer'"),
        (["--set", "reward.name=my_rewards:vowel"], "vowel"),
        (["--set", "embed.layers=[9]", "--out", "other"], "layer 9 does not exist"),
        (["--set", "probe.losses=['hinge']"], "unknown .*loss 'hinge'"),
        (["--set", "data.prompts=nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(folder, table, argv, message):
    done = trimtab(folder, "run", "task.toml", *argv, check=False)
    said = [x for x in done.stderr.splitlines() if x.startswith("trimtab: ")]
    assert done.returncode == 1 and len(said) == 1 and "Traceback" not in done.stderr
    import re

    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize(
    ("reward", "message"),
    [("constant", "nothing can be learn"), ("too_short", "for 6 completions"), ("raises", "no luck")],
)
def test_broken_rewards_are_unscored_or_refused_and_nothing_is_lost(folder, table, reward, message):
    done = trimtab(folder, "run", "task.toml", "--set", f"reward.name=my_rewards:{reward}", check=False)
    assert message in done.stdout + done.stderr and "Traceback" not in done.stderr
    again = json.loads(trimtab(folder, "run", "task.toml", "--json").stdout.splitlines()[-1])
    assert again["rows"] == table["rows"]
