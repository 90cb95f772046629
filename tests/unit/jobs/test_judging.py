"""Reward models and judges through their verbs, on a tiny model and a scripted server."""

import json

import pytest
import typer
from typer.testing import CliRunner

from trimtab.cli.reward import reward
from trimtab.errors import InputError
from trimtab.testing import scripted_server, tiny_lm, write_jsonl

app = typer.Typer()
app.add_typer(reward, name="reward")

ROWS = [{"prompt": f"q{i}", "chosen": "yes " * (i % 3 + 1), "rejected": "no " * (i % 4 + 1)} for i in range(12)]


def invoke(*words: object) -> dict:
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("reward")
    lm = tiny_lm(folder / "lm", layers=2)
    pairs = write_jsonl(folder / "pairs.jsonl", ROWS)
    facts = invoke(
        "reward", "train", pairs, "--model", lm, "--out", folder / "rm", "--lr", 0.003, "--epochs", 12,
        "--batch-size", 6, "--dtype", "float32", "--chat",
    )  # fmt: skip
    assert facts["examples"] == {"given": 12, "dropped": 0} and facts["last"]["rewards/accuracies"] == 1
    return str(folder / "rm"), str(pairs)


def test_report_stands_beside_its_nulls(trained):
    rm, pairs = trained
    rows = {
        r["name"]: r for r in invoke("reward", "report", pairs, "--model", rm, "--dtype", "float32", "--chat")["rows"]
    }
    assert rows["reward model"]["accuracy"][0] == 1 and {"longest", "shortest", "random"} <= rows.keys()


def test_check_finds_the_backends_agree_and_bfloat16_close(trained):
    rm, pairs = trained
    facts = invoke("reward", "check", pairs, "--model", rm, "--chat")
    rows = {r["backend"]: r for r in facts["rows"]}
    assert facts["against"] == "float32" and facts["notes"] == []
    assert rows["one-by-one"]["largest"] < 1e-4 and rows["transformers"]["largest"] < 1e-4
    assert 0 < rows["bfloat16"]["largest"] < rows["bfloat16"]["spread"] and rows["bfloat16"]["pairs"] == 12


def test_check_says_when_the_padding_token_ends_texts(trained, tmp_path):
    import shutil

    rm, pairs = trained
    shutil.copytree(rm, tmp_path / "rm")
    config = json.loads((tmp_path / "rm" / "config.json").read_text())
    (tmp_path / "rm" / "config.json").write_text(json.dumps(config | {"pad_token_id": config["eos_token_id"]}))
    notes = invoke("reward", "check", pairs, "--model", tmp_path / "rm", "--chat", "--backend", "one-by-one")["notes"]
    assert len(notes) == 1 and notes[0].startswith("24 of 24 texts end with the padding token")


def test_bench(trained, tmp_path):
    rows = [{"prompt": f"q{i}", "chosen": ["yes "], "rejected": ["no "] * 3, "subset": "s"} for i in range(4)]
    file = write_jsonl(tmp_path / "rb.jsonl", rows)
    scores = invoke("reward", "bench", file, "--model", trained[0], "--dtype", "float32")["scores"]
    assert next(s for s in scores if s["ranking"] == "reward model")["score"][0] == 1


def judge(say):
    """A server that answers with what `say` makes of the question."""

    def answer(number, asked):
        message = {"role": "assistant", "content": say(asked.body["messages"][0]["content"])}
        usage = {"prompt_tokens": 50, "completion_tokens": 3}
        return 200, {}, {"model": "j", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    return scripted_server(answer)


def test_judge_of_files(tmp_path, monkeypatch):
    for name, text in (("ours", "good one"), ("theirs", "bad")):
        rows = [{"instruction": f"q{i}", "output": text, "generator": name} for i in range(6)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    files = [tmp_path / "ours.json", tmp_path / "theirs.json"]
    monkeypatch.setenv("JUDGE_KEY", "sesame\n")
    (tmp_path / "judge.toml").write_text(
        '[model]\nname = "j"\nengine = "openai"\napi_key_env = "JUDGE_KEY"\nextra = {min_p = 0.1}\n'
        'fields = {max_tokens = "max_completion_tokens", temperature = false}\n'
    )
    with judge(lambda text: "[[A]]" if "<answer_a>\ngood" in text else "[[B]]") as (url, seen):
        facts = invoke("reward", "judge", *files, "--base-url", url, "--judge-model", "j")
        assert {s.body["model"] for s in seen} == {"j"} and {s.body["temperature"] for s in seen} == {0.0}
        again = invoke("reward", "judge", *files, "-c", tmp_path / "judge.toml", "--set", f"model.base_url={url}")
        asked = seen[-1]
    assert again == facts and asked.headers["Authorization"] == "Bearer sesame"
    assert {"min_p", "max_completion_tokens"} < asked.body.keys() and not {
        "temperature",
        "max_tokens",
    } & asked.body.keys()
    assert facts["win_rates"]["win_rate"][0] == 1 and facts["summary"]["position_bias"] == 0
    assert facts["summary"]["calls"] == 12 and facts["win_rates"]["mean_length_difference"] == 5
    assert facts["summary"]["tokens"] == 36  # three a call, by the server's count


def test_judge_rates_both_turns_and_named_skills(tmp_path):
    def say(text):
        if "Skills:" in text:
            return "logic: 4\nwit: 2" if "ours" in text else "no idea"
        return "[[9]]" if "second" in text else "[[5]]"

    questions = [{"question_id": i, "category": "writing", "turns": [f"first {i}", "second"]} for i in range(4)]
    answers = [{"question_id": i, "model_id": "m", "choices": [{"index": 0, "turns": ["a", "b"]}]} for i in range(4)]
    files = [write_jsonl(tmp_path / f"{n}.jsonl", r) for n, r in (("q", questions), ("a", answers))]
    with judge(say) as (url, _):
        facts = invoke("reward", "judge", files[1], "--questions", files[0], "--base-url", url)
    assert facts["rating"][0] == 7 and facts["unread"] == 0
    assert [facts["turns"][f"turn {t}"][0] for t in (1, 2)] == [5, 9]

    flask = [{"instruction": f"q{i}", "output": o, "skills": ["logic", "wit"]} for i, o in enumerate(("ours", "x"))]
    (tmp_path / "flask.json").write_text(json.dumps(flask))
    with judge(say) as (url, _):
        facts = invoke("reward", "judge", tmp_path / "flask.json", "--skills", "--base-url", url)
    assert facts["rating"][0] == 3 and facts["unread"] == 1
    assert {k: v[0] for k, v in facts["skills"].items()} == {"logic": 4, "wit": 2}
    with pytest.raises(InputError, match="leave the baseline out"):
        invoke("reward", "judge", tmp_path / "flask.json", tmp_path / "flask.json", "--skills")
