"""A LoRA on top of a LoRA starts from both, from the first loss to the saved policy."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.learners.token.conftest import make_groups, make_pairs
from trimtab.errors import ModelError
from trimtab.learners.run import Compute, Lora, Optim
from trimtab.learners.token.policy import Policy, load_policy
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.load import load_classifier, load_lm
from trimtab.samplers import HF
from trimtab.testing import tiny_lm
from trimtab.types import SamplingParams

PAIRS, GROUPS = make_pairs(8), make_groups(6)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A base model and the adapter that SFT made on it, far from the base."""
    root = tmp_path_factory.mktemp("adapters")
    base = tiny_lm(root / "base", layers=2)
    sft = train_policy(
        PAIRS,
        model=str(base),
        out=root / "sft",
        loss="sft",
        lora=Lora(rank=4),
        optim=Optim(epochs=8, batch_size=8, learning_rate=1e-2),
        compute=Compute(dtype="float32"),
    ).path
    return base, sft


def chosen(lm) -> float:
    return float(np.mean([row.sum() for g in Policy(lm).logprobs(GROUPS) for row in g]))


def steps(out):
    return [x for x in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in x]


def test_an_adapters_folder_is_its_base_with_the_adapter(taught):
    base, sft = taught
    lm, plain = load_lm(str(sft), "float32"), load_lm(str(base), "float32")
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(load_lm(str(base), "float32").model, str(sft))
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    assert torch.allclose(lm.model(ids).logits, theirs(input_ids=ids).logits, atol=1e-4)
    assert (lm.model(ids).logits - plain.model(ids).logits).abs().max() > 0.1
    (g,) = HF(str(sft), dtype="float32")([GROUPS[0].prompt], 2, SamplingParams(max_tokens=4))
    assert all(c.model.startswith(str(sft)) for c in g.completions)


SAME, OTHER = Lora(rank=4), Lora(rank=2, targets=("q_proj",))


@pytest.mark.parametrize("loss, lora", [("dpo", SAME), ("tdpo2", SAME), ("ipo", OTHER), ("dpo", None), ("tdpo2", None)])
def test_training_goes_on_from_the_adapter(taught, tmp_path, loss, lora):
    base, sft = taught
    start = chosen(load_lm(str(sft), "float32"))
    assert start - chosen(load_lm(str(base), "float32")) > 1.0
    out = train_policy(
        PAIRS,
        model=str(sft),
        out=tmp_path / "run",
        loss=loss,
        lora=lora,
        optim=Optim(batch_size=8, epochs=3, learning_rate=1e-4),
        compute=Compute(dtype="float32"),
    ).path
    first, *_, last = steps(out)
    assert first["loss"] == pytest.approx({"ipo": 25.0}.get(loss, math.log(2)), rel=1e-4)
    loaded = load_policy(out, dtype="float32")
    assert chosen(loaded.reference.lm) == pytest.approx(start, abs=1e-3)
    assert abs(chosen(loaded.policy.lm) - start) < 1.0
    assert last["rewards/margins"] > 0
    own, ref = (Policy(load_lm(str(f), "float32")).logprobs(GROUPS) for f in (out, sft))
    moved = max(np.abs(a - b).max() for g, h in zip(own, ref, strict=True) for a, b in zip(g, h, strict=True))
    assert 1e-4 < moved < 1.0
    if lora:
        named = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert named == str(sft)  # not the base, which lacks the first adapter


def lose_half(adapter):
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[::2]), adapter / "adapter_model.safetensors")


def poison(adapter):
    tensors = load_file(adapter / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, adapter / "adapter_model.safetensors")


def other_base(adapter):
    tiny_lm(adapter.parent / "other", layers=2, hidden=48)
    rename(adapter, str(adapter.parent / "other"), "")


def changed_base(adapter):
    tiny_lm(adapter.parent / "other", layers=2, seed=5)
    rename(adapter, str(adapter.parent / "other"), json.loads((adapter / "policy.json").read_text())["model"])


def rename(adapter, base, model):
    card = json.loads((adapter / "policy.json").read_text())
    card["settings"]["model"], card["model"] = base, model
    (adapter / "policy.json").write_text(json.dumps(card))
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": base, "revision": None}
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def nameless(adapter):
    (adapter / "policy.json").unlink()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))


@pytest.mark.parametrize(
    "breaks, says",
    [
        (lose_half, r"does not fit its base model: it lacks .*lora_"),
        (poison, "NaN or infinite"),
        (other_base, "does not fit its base model"),
        (changed_base, "was trained on .*but .* is now"),
        (nameless, "does not say what model it lies on"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(taught, tmp_path, breaks, says):
    adapter = tmp_path / "adapter"
    shutil.copytree(taught[1], adapter, ignore=shutil.ignore_patterns("checkpoints", "store"))
    breaks(adapter)
    if (card := adapter / "policy.json").exists():  # as of a version that kept no hash of the weights
        card.write_text(json.dumps({k: v for k, v in json.loads(card.read_text()).items() if k != "sha256"}))
    with pytest.raises(ModelError, match=says):
        load_lm(str(adapter), "float32")


def test_an_adapter_without_a_head_is_no_reward_model_but_may_become_one(taught, monkeypatch, tmp_path):
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="no reward head"):
        load_classifier(str(taught[1]))
    begun = load_classifier(str(taught[1]), "float32", new_head=True)
    merged = load_lm(str(taught[1]), "float32").model.state_dict()
    for name, value in begun.model.state_dict().items():
        assert name.startswith("score.") or torch.equal(value, merged[name]), "the adapter is in it"
