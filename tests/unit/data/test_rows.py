"""Every file gives its rows or an InputError with its place, and never anything else."""

import bz2
import gzip
import json
import lzma
import os
import warnings

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.data.preference import load_pairs
from trimtab.data.rows import kind_of, read_rows
from trimtab.data.sources import from_file
from trimtab.errors import InputError

ROWS = [{"prompt": "Größe?", "answer": "1,80 m"}, {"prompt": 'Say "a,\nb"', "answer": "a,\nb"}]
LINES = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS).encode()
CSV = 'prompt,answer\nGröße?,"1,80 m"\n"Say ""a,\nb""","a,\nb"\n'


def parquet(rows: list[dict]) -> bytes:
    out = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue().to_pybytes()


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


READ_ALIKE = {
    "a.jsonl": LINES,
    "a.ndjson": LINES + b"\n  \r\n\n",
    "crlf.jsonl": b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n"),
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.bz2": bz2.compress(LINES),
    "a.jsonl.xz": lzma.compress(LINES),
    "a.jsonl.zst": zstd(LINES),
    "unpacked.jsonl.gz": LINES,
    "packed.jsonl": gzip.compress(LINES),
    "utf16.jsonl": LINES.decode().encode("utf-16"),
    "a.json": json.dumps(ROWS).encode(),
    "b.json": json.dumps({"version": 3, "examples": ROWS}, indent=1).encode(),
    "lines.json": LINES,
    "utf16.json": json.dumps(ROWS).encode("utf-16"),
    "a.csv": CSV.encode(),
    "bom.csv": b"\xef\xbb\xbf" + CSV.encode(),
    "semicolons.csv": CSV.replace(",", ";", 1).replace('?,"1', '?;"1').replace('""",', '""";').encode(),
    "sep.csv": ("sep=;\n" + CSV.replace(",", ";", 1).replace('?,"1', '?;"1').replace('""",', '""";')).encode(),
    "tabs.csv": CSV.replace(",", "\t", 1).replace('?,"1', '?\t"1').replace('""",', '"""\t').encode(),
    "a.tsv": CSV.replace(",", "\t", 1).replace('?,"1', '?\t"1').replace('""",', '"""\t').encode(),
    "utf16.csv": CSV.encode("utf-16"),
    "blank.csv": (CSV + "\n,\n").encode(),
    "a.csv.gz": gzip.compress(CSV.encode()),
    "a.parquet": parquet(ROWS),
    "a.parquet.gz": gzip.compress(parquet(ROWS)),
}


@pytest.mark.parametrize("name", READ_ALIKE)
def test_one_table_in_every_dress_gives_the_same_rows(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(READ_ALIKE[name])
    rows = list(read_rows(file))
    assert [row for _, row in rows] == ROWS
    assert all(where.startswith(f"{file}:") for where, _ in rows)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", b"", "a.jsonl: no rows"),
        ("a.jsonl", b"\n \n", "no rows"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": 2}\n', "a.jsonl:2: empty line"),
        ("a.jsonl", b'{"a": -1e999}\n', r"a.jsonl:1: not JSON \(-1e999 is no JSON number"),
        ("a.jsonl", b'{"a": 1}\n{"a": Infinity}\n', r"a.jsonl:2: not JSON \(Infinity is no JSON number"),
        ("a.jsonl", b'{"a": 1, "b": 2, "a": 3}\n', "a.jsonl:1: not JSON .the key 'a' occurs twice"),
        ("a.jsonl", b'{"a": {"b": 1, "b": 1}}\n', "the key 'b' occurs twice"),
        ("a.jsonl", b'{"a": "x\\ud800"}\n', "a.jsonl:1: half a surrogate pair"),
        ("a.jsonl", b'{"\\udc00": 1}\n', "a.jsonl:1: half a surrogate pair"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", "a.jsonl:1: not JSON"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", "a.jsonl:1: not JSON"),
        ("a.jsonl", b'[{"a": 1}, {"a": 2}]\n', "a.jsonl:1: expected a JSON object with named columns, got list"),
        ("a.jsonl", b'[\n{"a": 1}\n]\n', r"a.jsonl:1: not JSON .*one JSON list is called .json"),
        ("a.jsonl", b'{"a": 1} {"a": 2}\n', "a.jsonl:1: not JSON .Extra data"),
        ("a.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n', "a.jsonl:2: not UTF-8"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16-le"), "a.jsonl:1: .*NUL"),
        ("a.jsonl", b"\xff\xfe\x00", "not UTF-16"),
        ("a.jsonl.gz", gzip.compress(LINES * 99)[:-20], "cannot be read: .*cut off"),
        ("a.jsonl.zst", zstd(LINES * 99)[:-9], "cannot be read"),
        ("a.json", b'[{"a": 1},\n {"a": }]', r"a.json:2: not JSON"),
        ("a.json", b"[1, 2]", "a.json: row 1: expected a JSON object"),
        ("a.json", b'"text"', "a.json:1: expected a list of JSON objects, got str"),
        ("a.json", b"[]", "no rows"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"a,b\n", "no rows"),
        ("a.csv", b"a,b\n1,2\n3\n", "a.csv:3: 1 fields where the header names 2"),
        ("a.csv", b'a,b\n"1\n1",2\n3,4,5\n', "a.csv:4: 3 fields where the header names 2"),
        ("a.csv", b'a,b\n1,2\n3,"4\n5,6\n', "a.csv:3: not CSV"),
        ("a.csv", b"a,b,a\n1,2,3\n", "a.csv:1: two columns are called 'a'"),
        ("a.csv", b"a,,b\n1,2,3\n", "a.csv:1: column 2 has cells but no name"),
        ("a.csv", b"\x00\x01\x02,\xff", "no CSV file"),
        ("a.csv", b"a,b\n\x81,2\n", "a.csv:2: not UTF-8"),
        ("a.parquet", b"no", "not a readable Parquet file"),
        ("a.parquet", parquet(ROWS)[:-5], "not a readable Parquet file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=says):
        list(read_rows(tmp_path / name))


def test_files_that_are_none(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "folder.csv").mkdir()
    for spec, says in (
        ("missing.jsonl", "cannot be read: No such file"), ("missing.csv", "No such file"),
        ("missing.parquet", "No such file"),
        ("folder.jsonl", "cannot be read: Is a directory"), ("folder.csv", "Is a directory"), ("m.pkl", "pickle"),
        ("sheet.xlsx", "no file of rows"), ("notes", "no file of rows"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            list(read_rows(tmp_path / spec))
    if os.geteuid():
        (tmp_path / "mine.jsonl").write_bytes(LINES)
        (tmp_path / "mine.jsonl").chmod(0)
        with pytest.raises(InputError, match="Permission denied"):
            list(read_rows(tmp_path / "mine.jsonl"))


def test_old_spreadsheets_are_read_aloud_and_long_answers_whole(tmp_path):
    (tmp_path / "old.csv").write_bytes("prompt,answer\nÜber €?,ja\n".encode("cp1252"))
    with pytest.warns(UserWarning, match=r"old.csv:2: not UTF-8 .*read as Windows-1252"):
        assert [r for _, r in read_rows(tmp_path / "old.csv")] == [{"prompt": "Über €?", "answer": "ja"}]
    (tmp_path / "long.csv").write_text("prompt,answer\nq," + "x" * 200_000 + "\n")
    ((_, row),) = read_rows(tmp_path / "long.csv")
    assert len(row["answer"]) == 200_000


def test_pandas_leaves_an_index_and_empty_cells(tmp_path):
    (tmp_path / "p.csv").write_text(",prompt,answer,\n0,a,,\n1,b,x,\n")
    assert [r for _, r in read_rows(tmp_path / "p.csv")] == [
        {"column 1": "0", "prompt": "a", "answer": None}, {"column 1": "1", "prompt": "b", "answer": "x"}
    ]  # fmt: skip


def test_arrow_s_nulls_are_no_keys_of_a_message(tmp_path):
    call = {"type": "function", "function": {"name": "find", "arguments": {"to": "Oslo"}}}
    talk = [
        {"role": "user", "content": "A train?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "09:10", "tool_call_id": "c1"},
    ]
    row = {"prompt": talk, "chosen": "At 09:10.", "rejected": "None.", "note": None}
    (tmp_path / "t.parquet").write_bytes(parquet([row]))
    (pair,) = load_pairs(tmp_path / "t.parquet")
    assert list(pair.prompt.messages) == talk and pair.prompt.target is None


def test_names_of_files():
    assert kind_of("A.JSONL.GZ") == ".jsonl" and kind_of("a.tsv.zst") == ".tsv" and kind_of("org/name") == ""
    assert kind_of("a.gz") == "" and kind_of("a.jsonl.zip") == ""


def read_quietly(file) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for reader in (lambda f: list(read_rows(f, nan=True)), load_pairs, from_file):
            try:
                reader(file)
            except InputError as e:
                assert str(file) in str(e)


TALK = {
    "prompt": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    "chosen": [{"from": "gpt", "value": "b"}],
    "rejected": '[{"role": "assistant", "content": "c"}]',
    "score_chosen": 1e308,
    "tools": '[{"name": 1}]',
}
DRESSES = ("a.jsonl", "utf16.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.csv", "a.parquet")
WHOLE = {**{n: READ_ALIKE[n] for n in DRESSES}, "talk.jsonl": json.dumps(TALK).encode()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), name=st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz"]))
def test_random_bytes_raise_nothing_foreign(tmp_path, data, name):
    file = tmp_path / f"random{name}"
    file.write_bytes(data)
    read_quietly(file)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(WHOLE)), at=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_cut_and_flipped_files_raise_nothing_foreign(tmp_path, name, at, byte, cut):
    data = bytearray(WHOLE[name])
    place = int(at * (len(data) - 1))
    data[place:] = b"" if cut else bytes([byte]) + data[place + 1 :]
    file = tmp_path / name
    file.write_bytes(data)
    read_quietly(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5) | st.integers(-(10**400), 10**400),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "margin", "tools", "system", "chosen_score",
                                        "rejected_score", "id", "images", "prompt_id"]), JSON, min_size=2))  # fmt: skip
def test_any_json_in_any_column_raises_nothing_foreign(tmp_path, row):
    file = tmp_path / "any.jsonl"
    file.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c", **row}) + "\n")
    read_quietly(file)
