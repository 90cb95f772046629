"""Hostile files: bounded in time and memory, refused by name, never run."""

import ast
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trimtab
from trimtab.errors import ModelError
from trimtab.lm.convert import to_q8
from trimtab.lm.untrusted import check_gguf, check_template


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "π"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5, 2.5])
    writer.add_tensor("w", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_whole_file_passes_and_converts(whole, tmp_path):
    check_gguf(whole)
    to_q8(whole, tmp_path / "q8.gguf")
    check_gguf(tmp_path / "q8.gguf")


def header(tensors=0, keys=0, rest=b"", version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def text(raw):
    return struct.pack("<Q", len(raw)) + raw


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "begin with GGUF"),
        (b"GGML" + bytes(40), "begin with GGUF"),
        (header(version=9), "version 9"),
        (header(tensors=2**60), "tensors do not fit"),
        (header(keys=2**62), "keys do not fit"),
        (header(keys=1, rest=struct.pack("<Q", 2**63) + bytes(40)), "bytes of text do not fit"),
        (header(keys=1, rest=text(b"k") + struct.pack("<IIQ", 9, 4, 2**61) + bytes(40)), "values do not fit"),
        (header(keys=1, rest=text(b"k") + struct.pack("<I", 77) + bytes(40)), "unknown type 77"),
        (header(keys=1, rest=text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 30), "unknown type 9"),
        (header(tensors=1, rest=text(b"t") + struct.pack("<I", 1 << 20) + bytes(40)), "axes"),
        (header(tensors=1, rest=text(b"t") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0)), "outside the file"),
        (header(tensors=1, rest=text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 2**50)), "outside the file"),
    ],
)
def test_absurd_headers_are_refused_at_once(tmp_path, data, says):
    file = tmp_path / "bad.gguf"
    file.write_bytes(data)
    begun = time.process_time()
    with pytest.raises(ModelError, match=f"bad.gguf is not a readable GGUF file.*{says}"):
        to_q8(file, tmp_path / "out.gguf")
    assert time.process_time() - begun < 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cuts_and_flips_convert_or_are_refused(whole, tmp_path_factory, data):
    raw = bytearray(whole.read_bytes())
    if data.draw(st.booleans(), "cut"):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1), "length")]
    for _ in range(data.draw(st.integers(0, 3), "flips")):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1), "byte")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    folder = tmp_path_factory.mktemp("hurt")
    (folder / "hurt.gguf").write_bytes(raw)
    try:
        to_q8(folder / "hurt.gguf", folder / "out.gguf")
    except ModelError as e:
        assert "hurt.gguf" in str(e)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "did not end"),
        ("{{ 'x' * 10**10 }}", "needs more than"),
        ("{% set n = namespace(x='ab') %}{% for i in range(50) %}{% set n.x = n.x + n.x %}{% endfor %}", "needs more"),
    ],
)
def test_templates_without_end_are_refused(monkeypatch, template, says):
    monkeypatch.setattr("trimtab.lm.untrusted.TEMPLATE_S", 1)
    with pytest.raises(ModelError, match=f"the chat template of toy {says}"):
        check_template(template, "toy")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}",
        "{{ raise_exception('roles must alternate') }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{{ messages | tojson }}{{ strftime_now('%d') }}{% if",
        "{{ messages.__class__.__mro__ }}",
    ],
)
def test_other_templates_are_judged_when_they_render(template):
    check_template(template, "toy")


def test_nothing_of_ours_unpickles_or_trusts_remote_code():
    """A pickle or a model's own code would run whatever its author wrote."""
    found = []
    for file in Path(trimtab.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
                found += [] if getattr(node.value, "value", None) is False else [f"{file.name}:{node.value.lineno}"]
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                name = f"{called.value.id}.{called.attr}"
                if file.name == "testing.py":
                    continue  # reads what it has just pickled itself
                if name in ("pickle.load", "pickle.loads", "torch.load", "joblib.load", "dill.load", "marshal.loads"):
                    found.append(f"{file.name}:{node.lineno} {name}")
    assert found == []
