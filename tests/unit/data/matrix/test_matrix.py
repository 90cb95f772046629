"""The response matrix: every published shape is read as published, and a missing cell stays missing."""

import gzip
import json

import numpy as np
import pytest

from trimtab.data.matrix.files import load_matrix
from trimtab.data.matrix.matrix import ResponseMatrix, from_cells, from_groups, overlap, split_matrix
from trimtab.errors import InputError
from trimtab.testing import prompt, write_jsonl
from trimtab.types import Completion, Group, Reward, user_text


def cell(p, m, r, **more):
    return {"prompt": p, "model": m, "reward": r, **more}


def small(rewards, texts=None):
    P, M = np.shape(rewards)
    prompts = tuple(prompt(t, id=str(i)) for i, t in enumerate(texts or [f"question {i}" for i in range(P)]))
    return ResponseMatrix(prompts, tuple(f"m{j}" for j in range(M)), np.array(rewards, float))


def test_cells_merge_and_missing_cells_are_nan():
    m = from_cells([cell("a", "x", 1), cell("a", "y", 0), cell("b", "x", None), cell("b", "y", 1), cell("a", "x", 0)])
    np.testing.assert_array_equal(m.reward_PM, [[0.5, 0], [np.nan, 1]])
    assert (m.models, m.missing) == (("x", "y"), 1)
    assert "1 repeated cells" in m.note


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([{"prompt": "a", "reward": 1}], "row 1: field 'model'"),
        ([cell("a", "x", 1), {"prompt": "a", "model": "y"}], "row 2: no field 'reward'"),
        ([cell("a", "x", "high")], "field 'reward' must be a number"),
        ([cell("a", "x", float("inf"))], "infinite"),
        ([cell("a", "x", 1, prompt_id="1"), cell("b", "x", 1, prompt_id="1")], "used before for another prompt"),
        ([cell("a", "x", 1, tags=3)], "field 'tags'"),
        ([], "no rows"),
    ],
)
def test_bad_cells_name_the_row_and_the_field(bad, says):
    with pytest.raises(InputError, match=says):
        from_cells(bad)


@pytest.mark.parametrize("name", ["m.parquet", "m.jsonl", "m.jsonl.gz"])
def test_long_form_survives_a_round_trip(tmp_path, name):
    rows = [cell("a?", "x", 1.0, tokens=5, price=0.1, latency=2.5, tags=["t", "u"], text="yes"), cell("b?", "y", 0.25)]
    before = from_cells(rows)
    before.save(tmp_path / name)
    after = load_matrix(tmp_path / name)
    assert after.models == before.models
    assert [user_text(p) for p in after.prompts] == ["a?", "b?"]
    np.testing.assert_array_equal(after.reward_PM, [[1, np.nan], [np.nan, 0.25]])
    np.testing.assert_array_equal(after.tokens_PM, before.tokens_PM)
    np.testing.assert_array_equal(after.latency_PM, [[2.5, np.nan], [np.nan, np.nan]])
    assert after.tags == (("t", "u"), ()) and after.text_PM[0][0] == "yes"


def test_llmrouter_long_and_wide_rows_agree_and_are_priced(tmp_path):
    long = [
        {"task_name": "t", "query": "q", "model_name": m, "performance": r, "token_num": 100, "response": "z"}
        for m, r in (("x", 1.0), ("y", 0.0))
    ]
    wide = [{"task": "t", "query": "q", "scores": {"x": 1.0, "y": 0.0}}]
    a = load_matrix(write_jsonl(tmp_path / "a.jsonl", long), prices={"x": {"output_price": 2.0}})
    b = load_matrix(write_jsonl(tmp_path / "b.jsonl", wide))
    np.testing.assert_array_equal(a.reward_PM, b.reward_PM)
    assert a.tags == b.tags == (("t",),) and a.prompts[0].id == b.prompts[0].id
    np.testing.assert_allclose(a.price_PM, [[2e-4, np.nan]])


def test_routerbench_alpacaeval_zeroeval(tmp_path):
    bench = {"sample_id": "s", "prompt": "q", "eval_name": "e", "g": 1.0, "g|total_cost": 0.5, "g|model_response": "B",
             "h": 0.0, "h|total_cost": 0.1, "h|model_response": "C", "oracle_model_to_route_to": "g"}  # fmt: skip
    m = load_matrix(write_jsonl(tmp_path / "rb.jsonl", [bench]))
    assert (m.models, m.price_PM.tolist(), m.text_PM) == (("g", "h"), [[0.5, 0.1]], (("B", "C"),))

    models = {"a": {"out": "x", "w": 1.75, "g4": 2}, "b": {"out": "y", "g4": 1.5}, "NullModel": {"out": "", "w": 2}}
    row = {"id": 0, "instruction": "i", "dataset": "koala", "models": models}
    m = load_matrix(write_jsonl(tmp_path / "ae.jsonl", [row]))
    assert (m.models, m.reward_PM.tolist()) == (("a",), [[0.75]])
    assert load_matrix(tmp_path / "ae.jsonl", reward="g4").reward_PM.tolist() == [[1.0, 0.5]]
    official = [{"instruction": "i", "generator_2": "a", "output_2": "x", "preference": 1.25, "dataset": "koala"}]
    (tmp_path / "an.json").write_text(json.dumps(official))
    assert load_matrix(tmp_path / "an.json").reward_PM.tolist() == [[0.25]]

    row = {"id": "gsm8k-test-#7", "question": "q", "gold": "3", "models": {"a": {"ok": 1, "out": "3"}, "b": {"ok": 0}}}
    with gzip.open(tmp_path / "z.jsonl.gz", "wt") as f:
        f.write(json.dumps(row) + "\n")
    m = load_matrix(tmp_path / "z.jsonl.gz")
    assert (m.reward_PM.tolist(), m.tags, m.prompts[0].target) == ([[1, 0]], (("gsm8k-test",),), "3")


def test_files_that_cannot_be_read_say_so(tmp_path):
    (tmp_path / "m.pkl").write_bytes(b"x")
    with pytest.raises(InputError, match="pickle"):
        load_matrix(tmp_path / "m.pkl")
    with pytest.raises(InputError, match="cannot tell which format"):
        load_matrix(write_jsonl(tmp_path / "odd.jsonl", [{"a": 1}]))
    with pytest.raises(InputError, match=r"did you mean 'zeroeval'"):
        load_matrix(tmp_path / "odd.jsonl", format="zeroevl")
    (tmp_path / "cut.jsonl").write_text('{"prompt": "a", "model": "x", "reward": 1}\n{"prompt"')
    with pytest.raises(InputError, match="cut.jsonl:2"):
        load_matrix(tmp_path / "cut.jsonl")
    with pytest.raises(InputError, match="gone.jsonl cannot be read: No such file"):
        load_matrix(tmp_path / "gone.jsonl")


def test_groups_and_matrix_are_two_views(tmp_path):
    p = prompt("q")
    one = Group(p, (Completion("a", "x", 0, 0), Completion("b", "x", 1, 1)), (Reward(1.0), Reward(0.0)))
    two = Group(p, (Completion("c", "y", 0, 0),), (Reward(float("nan"), "timeout"),))
    m = from_groups([one, two], tags={"q": ["t"]})
    np.testing.assert_array_equal(m.reward_PM, [[0.5, np.nan]])
    assert m.tags == (("t",),)
    (group,) = m.groups()
    assert [(c.text, c.model, r.value) for c, r in zip(group.completions, group.rewards, strict=True)] == [
        ("a", "x", 0.5)
    ]
    with pytest.raises(InputError, match="never scored"):
        from_groups([Group(p, one.completions)])
    with pytest.raises(InputError, match="no texts"):
        small([[1, 2]]).groups()


def test_split_keeps_duplicates_on_one_side_and_counts_them():
    m = small(np.zeros((40, 2)), ["Same  text" if i % 4 == 0 else f"text {i}" for i in range(40)])
    for seed in range(5):
        train, test, moved = split_matrix(m, 0.25, seed)
        assert len(train) + len(test) == 40 and len(test) + moved == 10
        assert overlap(train, test)[0] == 0
    with pytest.raises(InputError, match="between 0 and 1"):
        split_matrix(m, 1.5)


def test_overlap_counts_six_grams():
    train = small([[0], [0]], ["one two three four five six seven", "one two three four five other words"])
    test = small([[0], [0]], ["zero ONE two, three four five six!", "unrelated"])
    same, mask = overlap(train, test)
    assert same == 0 and mask.tolist() == [True, False]


def test_pool_and_rows_select_by_name_and_place():
    m = small([[1, 2, 3], [4, 5, 6]])
    assert m.pool(["m2", "m0"]).reward_PM.tolist() == [[3, 1], [6, 4]]
    assert m.rows(np.array([False, True])).reward_PM.tolist() == [[4, 5, 6]]
    with pytest.raises(InputError, match="unknown model 'm9'"):
        m.pool(["m9"])
    with pytest.raises(InputError, match="'m0' occurs twice"):
        ResponseMatrix(m.prompts, ("m0", "m0", "m1"), m.reward_PM)
