"""kill -9 at 20 random moments of scoring: the rows are those of an uninterrupted run, none lost, none doubled."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from trimtab import rewards
from trimtab.store import Store
from trimtab.types import Completion, Group, Prompt

SCRIPT = """
import sys, time
from functools import partialmethod
from trimtab import rewards
from trimtab.store import Store
from trimtab.types import Reward

Store.writer = partialmethod(Store.writer, flush_rows=40)  # many shards, so that kills fall between and into them

def digits(prompt, completion):
    begun = time.perf_counter()
    while time.perf_counter() - begun < 0.002:
        pass
    return float("nan") if completion.index == 7 else sum(map(int, completion.text))

store = Store(sys.argv[1])
groups = store.groups("train")
print("begun", flush=True)
rewards.score(groups, rewards.lift(digits), store=store, name="train", reward_name="digits")
"""


def digits(prompt, completion):
    return float("nan") if completion.index == 7 else sum(map(int, completion.text))


def harness():
    path = Path(__file__).parents[2] / "e2e" / "kill9.py"
    spec = importlib.util.spec_from_file_location("kill9", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_killed_twenty_times_and_resumed(tmp_path):
    store = Store(tmp_path)
    groups = [
        Group(
            Prompt(f"p{p}", ({"role": "user", "content": str(p)},)),
            tuple(Completion(f"{p}{i}", "m@1", i, i) for i in range(16)),
        )
        for p in range(125)
    ]
    store.add_prompts([g.prompt for g in groups], split="train")
    with store.writer("completions/train", {"model": "m@1"}) as w:
        w.append_groups(groups)
    kill9 = harness()
    killed = kill9.run_until_done_with_kills(kill9.python(SCRIPT, tmp_path), np.random.default_rng(0))
    assert killed == 20
    rows = store.read("rewards/train/digits").to_pylist()
    assert len(rows) == len({r["id"] for r in rows}) == 2000
    assert len(list((tmp_path / "rewards/train/digits").glob("*.parquet"))) > 20
    expected = rewards.score(store.groups("train"), rewards.lift(digits))
    for got, g in zip(store.groups("train", "digits"), expected, strict=True):
        assert [(c.index, repr(r)) for c, r in zip(got.completions, got.rewards, strict=True)] == [
            (c.index, repr(r)) for c, r in zip(g.completions, g.rewards, strict=True)
        ]
