"""An accelerator gives what the CPU gives, in float32 on a tiny model: samplers, readers, trainers and search.

Not run on machines without one. TRIMTAB_TEST_DEVICE names another device than cuda.
"""

import json
import os

import numpy as np
import pytest
import torch

from tests.unit.learners.feature.conftest import make_sae
from tests.unit.learners.token.conftest import make_groups, make_pairs
from trimtab.decoders import BeamSearch
from trimtab.embeddings import HiddenStates
from trimtab.learners.completion.reward_model import train_reward_model
from trimtab.learners.feature.leash import FeatureLeash
from trimtab.learners.run import Compute, Lora, Optim
from trimtab.learners.token.policy import Policy, load_policy
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.forward import completion_logprobs
from trimtab.lm.load import default_dtype, load_lm
from trimtab.rewards import PromptReward, RewardModel
from trimtab.samplers import HF
from trimtab.testing import tiny_lm
from trimtab.types import SamplingParams

DEVICE = os.environ.get("TRIMTAB_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device on this machine"
)
GROUPS, PAIRS = make_groups(6), make_pairs(8)
PROMPTS = [g.prompt for g in GROUPS]
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(tiny_lm(tmp_path_factory.mktemp("lm") / "tiny"))


@pytest.fixture(scope="module")
def both(folder):
    return load_lm(folder, "float32"), load_lm(folder, "float32", DEVICE)


def close(a, b) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, **CLOSE)


def logged_losses(run) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_samples(folder):
    params = SamplingParams(temperature=1.0, max_tokens=24, seed=5)
    here, there = (HF(folder, dtype="float32", device=d)(PROMPTS, 6, params) for d in ("cpu", DEVICE))
    rows = [ab for g, h in zip(here, there, strict=True) for ab in zip(g.completions, h.completions, strict=True)]
    same = [(a, b) for a, b in rows if a.tokens == b.tokens]
    assert len(same) >= 0.9 * len(rows)  # a draw may fall on the edge between two tokens, where rounding decides
    close([a.logprobs for a, _ in same], [b.logprobs for _, b in same])


def test_hidden_states_and_logprobs(both):
    here, there = both
    close(HiddenStates(here, layers=(2,))(GROUPS), HiddenStates(there, layers=(2,))(GROUPS))
    close(*[[row for g in completion_logprobs(lm, GROUPS) for row in g] for lm in both])
    close(*[[row for g in Policy(lm).logprobs(GROUPS) for row in g] for lm in both])
    close(*[Policy(lm).next_logprobs([[1, 2, 3], [4, 5]]) for lm in both])


def test_rewards(both):
    asked = [PromptReward(lm, yes="y", no="n")(GROUPS) for lm in both]
    close(*[[r.value for g in rewards for r in g] for rewards in asked])


def test_beam_search(both):
    params = SamplingParams(max_tokens=8)
    here, there = (BeamSearch(lm, width=3, require_end=False)(PROMPTS, 3, params) for lm in both)
    assert [[c.tokens for c in a.completions] for a in here] == [[c.tokens for c in b.completions] for b in there]


@pytest.mark.parametrize(
    "loss, lora",
    [("dpo", None), ("dpo", Lora(rank=4)), ("simpo", None), ("orpo", None), ("tdpo2", None), ("fpo", None)],
)
def test_training_on_pairs(folder, tmp_path, loss, lora):
    losses = []
    for device in ("cpu", DEVICE):
        out = train_policy(
            PAIRS,
            model=folder,
            out=tmp_path / device,
            loss=loss,
            optim=Optim(batch_size=4, epochs=2, learning_rate=1e-3),
            compute=Compute(dtype="float32", device=device),
            lora=lora,
            leash=FeatureLeash(make_sae(), k=6) if loss == "fpo" else None,
        ).path
        losses.append(logged_losses(out))
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(*losses, **CLOSE)
    trained = load_policy(tmp_path / DEVICE, dtype="float32", device=DEVICE)
    assert all(np.isfinite(row).all() for g in trained.policy.logprobs(GROUPS) for row in g)


def test_training_on_single_completions(folder, tmp_path):
    losses = []
    for device in ("cpu", DEVICE):
        out = train_policy(
            GROUPS,
            model=folder,
            out=tmp_path / device,
            loss="kto",
            optim=Optim(batch_size=4, learning_rate=1e-3),
            compute=Compute(dtype="float32", device=device),
        ).path
        losses.append(logged_losses(out))
    np.testing.assert_allclose(*losses, **CLOSE)


def test_reward_model(folder, tmp_path):
    outs = [
        train_reward_model(PAIRS, model=folder, out=tmp_path / d,
            optim=Optim(batch_size=4, epochs=2, learning_rate=1e-3), compute=Compute(dtype="float32", device=d)).path
        for d in ("cpu", DEVICE)
    ]  # fmt: skip
    scored = [
        RewardModel(str(o), dtype="float32", device=d)(GROUPS) for o, d in zip(outs, ("cpu", DEVICE), strict=True)
    ]
    close(*[[r.value for g in rewards for r in g] for rewards in scored])


def test_bfloat16_is_the_accelerators_type(folder):
    assert default_dtype(DEVICE) == torch.bfloat16 or DEVICE == "cpu"
    got = HF(folder, device=DEVICE)(PROMPTS, 2, SamplingParams(max_tokens=8))
    assert all(len(c.tokens) == len(c.logprobs) > 0 for g in got for c in g.completions)
