"""`trimtab pool`: files and flags to a matrix that `trimtab router` reads; mistakes are named."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from trimtab.cli.app import app
from trimtab.data.matrix.files import load_matrix
from trimtab.testing import scripted_server, tiny_lm, write_jsonl


@pytest.fixture
def files(tmp_path):
    write_jsonl(tmp_path / "sums.jsonl", [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(3)])
    write_jsonl(tmp_path / "words.jsonl", [{"prompt": f"Write a {c}.", "tags": ["letters"]} for c in "xyz"])
    for i in range(2):
        tiny_lm(tmp_path / f"lm{i}", seed=i)
    (tmp_path / "pool.toml").write_text(f"""
out = "{tmp_path}/run"
prompts = ["sums.jsonl", "words.jsonl"]
max_tokens = 4
[[models]]
name = "{tmp_path}/lm0"
engine = "hf"
alias = "small"
price_million = 1.0
[[models]]
name = "{tmp_path}/lm1"
engine = "hf"
alias = "base"
template = "Q: {{prompt}} A:"
[[rewards]]
name = "math_answer"
[[rewards]]
tag = "words"
name = "regex"
options = {{pattern = "[a-m]"}}
""")
    return tmp_path


def run(*args):
    return CliRunner().invoke(app, ["pool", *map(str, args)])


def test_a_pool_file_gives_a_matrix_that_the_router_verb_reads(files):
    done = run(files / "pool.toml", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output.splitlines()[-1])
    assert [m["model"] for m in facts["models"]] == ["small", "base"] and facts["prompts"] == 6
    assert facts["models"][0]["price"] > 0 and facts["models"][1]["price"] is None
    matrix = load_matrix(files / "run")
    assert matrix.models == ("small", "base") and set(matrix.tags) == {("sums",), ("letters",)}
    assert (matrix.latency_PM > 0).all() and (matrix.tokens_PM <= 5).all()
    assert run(files / "pool.toml").exit_code == 0  # again: nothing is sampled, the same matrix
    assert (load_matrix(files / "run").reward_PM == matrix.reward_PM).all()
    fitted = CliRunner().invoke(app, ["fit", "router", str(files / "run"), "--out", str(files / "router")])
    assert fitted.exit_code == 0 and "6 prompts x 2 models" in fitted.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[[models]]", "[[modles]]"), "did you mean 'models'"),
        (('engine = "hf"', 'engine = "vllm"'), "unknown engine 'vllm'"),
        (('alias = "base"', 'alias = "small"'), "same name"),
        (('tag = "words"', 'tag = "word"'), "did you mean 'words'"),
        (('name = "math_answer"', 'tag = "words"\nname = "math_answer"'), "same tag"),
        (("{prompt}", "prompt"), "has no {prompt}"),
    ],
)
def test_mistakes_are_named(files, change, said):
    file = files / "pool.toml"
    file.write_text(file.read_text().replace(*change))
    done = run(file)
    assert done.exit_code != 0 and said in str(done.exception)


def test_flags_alone_need_all_three(files):
    done = run("--prompts", files / "sums.jsonl", "--model", f"hf:{files}/lm0")
    assert "--reward" in str(done.exception)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [0, 1])
def test_a_served_pool_is_priced_by_usage_and_one_bad_prompt_is_unscored(tmp_path, batch):
    def answer(number, asked):
        if "0 + 1" in str(asked.body):  # the very first prompt
            return 400, {}, {"error": {"message": "flagged by moderation"}}
        n, more = asked.body.get("n", 1), {"message": {"content": "2"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 40, "completion_tokens": 5 * n} if asked.body["model"] == "counts" else None
        return 200, {}, {"choices": [more] * n, "usage": usage}

    write_jsonl(tmp_path / "sums.jsonl", [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(3)])
    with scripted_server(answer) as (url, seen):
        models = "".join(
            f'[[models]]\nname = "{name}"\nengine = "openai"\nbase_url = "{url}"\nretries = 0\nconcurrency = 2\n'
            "price_million = 2.0\nextra = {min_p = 0.1}\nfields = {seed = false}\n"
            for name in ("counts", "silent")
        )
        (tmp_path / "pool.toml").write_text(
            f'out = "{tmp_path}/run"\nprompts = ["sums.jsonl"]\nn = 2\nbatch = {batch}\n{models}'
            '[[rewards]]\nname = "math_answer"\n'
        )
        done = run(tmp_path / "pool.toml", "--json")
        assert done.exit_code == 0, done.output
        assert {(s.body.get("min_p"), s.body.get("seed")) for s in seen} == {(0.1, None)}
    matrix = load_matrix(tmp_path / "run")
    assert [p.messages[0]["content"] for p in matrix.prompts] == ["What is 1 + 1?", "What is 2 + 1?"]
    assert matrix.reward_PM.tolist() == [[1, 1], [0, 0]]
    assert matrix.tokens_PM[:, 0].tolist() == [5, 5] and np.isnan(matrix.tokens_PM[:, 1]).all()
    assert matrix.price_PM[:, 0].tolist() == [1e-5, 1e-5] and np.isnan(matrix.price_PM[:, 1]).all()
