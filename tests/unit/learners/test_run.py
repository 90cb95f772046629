"""A run is what decides its result: what it returns, what it refuses, and what it takes over from older versions."""

import json

import pytest

from tests.unit.learners.token.conftest import make_pairs
from trimtab.errors import InputError, SettingsChanged
from trimtab.learners import Optim, load_policy, train_policy
from trimtab.learners.completion.reward_model import train_reward_model
from trimtab.learners.run import Compute
from trimtab.testing import tiny_lm
from trimtab.types import Group

PAIRS = make_pairs(6)
OPTIM, COMPUTE = Optim(1e-3, epochs=2, batch_size=3), Compute("float32", "cpu")


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return str(tiny_lm(tmp_path_factory.mktemp("lm") / "tiny", layers=1))


@pytest.fixture(params=[train_policy, train_reward_model])
def train(request, lm, tmp_path):
    def run(optim=OPTIM, compute=COMPUTE):
        return request.param(PAIRS, model=lm, out=tmp_path / "run", optim=optim, compute=compute)

    return run


def card_of(run):
    return next(f for f in (run.path / "policy.json", run.path / "reward_model.json") if f.exists())


def test_what_is_returned_is_the_run_and_again_what_it_left(train):
    run = train()
    assert run.card == json.loads(card_of(run).read_text()) and run.card["steps"] == 4
    assert [x["loss"] for x in run.log if "loss" in x] == [
        x["loss"] for x in map(json.loads, (run.path / "log.jsonl").read_text().splitlines()) if "loss" in x
    ]
    assert train() == run


def test_a_trained_policy_loads_with_its_reference(lm, tmp_path):
    loaded = train_policy(PAIRS, model=lm, out=tmp_path, optim=OPTIM, compute=COMPUTE).load(dtype="float32")
    groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in PAIRS]
    want = load_policy(tmp_path, dtype="float32").reward(groups)
    assert loaded.reward(groups) == want and any(a.value > 0 for a, _ in want)


def test_every_setting_of_the_optimiser_decides_the_run(train):
    first = train().log
    for name, value in {"warmup": 2, "schedule": "cosine", "weight_decay": 0.5, "max_grad_norm": 0.1}.items():
        with pytest.raises(SettingsChanged, match=rf"{name}: \(absent\) then, {value!r} now"):
            train(Optim(1e-3, epochs=2, batch_size=3, **{name: value}))
    assert train().log == first


def test_warmup_begins_at_0_and_a_cosine_ends_there(lm, tmp_path):
    optim = Optim(1e-3, epochs=4, batch_size=3, warmup=0.25, schedule="cosine")
    log = train_policy(PAIRS, model=lm, out=tmp_path, optim=optim, compute=COMPUTE).log
    rates = [x["learning_rate"] for x in log if "loss" in x]
    # two of eight steps rise; then lr · (1 + cos(π·t/6)) / 2
    assert rates == pytest.approx([0, 5e-4, 1e-3, 9.330127e-4, 7.5e-4, 5e-4, 2.5e-4, 6.69873e-5], abs=1e-9)


def test_a_run_of_the_layout_that_wrote_its_precision_twice_is_the_same_run(train):
    run = train()
    card = json.loads(card_of(run).read_text())
    card["settings"]["precision"] = card["settings"]["dtype"]
    card_of(run).write_text(json.dumps(card))
    assert train().log == run.log


def test_a_damaged_log_is_named(train):
    run = train()
    (run.path / "log.jsonl").write_text('{"loss": 1.0}\n{"lo')
    with pytest.raises(InputError, match=r"log\.jsonl:2: cannot be read"):
        train()
