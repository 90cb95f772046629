import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from trimtab.data.pairs import to_trl
from trimtab.data.preference import load_demonstrations, load_labelled, load_pairs, pairs_from_rows
from trimtab.errors import InputError
from trimtab.testing import write_jsonl

USER = [{"role": "user", "content": "2 + 3?"}]


def says(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


STANDARD = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
CHAT = {"prompt": USER, "chosen": says("5"), "rejected": says("6"), "chosen_score": 1.0, "rejected_score": 0.25}
IMPLICIT = {"chosen": USER + says("5"), "rejected": USER + says("6")}


def test_the_three_preference_formats(tmp_path):
    standard, chat = load_pairs(write_jsonl(tmp_path / "a.jsonl", [STANDARD, CHAT]))
    assert standard.prompt.messages == ({"role": "text", "content": "The sky is"},)  # raw, as TRL trains it
    assert (standard.chosen.text, standard.rejected.text, standard.margin) == (" blue.", " green.", 0.0)
    assert chat.prompt.messages == tuple(USER) and chat.margin == 0.75 and chat.chosen.finish == "stop"
    (implicit,) = pairs_from_rows([IMPLICIT])
    assert implicit.prompt == chat.prompt.__class__(chat.prompt.id, chat.prompt.messages, None, "rows")
    assert (implicit.chosen.text, implicit.rejected.text) == ("5", "6")
    (templated,) = pairs_from_rows([STANDARD], chat=True)
    assert templated.prompt.messages[0]["role"] == "user"


def test_parquet_gzip_and_back_to_trl(tmp_path):
    pyarrow.parquet.write_table(pa.Table.from_pylist([CHAT]), tmp_path / "a.parquet")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as f:
        f.write(json.dumps(CHAT) + "\n")
    a, b = load_pairs(tmp_path / "a.parquet"), load_pairs(tmp_path / "a.jsonl.gz")
    assert [(p.prompt.messages, p.chosen.text, p.margin) for p in a] == [
        (p.prompt.messages, p.chosen.text, p.margin) for p in b
    ]
    row = to_trl(a)[0]
    assert {k: row[k] for k in ("prompt", "chosen", "rejected")} == {
        k: CHAT[k] for k in ("prompt", "chosen", "rejected")
    }


def test_unpaired_and_demonstrations_group_by_prompt(tmp_path):
    rows = [
        {"prompt": "a", "completion": "x", "label": True},
        {"prompt": "b", "completion": "y", "label": False},
        {"prompt": "a", "completion": "z", "label": False},
    ]
    groups = load_labelled(write_jsonl(tmp_path / "u.jsonl", rows))
    assert [[(c.text, r) for c, r in zip(g.completions, g.reward_N, strict=True)] for g in groups] == [
        [("x", 1.0), ("z", 0.0)], [("y", 0.0)]
    ]  # fmt: skip
    demonstrations = load_demonstrations(tmp_path / "u.jsonl")
    assert [len(g.completions) for g in demonstrations] == [2, 1] and demonstrations[0].rewards == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, r"p.jsonl:1: no field 'rejected'"),
        ({"prompt": 3, "chosen": "b", "rejected": "c"}, "'prompt' must be text or a list"),
        ({"prompt": "a", "chosen": 7, "rejected": "c"}, "field 'chosen' must be text or one assistant message"),
        ({"prompt": USER, "chosen": USER, "rejected": says("c")}, "one assistant message"),
        ({"chosen": "b", "rejected": "c"}, "no field 'prompt'"),
        ([1], "p.jsonl:1: expected a JSON object"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        load_pairs(write_jsonl(tmp_path / "p.jsonl", [row]))


def test_bad_labels_files_and_names(tmp_path):
    with pytest.raises(InputError, match="'label' must be true or false, it is int 1"):
        load_labelled(write_jsonl(tmp_path / "u.jsonl", [{"prompt": "a", "completion": "x", "label": 1}]))
    with pytest.raises(InputError, match="no rows"):
        load_pairs(write_jsonl(tmp_path / "e.jsonl", []))
    with pytest.raises(InputError, match="none.parquet cannot be read: No such file"):
        load_pairs(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="no hub data set"):
        load_pairs("pairs.xlsx")
