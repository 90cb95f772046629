"""kill -9 at any moment of any verb: resumed equals uninterrupted. It knows no verb by name but in the table below.

Three moments a verb here, spread over its publishing steps; twelve and four by the clock with TRIMTAB_SOAK=1
(`make soak`).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from trimtab.publish import recover
from trimtab.store import SCHEMAS, Store
from trimtab.testing import tiny_lm, write_jsonl

SOAK = bool(os.environ.get("TRIMTAB_SOAK"))
REWARDS = """
def vowels(completions, **columns):
    texts = [c[0]["content"] if isinstance(c, list) else c for c in completions]
    return [sum(ch in "aeiouAEIOU" for ch in t) / 8 for t in texts]
"""
TASK = """
out = "run"
[data]
prompts = "tasks.jsonl"
test = 4
[model]
name = "lm"
engine = "hf"
device = "cpu"
[sample]
train_n = 4
test_n = 4
temperature = 1.0
max_tokens = 6
[reward]
name = "my_rewards:vowels"
[embed]
layers = [1, 2]
[probe]
losses = ["mse", "pg"]
folds = 3
[eval]
extract = "last_line"
draws = 200
"""
POOL = """
out = "pool"
prompts = ["tasks.jsonl"]
max_tokens = 4
[[models]]
name = "lm"
engine = "hf"
alias = "a"
[[models]]
name = "lm2"
engine = "hf"
alias = "b"
[[rewards]]
name = "my_rewards:vowels"
"""
STAGES = (["sample"], ["score"], ["embed"], ["fit", "probe"])
TRAIN = ["--model", "lm", "--epochs", "2", "--batch-size", "3", "--dtype", "float32", "--device", "cpu"]
VERBS = {
    "sample": (0, ["sample", "-c", "task.toml"], "run"),
    "score": (1, ["score", "-o", "run"], "run"),
    "embed": (2, ["embed", "-o", "run"], "run"),
    "fit probe": (3, ["fit", "probe", "-o", "run"], "run"),
    "fit reranker": (3, ["fit", "reranker", "-o", "run"], "run"),
    "report": (4, ["report", "-o", "run"], "run"),
    "train": (0, ["train", "pairs.jsonl", *TRAIN, "--out", "policy"], "policy"),
    "train lora": (0, ["train", "pairs.jsonl", *TRAIN, "--lora-rank", "2", "--out", "policy"], "policy"),
    "reward train": (0, ["reward", "train", "pairs.jsonl", *TRAIN, "--out", "rm"], "rm"),
    "features train": (
        0, ["features", "train", "texts.jsonl", "--model", "lm", "--layer", "1", "--width", "40", "--k", "4",
            "--batch-size", "16", "--samples", "160", "--dtype", "float32", "--device", "cpu", "--out", "sae"], "sae",
    ),
    "west-of-n": (
        3,
        ["west-of-n", "run", "--pool", "test", "--labelled", "train", "--reward", "my_rewards.vowels", "--make",
         "best_vs_worst", "--layer", "2", "--out", "won"],
        "won",
    ),
    "pool": (0, ["pool", "pool.toml"], "pool"),
    "fit router": (
        0, ["fit", "router", "table.jsonl", "--encoder", "ngrams", "--no-guard", "--out", "router"], "router",
    ),
}  # fmt: skip
CLOCKS = re.compile(r"second|runtime|time|begun|per_s|latency|versions|gb$|bytes", re.IGNORECASE)


class Server:
    """The process that forks the runs."""

    def __init__(self):
        env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, str(Path(__file__).with_name("kill_server.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __call__(self, argv, cwd, **moment):
        self.process.stdin.write(json.dumps({"argv": argv, "cwd": str(cwd), **moment}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def run():
    server = Server()
    yield server
    server.process.stdin.close()
    server.process.wait(timeout=30)


@pytest.fixture(scope="module")
def stages(run, tmp_path_factory):
    """Folders in which the first 0, 1, 2, ... stages of the main job are done."""
    base = tmp_path_factory.mktemp("stage0")
    for n, name in enumerate(("lm", "lm2")):
        tiny_lm(base / name, layers=2, seed=n)
    write_jsonl(base / "tasks.jsonl", [{"prompt": f"Say {i} words."} for i in range(10)])
    pairs = [{"prompt": f"q{i} ", "chosen": f"a{i}a", "rejected": f"h{i}hh"} for i in range(9)]
    write_jsonl(base / "pairs.jsonl", pairs)
    write_jsonl(base / "texts.jsonl", [{"text": f"{i} is a text of some words"} for i in range(14)])
    rows = [(i, name, (i + n) % 2) for i in range(30) for n, name in enumerate(("small", "large"))]
    table = [{"prompt_id": str(i), "prompt": f"What is {i}?", "model": m, "reward": r} for i, m, r in rows]
    write_jsonl(base / "table.jsonl", table)
    (base / "my_rewards.py").write_text(REWARDS)
    (base / "task.toml").write_text(TASK)
    (base / "pool.toml").write_text(POOL)
    folders = [base]
    for argv in STAGES:
        folder = tmp_path_factory.mktemp("stage") / "work"
        shutil.copytree(folders[-1], folder)
        done = run([*argv, "-c", "task.toml"], folder)
        assert done["status"] == 0, done["output"]
        folders.append(folder)
    return folders


def unclocked(value):
    """JSON without what depends on the clock and the machine."""
    if isinstance(value, dict):
        return {k: unclocked(v) for k, v in value.items() if not CLOCKS.search(k)}
    return [unclocked(v) for v in value] if isinstance(value, list) else value


def rows_of(store):
    tables = {}
    for table in store.tables():
        if CLOCKS.search(table):
            continue
        if table.startswith("embeddings"):
            parts = list(store.tensors(table))
            tables[table] = {i: {k: t[k][n].tobytes() for k in t} for ids, t in parts for n, i in enumerate(ids)}
        else:
            rows = store.read(table, SCHEMAS[table.split("/")[0]].names).to_pylist()
            tables[table] = {r["id"]: str(unclocked(r)) for r in rows}
    return tables


def seen(folder):
    """All that a folder holds, in a form that is equal when the work is."""
    found = {}
    for manifest in folder.rglob("manifest.json"):
        found[str(manifest.relative_to(folder))] = rows_of(Store(manifest.parent))
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        name = str(file.relative_to(folder))
        parts = file.relative_to(folder).parts
        if file.name == "manifest.json" or file.name.startswith(".") or "checkpoints" in parts:
            continue
        if any(part in (*SCHEMAS, "embeddings") for part in parts[:-1]) and file.suffix in (".parquet", ".safetensors"):
            continue
        if file.suffix == ".safetensors":
            found[name] = {k: (v.dtype.str, v.tobytes()) for k, v in load_file(file).items()}
        elif file.suffix == ".json":
            found[name] = unclocked(json.loads(file.read_text()))
        elif file.suffix == ".jsonl":
            found[name] = [unclocked(json.loads(line)) for line in file.read_text().splitlines()]
        elif file.suffix in (".html", ".bin", ".parquet", ".md"):
            found[name] = file.suffix
        else:
            found[name] = file.read_bytes()
    return found


def leftovers(folder):
    return [f for f in folder.rglob(".*") if f.name.startswith((".tmp-", ".old-"))]


def moments(steps, seconds):
    count = 12 if SOAK else 3
    spread = np.unique(np.linspace(1, steps, count).round().astype(int)).tolist()
    by_clock = [{"die_after_s": seconds * share} for share in (0.2, 0.45, 0.7, 0.9)] if SOAK else []
    return [{"die_at": s} for s in spread] + by_clock


@pytest.mark.parametrize("verb", VERBS)
def test_killed_and_run_again_is_as_if_never_killed(run, stages, tmp_path, verb):
    if verb == "features train":
        pytest.importorskip("sae_lens")
    stage, argv, out = VERBS[verb]
    folder = tmp_path / "work"  # always the same path: it is part of what some files say
    shutil.copytree(stages[stage], folder)
    done = run(argv, folder)
    assert done["status"] == 0, done["output"]
    assert done["steps"] > 0
    wanted = seen(folder / out)
    for moment in moments(done["steps"], done["seconds"]):
        shutil.rmtree(folder)
        shutil.copytree(stages[stage], folder)
        killed = run(argv, folder, **moment)
        assert killed["status"] == -9 or "die_after_s" in moment, killed["output"]
        again = run(argv, folder)
        assert again["status"] == 0, f"{moment}: {again['output']}"
        recover(folder / out)
        found = seen(folder / out)
        assert found.keys() == wanted.keys(), moment
        for name in wanted:
            assert found[name] == wanted[name], f"{moment}: {name} differs"
        assert leftovers(folder) == [], moment
