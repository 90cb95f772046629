"""Before anything is run: faults of a task are found at once, named, and nothing is sampled, loaded or written."""

import sys

import pytest
from typer.testing import CliRunner

from trimtab.cli.app import app
from trimtab.cli.config import load_task
from trimtab.cli.plan import STAGES, plan
from trimtab.errors import InputError
from trimtab.jobs import checks
from trimtab.testing import tiny_lm, write_jsonl

REWARDS = """
def needs_colour(completions, colour, **columns):
    return [1.0 for _ in completions]

sys_like = 3

def fine(completions, **columns):
    return [1.0 for _ in completions]

def odd(a, b, c):
    return 1.0

def boom(prompts, n, params):
    raise SystemExit("an engine was asked before the checks were over")
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Writes a task of these lines beside sound prompts and gives what `plan` says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("checked_rewards", None)
    (tmp_path / "checked_rewards.py").write_text(REWARDS)
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": f"q{i}", "answer": str(i)} for i in range(8)])

    def check(*sets, stages=STAGES):
        base = ["data.prompts=p.jsonl", "data.test=3", "model.engine=checked_rewards:boom", "probe.losses=[]",
                "reward.name=checked_rewards:fine"]  # fmt: skip
        return plan(load_task(None, {"out": "run"}, [*base, *sets]), stages)

    yield check
    assert not (tmp_path / "run").exists(), "a check writes nothing"
    sys.modules.pop("checked_rewards", None)


def test_a_sound_task_says_what_it_would_do(task):
    facts = task("sample.train_n=4", "sample.test_n=6")
    assert facts["train_prompts"] == 5 and facts["test_prompts"] == 3 and facts["completions"] == 5 * 4 + 3 * 7
    assert facts["reward"] == "checked_rewards.fine" and facts["engine"] == "checked_rewards:boom"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.prompts=nowhere.jsonl"], "nowhere.jsonl"),
        (["data.test_prompts=p.jsonl"], "8 of 8 prompts of p.jsonl overlap with the training prompts"),
        (["data.test=0.0001"], "8 training and 0 test prompts"),
        (["sample.train_n=0"], "sample.train_n is 0"),
        (["sample.temperature=-1"], "temperature is -1"),
        (["sample.top_p=1.5"], "top_p is 1.5"),
        (["model.engine=opnvino"], "unknown engine 'opnvino'; did you mean 'openvino'"),
        (["model.engine=checked_rewards:bum"], "did you mean 'boom'"),
        (["model.engine=openai"], "base_url"),
        (["model.engine=hf", "model.name=smollm2-135n"], "unknown model 'smollm2-135n'; did you mean 'smollm2-135m'"),
        (["model.engine=hf", "model.name=./no/model"], "no such model file or folder"),
        (["model.engine=hf", "model.name=smollm2-135m", "model.dtype=bf16"], "unknown dtype 'bf16'"),
        (["model.engine=hf", "model.name=smollm2-135m", "model.device=gpu0"], "unknown device 'gpu0'"),
        (["reward.name=math_anser"], "unknown reward 'math_anser'; did you mean 'math_answer'"),
        (["reward.name=checked_rewards:fyne"], "did you mean 'fine'"),
        (["reward.name=checked_rewards:odd"], "has parameters"),
        (["reward.name="], "no reward"),
        (["reward.name=checked_rewards:needs_colour"], "asks for column 'colour', which prompt"),
        (["reward.name=exact_match", "reward.options={column='anser'}"], "column 'anser'; did you mean 'answer'"),
        (["reward.name=exact_match", "reward.options={colum='answer'}"], "refuses its options"),
        (["reward.name=unit_tests"], "no column 'tests'"),
        (["probe.losses=['hinge']", "embed.kind=endpoint", "embed.base_url=http://h/v1", "embed.model=e"],
         "unknown probe loss 'hinge'"),
        (["probe.losses=['mse']", "model.name=gpt-9"], "hidden states, and there is no local model 'gpt-9'"),
        (["probe.losses=['mse']", "embed.kind=hiden_states"], "did you mean 'hidden_states'"),
        (["probe.losses=['mse']", "embed.model=smollm2-135m", "embed.pooling=lst"], "unknown pooling 'lst'"),
        (["probe.losses=['mse']", "embed.model=smollm2-135m", "probe.folds=1"], "probe.folds is 1"),
        (["eval.extract=last_nmber"], "unknown answer extractor 'last_nmber'"),
        (["eval.extract=checked_rewards:no"], "has no .no."),
        (["eval.extract=checked_rewards:sys_like"], "write a function of the text"),
        (["eval.draws=0"], "eval.draws is 0"),
    ],
)  # fmt: skip
def test_each_fault_is_named(task, sets, message):
    with pytest.raises(InputError, match=message):
        task(*sets)


def test_all_faults_are_said_at_once(task):
    with pytest.raises(InputError) as e:
        task("model.engine=nothing", "reward.name=nothing", "eval.extract=nothing")
    assert str(e.value).startswith("3 faults, found before anything was run:\n") and len(str(e.value).splitlines()) == 4


def test_a_model_folder_gives_its_context_and_layers(task, tmp_path):
    model = str(tiny_lm(tmp_path / "lm", layers=3, context=64))
    base = ["model.engine=hf", f"model.name={model}", "probe.losses=['mse']"]
    with pytest.raises(InputError, match="layers 0 to 3; layer 4 does not exist"):
        task(*base, "embed.layers=[1,4]", "sample.max_tokens=8")
    with pytest.raises(InputError, match="max_tokens is 64, but .* has a context of 64"):
        task(*base, "embed.layers=[1]", "sample.max_tokens=64")
    assert task(*base, "embed.layers=[1]", "sample.max_tokens=8")["probes"] == ["mse"]
    rows = [{"prompt": f"{i} " + "long " * (30 if i == 5 else 1), "answer": i} for i in range(8)]
    write_jsonl(tmp_path / "p.jsonl", rows)
    with pytest.raises(InputError, match="1 of 8 prompts do not fit"):
        task(*base, "embed.layers=[1]", "sample.max_tokens=8")


@pytest.mark.parametrize(
    ("missing", "sets", "extra"),
    [
        ("plotly", [], "report"),
        ("openvino_genai", ["model.engine=openvino", "model.name=smollm2-135m"], "openvino"),
        ("torch", ["model.engine=hf", "model.name=smollm2-135m"], "torch"),
        ("sentence_transformers", ["probe.losses=['mse']", "embed.kind=encoder"], "encoders"),
    ],
)
def test_a_missing_package_names_its_extra(task, monkeypatch, missing, sets, extra):
    installed = checks.find_spec
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == missing else installed(name))
    with pytest.raises(InputError, match=rf"pip install 'trimtab\[{extra}\]'"):
        task(*sets)


def test_where_the_run_would_be_written(task, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give another --out"):
        checks.writable("file/run")
    checks.writable("new/run")


def test_plan_prints_and_stops(tmp_path, task):
    (tmp_path / "t.toml").write_text(
        'out = "run"\n[data]\nprompts = "p.jsonl"\ntest = 3\n[model]\nengine = "checked_rewards:boom"\nname = ""\n'
        '[reward]\nname = "checked_rewards:fine"\n[probe]\nlosses = []\n'
    )
    result = CliRunner().invoke(app, ["run", "t.toml", "--plan"], catch_exceptions=False)
    assert result.exit_code == 0 and "train prompts 5" in result.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss", "dppo"], "unknown loss 'dppo'; did you mean 'dpo'"),
        (["--loss-set", "gama=1"], "unknown setting of the loss dpo 'gama'"),
        (["--loss", "fpo"], "fpo needs a feature leash"),
        (["--dtype", "half"], "unknown dtype 'half'"),
        (["--overlong", "cut"], "unknown value of --overlong 'cut'"),
        (["--epochs", "0"], "epochs is 0"),
        (["--reference", "smollm3-135m"], "unknown model 'smollm3-135m'"),
    ],
)
def test_plan_of_a_training_refuses_what_the_training_would(tmp_path, flags, message):
    pairs = write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    words = ["train", str(pairs), "--model", "smollm2-135m", "--out", str(tmp_path / "r"), "--plan", *flags]
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_packages_own_error_becomes_the_extra(monkeypatch):
    from trimtab.cli import _outside

    assert "trimtab[sae]" in str(_outside(ModuleNotFoundError("no", name="sae_lens.training")))
    assert _outside(ModuleNotFoundError("no", name="json5")) is None
    assert "check the path" in str(_outside(PermissionError(13, "Permission denied", "/x/y")))
