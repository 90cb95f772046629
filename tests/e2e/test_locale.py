"""A machine whose locale is not UTF-8, and that has no home: the same rows, the same words."""

import json
import os
import subprocess
import sys

from trimtab.store import Store
from trimtab.testing import write_jsonl

SAMPLER = '''
from trimtab.types import Completion, Group
class Echo:
    """Says the prompt back."""
    model = "echo@1"
    def __call__(self, prompts, n, params):
        return [Group(p, tuple(Completion(f"{p.messages[-1]['content']}。{i}", self.model, i, i) for i in range(n)))
                for p in prompts]
def length(prompt, completion):
    """長さ"""
    return float(len(completion.text))
'''
TASK = """
out = "run"
[data]
prompts = "tasks.jsonl"
test = 2
[model]
name = "カナ"
engine = "own:Echo"
[reward]
name = "own:length"
"""


def test_japanese_prompts_in_an_ascii_locale_without_a_home(tmp_path):
    said = ["東京はどこですか", "¿Dónde está?", "😀 где?", "四", "五", "六"]
    write_jsonl(tmp_path / "tasks.jsonl", [{"prompt": s} for s in said])
    (tmp_path / "own.py").write_text(SAMPLER, encoding="utf-8")
    (tmp_path / "task.toml").write_text(TASK, encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON", "HOME", "TRIMTAB"))}
    env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}

    def run(*words):
        command = [sys.executable, "-m", "trimtab.cli", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=100)

    for words in (
        ["sample", "-c", "task.toml", "--n", "2"],
        ["score", "-c", "task.toml"],
        ["score", "-c", "task.toml"],
    ):
        done = run(*words, "--json")
        assert done.returncode == 0, done.stderr.decode()
        json.loads(done.stdout)
    store = Store(tmp_path / "run")
    groups = store.groups("train") + store.groups("test")
    assert sorted(g.prompt.messages[-1]["content"] for g in groups) == sorted(said)
    assert {r.note for g in groups for r in g.rewards} == {""}
    for g in groups:
        content = g.prompt.messages[-1]["content"]
        assert [(c.text, r.value) for c, r in zip(g.completions, g.rewards, strict=True)] == [
            (f"{content}。{i}", len(content) + 2.0) for i in range(2)
        ]
    broken = tmp_path / "run" / "task.json"
    broken.write_bytes(broken.read_bytes()[:40])
    done = run("score", "-o", "run")
    assert done.returncode == 1 and b"task.json" in done.stderr and b"Traceback" not in done.stderr
    done = run("sample", "-c", "task.toml", "-o", "走る")
    assert done.returncode == 1 and b"LC_ALL=C.UTF-8" in done.stderr and b"Traceback" not in done.stderr
