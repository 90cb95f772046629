import json
import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from trimtab.errors import InputError, ModelError, SettingsChanged, StoreError
from trimtab.learners.loop import Means
from trimtab.learners.run import Lora
from trimtab.learners.token.losses import PairLoss, dpo
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.export import write_folder
from trimtab.lm.forward import check_forward
from trimtab.lm.load import load_lm
from trimtab.store import Store
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Reward

from .conftest import grouped, make_groups, make_pairs, tensors

PAIRS = make_pairs(12)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def train(lm_folder, tmp_path):
    def run(name, data=PAIRS, **settings):
        defaults = {"batch_size": 4, "learning_rate": 1e-3, "every": 1000, "dtype": "float32"}
        return train_policy(data, model=lm_folder, out=tmp_path / name, **grouped(**{**defaults, **settings})).path

    return run


def history(out) -> list[dict]:
    return [x for x in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in x]


def assert_same(a, b, atol=1e-5):
    for key, value in tensors(a).items():
        torch.testing.assert_close(value, tensors(b)[key], rtol=0, atol=atol)
    assert [x["loss"] for x in history(a)] == pytest.approx([x["loss"] for x in history(b)], abs=1e-5)


class Interrupt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyboardInterrupt

    def on_save(self, args, state, control, **kwargs):
        pass


def test_resumed_equals_uninterrupted_bitwise(train):
    whole = train("whole", every=1)
    with pytest.raises(KeyboardInterrupt):
        train("cut", every=1, callbacks=[Interrupt()])
    resumed = train("cut", every=1)
    for key, value in tensors(whole).items():
        assert torch.equal(value, tensors(resumed)[key]), key
    assert [x["loss"] for x in history(whole)] == [x["loss"] for x in history(resumed)]


@pytest.mark.parametrize("loss", ["dpo", "simpo", "tdpo2"])
def test_micro_batches_and_layout_change_nothing(train, loss):
    whole = train("whole", loss=loss, micro_rows=4, micro_tokens=10**6)
    assert_same(whole, train("ones", loss=loss, micro_rows=1))
    assert_same(whole, train("buckets", loss=loss, micro_tokens=90))
    assert_same(whole, train("plain", loss=loss, share_prompt=False, micro_tokens=10**6))


def test_checkpointing_changes_nothing(train):
    assert_same(train("off"), train("on", checkpointing=True))


def test_kto_baseline_does_not_depend_on_micro_batches(train):
    groups = make_groups(6)
    assert_same(train("a", groups, loss="kto", micro_rows=1), train("b", groups, loss="kto", micro_tokens=10**6))


@pytest.mark.parametrize("loss", ["dpo", "simpo", "orpo", "ipo"])
def test_training_prefers_what_was_chosen(train, loss):
    rate = {"ipo": 3e-4}.get(loss, 1e-3)
    log = history(train("run", make_pairs(32), loss=loss, epochs=3, learning_rate=rate, batch_size=8))
    assert log[-1]["rewards/accuracies"] >= 0.8 and log[-1]["rewards/margins"] > log[0]["rewards/margins"]


def test_the_first_loss_of_dpo_is_log_2_and_kto_a_half(train):
    first = history(train("dpo"))[0]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-6) and first["rewards/margins"] == pytest.approx(
        0, abs=1e-5
    )
    log = history(train("kto", make_groups(6), loss="kto"))
    assert log[0]["loss"] == pytest.approx(0.5, abs=1e-6) and log[0]["kl"] == pytest.approx(0, abs=1e-5)


def test_sft_on_successes_imitates_only_them(train):
    groups = [*make_groups(8), Group(prompt("never"), (Completion("hhh", "x", 0, 0),), (Reward(float("nan")),))]
    out = train("sft", groups, loss="sft", epochs=4, batch_size=8)
    log = history(out)
    assert log[-1]["nll/chosen"] < log[0]["nll/chosen"]
    assert json.loads((out / "policy.json").read_text())["steps"] == 4  # 8 desirable completions of 17
    with pytest.raises(InputError, match="nothing to imitate"):
        train("none", [replace(g, rewards=(Reward(0.0), Reward(0.0))) for g in make_groups(2)], loss="sft")


def test_lora_starts_at_the_reference_and_loads_everywhere(train, lm_folder, tmp_path):
    from peft import PeftModel

    out = train("lora", lora=Lora(rank=4), loss="tdpo1", epochs=2)
    log = history(out)
    assert log[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)  # adapter off = reference, KL term included
    base = AutoModelForCausalLM.from_pretrained(lm_folder)
    untouched = base.state_dict()["model.layers.0.mlp.up_proj.weight"].clone()
    card = json.loads((out / "adapter_config.json").read_text())  # what vLLM and llama.cpp's converter read
    assert Path(card["base_model_name_or_path"]) == Path(lm_folder) and card["peft_type"] == "LORA"
    assert (out / "adapter_model.safetensors").is_file() and (out / "tokenizer_config.json").is_file()
    ids = torch.tensor([[3, 4, 5]])
    adapted = PeftModel.from_pretrained(base, str(out))
    want = adapted(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(write_folder(str(out), tmp_path / "merged"))
    torch.testing.assert_close(merged(ids).logits, want, rtol=1e-4, atol=1e-4)
    with adapted.disable_adapter():
        assert not torch.allclose(adapted(ids).logits, want, atol=1e-4)
    assert torch.equal(tensors(lm_folder)["model.layers.0.mlp.up_proj.weight"], untouched)


def test_reference_cache_is_paid_once_and_is_what_the_model_says(train, tmp_path, lm_folder):
    from trimtab.lm.chat import encode_completion, encode_prompt

    store = tmp_path / "shared"
    train("a", reference_store=store)
    tables = Store(store).tables("logprobs")
    rows = Store(store).read(tables[0])
    assert len(tables) == 1 and rows.num_rows == 24
    train("b", loss="ipo", reference_store=store)
    assert Store(store).read(tables[0]).equals(rows)
    lm = load_lm(lm_folder, "float32")
    ids, completion = encode_prompt(lm.tokenizer, PAIRS[0].prompt), encode_completion(lm.tokenizer, PAIRS[0].chosen)
    logits = lm.model(torch.tensor([[*ids, *completion]])).logits[0].log_softmax(-1)
    want = [logits[len(ids) + t - 1, c].item() for t, c in enumerate(completion)]
    kept = {tuple(r["tokens"]): r["logprobs"] for r in rows.to_pylist()}
    assert kept[tuple(completion)] == pytest.approx(want, abs=1e-5)


def test_finished_runs_return_and_other_settings_are_refused(train):
    out = train("run")
    before = (out / "policy.json").stat().st_mtime_ns
    assert train("run", micro_rows=1) == out  # how it is computed is no setting of the run
    assert (out / "policy.json").stat().st_mtime_ns == before
    with pytest.raises(SettingsChanged, match="learning_rate: 0.001 then, 0.002 now"):
        train("run", learning_rate=2e-3)
    with pytest.raises(SettingsChanged, match="data"):
        train("run", PAIRS[:5])


def test_a_refused_run_leaves_its_folder_free(train):
    with pytest.raises(InputError, match="no pairs"):
        train("run", [])
    assert train("run").is_dir()


def test_overlong_is_refused_or_dropped_and_counted(train):
    with pytest.raises(InputError, match=r"1[0-2] of 12 examples are longer than 16 tokens"):
        train("a", max_tokens=16)
    long = [replace(p, chosen=replace(p.chosen, text="a" * 500)) for p in PAIRS[:4]] + PAIRS[4:]
    out = train("b", long, overlong="drop", batch_size=8)
    assert json.loads((out / "policy.json").read_text())["examples"] == {"given": 12, "dropped": 4}


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (PAIRS, {"loss": "dqo"}, "did you mean 'dpo'"),
        (PAIRS, {"loss_settings": {"betta": 1.0}}, "did you mean 'beta'"),
        (PAIRS, {"loss": lambda advantage_B: advantage_B}, "argument of a loss 'advantage_B'"),
        (PAIRS, {"loss": "kto"}, "pass scored groups"),
        (make_groups(2), {}, "best_vs_worst"),
        ([], {}, "no pairs"),
        ([replace(PAIRS[0], chosen=Completion("", "x", 0, 0, finish="length"))], {}, "no tokens"),
    ],
)
def test_bad_input_is_named(train, data, settings, message):
    with pytest.raises(InputError, match=message):
        train("bad", data, **settings)


def test_a_users_own_loss_and_bound_settings(train):
    def mine(chosen_logprob_B, rejected_logprob_B, ref_chosen_logprob_B, ref_rejected_logprob_B):
        return dpo(chosen_logprob_B, rejected_logprob_B, ref_chosen_logprob_B, ref_rejected_logprob_B, beta=0.5)

    by_hand = train("mine", loss=mine)
    assert_same(by_hand, train("bound", loss=partial(dpo, beta=0.5)))
    assert_same(by_hand, train("named", loss="dpo", loss_settings={"beta": 0.5}))


def test_falling_chosen_likelihood_is_explained_once(train, caplog):
    def unlearn(chosen_logprob_B, ref_chosen_logprob_B):
        return PairLoss(*[chosen_logprob_B - ref_chosen_logprob_B] * 3)

    with caplog.at_level(logging.WARNING, "trimtab"):
        out = train("fall", loss=unlearn, learning_rate=0.01, epochs=4)
    assert history(out)[-1]["logratios/chosen"] < -5
    assert len([r for r in caplog.records if "fine-tune on the chosen first" in r.message]) == 1


def test_a_forward_that_disagrees_with_the_model_is_refused(lm_folder):
    lm = load_lm(lm_folder, "float32")
    check_forward(lm.model, [1, 2, 3], [[4, 5], [6]])
    lm.model.config.final_logit_softcapping = 1.0  # the configuration claims what the model does not do
    with pytest.raises(ModelError, match="differ"):
        check_forward(lm.model, [1, 2, 3], [[4, 5], [6]])


def test_held_out_metrics_are_logged(train):
    out = train("run", held_out=PAIRS[:3], every=1)
    lines = [json.loads(x) for x in (out / "log.jsonl").read_text().splitlines()]
    assert [0.0 < x["eval_loss"] < 2 and "eval_rewards/margins" in x for x in lines if "eval_loss" in x] == [True] * 3


def test_means_leave_nan_out_and_start_anew():
    means = Means()
    means.add({"a": torch.tensor([1.0, math.nan]), "b": torch.tensor([math.nan])})
    means.add({"a": torch.tensor([2.0, 6.0])})
    assert means.take() == {"a": 3.0}
    assert means.take() == {}
    means.add({"b": torch.tensor([4.0])})
    assert means.take() == {"b": 4.0}


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_lives(tmp_path):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(StoreError, match="another process is working in"):
        train_policy([], model="nobody", out=tmp_path / "run")


def test_a_checkpoint_cut_short_by_an_older_version_is_passed_over(tmp_path):
    from trimtab.learners.run import checkpoints

    for step, files in ((2, ["trainer_state.json"]), (10, ["trainer_state.json"]), (12, ["model.safetensors"])):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name in files:
            (tmp_path / f"checkpoint-{step}" / name).write_text("{}")
    assert [f.name for f in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-10"]
