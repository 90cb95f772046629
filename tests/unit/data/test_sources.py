"""Prompts come out as the file says, and every kind of bad input names the place."""

import gzip
import json

import pytest

from trimtab import data
from trimtab.errors import InputError
from trimtab.testing import write_jsonl

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a prime."}]


def test_text_and_messages_and_columns(tmp_path):
    file = write_jsonl(tmp_path / "t.jsonl", [{"prompt": "2 + 3?", "answer": "5"}, {"id": 7, "prompt": CHAT}])
    one, two = data.from_jsonl(file)
    assert one.messages == ({"role": "user", "content": "2 + 3?"},)
    assert one.target == {"answer": "5"} and one.source == "t.jsonl" and len(one.id) == 32
    assert two.id == "7" and list(two.messages) == CHAT and two.target == {}
    (raw, _) = data.from_rows([{"prompt": "def f("}, {"prompt": "x"}], chat=False)
    assert raw.messages == ({"role": "text", "content": "def f("},)


def test_gzip_bom_renamed_columns_and_parquet_agree(tmp_path):
    rows = [{"q": f"{i}?", "key": f"k{i}", "a": i} for i in range(3)]
    text = "\ufeff" + "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    prompts = data.from_jsonl(tmp_path / "t.jsonl.gz", prompt="q", id="key")
    assert [(p.id, p.target) for p in prompts] == [("k0", {"a": 0}), ("k1", {"a": 1}), ("k2", {"a": 2})]
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    again = data.load(str(tmp_path / "t.parquet"), prompt="q", id="key")
    assert [(p.id, p.messages, p.target) for p in again] == [(p.id, p.messages, p.target) for p in prompts]


def test_id_depends_on_content_only(tmp_path):
    a, b = data.from_rows([{"prompt": "x", "y": 1, "z": 2}, {"prompt": "x", "y": 2}])
    (c,) = data.from_rows([{"z": 2, "y": 1, "prompt": "x"}])
    assert a.id == c.id != b.id


def test_identical_repeats_are_dropped_and_counted():
    with pytest.warns(UserWarning, match="dropped 2 identical repeats"):
        assert len(data.from_rows([{"id": "a", "prompt": "x"}] * 3)) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('\n{"prompt": "y"}', r"t\.jsonl:2: empty line"),
        ('{"prompt": "half \\ud83d"}', r"t\.jsonl:2: half a surrogate pair"),
        ("{oops", r"t\.jsonl:2: not JSON"),
        ('{"prompt": "a", "x": NaN}', r"t\.jsonl:2: not JSON \(NaN"),
        ('["prompt"]', r"t\.jsonl:2: expected a JSON object .* got list"),
        ('{"promt": "a"}', r"t\.jsonl:2: no column 'prompt'; it has: promt"),
        ('{"prompt": " "}', r"t\.jsonl:2: 'prompt' is empty"),
        ('{"prompt": 3}', r"t\.jsonl:2: 'prompt' must be text or a list of messages, got int 3"),
        ('{"prompt": []}', r"t\.jsonl:2: 'prompt' must be text or a list"),
        ('{"prompt": [{"role": "user"}]}', r"t\.jsonl:2: 'prompt', message 0: expected"),
        ('{"prompt": [{"role": "usr", "content": "a"}]}', r"message 0: unknown role 'usr'; did you mean 'user'"),
        (
            '{"prompt": [{"role": "user", "content": "a"}, {"role": "text", "content": "a"}]}',
            r"message 1: role 'text' is raw text",
        ),
        ('{"prompt": "a", "id": [1]}', r"t\.jsonl:2: 'id' must be text or a whole number, got list"),
        ('{"prompt": "other", "id": "one"}', r"t\.jsonl:2: id 'one' was used at .*t\.jsonl:1 for other content"),
        (b"\xff\xfe", r"t\.jsonl:2: not UTF-8"),
    ],
)
def test_bad_lines_name_the_place(tmp_path, line, says):
    line = line if isinstance(line, bytes) else line.encode()
    (tmp_path / "t.jsonl").write_bytes(b'{"id": "one", "prompt": "x"}\n' + line + b"\n")
    with pytest.raises(InputError, match=says):
        data.from_jsonl(tmp_path / "t.jsonl")


def test_bad_files(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "x.parquet").write_text("no")
    (tmp_path / "x.jsonl.gz").write_text("no")
    cases = [
        ("empty.jsonl", "empty.jsonl: no rows"), ("no.jsonl", "No such file"), ("x.parquet", "not a readable Parquet"),
        ("no.parquet", "No such file"), ("x.jsonl.gz", "x.jsonl.gz:1: not JSON"),
        ("x.csv", "No such file"), ("x.xlsx", "names no prompts"),
    ]  # fmt: skip
    for name, says in cases:
        with pytest.raises(InputError, match=says):
            data.load(str(tmp_path / name))
    with pytest.raises(InputError, match="chat=False asks for raw text"):
        data.from_rows([{"prompt": CHAT}], chat=False)


def test_reasoning_gym_is_distinct_repeatable_and_survives_the_store(tmp_path):
    from trimtab.store import Store

    config = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
    prompts = data.reasoning_gym("chain_sum", 60, seed=3, **config)
    assert len({p.messages[0]["content"] for p in prompts}) == 60 == len({p.id for p in prompts})
    assert prompts == data.load("reasoning_gym/chain_sum", size=60, seed=3, **config)
    assert prompts[:20] == data.reasoning_gym("chain_sum", 20, seed=3, **config)
    for p in prompts:
        assert eval(p.target["metadata"]["expression"]) == int(p.target["answer"])
        assert p.messages[0]["content"] == p.target["question"] + "\nReply with the final answer alone."
    Store(tmp_path).add_prompts(prompts, split="train")
    assert Store(tmp_path).prompts() == prompts


def test_reasoning_gym_refuses():
    with pytest.raises(InputError, match="unknown reasoning-gym task 'chainsum'; did you mean 'chain_sum'"):
        data.reasoning_gym("chainsum", 2)
    with pytest.raises(InputError, match="unknown setting of reasoning-gym's chain_sum 'min_term'"):
        data.reasoning_gym("chain_sum", 2, min_term=1)
    with pytest.raises(InputError, match="refuses"):
        data.reasoning_gym("chain_sum", 2, min_terms=5, max_terms=2)
    with pytest.raises(InputError, match=r"gave only \d+ distinct questions"):
        data.reasoning_gym("chain_sum", 400, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
