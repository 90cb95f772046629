"""Scoring 4,800 real programs, killed (-9) at random moments until it ends: the same rewards, no row twice.

Figures: kills, seconds, rows, and whether the rewards equal those of a run that nobody killed.
"""

import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.data import find
from benchmarks.repro.qprobe.states import load_samples
from benchmarks.run import Run
from trimtab import rewards
from trimtab.store import Store
from trimtab.types import Completion, Group, Prompt

SETTINGS = {"kills": 6, "prompts": 300, "least_s": 3.0, "most_s": 15.0}
SMALL = {"kills": 2, "prompts": 20, "least_s": 0.5, "most_s": 1.5}
CHILD = """
import sys
from trimtab import rewards
from trimtab.store import Store
store = Store(sys.argv[1])
rewards.score(store.groups("train", None), rewards.UnitTests(), store=store, name="train", reward_name="tests")
"""


def main(run: Run) -> None:
    """Fills a store, scores it under kills, compares with an uninterrupted run."""
    s = run.settings
    groups = []
    for row in load_samples(str(find("mbpp_samples")))[: s.prompts]:
        prompt = Prompt(
            str(row["task_id"]),
            ({"role": "text", "content": row["prompt"]},),
            {"tests": row["tests"], "setup": row["setup"]},
        )
        groups.append(Group(prompt, tuple(Completion(c, "q@0", i, i) for i, c in enumerate(row["completions"]))))
    begun, rng, killed = time.monotonic(), np.random.default_rng(0), 0
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.add_prompts([g.prompt for g in groups], split="train")
        with store.writer("completions/train", {"model": "q@0"}) as w:
            w.append_groups(groups)
        while True:
            process = subprocess.Popen([sys.executable, "-c", CHILD, folder])
            try:
                process.wait(timeout=rng.uniform(s.least_s, s.most_s) if killed < s.kills else None)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                print(f"killed {killed} times", flush=True)
        seconds = time.monotonic() - begun
        rows = store.read("rewards/train/tests").to_pylist()
        got = [g.reward_N for g in store.groups("train", "tests")]
    want = rewards.UnitTests()(groups)
    different = sum(r.value != v for row, g in zip(want, got, strict=True) for r, v in zip(row, g, strict=True))
    run.write({
        "kills": killed, "seconds": round(seconds, 1), "rows": len(rows), "distinct": len({r["id"] for r in rows}),
        "completions": sum(len(g.completions) for g in groups), "different": int(different),
        "mean_reward": float(np.mean(np.concatenate(got))),
    })  # fmt: skip
