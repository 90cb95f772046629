"""The scoring loop: failures are NaN with a note and cost only themselves, stored rewards are not scored again."""

import multiprocessing
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from trimtab import rewards
from trimtab.errors import EngineError, InputError, SettingsChanged
from trimtab.store import Store
from trimtab.types import Completion, Group, Prompt, Reward

pytestmark = pytest.mark.slow  # all together: `make quick` leaves them out


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr(sys, "path", list(sys.path))


def group(*texts, name="p", target=None):
    completions = tuple(Completion(t, "m@1", i, i) for i, t in enumerate(texts))
    return Group(Prompt(name, ({"role": "user", "content": name},), target), completions)


def shown(groups):
    return [[r.note or r.value for r in g.rewards] for g in groups]


def test_failures_in_workers_cost_only_themselves():
    groups = [group("fine", "raise", "hang", "string"), group("die", "fine", "none", "nan", name="q")]
    reward = rewards.resolve("user_rewards:naughty")
    scored = rewards.score(groups, reward, workers=2, timeout_s=2.0)
    assert shown(scored) == [
        [1.0, "ValueError: no reward for you", "took longer than 2.0 s",
         "the reward returned str 'good' where a number was expected"],
        ["the worker process died (exit code 3)", 1.0, "the reward returned None", "the reward returned nan"],
    ]  # fmt: skip
    assert [g.completions for g in scored] == [g.completions for g in groups]
    assert sum(rewards.unscored(scored).values()) == 6


def test_the_same_in_process_and_in_workers():
    groups = [group(*"abc", name=f"p{i}") for i in range(5)]
    reward = rewards.resolve("user_rewards:length")
    assert rewards.score(groups, reward, workers=0) == rewards.score(groups, reward, workers=2)
    assert rewards.score([], reward) == [] and rewards.score([group()], reward)[0].rewards == ()


def test_when_every_worker_dies_it_is_not_the_completions():
    with pytest.raises(EngineError, match="every worker process died"):
        rewards.score([group("a", "b", "c")], rewards.resolve("user_rewards:always_dies"), workers=2)


def test_a_script_without_a_main_guard_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from trimtab import Completion, Group, Prompt, rewards\n"
        "prompt = Prompt('p', ({'role': 'user', 'content': 'q'},))\n"
        "group = Group(prompt, tuple(Completion('yes', 'm', i, i) for i in range(3)))\n"
        "rewards.score([group], rewards.Regex('y', limit_s=5.0), workers=1)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert 'in a script put the call under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize(
    ("returned", "note"),
    [
        ([], "ValueError: the reward returned 0 rows for 1 groups"),
        ([[Reward(1.0)]], "ValueError: the reward returned 1 values for 2 completions"),
        (["ab"], "ValueError: the reward returned 2 values for 2 completions"),
        (None, "TypeError: object of type 'NoneType' has no len()"),
        ([[1.0, "x"]], "the reward returned str 'x' where a number was expected"),
    ],
)
def test_a_reward_of_the_wrong_shape(returned, note):
    (g,) = rewards.score([group("a", "b")], lambda groups: returned)
    assert g.rewards[1].note == note and np.isnan(g.rewards[1].value)


def test_a_batch_that_fails_is_tried_group_by_group():
    def picky(groups):
        if any(g.prompt.id == "p3" for g in groups):
            raise RuntimeError("not p3")
        return [[Reward(1.0)] * len(g.completions) for g in groups]

    scored = rewards.score([group("a", name=f"p{i}") for i in range(20)], picky)
    assert [g.prompt.id for g in scored if np.isnan(g.reward_N).any()] == ["p3"]
    assert rewards.unscored(scored) == {"RuntimeError: not p3": 1}


def test_what_the_user_must_act_on_stops_the_loop():
    with pytest.raises(InputError, match="no column 'answer'") as kept:
        rewards.score([group("a")], rewards.MathAnswer(), workers=1)
    assert kept and not multiprocessing.active_children()  # the pool is gone though the traceback is alive
    with pytest.raises(InputError, match=r"cannot be sent to worker processes .* pass workers=0"):
        rewards.score([group("a")], rewards.lift(lambda p, c: 1.0), workers=1)
    with pytest.raises(InputError, match="needs name="):
        rewards.score([group("a")], rewards.Regex("a"), store=Store("unused"), name="train")


@dataclass(frozen=True)
class Counting:
    """Counts how often each text is scored; not part of what identifies it."""

    seen: Counter = field(default_factory=Counter, repr=False, compare=False)
    by_completion: bool = True
    limit_s: None = None

    def __call__(self, groups):
        self.seen.update(c.text for g in groups for c in g.completions)
        return [[Reward(float(len(c.text))) for c in g.completions] for g in groups]


@pytest.fixture
def stored(tmp_path):
    store = Store(tmp_path)
    groups = [group(*(f"{p}{'x' * i}" for i in range(4)), name=f"p{p}") for p in range(6)]
    store.add_prompts([g.prompt for g in groups], split="train")
    with store.writer("completions/train", {"model": "m@1"}) as w:
        w.append_groups(groups)
    return store, store.groups("train")


def test_stored_rewards_are_not_scored_again(stored):
    store, groups = stored
    reward = Counting()
    first = rewards.score(groups[:3], reward, store=store, name="train", reward_name="len")
    again = rewards.score(groups, reward, store=store, name="train", reward_name="len")
    assert again[:3] == first and set(reward.seen.values()) == {1} and len(reward.seen) == 24
    assert store.groups("train", "len") == again == rewards.score(groups, Counting())
    assert store.manifest["tables"]["rewards/train/len"]["facts"] == {"scored": 24, "unscored": {}}
    with pytest.raises(SettingsChanged, match="Counting"):
        rewards.score(groups, rewards.Regex("a"), store=store, name="train", reward_name="len")


@pytest.mark.parametrize("by_completion", [True, False])
def test_a_group_half_stored_is_completed(stored, by_completion):
    store, groups = stored
    reward = Counting(by_completion=by_completion)
    (ids,) = store.sample_ids("train", groups[:1])
    with store.writer("rewards/train/len", {"reward": repr(reward)}) as w:
        w.append([{"id": ids[1], "prompt_id": "p0", "value": 99.0, "note": ""}])
    (g,) = rewards.score(groups[:1], reward, store=store, name="train", reward_name="len")
    assert [r.value for r in g.rewards] == [1.0, 99.0, 3.0, 4.0]
    assert sum(reward.seen.values()) == (3 if by_completion else 4)  # a reward of whole groups needs the whole group


def test_an_error_keeps_what_was_scored(stored, monkeypatch):
    store, groups = stored

    def breaks(prompt, completion):
        if prompt.id == "p4":
            raise InputError("mend me")
        return 1.0

    monkeypatch.setattr(sys.modules["trimtab.rewards.score"], "BATCH", 2)
    with pytest.raises(InputError, match="mend me"):
        rewards.score(groups, rewards.lift(breaks), store=store, name="train", reward_name="r")
    assert len(store.ids("rewards/train/r")) == 16  # the two batches before the one that broke


def test_nan_and_its_note_are_stored(stored):
    store, groups = stored
    first = rewards.lift(lambda p, c: None if c.index else 1.0)
    scored = rewards.score(groups, first, store=store, name="train", reward_name="n")
    assert rewards.unscored(store.groups("train", "n")) == rewards.unscored(scored) == {"the reward returned None": 18}


def test_a_wrong_option_can_be_mended_when_nothing_was_scored_with_it(stored):
    store, groups = stored
    with pytest.raises(InputError, match="no column 'gold'"):
        rewards.score(groups, rewards.ExactMatch("gold"), store=store, name="train", reward_name="r")
    scored = rewards.score(groups, rewards.Regex("x$"), store=store, name="train", reward_name="r")
    assert [r.value for r in scored[0].rewards] == [0.0, 1.0, 1.0, 1.0]
