"""One epoch of DPO in our trainer against TRL 1.16's DPOTrainer: same rows, order, seed and float32 (values.json)."""

import json
from pathlib import Path

import pytest

from trimtab.learners.run import Compute, Optim
from trimtab.learners.token.trainer import train_policy
from trimtab.testing import tiny_lm
from trimtab.types import Completion, Pair, Prompt

HERE = Path(__file__).parent
WANT = json.loads((HERE / "values.json").read_text())["curve"]


def test_same_curve_as_trl(tmp_path):
    rows = json.loads((HERE / "curve_rows.json").read_text())
    pairs = [
        Pair(
            Prompt(str(i), ({"role": "text", "content": r["prompt"]},)),
            Completion(r["chosen"], "", 0, 0),
            Completion(r["rejected"], "", 0, 1),
        )
        for i, r in enumerate(rows)
    ]
    out = train_policy(
        pairs,
        model=str(tiny_lm(tmp_path / "lm")),
        out=tmp_path / "run",
        loss="dpo",
        optim=Optim(batch_size=4, learning_rate=1e-3, shuffle=False),
        compute=Compute(dtype="float32", trainer={"max_grad_norm": 1.0}),
    ).path
    log = [x for x in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in x]
    assert len(log) == len(WANT["loss"]) == 8
    for key, want in WANT.items():
        tolerance = 1e-3 if not key.startswith("logps") else 1e-2
        assert [x[key] for x in log] == pytest.approx(want, abs=tolerance), key
