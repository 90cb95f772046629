import json

import pytest

from trimtab.data.chat_evals import against, load_answers
from trimtab.errors import InputError
from trimtab.testing import write_jsonl

ALPACA = [
    {"instruction": "Say hi.", "output": "Hi!", "generator": "m1", "dataset": "koala"},
    {"instruction": "Why?", "output": "Because.", "generator": "m1", "skills": ["logic", "wit"]},
]
QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["First?", "Second?"], "reference": ["one", ""]},
    {"question_id": 82, "category": "maths", "turns": ["Only?"]},
]
ANSWERS = [
    {"question_id": 82, "model_id": "m", "choices": [{"index": 0, "turns": ["c"]}]},
    {"question_id": 81, "model_id": "m", "choices": [{"index": 0, "turns": ["a", {"content": "b"}]}]},
]


def test_alpacaeval(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ALPACA))
    hi, why = load_answers(tmp_path / "a.json")
    assert (
        hi.completions[0].text == "Hi!" and hi.completions[0].model == "m1" and hi.prompt.target == {"dataset": "koala"}
    )
    assert why.prompt.columns["skills"] == ["logic", "wit"]
    with pytest.raises(InputError, match=r"row 1: no text field 'instruction'"):
        (tmp_path / "b.json").write_text(json.dumps(QUESTIONS))
        load_answers(tmp_path / "b.json")


def test_mt_bench_both_turns(tmp_path):
    q, a = write_jsonl(tmp_path / "q.jsonl", QUESTIONS), write_jsonl(tmp_path / "a.jsonl", ANSWERS)
    only, first, second = load_answers(a, q)
    assert [g.prompt.id for g in (only, first, second)] == ["82:1", "81:1", "81:2"]
    assert [m["content"] for m in second.prompt.messages] == ["First?", "a", "Second?"]
    assert second.completions[0].text == "b" and first.prompt.target["reference"] == "one"
    assert "reference" not in second.prompt.target


def test_arena_hard_v2_and_questions_with_a_prompt(tmp_path):
    q = write_jsonl(tmp_path / "q.jsonl", [{"uid": "u1", "prompt": "Go", "category": "hard", "cluster": "x"}])
    row = {
        "uid": "u1",
        "model": "m",
        "messages": [{"role": "user", "content": "Go"}, {"role": "assistant", "content": {"answer": "Done"}}],
    }
    (g,) = load_answers(write_jsonl(tmp_path / "a.jsonl", [row]), q)
    assert g.completions[0].text == "Done" and g.prompt.target == {"category": "hard", "cluster": "x"}


def test_against_a_baseline_and_what_is_missing(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ALPACA))
    (tmp_path / "b.json").write_text(json.dumps([{**r, "output": "other", "generator": "m2"} for r in ALPACA]))
    mine, theirs = load_answers(tmp_path / "a.json"), load_answers(tmp_path / "b.json")
    assert [[c.text for c in g.completions] for g in against(mine, theirs)] == [["Hi!", "other"], ["Because.", "other"]]
    with pytest.raises(InputError, match="no answer to 1 of 2"):
        against(mine, theirs[:1])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"question_id": 99, "choices": [{"turns": ["x"]}]}, "question '99' is not in"),
        ({"question_id": 82, "choices": [{"turns": ["x", "y"]}]}, "2 answers to the 1 turns"),
        ({"question_id": 82, "text": "x"}, "'choices' or 'messages'"),
        ({"choices": []}, "no field 'question_id' or 'uid'"),
        ({"question_id": 82, "choices": [{"turns": [3]}]}, "must be a text"),
    ],
)
def test_bad_rows_are_named(tmp_path, answer, says):
    q, a = write_jsonl(tmp_path / "q.jsonl", QUESTIONS), write_jsonl(tmp_path / "a.jsonl", [answer])
    with pytest.raises(InputError, match=says):
        load_answers(a, q)
