"""JSON files that are read again: the object, or an error that names the file, the key and what to do."""

import ast
from pathlib import Path

import numpy as np
import pytest

import trimtab
from trimtab.errors import InputError, ModelError, TrimtabError
from trimtab.evaluation.metrics import chunks, mean_interval, paired_bootstrap, pass_at_k
from trimtab.evaluation.routing.measures import bootstrap
from trimtab.json_file import NUMBER, read_json, read_lines
from trimtab.rewards import score

KINDS = {"settings": dict, "settings.rate": NUMBER, "settings.name?": str, "finished?": bool, "steps?": int}


def test_what_it_should_be_comes_back(tmp_path):
    file = tmp_path / "card.json"
    file.write_text('{"settings": {"rate": 2, "name": "\u30ab"}, "finished": true, "more": [1]}', encoding="utf-8")
    assert read_json(file, "a card", KINDS)["settings"] == {"rate": 2, "name": "カ"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not JSON"),
        (b'{"settings": {"rate"', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"settings": {"rate": ' + b"9" * 5000 + b"}}", "is not JSON"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"[1]", "is list, not an object"),
        (b"null", "is NoneType"),
        (b"{}", "has no settings"),
        (b'{"settings": []}', "its settings is '[]', not an object"),
        (b'{"settings": {}}', "has no settings.rate"),
        (b'{"settings": {"rate": true}}', "its settings.rate is 'True'"),
        (b'{"settings": {"rate": 1, "name": 3}}', "not text"),
        (b'{"settings": {"rate": 1}, "finished": "yes"}', "its finished is 'yes', not true or false"),
        (b'{"settings": {"rate": 1}, "steps": 2.5}', "not a whole number"),
    ],
)
def test_what_it_is_not_names_file_key_and_way_out(tmp_path, data, says):
    file = tmp_path / "card.json"
    file.write_bytes(data)
    with pytest.raises(ModelError) as e:
        read_json(file, "a card", KINDS, do="train again", error=ModelError)
    assert says in str(e.value) and str(file) in str(e.value) and "train again" in str(e.value)


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    for name in (tmp_path, tmp_path / "none.json"):
        for read in (read_json, read_lines):
            with pytest.raises(InputError, match="cannot be read"):
                read(name, "a card")


def test_only_newlines_end_a_line_of_json(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes('{"a": "x\u2028y\u0085"}\n{}\n'.encode())
    assert read_lines(file, "rows") == ['{"a": "x\u2028y\u0085"}', "{}"]


def test_every_text_file_is_opened_as_utf8():
    """Or a machine whose locale is another reads another text, or none."""
    forgotten = []
    for file in Path(trimtab.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and not _has_encoding(call):
                forgotten.append(f"{file.name}:{call.lineno}")
    assert forgotten == []


def _has_encoding(call):
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    on = getattr(getattr(call.func, "value", None), "id", "")
    texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    modes = [k.value for k in call.keywords if k.arg == "mode"]
    binary = any("b" in t and len(t) <= 3 for t in texts) or any("b" in str(getattr(m, "value", "")) for m in modes)
    if name in ("read_text", "write_text") or (name == "open" and on != "os"):
        return binary or on in ("z", "archive", "tarfile") or any(k.arg == "encoding" for k in call.keywords)
    return True


def word(prompt, completion):
    return 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([1, 2, 3], draws=0),
        lambda: mean_interval([1], draws=-5),
        lambda: mean_interval([1, 2], level=1.5),
        lambda: paired_bootstrap([1, 2], [2, 1], draws=0),
        lambda: bootstrap(lambda x: x[..., 0], np.ones((3, 1)), draws=0),
        lambda: pass_at_k(3, 1, 0),
        lambda: pass_at_k(3, 4, 1),
        lambda: chunks(4, 2, np.random.default_rng(0), permutations=0),
        lambda: score([], word, workers=-1),
        lambda: score([], word, timeout_s=0),
        lambda: score([], word, timeout_s=float("nan")),
    ],
)
def test_numbers_that_nothing_could_honour_are_ours_to_refuse(call):
    with pytest.raises(TrimtabError):
        call()
