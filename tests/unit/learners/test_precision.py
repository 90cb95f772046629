"""Every dtype that trains learns what float32 learns; what a run began with it keeps; what cannot train is refused."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from tests.unit.learners.token.conftest import grouped, make_groups, make_pairs
from trimtab.embeddings import HiddenStates
from trimtab.errors import InputError, SettingsChanged
from trimtab.learners import precision
from trimtab.learners.completion.reward_model import train_reward_model
from trimtab.learners.precision import Precision, RoundedAdamW, choose_precision, round_randomly, unmoved
from trimtab.learners.run import Compute, Lora, Optim
from trimtab.learners.token.policy import load_policy
from trimtab.learners.token.trainer import train_policy, trainable
from trimtab.lm import load
from trimtab.lm.load import load_classifier, load_lm
from trimtab.store import Store
from trimtab.testing import tiny_lm

PAIRS = make_pairs(16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Weights as real models have them: about 0.02, where bfloat16's last place is 1.2e-4, and bfloat16 numbers."""
    folder = tiny_lm(tmp_path_factory.mktemp("lm") / "tiny", hidden=64)
    lm = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in lm.parameters():
            p.normal_(std=0.02) if p.dim() > 1 else p
    lm.bfloat16().save_pretrained(folder)
    return str(folder)


def logged(out):
    return [x for x in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in x]


def card(out, name="policy.json"):
    return json.loads((out / name).read_text())


def sees(monkeypatch, dtype):
    """A machine whose best type is `dtype`."""
    monkeypatch.setattr(precision, "default_dtype", lambda device: dtype)


@pytest.mark.parametrize("loss", ["dpo", "simpo"])
def test_the_margin_moves_as_in_float32(model, tmp_path, monkeypatch, loss):
    """At a preference learning rate: plain AdamW on bfloat16 weights leaves 98 % of them where they were."""
    sees(monkeypatch, torch.bfloat16)
    last = {}
    for dtype in ("float32", "bfloat16", None):
        out = train_policy(
            PAIRS,
            model=model,
            out=tmp_path / str(dtype),
            loss=loss,
            optim=Optim(epochs=8, batch_size=8),
            compute=Compute(dtype=dtype, device="cpu"),
        ).path
        rows = logged(out)
        last[dtype] = rows[-1]["rewards/margins"] - rows[0]["rewards/margins"]
        kinds = {str(t.dtype) for t in load_file(out / "model.safetensors").values()}
        assert kinds == {"torch.bfloat16" if dtype == "bfloat16" else "torch.float32"}
    assert last["bfloat16"] == pytest.approx(last["float32"], rel=0.1)
    assert last[None] == last["float32"] and card(tmp_path / "None")["settings"]["dtype"] == "float32"


def implicit(run, **how):
    loaded = load_policy(run, **how)
    groups = make_groups(16)
    return float(np.mean([r[0].value - r[1].value for r in loaded.reward(groups)]))


def test_products_in_bfloat16_teach_float32_weights_the_same(model, tmp_path):
    """As on an accelerator. Its own log lags, for a product sees whole last places only; what is saved does not."""
    ways = ({"bf16": True}, None)
    runs = [
        train_policy(
            PAIRS,
            model=model,
            out=tmp_path / str(bool(way)),
            loss="dpo",
            optim=Optim(epochs=8, batch_size=8),
            compute=Compute(dtype="float32", trainer=way),
        ).path
        for way in ways
    ]
    assert card(runs[0])["settings"]["dtype"] == "float32 computed in bfloat16"
    assert implicit(runs[0]) == pytest.approx(implicit(runs[1]), rel=0.1)


def test_what_was_learned_in_float32_is_not_rounded_away_when_it_is_loaded(model, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "default_dtype", lambda device=None: torch.bfloat16)
    out = train_policy(
        PAIRS,
        model=model,
        out=tmp_path / "run",
        loss="dpo",
        optim=Optim(epochs=8, batch_size=8),
        compute=Compute(dtype="float32"),
    ).path
    assert load_lm(str(out)).model.dtype == torch.float32 and load_lm(model).model.dtype == torch.bfloat16
    assert HiddenStates(str(out), layers=(1,)).card["dtype"] == "float32"
    whole, rounded = implicit(out), implicit(out, dtype="bfloat16")
    assert whole > 0 and rounded < 0.6 * whole
    assert load_policy(out).reference.lm.model.dtype == torch.float32
    rm = train_reward_model(
        PAIRS, model=model, out=tmp_path / "rm", optim=Optim(batch_size=16), compute=Compute(dtype="float32")
    ).path
    assert load_classifier(str(rm)).model.dtype == torch.float32


def test_a_reward_model_in_bfloat16_learns_too(model, tmp_path):
    moved = {}
    for dtype in ("float32", "bfloat16"):
        out = train_reward_model(
            PAIRS, model=model, out=tmp_path / dtype, optim=Optim(epochs=6, batch_size=16), compute=Compute(dtype=dtype)
        ).path
        rows = logged(out)
        moved[dtype] = rows[-1]["rewards/margins"] - rows[0]["rewards/margins"]
    assert moved["bfloat16"] == pytest.approx(moved["float32"], rel=0.25)  # its rewards themselves are bfloat16 numbers


@pytest.mark.parametrize("kind", ["CAUSAL_LM", "SEQ_CLS"])
def test_adapters_on_a_low_precision_base_are_float32(model, tmp_path, kind):
    lm = load_lm(model, "bfloat16")
    network = trainable(lm.model, Lora(rank=2), 0, False)
    assert {p.dtype for p in network.parameters() if p.requires_grad} == {torch.float32}
    if kind == "SEQ_CLS":
        out = train_reward_model(
            PAIRS,
            model=model,
            out=tmp_path / "rm",
            lora=Lora(rank=2),
            optim=Optim(epochs=4, batch_size=16),
            compute=Compute(dtype="bfloat16"),
        ).path
        assert {str(t.dtype) for t in load_file(out / "model.safetensors").values()} == {"torch.float32"}
        rows = logged(out)
        assert rows[-1]["loss"] < rows[0]["loss"]


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "dtype, first, then", [(None, torch.float32, torch.bfloat16), ("bfloat16", torch.float32, torch.float32)]
)
def test_a_continued_run_keeps_its_precision(model, tmp_path, monkeypatch, dtype, first, then):
    """A float32 run of one machine goes on in float32 on one that would begin in bfloat16, to the same weights."""
    settings = {"model": model, "loss": "dpo", "batch_size": 8, "epochs": 3, "every": 2, "learning_rate": 1e-4}
    sees(monkeypatch, first)
    whole = train_policy(PAIRS, out=tmp_path / "whole", **grouped(dtype=dtype, **settings)).path
    with pytest.raises(KeyboardInterrupt):
        train_policy(PAIRS, out=tmp_path / "cut", **grouped(dtype=dtype, callbacks=[Stop()], **settings))
    sees(monkeypatch, then)
    again = train_policy(PAIRS, out=tmp_path / "cut", **grouped(dtype=dtype, **settings)).path
    a, b = (load_file(out / "model.safetensors") for out in (whole, again))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert card(again)["settings"]["dtype"] == (dtype or "float32") and card(again)["devices"] == ["cpu"]
    with pytest.raises(SettingsChanged, match="dtype: .* then, 'float64' now"):
        train_policy(PAIRS, out=again, **grouped(dtype="float64", **settings))
    assert train_policy(PAIRS, out=again, **grouped(**settings)).path == again  # None: as it is


def test_the_reference_is_computed_as_the_policy_is(model, tmp_path):
    """Its cached log-probs carry how they were computed, so two precisions never mix in a shared store."""
    for name, trainer in (("mixed", {"bf16": True}), ("plain", None)):
        out = train_policy(
            PAIRS,
            model=model,
            out=tmp_path / name,
            loss="dpo",
            optim=Optim(batch_size=16, learning_rate=1e-9),
            compute=Compute(dtype="float32", reference_store=tmp_path / "shared", trainer=trainer),
        ).path
        assert logged(out)[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert len(Store(tmp_path / "shared").tables("logprobs")) == 2


@pytest.mark.parametrize(
    "asked, want",
    [
        ({"dtype": None}, "float32 computed in bfloat16"),
        ({"dtype": None, "lora": True}, "bfloat16"),
        ({"dtype": "float32"}, "float32"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float32", "trainer": {"bf16": True}}, "float32 computed in bfloat16"),
        ({"dtype": "float32", "trainer": {"fp16": True}}, "float32 computed in float16"),
        ({"dtype": None, "before": "float32"}, "float32"),
        ({"dtype": None, "before": "float32 computed in bfloat16"}, "float32 computed in bfloat16"),
        ({"dtype": "float16", "lora": True, "trainer": {"fp16": True}}, "float16"),
    ],
)
def test_what_a_dtype_means_on_an_accelerator(asked, want):
    got = choose_precision(**{"lora": False, **asked}, device="cuda")
    assert str(got) == want
    assert choose_precision(None, "cuda", lora=False, before=str(got)) == got
    assert got.autocast in (None, torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    "more, says",
    [
        ({"dtype": "float16"}, r"float16 cannot train.*trainer=\{\"fp16\": True\}"),
        ({"dtype": "float16", "lora": Lora(rank=2)}, "float16 cannot train"),
        ({"dtype": "float32", "trainer": {"fp16": True}}, "needs an accelerator"),
    ],
)
def test_float16_without_a_scaled_loss_is_refused(model, tmp_path, more, says):
    with pytest.raises(InputError, match=says):
        train_policy(PAIRS, model=model, out=tmp_path / "x", **grouped(device="cpu", **more))
    with pytest.raises(InputError, match=says):
        train_reward_model(PAIRS, model=model, out=tmp_path / "y", **grouped(device="cpu", **more))


def test_an_optimiser_of_ones_own_is_warned_of_with_the_figure(model, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "trimtab"):
        train_policy(
            PAIRS,
            model=model,
            out=tmp_path / "x",
            compute=Compute(dtype="bfloat16", trainer={"optim": "sgd"}),
            optim=Optim(batch_size=16),
        )
    assert "bfloat16 weights with the optimiser sgd: an update of the learning rate 1e-06" in caplog.text
    assert "of 9" in caplog.text and "which will not move" in caplog.text


def test_the_share_that_an_update_cannot_move():
    weights = [torch.tensor([1.0, 0.5, 0.01, -0.01, 1e-6]).bfloat16()]
    # last places 2^-7, 2^-8, 2^-14 twice, 2^-27; half of them against 1e-4: 3.9e-3, 2e-3, 3e-5, 3e-5, 4e-9
    assert unmoved(weights, 1e-4) == pytest.approx(0.4)
    assert unmoved(weights, 1.0) == 0.0


def test_rounding_at_random_is_exact_in_the_mean():
    """A value a third of the way between two bfloat16 numbers becomes the upper one a third of the time."""
    low, high = 1.0, 1.0 + 2**-7
    out = torch.empty(200_000, dtype=torch.bfloat16)
    round_randomly(torch.full((200_000,), low + (high - low) / 3), out, torch.Generator().manual_seed(1))
    assert set(out.unique().tolist()) == {low, high}
    assert (out == high).float().mean().item() == pytest.approx(1 / 3, abs=0.004)
    exact = torch.tensor([0.0, -1.5, 2.0**-100, -0.0])
    kept = torch.empty(4, dtype=torch.bfloat16)
    round_randomly(exact.clone(), kept, torch.Generator())
    assert torch.equal(kept.float(), exact)


def test_in_float32_the_optimiser_is_torchs_adamw():
    torch.manual_seed(0)
    a = torch.nn.Linear(7, 3)
    b = torch.nn.Linear(7, 3)
    b.load_state_dict(a.state_dict())
    ours = RoundedAdamW(a.parameters(), lr=1e-2, weight_decay=0.1)
    theirs = torch.optim.AdamW(b.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        x = torch.randn(4, 7)
        for layer, optimiser in ((a, ours), (b, theirs)):
            optimiser.zero_grad()
            layer(x).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(a.weight, b.weight)
    assert str(Precision("float32")) == "float32"
