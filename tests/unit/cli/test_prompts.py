"""A task's prompts behind the right answers of another run."""

import pytest

from trimtab import rewards
from trimtab.cli.config import Data, RewardSpec, Task
from trimtab.cli.prompts import open_store, reward_of
from trimtab.errors import InputError, SettingsChanged
from trimtab.samplers import Cached
from trimtab.testing import FakeSampler, write_jsonl
from trimtab.types import SamplingParams


@pytest.fixture
def solved(tmp_path):
    """A task whose run directory holds scored training completions: "4" is right for every prompt but the first."""
    write_jsonl(tmp_path / "t.jsonl", [{"prompt": f"Q{i}", "answer": "4" if i else "5"} for i in range(12)])
    task = Task(str(tmp_path / "old"), Data(str(tmp_path / "t.jsonl"), test=4), reward=RewardSpec("exact_match"))
    store, (name, reward) = open_store(task), reward_of(task)
    groups = Cached(FakeSampler(lambda p, rng: "4"), store, "train")(store.prompts("train"), 2, SamplingParams())
    rewards.score(groups, reward, store=store, name="train", reward_name=name)
    return task


def with_shots(task: Task, **data) -> Task:
    return Task(task.out + "-few", Data(task.data.prompts, test=4, **data), reward=task.reward)


def test_every_prompt_gets_right_answers_of_other_prompts(solved):
    few, plain = open_store(with_shots(solved, shots=3, shots_from=solved.out)), open_store(solved)
    for split in ("train", "test"):
        assert [p.id for p in few.prompts(split)] == [p.id for p in plain.prompts(split)]
        for p, q in zip(few.prompts(split), plain.prompts(split), strict=True):
            assert [m["role"] for m in p.messages] == ["user", "assistant"] * 3 + ["user"]
            assert p.messages[-1] == q.messages[-1] and p.target == q.target
            assert {m["content"] for m in p.messages[1::2]} == {"4"}
            assert q.messages[-1] not in p.messages[:-1] and "Q0" not in {m["content"] for m in p.messages[:-1]}


def test_half_a_wish_is_refused(solved):
    for half in ({"shots": 2}, {"shots_from": solved.out}):
        with pytest.raises(InputError, match="go together"):
            open_store(with_shots(solved, **half))


def test_another_number_of_shots_is_another_run(solved):
    open_store(with_shots(solved, shots=2, shots_from=solved.out))
    with pytest.raises(SettingsChanged, match="train_content"):
        open_store(with_shots(solved, shots=3, shots_from=solved.out))
