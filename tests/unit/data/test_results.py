"""Result files of other tools: what is read, and what is refused by name."""

import json
import math
import zipfile

import pytest

from trimtab import rewards
from trimtab.data.results import load_results
from trimtab.errors import InputError
from trimtab.samplers import Cached
from trimtab.store import Store
from trimtab.testing import FakeSampler, prompt
from trimtab.types import SamplingParams


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text if isinstance(text, str) else "".join(json.dumps(r) + "\n" for r in text))
    return tmp_path / name


def test_rows_by_column(tmp_path):
    csv = written(tmp_path, "a.csv", "prompt_id,id,score,note\n1,x,C,ok\n1,y,I,\n2,z,,\n3,w,0.25,\n")
    found = load_results(csv)[0]
    assert found.values["1"] == (1.0, 0.0) and found.values["3"] == (0.25,) and math.isnan(found.values["2"][0])
    assert found.of == "score" and found.name == "a.csv"
    rows = written(tmp_path, "b.jsonl", [{"q": 1, "reward": True, "mine": 2, "prompt": "hi"}])
    assert load_results(rows, id="q")[0].values == {"1": (1.0,)}
    assert load_results(rows, id="q", value="mine")[0].values == {"1": (2.0,)}
    assert load_results(rows, id="q")[0].texts == {"1": "hi"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "a", "score": "fine"}, r":1: field 'score' must be a number or null, got str 'fine'"),
        ({"id": "a", "score": [1]}, r":1: field 'score' must be a number"),
        ({"id": None, "score": 1}, r":1: field 'id' must be a prompt's id"),
        ({"id": "a", "points": 1}, r"no column reward, .* it has id, points: name one with --value"),
        ({"name": "a", "score": 1}, r"no column prompt_id or id, .* it has name, score: name one with --id"),
        ({"id": "a", "score": 1, "reward": 1}, r"several value columns \(reward, score\); name one: --value reward"),
        ({"id": "a", "doc_hash": "a", "acc": 1, "acc_norm": 0}, r"several metrics \(acc, acc_norm, id\)"),
    ],
)
def test_unknown_rows_are_refused_by_name(tmp_path, row, said):
    with pytest.raises(InputError, match=said):
        load_results(written(tmp_path, "a.jsonl", [row]))


def test_a_table_of_ours_gives_all_rows_or_one(tmp_path):
    table = {"baseline": "greedy", "rows": [{"name": n, "rewards": {"a": 1, "b": None}} for n in ("greedy", "probe")]}
    file = written(tmp_path, "table.json", json.dumps(table))
    assert [r.name for r in load_results(tmp_path)] == ["greedy", "probe"]
    assert [r.name for r in load_results(file, value="probe")] == ["probe"]
    with pytest.raises(InputError, match="unknown row 'prob'; did you mean 'probe'"):
        load_results(file, value="prob")
    with pytest.raises(InputError, match="no rewards by prompt"):
        load_results(written(tmp_path, "t.json", '{"baseline": "g", "rows": [{"name": "g"}]}'))


def log(tmp_path, entries):
    with zipfile.ZipFile(tmp_path / "a.eval", "w") as archive:
        for name, value in entries.items():
            archive.writestr(name, value if isinstance(value, str) else json.dumps(value))
    return tmp_path / "a.eval"


def sample(id, epoch, **more):
    return {"id": id, "epoch": epoch, **more}


def test_a_stopped_inspect_run_is_read_from_its_journal(tmp_path):
    scored = {"scores": {"match": {"value": "P"}}}
    first, last = (
        [sample(1, 1, error="died"), sample(2, 1, **scored)],
        [sample(1, 1, **scored), sample(3, 1, error="x")],
    )
    found = load_results(log(tmp_path, {"_journal/summaries/2.json": first, "_journal/summaries/10.json": last}))[0]
    assert found.values["1"] == found.values["2"] == (0.5,) and math.isnan(found.values["3"][0])
    assert found.notes == ("its status is 'started': samples may be missing", "1 samples ended in an error")


def test_inspect_scores_of_several_values_have_names(tmp_path):
    two = {"scores": {"quality": {"value": {"style": 0.5, "facts": 1}}, "odd": {"value": [1, 2]}}}
    file = log(tmp_path, {"summaries.json": [sample("a", 1, **two)], "header.json": {"status": "success"}})
    with pytest.raises(InputError, match=r"several scorers \(quality.style, quality.facts, odd\)"):
        load_results(file)
    assert load_results(file, value="quality.facts")[0].values == {"a": (1.0,)}
    with pytest.raises(InputError, match=r"row 1: field 'scores.odd.value' must be a number or null, got list"):
        load_results(file, value="odd")


def test_broken_logs_are_refused(tmp_path):
    for entries, said in [
        ({"header.json": {}}, "no summaries.json"),
        ({"summaries.json": "{"}, "summaries.json in it is not JSON"),
        ({"summaries.json": {}}, "must be a list of samples"),
        ({"summaries.json": []}, "has no samples"),
    ]:
        with pytest.raises(InputError, match=said):
            load_results(log(tmp_path, entries))
    with pytest.raises(InputError, match="no readable Inspect log"):
        load_results(written(tmp_path, "b.eval", "no zip"))
    with pytest.raises(InputError, match="no such file"):
        load_results(tmp_path / "none.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no run directory"):
        load_results(tmp_path / "empty")


def test_a_run_directory_gives_its_rewards_by_prompt(tmp_path):
    store = Store(tmp_path / "run")
    store.add_prompts([prompt(f"Q{i}", id=f"q{i}", target={"answer": str(i)}) for i in range(3)], "test", {})
    groups = Cached(FakeSampler(lambda p, rng: "1"), store, "test")(store.prompts("test"), 2, SamplingParams())
    with pytest.raises(InputError, match="'test' have no rewards yet; score them first"):
        load_results(tmp_path / "run")
    rewards.score(groups, rewards.ExactMatch(), store=store, name="test", reward_name="right")
    (found,) = load_results(tmp_path / "run")
    assert found.values == {"q0": (0, 0), "q1": (1, 1), "q2": (0, 0)} and found.of == "right" and found.name == "run"
    assert found.texts == {f"q{i}": f"Q{i}" for i in range(3)}
    with pytest.raises(InputError, match="unknown reward 'wrong'"):
        load_results(tmp_path / "run", value="wrong")
    with pytest.raises(InputError, match="train"):
        load_results(tmp_path / "run", split="train")
