"""Training has no dropout that its reference lacks, and stops where a number is none, with what was good kept."""

import json
import math

import pytest
import torch
import transformers as t
from transformers import TrainerCallback

from tests.unit.learners.token.conftest import grouped, make_groups, make_pairs
from trimtab.errors import ModelError
from trimtab.learners.completion.reward_model import train_reward_model
from trimtab.learners.loop import checkpoints, without_dropout
from trimtab.learners.run import Compute, Lora, Optim
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.load import load_tokenizer
from trimtab.testing import tiny_lm

PAIRS, GROUPS = make_pairs(8), make_groups(4)
SHAPE = {
    "vocab_size": 261, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 256,
    "eos_token_id": 257, "bos_token_id": None, "max_position_embeddings": 256,
}  # fmt: skip
MLP, HEADS = {"intermediate_size": 48}, {"num_key_value_heads": 2}
FAMILIES = {
    "gpt2": t.GPT2Config(**SHAPE, resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3),
    "opt": t.OPTConfig(**SHAPE, ffn_dim=48, word_embed_proj_dim=32, dropout=0.3, attention_dropout=0.3, layerdrop=0.5),
    "gptneox": t.GPTNeoXConfig(**SHAPE, **MLP, hidden_dropout=0.3, attention_dropout=0.3),
    "llama": t.LlamaConfig(**SHAPE, **MLP, **HEADS, attention_dropout=0.5),
    "phi3": t.Phi3Config(**SHAPE, **MLP, **HEADS, resid_pdrop=0.3, embd_pdrop=0.3, attention_dropout=0.3),
    "mistral": t.MistralConfig(**SHAPE, **MLP, **HEADS, attention_dropout=0.5, sliding_window=6),
    "mixtral": t.MixtralConfig(**SHAPE, **MLP, **HEADS, num_local_experts=4, router_jitter_noise=0.5),
    "gemma3": t.Gemma3TextConfig(
        **SHAPE, **MLP, **HEADS, head_dim=8, attention_dropout=0.5, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_lm(tmp_path_factory.mktemp("lm") / "tiny", layers=2)


def family(name, folder, tiny):
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(FAMILIES[name])
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2) if p.dim() > 1 else None
    model.save_pretrained(folder), load_tokenizer(str(tiny)).save_pretrained(folder)
    return str(folder)


def logged(out):
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_first_dpo_loss_is_log_2(name, tmp_path, tiny):
    model = family(name, tmp_path / "model", tiny)
    ways = [("dpo", {}), ("dpo", {"checkpointing": True})]
    ways += [("tdpo2", {"lora": Lora(rank=2)})] if name in ("gpt2", "mistral") else []
    for i, (loss, more) in enumerate(ways):
        out = train_policy(
            PAIRS,
            model=model,
            out=tmp_path / str(i),
            loss=loss,
            **grouped(batch_size=4, learning_rate=1e-9, dtype="float32", **more),
        ).path
        assert logged(out) == pytest.approx([math.log(2)] * 2, abs=2e-4), (loss, more)


def test_a_reward_model_is_trained_as_it_will_score(tmp_path, tiny):
    model = family("gpt2", tmp_path / "model", tiny)
    out = train_reward_model(
        PAIRS,
        model=model,
        out=tmp_path / "rm",
        optim=Optim(batch_size=8, epochs=3, learning_rate=1e-12, shuffle=False),
        compute=Compute(dtype="float32"),
    ).path
    assert len(set(logged(out))) == 1


def test_only_a_loras_own_dropout_stays_on(tiny):
    from peft import LoraConfig, get_peft_model

    model = t.AutoModelForCausalLM.from_pretrained(tiny, attention_dropout=0.4)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    adapted = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.3, target_modules=["q_proj"]))
    adapted.train()
    without_dropout(adapted)
    training = {n.split(".")[-1] for n, m in adapted.named_modules() if m.training}
    dropouts = [m for m in adapted.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts and all(m.training and m.p == 0.3 for m in dropouts)
    layers = [m for m in adapted.modules() if isinstance(m, t.modeling_layers.GradientCheckpointingLayer)]
    assert all(m.training for m in layers) and not any(m.self_attn.training for m in layers), training


def test_checkpointing_recomputes_without_dropout(tmp_path, tiny):
    """OPT's layers drop by themselves: with checkpointing they are in training mode, with rates of 0."""
    model = family("opt", tmp_path / "model", tiny)
    runs = [
        train_policy(
            PAIRS,
            model=model,
            out=tmp_path / str(c),
            loss="dpo",
            optim=Optim(batch_size=4, learning_rate=1e-3, epochs=2),
            compute=Compute(dtype="float32", checkpointing=c),
        ).path
        for c in (False, True)
    ]
    assert logged(runs[0]) == pytest.approx(logged(runs[1]), abs=1e-5)


class Poison(TrainerCallback):
    """Makes what was learned infinite after a step, as an update that overflows does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).view(-1)[0] = torch.inf


def train(kind, model, out, **more):
    settings = {"model": str(model), "out": out, "batch_size": 4, "epochs": 4, "dtype": "float32", **more}
    if kind == "reward model":
        return train_reward_model(PAIRS, **grouped(**settings)).path
    return train_policy(GROUPS if kind == "kto" else PAIRS, loss=kind, **grouped(**settings)).path


@pytest.mark.parametrize("kind", ["dpo", "sft", "orpo", "kto", "simpo", "reward model"])
def test_a_diverged_run_stops_with_the_step_and_the_way_out(kind, tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(ModelError, match=r"diverged: the .* of step \d+ is (nan|inf|-inf).*learning rate below 1e\+30"):
        train(kind, tiny, out, learning_rate=1e30)
    card = json.loads((out / ("reward_model.json" if kind == "reward model" else "policy.json")).read_text())
    assert "finished" not in card and not list(out.glob("*.safetensors"))
    assert all(math.isfinite(x) for x in logged(out)) and len(logged(out)) <= 4


@pytest.mark.parametrize("more", [{}, {"lora": Lora(rank=2)}, {"trainer": {"max_grad_norm": 0.0}}])
def test_the_last_good_checkpoint_is_kept(tmp_path, tiny, more):
    out = tmp_path / "run"
    with pytest.raises(ModelError, match="of step 6 is nan.*last good checkpoint is .*checkpoint-4"):
        train("dpo", tiny, out, every=2, callbacks=[Poison(5)], **more)
    assert [c.name for c in checkpoints(out / "checkpoints")] == ["checkpoint-4"]
    assert len(logged(out)) == 5
    assert train("dpo", tiny, out, every=2, **more) == out  # what happened by accident is gone on from there
    whole = train("dpo", tiny, tmp_path / "whole", every=2, **more)
    assert logged(out) == logged(whole)


def test_weights_that_the_last_step_broke_are_not_published(tmp_path, tiny):
    with pytest.raises(ModelError, match="weights are NaN or infinite"):
        train("dpo", tiny, tmp_path / "run", callbacks=[Poison(8)], every=100)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_checkpoint_with_what_broke_the_next_step_is_not_kept(tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(ModelError, match="no good checkpoint before it"):
        train("dpo", tiny, out, every=2, callbacks=[Poison(2)])
    assert checkpoints(out / "checkpoints") == []
