"""The main job from Python, on a sampler without a model: what it stores, that it goes on, and its numbers by hand."""

import numpy as np
import pytest

from trimtab.errors import InputError, SettingsChanged
from trimtab.evaluation import Table
from trimtab.jobs import main_job
from trimtab.store import Store
from trimtab.testing import FakeSampler, prompt

PROMPTS = [prompt(f"Colour {i}?") for i in range(12)]
HOW = {"dividing": {"test": 4}, "sampling": {"train_n": 2, "test_n": 5}, "fitting": {"losses": ()}}


def colour(p, rng):
    return str(rng.choice(["blue", "red", "green"]))


def is_blue(prompt, completion):
    return float(completion.text == "blue")


def run(out, sampler=None, **how):
    model = sampler or FakeSampler(colour, model="colours@1")
    return main_job.run(PROMPTS, model=model, reward=is_blue, out=out, **{**HOW, **how})


def test_the_table_is_what_the_stored_rewards_say(tmp_path):
    said = []
    table = run(tmp_path, say=said.append)
    groups = Store(tmp_path).groups("test", f"{__name__}.is_blue")
    assert [len(g.completions) for g in groups] == [5] * 4
    reward = np.array([[c.text == "blue" for c in g.completions] for g in groups], float)
    assert table["oracle"].reward.mean == pytest.approx(reward.max(1).mean())
    assert table["pass@1"].reward.mean == pytest.approx(reward.mean())
    assert said[0].startswith("sampled  model colours@1, train 8 x 2, test 4 x 5, greedy 4 x 1")
    assert (tmp_path / "report.html").stat().st_size > 1e6 and Table.load(tmp_path)["oracle"] == table["oracle"]


def test_the_same_call_samples_nothing_and_another_is_refused(tmp_path):
    def never(p, rng):
        raise AssertionError("sampled again")

    first = run(tmp_path)
    assert run(tmp_path, FakeSampler(never, model="colours@1")).rows == first.rows
    assert main_job.run(model=FakeSampler(never, model="colours@1"), reward=is_blue, out=tmp_path, **HOW) == first
    with pytest.raises(SettingsChanged, match="temperature"):
        run(tmp_path, sampling={**HOW["sampling"], "temperature": 0.5})
    with pytest.raises(SettingsChanged):
        run(tmp_path, dividing={"test": 5})


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="is no run directory with prompts in it"):
        main_job.run(reward=is_blue, out=tmp_path, **HOW)
    with pytest.raises(InputError, match="no reward"):
        main_job.run(PROMPTS, model=FakeSampler(colour), out=tmp_path, **HOW)
    with pytest.raises(TypeError, match="temprature"):
        run(tmp_path / "b", sampling={"temprature": 1})
