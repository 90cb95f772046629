"""West-of-N on a store whose states say what is right."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from trimtab.cli.west_of_n import west_of_n
from trimtab.embeddings import Stored
from trimtab.errors import InputError
from trimtab.jobs.inputs import Source
from trimtab.jobs.west_of_n import improve
from trimtab.store import Store
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Reward

app = typer.Typer()
app.command()(west_of_n)


@dataclass(frozen=True)
class States:
    """The state of a completion is in its text."""

    card: dict[str, Any]

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [np.array([c.text.split() for c in g.completions], dtype=np.float32) for g in groups]


@pytest.fixture
def store(tmp_path) -> Store:
    rng, store = np.random.default_rng(0), Store(tmp_path / "run")
    for name, size in (("train", 20), ("more", 30), ("test", 30)):
        groups = []
        for p in range(size):
            x = rng.normal(size=(8, 4))
            completions = tuple(Completion(" ".join(f"{v:.3f}" for v in row), "m@0", 0, i) for i, row in enumerate(x))
            groups.append(Group(prompt(f"{name}{p}"), completions, tuple(Reward(float(r[0] > 0)) for r in x)))
        store.add_prompts([g.prompt for g in groups], name)
        with store.writer(f"completions/{name}", {"n": 8}) as w:
            w.append_groups(groups)
        with store.writer(f"rewards/{name}/gold", {"reward": "gold"}) as w:
            for g, ids in zip(groups, store.sample_ids(name, groups), strict=True):
                w.append(
                    [
                        {"id": i, "prompt_id": g.prompt.id, "value": r.value, "note": ""}
                        for i, r in zip(ids, g.rewards, strict=True)
                    ]
                )
        Stored(States({"kind": "numbers"}), store, name)(groups)
    return store


def invoke(*words: object) -> dict:
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_west_of_n_from_a_run_directory(store, tmp_path):
    words = [store.path, "--labelled", "train", "--reward", "gold", "--pool", "more", "--judge", "test"]
    facts = invoke(*words, "--out", tmp_path / "won", "--rounds", 2, "--confidence", 0.2, "--teacher", "pairwise")
    assert len(facts["rounds"]) == 2 and facts["rounds"][0]["groups"] == 30 and facts["rounds"][0]["kept"] == 24
    rows = {(r["scorer"], r["measure"]): r["mean"][0] for r in facts["judged"]}
    assert rows["student", "accuracy"] > 0.9 and rows["student", "best of N"] == 1
    assert (
        invoke(*words, "--out", tmp_path / "won", "--rounds", 2, "--confidence", 0.2) == facts
    )  # continues: nothing to do
    assert (tmp_path / "won" / "round2" / "student" / "probe.safetensors").is_file()


def test_west_of_n_says_what_is_missing(store, tmp_path):
    run, out = str(store.path), tmp_path / "w"
    gold = Source("", "train", "gold")
    with pytest.raises(InputError, match=r"name the labelled completions with --labelled \(train, test\)"):
        improve(run, pool="more", out=out)
    with pytest.raises(InputError, match="not pairwise"):
        improve(run, pool="more", out=out, labelled=gold, student="pairwise")
    with pytest.raises(InputError, match="30 of the 30 prompts of --judge are learnt from too"):
        improve(run, pool="more", out=out, labelled=gold, judge="more")
    empty = Store(tmp_path / "empty")
    empty.add_prompts([prompt("x")], "train")
    with pytest.raises(InputError, match="holds no embeddings"):
        improve(str(empty.path), pool="more", out=out, labelled=gold)
