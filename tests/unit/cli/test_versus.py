import json

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from trimtab.cli.app import app
from trimtab.errors import InputError
from trimtab.lm.load import load_lm
from trimtab.store import Store
from trimtab.testing import tiny_lm, write_jsonl


def invoke(*words: object, code: int = 0) -> dict:
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("versus")
    base = tiny_lm(root / "base", layers=1)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(root / "adapter")
    write_jsonl(root / "prompts.jsonl", [{"prompt": f"{i} + 1 =", "answer": str(i + 1)} for i in range(4)])
    return root


def test_models_are_sampled_on_the_same_prompts_and_a_second_call_samples_nothing(home, monkeypatch):
    words = ("versus", home / "base", home / "adapter", "--prompts", home / "prompts.jsonl", "--reward", "exact_match",
             "--out", home / "out", "--n", 2, "--max-tokens", 4)  # fmt: skip
    found = invoke(*words)
    first, second = found["rows"]
    assert (first["n"], first["difference"], found["settings"]) == (4, None, [])
    assert second["more"]["models"] == load_lm(str(home / "adapter")).id and second["difference"]["n"] == 4
    monkeypatch.setattr("trimtab.samplers.hf.resident", None)  # nothing is sampled again
    assert invoke(*words) == found
    stored = sorted(p for p in (home / "out").iterdir() if (p / "manifest.json").is_file())
    assert [len(Store(p).groups("test", None)) for p in stored] == [4, 4]
    runs = invoke("versus", *stored)  # what they left is compared as runs, by the reward that they hold
    assert sorted(s["reward"]["mean"] for s in runs["rows"]) == sorted(s["reward"]["mean"] for s in found["rows"])


def test_other_sampling_settings_are_said(home):
    words = ("--prompts", home / "prompts.jsonl", "--reward", "exact_match", "--n", 1)
    invoke("versus", home / "base", home / "adapter", *words, "--max-tokens", 3, "--out", home / "short")
    (short, *_), found = sorted((home / "short").iterdir()), invoke(
        "versus", home / "adapter", sorted((home / "short").iterdir())[0], *words, "--max-tokens", 2, "--out",
        home / "shorter",
    )  # fmt: skip
    assert found["settings"] == [f"{short} was sampled otherwise than {home / 'adapter'}: max_tokens 3, not 2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("base",), "two or more"),
        (("base", "base"), "two or more different"),
        (("base", "adapter"), "give --out"),
        (("base", "adapter", "--out", "o", "--reward", "exact_match"), "give --prompts"),
    ],
)
def test_what_is_missing_is_named(home, monkeypatch, words, message):
    monkeypatch.chdir(home)
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, ["versus", *words], catch_exceptions=False)
