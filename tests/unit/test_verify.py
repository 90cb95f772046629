"""Verifying a run: a whole one has no fault, and each kind of damage is one named fault."""

import json

import numpy as np
import pytest

from trimtab.store import Store
from trimtab.testing import FakeSampler, prompt
from trimtab.types import SamplingParams
from trimtab.verify import verify

PROMPTS = [prompt(f"Say {i}.", str(i)) for i in range(4)]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run")
    store.add_prompts(PROMPTS, "train")
    groups = FakeSampler(lambda p, rng: p.id)(PROMPTS, 2, SamplingParams())
    with store.writer("completions/train", {"n": 2}, flush_rows=4) as w:
        for g in groups:
            w.append_groups([g])
    ids = [i for row in store.sample_ids("train", groups) for i in row]
    with store.writer("rewards/train/x", {}) as w:
        w.append({"id": i, "prompt_id": "p", "value": 1.0, "note": ""} for i in ids)
    with store.writer("embeddings/train", {}) as w:
        w.append_tensors(ids, {"a": np.zeros((len(ids), 2), np.float32)})
    return store


def files(store, table):
    return sorted((store.path / table).glob("0*"))


def faults(store):
    return verify(Store(store.path)).faults


def test_a_whole_run_has_no_fault(store):
    seen = verify(store)
    assert (seen.faults, seen.tables, seen.shards, seen.rows, seen.unchecked) == ([], 4, 5, 4 + 8 + 8 + 8, 0)


@pytest.mark.parametrize("table", ["prompts", "completions/train", "rewards/train/x", "embeddings/train"])
def test_a_flipped_bit_is_named(store, table):
    file = files(store, table)[0]
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 16
    file.write_bytes(raw)
    assert any(file.name in f and "checksum" in f for f in faults(store))


def test_a_deleted_shard_and_what_hangs_on_it_are_named(store):
    files(store, "completions/train")[0].unlink()
    text = "\n".join(faults(store))
    assert "shard 000000 is missing" in text
    assert "rewards/train/x has 4 rows of completions" in text and "embeddings/train has 4 rows" in text


def test_rows_that_the_manifest_does_not_know_are_named(store):
    file = store.path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["tables"]["rewards/train/x"]
    file.write_text(json.dumps(manifest))
    assert [f for f in faults(store) if "rewards/train/x" in f and "does not know" in f]


def test_old_shards_are_counted_not_condemned(store):
    file = files(store, "rewards/train/x")[0]
    file.rename(file.with_name("000000-1f2e3d4c.parquet"))
    seen = verify(store)
    assert seen.faults == [] and seen.unchecked == 1
