"""Shards: what is read is what was written, or an error that names the file; never another value, never a traceback."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab import shards as shards_module
from trimtab.errors import StoreError
from trimtab.store import Store
from trimtab.testing import FakeSampler, prompt
from trimtab.types import SamplingParams

PROMPTS = [prompt(f"Say {i}.", str(i)) for i in range(6)]
IDS = [f"{i:032x}" for i in range(5)]
ARRAY = np.arange(20, dtype=np.float16).reshape(5, 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("whole"))
    store.add_prompts(PROMPTS, "train")
    sampler = FakeSampler(lambda p, rng: "abc" * int(rng.integers(9)))
    with store.writer("completions/train", {"n": 2}) as w:
        w.append_groups(sampler(PROMPTS, 2, SamplingParams()))
    with store.writer("embeddings/train", {}) as w:
        w.append_tensors(IDS, {"a": ARRAY})
    return store


@pytest.fixture
def store(whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")
    return Store(tmp_path / "run")


def only(store, table):
    (file,) = (f for f in (store.path / table).iterdir() if not f.name.startswith("."))
    return file


def seen(store):
    """Everything that the store says."""
    tensors = store.tensor_rows("embeddings/train", "a", IDS)
    return store.groups("train"), tensors.tobytes(), str(tensors.dtype), tensors.shape


@pytest.mark.parametrize("table", ["prompts", "completions/train", "embeddings/train"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cuts_and_flips_are_errors_that_name_the_file(whole, tmp_path_factory, table, data):
    folder = tmp_path_factory.mktemp("hurt") / "run"
    shutil.copytree(whole.path, folder)
    file = only(Store(folder), table)
    raw = bytearray(file.read_bytes())
    if data.draw(st.booleans(), "cut"):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1), "length")]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1), "byte")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    file.write_bytes(raw)
    with pytest.raises(StoreError, match=file.name):
        seen(Store(folder))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_without_a_checksum_there_is_still_no_foreign_traceback(whole, tmp_path_factory, data):
    """Shards of before the checksums: a flip may be another value there, but never another error."""
    folder = tmp_path_factory.mktemp("old") / "run"
    shutil.copytree(whole.path, folder)
    table = data.draw(st.sampled_from(["prompts", "completions/train", "embeddings/train"]), "table")
    file = only(Store(folder), table)
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4), "flips")):
        raw[data.draw(st.integers(0, len(raw) - 1), "byte")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    file.unlink()
    file.with_name(f"000000-1f2e3d4c{file.suffix}").write_bytes(raw)
    try:
        seen(Store(folder))
    except StoreError as e:
        assert str(folder) in str(e)


@pytest.mark.parametrize(
    "copy", ["{} copy.parquet", "Copy of {}.parquet", "{} (1).parquet", "{}~.parquet", "1 copy.parquet"]
)
def test_a_copy_by_a_backup_tool_is_refused_by_name(store, copy):
    file = only(store, "completions/train")
    name = copy.format(file.stem)
    shutil.copy(file, file.with_name(name))
    with pytest.raises(StoreError, match="not a shard that trimtab wrote"):
        store.groups("train")


def test_a_copy_under_another_number_is_refused(store):
    file = only(store, "completions/train")
    shutil.copy(file, file.with_name("000001" + file.name[6:]))
    with pytest.raises(StoreError, match=f"is a copy of {file.name}"):
        store.groups("train")


def test_a_shard_of_another_table_is_refused(store, tmp_path):
    other = Store(tmp_path / "other")
    other.add_prompts(PROMPTS, "train")
    with other.writer("completions/train", {"n": 7}) as w:
        w.append_groups(FakeSampler(lambda p, rng: "z")(PROMPTS, 1, SamplingParams(seed=9)))
    file = only(other, "completions/train")
    shutil.copy(file, store.path / "completions/train" / file.name.replace("000000", "000001"))
    with pytest.raises(StoreError, match="made with other settings"):
        store.groups("train")


def test_other_files_in_a_table_are_left_alone(store):
    before = seen(store)
    for name in ("README.md", ".DS_Store", ".nfs0001", "notes.txt"):
        (store.path / "completions/train" / name).write_text("x")
    assert seen(store) == before


def test_resuming_reads_ids_of_tensors_without_their_data(store, monkeypatch):
    monkeypatch.setattr(shards_module, "checksum", lambda file: pytest.fail("read the whole file"))
    assert store.ids("embeddings/train") == set(IDS)
