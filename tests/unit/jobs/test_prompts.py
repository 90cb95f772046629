"""A run's prompts behind the right answers of another run."""

import pytest

from trimtab import rewards
from trimtab.errors import InputError, SettingsChanged
from trimtab.jobs.prompts import add, divide
from trimtab.samplers import Cached
from trimtab.testing import FakeSampler, write_jsonl
from trimtab.types import SamplingParams


@pytest.fixture
def solved(tmp_path):
    """A file of prompts, and a run with scored training completions: "4" is right for every prompt but the first."""
    file = write_jsonl(tmp_path / "t.jsonl", [{"prompt": f"Q{i}", "answer": "4" if i else "5"} for i in range(12)])
    store = add(tmp_path / "old", divide(str(file), test=4))
    groups = Cached(FakeSampler(lambda p, rng: "4"), store, "train")(store.prompts("train"), 2, SamplingParams())
    rewards.score(groups, rewards.ExactMatch(), store=store, name="train", reward_name="exact_match")
    return str(file), store


def with_shots(solved, **data):
    file, old = solved
    return add(f"{old.path}-few", divide(file, test=4, reward="exact_match", **data))


def test_every_prompt_gets_right_answers_of_other_prompts(solved):
    plain = solved[1]
    few = with_shots(solved, shots=3, shots_from=str(plain.path))
    for split in ("train", "test"):
        assert [p.id for p in few.prompts(split)] == [p.id for p in plain.prompts(split)]
        for p, q in zip(few.prompts(split), plain.prompts(split), strict=True):
            assert [m["role"] for m in p.messages] == ["user", "assistant"] * 3 + ["user"]
            assert p.messages[-1] == q.messages[-1] and p.target == q.target
            assert {m["content"] for m in p.messages[1::2]} == {"4"}
            assert q.messages[-1] not in p.messages[:-1] and "Q0" not in {m["content"] for m in p.messages[:-1]}


def test_half_a_wish_is_refused(solved):
    for half in ({"shots": 2}, {"shots_from": str(solved[1].path)}):
        with pytest.raises(InputError, match="go together"):
            with_shots(solved, **half)


def test_another_number_of_shots_is_another_run(solved):
    old = str(solved[1].path)
    with_shots(solved, shots=2, shots_from=old)
    with pytest.raises(SettingsChanged, match="train_content"):
        with_shots(solved, shots=3, shots_from=old)
