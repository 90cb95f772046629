"""The store: rows come back as they went in, settings are guarded, and nothing half-written is ever visible."""

import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from trimtab.errors import InputError, SettingsChanged, StoreError
from trimtab.shards import write_rows
from trimtab.store import FORMAT, SCHEMAS, Store, sample_id
from trimtab.testing import FakeSampler, prompt
from trimtab.types import Completion, Group, Prompt, SamplingParams, Usage, fingerprint

PROMPTS = [prompt("one", {"answer": "1", "π": [1, None]}), prompt('zwei\n"quoted"\0', "2"), prompt("three")]
SAMPLER = FakeSampler(lambda p, rng: f"{p.id} {rng.integers(1000)}")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run")
    store.add_prompts(PROMPTS, "train")
    return store


def sampled(store, n=3):
    groups = SAMPLER(PROMPTS, n, SamplingParams())
    with store.writer("completions/train", {"n": n}) as w:
        w.append_groups(groups)
    return groups


def test_groups_come_back_exactly(store):
    groups = sampled(store)
    assert store.groups("train") == groups
    assert store.prompts("train") == PROMPTS and store.prompts("test") == []


def test_rewards_join_by_id_not_by_position(store):
    groups = sampled(store)
    ids = store.sample_ids("train", groups)
    rows = [
        {"id": i, "prompt_id": g.prompt.id, "value": float(c.index), "note": ""}
        for g, row in zip(groups, ids, strict=True)
        for i, c in zip(row, g.completions, strict=True)
    ]
    with store.writer("rewards/train/index", {}) as w:
        w.append(rows[::-1][:-1])  # backwards, and one row short
    back = store.groups("train", "index")
    assert [r.value for g in back for r in g.rewards][1:] == [1, 2, 0, 1, 2, 0, 1, 2]
    assert math.isnan(back[0].rewards[0].value) and "not scored" in back[0].rewards[0].note


def test_a_changed_setting_is_refused_and_shown(store):
    sampled(store, n=3)
    with pytest.raises(SettingsChanged, match=r"n: 3 then, 4 now"):
        store.writer("completions/train", {"n": 4})


def test_prompt_with_the_same_id_and_other_content_is_refused(store):
    store.add_prompts(PROMPTS, "train")
    with pytest.raises(InputError, match="'one'.*another target"):
        store.add_prompts([prompt("one", {"answer": "2"})], "train")
    with pytest.raises(InputError, match="another split"):
        store.add_prompts([PROMPTS[0]], "test")
    assert len(store.prompts()) == 3


def test_a_row_is_never_written_twice(store):
    groups = sampled(store)
    with store.writer("completions/train", {"n": 3}) as w, pytest.raises(StoreError, match="already holds"):
        w.append_groups(groups)


def test_second_writer_is_refused_while_the_first_lives(store):
    with store.writer("completions/x", {}), pytest.raises(StoreError, match="another process"):
        store.writer("completions/x", {})
    store.writer("completions/x", {}).__exit__(None, None, None)


def test_tensors_come_back_in_the_order_asked(store):
    groups = sampled(store)
    ids = [i for row in store.sample_ids("train", groups) for i in row]
    x = np.arange(len(ids) * 4, dtype=np.float16).reshape(-1, 4)
    with store.writer("embeddings/train", {"layer": 1}, flush_rows=2) as w:
        for n, i in enumerate(ids):
            w.append_tensors([i], {"a": x[n : n + 1], "b": x[n : n + 1, :2]})
    np.testing.assert_array_equal(store.tensor_rows("embeddings/train", "a", ids[::-1]), x[::-1])
    assert store.tensor_rows("embeddings/train", "b", ids[:1]).shape == (1, 2)
    assert store.ids("embeddings/train") == set(ids)
    with pytest.raises(StoreError, match="lacks a row for sample nobody"):
        store.tensor_rows("embeddings/train", "a", ["nobody"])


def test_what_a_killed_writer_left_is_not_read_and_is_cleared(store):
    groups = sampled(store)
    (store.path / "completions/train/.tmp-dead").write_bytes(b"half a shard")
    assert store.groups("train") == groups
    with store.writer("completions/train", {"n": 3}):
        assert not list((store.path / "completions/train").glob(".tmp-*"))


def test_full_disk_says_so_and_leaves_no_file(store, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(StoreError, match="disk is full.*nothing written so far is lost"):
        sampled(store)
    monkeypatch.undo()
    assert store.groups("train") == [] and not list((store.path / "completions/train").glob(".tmp-*"))
    assert sampled(store) == store.groups("train")


def test_not_a_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(StoreError, match="not a trimtab run"):
        _ = Store(tmp_path).manifest
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="not a readable manifest"):
        _ = Store(tmp_path).manifest


def test_a_newer_format_is_refused_and_an_older_one_read(store):
    groups = sampled(store)
    file = store.path / "manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest.pop("format") == FORMAT
    file.write_text(json.dumps(manifest))
    assert store.groups("train") == groups
    file.write_text(json.dumps({**manifest, "format": FORMAT + 1}))
    with pytest.raises(StoreError, match=f"format {FORMAT + 1}.*install a newer"):
        store.groups("train")


@pytest.mark.parametrize("entry", [None, [], {"begun": "x"}, {"settings": 1}])
def test_a_manifest_entry_without_settings_is_refused(store, entry):
    (store.path / "manifest.json").write_text(json.dumps({"tables": {"completions/x": entry}}))
    with pytest.raises(StoreError, match="completions/x"):
        store.tables()


@pytest.mark.parametrize(
    "name", ["completions/../../x", "completions//x", "rewards/.hidden", "x", "prompts/a\\b", "completions/a\n"]
)
def test_a_table_name_cannot_leave_the_run(store, name):
    with pytest.raises(InputError, match="table"):
        store.writer(name, {})
    with pytest.raises(InputError, match="table"):
        store.ids(name)
    (store.path / "manifest.json").write_text(json.dumps({"tables": {name: {"settings": {}}}}))
    with pytest.raises(StoreError, match="table"):
        store.tables()


def test_rows_that_a_lost_manifest_no_longer_explains_are_refused(store):
    sampled(store)
    (store.path / "manifest.json").unlink()
    for attempt in (
        lambda: store.writer("completions/train", {"n": 99}),
        lambda: store.read("completions/train"),
        store.prompts,
    ):
        with pytest.raises(StoreError, match="does not know them"):
            attempt()


def test_rows_made_with_other_settings_than_an_edited_manifest_says_are_refused(store):
    sampled(store)
    file = store.path / "manifest.json"
    file.write_text(file.read_text().replace('"n": 3', '"n": 4'))
    for attempt in (lambda: store.writer("completions/train", {"n": 4}), lambda: store.groups("train")):
        with pytest.raises(StoreError, match="made with other settings"):
            attempt()
    file.write_text(file.read_text().replace('"n": 4', '"n": 3'))
    assert len(store.groups("train")) == 3


def test_a_read_only_run_is_read(store, tmp_path):
    groups = sampled(store)
    with store.writer("completions/other", {}):  # nor do readers wait for a writer
        for folder, _, files in os.walk(store.path):
            for f in files:
                (Path(folder) / f).chmod(0o444)
            Path(folder).chmod(0o555)
        try:
            assert store.groups("train") == groups
        finally:
            for folder, _, _ in os.walk(store.path):
                Path(folder).chmod(0o755)


def test_unknown_table_lists_what_there_is(store):
    sampled(store)
    with pytest.raises(InputError, match="completions 'train' have no rewards yet"):
        store.groups("train", "x")


def test_sample_ids_depend_on_everything_that_makes_a_sample():
    base = Completion("t", "m@1", 7, 0)
    variants = [
        sample_id("s", PROMPTS[0], base),
        sample_id("s2", PROMPTS[0], base),
        sample_id("s", PROMPTS[1], base),
        sample_id("s", PROMPTS[0], Completion("t", "m@2", 7, 0)),
        sample_id("s", PROMPTS[0], Completion("t", "m@1", 8, 0)),
        sample_id("s", PROMPTS[0], Completion("t", "m@1", 7, 1)),
    ]
    assert len(set(variants)) == len(variants) and all(len(v) == 32 for v in variants)


def test_a_sample_id_is_the_fingerprint_of_what_made_it():
    """As in every version since the first: stored rewards and vectors join by it."""
    c = Completion("t", 'm "q"@1', 7, 2)
    for p in PROMPTS:
        assert sample_id("s", p, c) == fingerprint(["s", p.id, list(map(dict, p.messages)), c.model, c.seed, c.index])


def test_duckdb_and_datasets_read_the_rows(store, tmp_path):
    sampled(store)
    files = f"{store.path}/completions/train/*.parquet"
    got = duckdb.sql(
        f"select prompt_id, count(*) n, max(len(logprobs)) l from '{files}' group by 1 order by 1"
    ).fetchall()
    assert [(row[0], row[1]) for row in got] == [("one", 3), ("three", 3), (PROMPTS[1].id, 3)]
    from datasets import load_dataset

    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["text"]) == sorted(c.text for g in store.groups("train") for c in g.completions)


def test_manifest_keeps_settings_and_facts(store):
    sampled(store)
    store.note("completions/train", seconds=1.5)
    entry = json.loads((store.path / "manifest.json").read_text())["tables"]["completions/train"]
    assert entry["settings"] == {"n": 3} and entry["facts"] == {"seconds": 1.5} and entry["begun"].endswith("Z")


def test_usage_and_notes_are_kept_and_a_failure_gives_way_to_a_later_answer(tmp_path):
    store, p = Store(tmp_path), Prompt("p", ({"role": "user", "content": "?"},))
    store.add_prompts([p], "train")
    good = Completion("4", "m", 7, 0, usage=Usage(9.0, None, 3.5, 0.5, 0.25), note="finish_reason 'eos'")
    bad = Completion("", "m", 8, 1, "error", note="status 500: oh no")
    with store.writer("completions/train", {"model": "m"}) as w:
        w.append_groups([Group(p, (good, bad))])
        w.append_groups([Group(p, (bad,))])  # the same failure once more is no second row
    assert store.groups("train") == [Group(p, (good, bad))] and len(store.read("completions/train")) == 2
    healed = Completion("5", "m", 8, 1)
    assert store.sample_ids("train", [Group(p, (bad,))]) != store.sample_ids("train", [Group(p, (healed,))])
    with store.writer("completions/train", {"model": "m"}) as w:
        w.append_groups([Group(p, (healed,))])
        w.append_groups([Group(p, (replace(bad, note="later"),))])
    assert store.groups("train") == [Group(p, (good, healed))]


def test_completions_of_older_runs_have_neither_usage_nor_note(tmp_path):
    store, p = Store(tmp_path), Prompt("p", ({"role": "user", "content": "?"},))
    store.add_prompts([p], "train")
    old = Completion("4", "m", 7, 0)
    with store.writer("completions/train", {"model": "m"}) as w:
        (row,) = [r for (i,) in store.sample_ids("train", [Group(p, (old,))]) for r in [_old_row(i, old)]]
        columns = SCHEMAS["completions"].names[:-2]
        pa_rows = pa.Table.from_pylist([row], pa.schema([SCHEMAS["completions"].field(c) for c in columns]))
        write_rows(tmp_path / "completions/train", 0, pa_rows, w.made_with)
    assert store.groups("train") == [Group(p, (old,))]


def _old_row(id_, c):
    return {"id": id_, "prompt_id": "p", "model": c.model, "seed": c.seed, "index": c.index, "text": c.text,
            "finish": c.finish, "tokens": None, "logprobs": None}  # fmt: skip


def scored(store, *names):
    groups = sampled(store)
    for n, name in enumerate(names):
        with store.writer(f"rewards/train/{name}", {}) as w:
            for g, ids in zip(groups, store.sample_ids("train", groups), strict=True):
                w.append({"id": i, "prompt_id": g.prompt.id, "value": float(n), "note": ""} for i in ids)
    return groups


def test_the_only_reward_needs_no_name_and_none_is_asked_for_by_none(store):
    groups = scored(store, "exact")
    assert store.groups("train") == store.groups("train", "exact") != groups
    assert {r.value for g in store.groups("train") for r in g.rewards} == {0.0}
    assert store.groups("train", None) == groups and store.names("rewards", "train") == ["exact"]


def test_of_several_rewards_one_must_be_named(store):
    groups = scored(store, "exact", "a/length")
    with pytest.raises(InputError, match=r"several rewards \(a/length, exact\); name one"):
        store.groups("train")
    assert {r.value for g in store.groups("train", "a/length") for r in g.rewards} == {1.0}
    assert store.groups("train", None) == groups


@pytest.mark.parametrize(
    ("name", "reward", "message"),
    [
        ("trian", "", "unknown completions 'trian'; did you mean 'train'"),
        ("trian", None, "unknown completions 'trian'"),
        ("train", "exactly", "unknown reward 'exactly'; did you mean 'exact'"),
    ],
)
def test_names_that_the_store_does_not_hold(store, name, reward, message):
    scored(store, "exact")
    with pytest.raises(InputError, match=message):
        store.groups(name, reward)
