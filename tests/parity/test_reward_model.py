"""One epoch of Bradley-Terry training against TRL 1.16's RewardTrainer: same rows, order and float32 (see
make_reward_values.py); losses of every step and the trained model's rewards to 1e-3."""

import json
from pathlib import Path

import pytest

from trimtab.learners.completion.reward_model import train_reward_model
from trimtab.learners.run import Compute, Optim
from trimtab.lm.load import load_classifier
from trimtab.rewards.reward_model import RewardModel
from trimtab.testing import tiny_lm
from trimtab.types import Completion, Group, Pair, Prompt

HERE = Path(__file__).parent
WANT = json.loads((HERE / "reward_values.json").read_text())


def tiny_reward_model(folder: Path) -> Path:
    lm = load_classifier(str(tiny_lm(folder / "lm")), "float32", new_head=True, seed=3)
    lm.model.save_pretrained(folder / "rm")
    lm.tokenizer.save_pretrained(folder / "rm")
    return folder / "rm"


@pytest.mark.parametrize(("name", "settings"), [("plain", {}), ("center", {"center": 0.1}), ("margin", {})])
def test_same_losses_and_rewards_as_trl(tmp_path, name, settings):
    rows = json.loads((HERE / "curve_rows.json").read_text())
    pairs = [
        Pair(
            Prompt(str(i), ({"role": "text", "content": r["prompt"]},)), Completion(r["chosen"], "", 0, 0),
            Completion(r["rejected"], "", 0, 1), 0.1 * (i % 5),
        )
        for i, r in enumerate(rows)
    ]  # fmt: skip
    out = train_reward_model(
        pairs,
        model=str(tiny_reward_model(tmp_path)),
        out=tmp_path / "run",
        optim=Optim(batch_size=4, learning_rate=1e-3, shuffle=False),
        compute=Compute(dtype="float32", trainer={"max_grad_norm": 1.0}),
        margin=name == "margin",
        **settings,
    ).path
    log = [x for x in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in x]
    assert [x["loss"] for x in log] == pytest.approx(WANT[name]["loss"], abs=1e-3)
    scored = RewardModel(str(out), dtype="float32")([Group(p.prompt, (p.chosen, p.rejected)) for p in pairs])
    got = [r.value for row in scored for r in row]
    assert got == pytest.approx(WANT[name]["rewards"], abs=1e-3)
    assert max(WANT[name]["rewards"]) - min(WANT[name]["rewards"]) > 0.1  # the rewards differ by far more than that
