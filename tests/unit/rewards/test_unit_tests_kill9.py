"""kill -9 while programs are run: scoring goes on where it was, and no sandbox outlives the process that it served."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

from trimtab.rewards import UnitTests
from trimtab.store import Store
from trimtab.types import Completion, Group, Prompt

SCRIPT = """
import os, sys
from functools import partialmethod
from pathlib import Path
from trimtab import rewards
from trimtab.store import Store
from trimtab.types import Completion, Group, Prompt

Store.writer = partialmethod(Store.writer, flush_rows=8)
store = Store(sys.argv[1])
reward = rewards.UnitTests(workers=1)
reward([Group(Prompt("warm", (), {"tests": "assert f() == 1"}), (Completion("def f(): return 1", "m", 0, 0),))])

def descendants(pid):
    children = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    return children + [d for c in children for d in descendants(c)]

with open(Path(sys.argv[1]) / "pids", "a") as f:
    f.write(" ".join(map(str, descendants(os.getpid()))) + "\\n")
print("begun", flush=True)
rewards.score(store.groups("train"), reward, store=store, name="train", reward_name="tests")
"""


def harness():
    path = Path(__file__).parents[2] / "e2e" / "kill9.py"
    spec = importlib.util.spec_from_file_location("kill9", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(p: int, i: int) -> str:
    if i == 0:
        return "def f(x:"  # a syntax error is 0 with a note
    return f"import time\ntime.sleep(0.02)\ndef f(x):\n    return x + {i % 3}"


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    store = Store(tmp_path)
    groups = [
        Group(
            Prompt(f"p{p}", ({"role": "user", "content": str(p)},), {"tests": "assert f(1) == 2"}),
            tuple(Completion(program(p, i), "m@1", i, i) for i in range(4)),
        )
        for p in range(10)
    ]
    store.add_prompts([g.prompt for g in groups], split="train")
    with store.writer("completions/train", {"model": "m@1"}) as w:
        w.append_groups(groups)
    kill9 = harness()
    argv = kill9.python(SCRIPT, tmp_path)
    killed = kill9.run_until_done_with_kills(argv, np.random.default_rng(0), kills=2, window_s=0.6)
    assert killed >= 1
    rows = store.read("rewards/train/tests").to_pylist()
    assert len(rows) == len({r["id"] for r in rows}) == 40
    want = UnitTests(workers=1)(groups)
    got = [g.reward_N.tolist() for g in store.groups("train", "tests")]
    assert got == [[r.value for r in row] for row in want] == [[0.0, 1.0, 0.0, 0.0]] * 10
    pids = [int(p) for p in (tmp_path / "pids").read_text().split()]
    assert pids
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.05)
    assert [p for p in pids if alive(p)] == []


def alive(pid: int) -> bool:
    """Whether the process still runs something of ours (numbers are used again, zombies wait for their parent)."""
    try:
        home = Path(f"/proc/{pid}")
        state = (home / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and "python" in (home / "exe").readlink().name
    except OSError:
        return False
