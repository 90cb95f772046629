import json

import pytest
import typer
from typer.testing import CliRunner

from trimtab.cli.credit import credit
from trimtab.cli.train import train
from trimtab.errors import InputError
from trimtab.store import Store
from trimtab.testing import prompt, tiny_lm, write_jsonl
from trimtab.types import Completion, Group, SamplingParams

app = typer.Typer()
app.command()(train)
app.command()(credit)

ROWS = [{"prompt": f"q{i} ", "chosen": f"a{i}a", "rejected": f"h{i}h"} for i in range(8)]


@pytest.fixture(scope="module")
def lm(tmp_path_factory) -> str:
    return str(tiny_lm(tmp_path_factory.mktemp("cli") / "lm"))


def invoke(*words: object) -> dict:
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_train_then_credit(tmp_path, lm):
    bad = [{"prompt": "q", "chosen": "same", "rejected": "same"}]
    pairs = write_jsonl(tmp_path / "pairs.jsonl", ROWS + bad)
    options = ["--model", lm, "--out", tmp_path / "run", "--lora-rank", 4, "--lr", 0.01, "--epochs", 3, "--beta", 0.2]
    facts = invoke("train", pairs, *options, "--batch-size", 4, "--dtype", "float32")
    assert facts["given"] == 9 and facts["kept"] == 8 and facts["lint"] == {"identical": 1}
    assert (tmp_path / "run" / "adapter_config.json").is_file() and facts["last"]["step"] == 6
    shown = invoke("credit", tmp_path / "run", pairs, "--out", tmp_path / "c.html", "--limit", 8)
    assert shown["pairs"] == 8 and shown["beta"] == 0.2 and shown["chosen_above_rejected"] >= 6
    assert "implicit reward" in (tmp_path / "c.html").read_text()


def test_plan_stops_before_training(tmp_path, lm):
    pairs = write_jsonl(tmp_path / "pairs.jsonl", ROWS)
    facts = invoke("train", pairs, "--model", lm, "--out", tmp_path / "run", "--plan")
    assert not (tmp_path / "run").exists() and facts["plan_bytes"] > 4 * 4 * facts["trained_parameters"]


def test_pairs_and_successes_from_a_run_directory(tmp_path, lm):
    store = Store(tmp_path / "store")
    groups = [
        Group(prompt(f"q{i}"), tuple(Completion(t, "m", j, j) for j, t in enumerate(("yes", "no", "maybe"))))
        for i in range(4)
    ]
    store.add_prompts([g.prompt for g in groups], "train")
    with store.writer("completions/train", {"params": SamplingParams()}) as w:
        w.append_groups(groups)
    with store.writer("rewards/train/exact", {}) as w:
        for g, ids in zip(groups, store.sample_ids("train", groups), strict=True):
            w.append(
                {"id": i, "prompt_id": g.prompt.id, "value": v, "note": ""}
                for i, v in zip(ids, (1.0, 0.0, 0.0), strict=True)
            )
    common = [tmp_path / "store", "--model", lm, "--reward", "exact", "--batch-size", 2]
    assert invoke("train", *common, "--out", tmp_path / "dpo")["kept"] == 4
    assert invoke("train", *common, "--out", tmp_path / "sft", "--loss", "sft")["last"]["step"] == 2  # 4 successes
    only = [tmp_path / "store", "--model", lm, "--out", tmp_path / "x", "--plan"]
    assert invoke("train", *only)["kept"] == 4  # the only reward and the only completions need no name
    shown = invoke("credit", tmp_path / "dpo", tmp_path / "store", "--out", tmp_path / "c.html")
    assert shown["pairs"] == 4
    with pytest.raises(InputError, match="unknown reward 'exakt'; did you mean 'exact'"):
        invoke("train", *only, "--reward", "exakt")
    with pytest.raises(InputError, match="unknown completions 'tarin'; did you mean 'train'"):
        invoke("train", *only, "--split", "tarin")


def test_bad_settings_are_named(tmp_path, lm):
    pairs = write_jsonl(tmp_path / "pairs.jsonl", ROWS)
    with pytest.raises(InputError, match="write name=number"):
        invoke("train", pairs, "--model", lm, "--out", tmp_path / "r", "--loss-set", "gamma")
    with pytest.raises(InputError, match="did you mean 'simpo'"):
        invoke("train", pairs, "--model", lm, "--out", tmp_path / "r", "--loss", "sinpo")
