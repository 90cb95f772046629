"""The tables that people have: wide, long, of spreadsheets. A cell is a number, missing, or an error with its line."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.data.cells import as_number, number
from trimtab.data.matrix.files import from_long, from_wide, load_matrix
from trimtab.data.matrix.matrix import from_cells
from trimtab.errors import InputError
from trimtab.testing import write_jsonl
from trimtab.types import user_text

MIXTRAL, GPT4 = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
ROUTELLM = f"""prompt,{MIXTRAL},{GPT4},{MIXTRAL}_response,{GPT4}_response
"Two and three?
A sum.",True,False,5,"four, I think"
Seven primes?,False,True,no,yes
"""


def written(tmp_path, text, name="t.csv", encoding="utf-8"):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return tmp_path / name


def test_routellm_s_table_is_read_as_it_is(tmp_path):
    m = load_matrix(written(tmp_path, ROUTELLM))
    assert m.models == ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")
    assert m.reward_PM.tolist() == [[1, 0], [0, 1]] and m.text_PM == (("5", "four, I think"), ("no", "yes"))
    assert user_text(m.prompts[0]) == "Two and three?\nA sum." and m.prompts[0].target is None
    assert m.note.startswith("models are mistralai/Mixtral-8x7B-Instruct-v0.1, gpt-4-1106-preview")


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("question,a,b,topic,a_cost,b cost,answer", "q1,1,0,t,$0.5,0.25,7\nq2,,0.5,u,,,8"),
        (",prompt,a,b,task,cost_a,total_cost_b,answer", "0,q1,1,0,t,0.5,0.25,7\n1,q2,NaN,0.5,u,n/a,,8"),
        ("id;query;a;b;category;a|total_cost;b|total_cost;answer", "x;q1;1,0;0;t;0,5;0,25;7\ny;q2;;0,5;u;;;8"),
        ("prompt,a_score,b_score,dataset,a_price,b_price,answer", "q1,1.0,0e0,t,.5,$ 0.25,7\nq2,null,0.5,u,,,8"),
    ],
)
def test_wide_tables_of_many_dresses_are_one_matrix(tmp_path, header, rows):
    m = load_matrix(written(tmp_path, f"{header}\n{rows}\n"))
    assert m.models == ("a", "b") and [user_text(p) for p in m.prompts] == ["q1", "q2"]
    np.testing.assert_array_equal(m.reward_PM, [[1, 0], [np.nan, 0.5]])
    np.testing.assert_array_equal(m.price_PM, [[0.5, 0.25], [np.nan, np.nan]])
    tags = "topic" not in header
    assert m.tags == ((("t",), ("u",)) if tags else ((), ()))
    assert m.prompts[1].target == ({"answer": "8"} if tags else {"topic": "u", "answer": "8"})


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_wide_rows_of_json_and_parquet(tmp_path, kind):
    rows = [
        {"prompt": "q1", "a": True, "b": 0.25, "level": 3},
        {"prompt": "q2", "a": False, "b": float("nan"), "level": 4},
    ]
    file = tmp_path / f"t.{kind}"
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(r) + "\n" for r in rows))
    m = load_matrix(file)
    np.testing.assert_array_equal(m.reward_PM, [[1, 0.25], [0, np.nan]])
    assert m.models == ("a", "b") and m.prompts[0].target == {"level": 3}


def test_long_tables_under_other_names(tmp_path):
    text = "question,model_name,score,task,cost,response,difficulty\n"
    text += "q,a,true,t,$0.1,yes,1\nq,b,false,t,0.2,no,1\nr,a,,u,,,2\n"
    m = load_matrix(written(tmp_path, text))
    np.testing.assert_array_equal(m.reward_PM, [[1, 0], [np.nan, np.nan]])
    assert m.tags == (("t",), ("u",)) and m.price_PM[0].tolist() == [0.1, 0.2] and m.text_PM[0] == ("yes", "no")
    assert m.prompts[0].target == {"difficulty": "1"} and "prompt is 'question'" in m.note
    assert from_long([{"input": "q", "llm": "a", "accuracy": 0.5, "subject": 3}]).tags == (("3",),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt,a,b\nq,1,0\nr,oops,1\ns,1,1\n", r"t.csv:3: a: field 'reward' must be a number or null, got str 'o"),
        ("prompt,a,a_cost\nq,1,€0.5\n", r"t.csv:2: a: field 'price' must be a number"),
        ('prompt,a,a_cost\nq,1,"1,234"\n', r"t.csv:2: a: field 'price' .* is it 1234 or 1.234\?"),
        ("prompt,a\nq,inf\n", r"t.csv:2: a: field 'reward' is infinite"),
        ("prompt,a\n,1\n", r"t.csv:2: a: field 'prompt' must be a text that is not empty"),
        ("id,prompt,a\n1,q,1\n1,r,1\n", r"t.csv:3: a: prompt_id '1' was used before for another prompt"),
        ("prompt,a,b,votes\nq,1,0,17\nr,0,1,3\n", "'votes' are not between 0 and 1"),
        ("prompt,topic\nq,x\n", "no column of numbers"),
        ("prompt,score\nq,1\n", "no column of numbers"),
        ("a,b\n1,0\n", "cannot tell which format"),
    ],
)
def test_what_is_no_number_is_an_error_with_its_line(tmp_path, text, says):
    file = written(tmp_path, text)
    with pytest.raises(InputError, match=says) as e:
        load_matrix(file)
    assert str(file) in str(e.value) and str(e.value).count(str(file)) == 1


def test_models_can_be_named(tmp_path):
    file = written(tmp_path, "prompt,a,b,votes\nq,1,0,17\nr,0,1,3\n")
    m = load_matrix(file, format="wide", models=["b", "a"])
    assert m.models == ("b", "a") and m.prompts[0].target == {"votes": "17"}
    with pytest.raises(InputError, match="unknown column of a model 'c'"):
        load_matrix(file, format="wide", models=["c"])
    with pytest.raises(InputError, match="wide: no rows"):
        from_wide([])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0", 1), (" 0 ", 0), ("TRUE", 1), ("False", 0), ("0,5", 0.5), ("0,125", 0.125), ("12,5", 12.5),
        ("1,234.5", 1234.5),
        ("1,234,567", 1234567), ("1.234,5", 1234.5), ("-.5", -0.5), ("1e-3", 0.001), (3, 3), (True, 1),
        (np.float32(0.5), 0.5),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(text, value):
    assert number("here", "reward", text) == value == as_number(text)


@pytest.mark.parametrize("text", ["", " ", "NaN", "n/a", "#N/A", "None", "<NA>", None, float("nan")])
def test_missing_is_nan(text):
    assert np.isnan([number("here", "reward", text), as_number(text)]).all()


@pytest.mark.parametrize(
    "text", ["1,234", "85%", "yes", "-", "1_000", "0x10", "$1", "1 2", "٣", [1], {}, 10**400, "inf"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match="here: field 'reward'"):
        number("here", "reward", text)


def test_dollars_are_prices_only():
    assert number("here", "price", "$0.002") == 0.002 == number("here", "price", "US$ 0.002")
    assert number("here", "price", "-$1,5") == -1.5
    for value in (True, "true", "0.5€"):
        with pytest.raises(InputError, match="'price'"):
            number("here", "price", value)


def test_an_id_of_zero_is_an_id_and_unread_columns_are_said(tmp_path):
    rows = [{"prompt": "q", "prompt_id": 0, "model": "a", "reward": 1, "judge": "x"}]
    m = load_matrix(write_jsonl(tmp_path / "t.jsonl", rows))
    assert m.prompts[0].id == "0" and m.note == "columns not read: judge"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"query": "q", "scores": [1]}, "t.jsonl:1: field 'model'"),
        ({"query": "q", "model_name": "a", "performance": "good"}, "t.jsonl:1: field 'reward' must be"),
        ({"instruction": "i", "models": [1]}, "t.jsonl:1: not a row of alpacaeval"),
        ({"instruction": "i", "models": {"a": {"w": "x"}}}, "t.jsonl:1: not a row of alpacaeval .*'reward'"),
        ({"question": "q", "models": {"a": 1}}, "t.jsonl:1: not a row of zeroeval"),
    ],
)
def test_odd_rows_of_published_tables_are_named(tmp_path, row, says):
    with pytest.raises(InputError, match=says):
        load_matrix(write_jsonl(tmp_path / "t.jsonl", [row]))


WHOLE = st.integers()
NESTED = st.lists(WHOLE, max_size=2) | st.dictionaries(st.sampled_from(["a", "w", "ok"]), WHOLE, max_size=2)
CELL = st.none() | st.booleans() | st.floats() | st.text(max_size=4) | NESTED
NAME = st.sampled_from(
    ["prompt", "question", "query", "instruction", "model", "models", "reward", "score", "scores", "a", "a_cost",
     "a|total_cost", "a_response", "b", "tags", "id", "performance", "preference", "", "cost_"]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(NAME, CELL, min_size=1), min_size=1, max_size=3))
def test_any_table_is_read_or_refused(tmp_path, rows):
    (tmp_path / "any.jsonl").write_text("".join(json.dumps({"prompt": "q", **r}) + "\n" for r in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_matrix(tmp_path / "any.jsonl")
        except InputError as e:
            assert "any.jsonl" in str(e)


def test_common_prompts():
    cells = [("p", "x", 1), ("p", "y", 0), ("q", "x", 1), ("r", "y", 1)]
    m = from_cells([{"prompt": p, "model": n, "reward": r} for p, n, r in cells])
    assert m.whole_P.tolist() == [True, False, False] and [user_text(p) for p in m.common().prompts] == ["p"]
    with pytest.raises(InputError, match="no prompt has a reward of all 2 models .of 2 prompts: x 1, y 1."):
        m.rows([1, 2]).common()
    whole = m.common()
    assert whole.common() is whole
