import json
import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from tests.unit.learners.token.conftest import grouped
from trimtab.errors import InputError, ModelError, SettingsChanged
from trimtab.learners import Lora, train_reward_model
from trimtab.learners.completion.reward_model import reward_loss, set_padding
from trimtab.lm.load import load_classifier
from trimtab.rewards.reward_model import RewardModel
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group, Pair


@pytest.fixture(scope="module")
def lm(tmp_path_factory) -> str:
    return str(tiny_lm(tmp_path_factory.mktemp("rm") / "lm", layers=2))


def pair(i: int, chosen: str, rejected: str, margin: float = 0.0) -> Pair:
    return Pair(prompt(f"q{i}"), Completion(chosen, "m", 0, 0), Completion(rejected, "m", 0, 1), margin)


PAIRS = [pair(i, "yes " * (i % 4 + 1), "no " * (i % 5 + 1), i % 3) for i in range(12)]
GROUPS = [Group(p.prompt, (p.chosen, p.rejected)) for p in PAIRS]


def train(lm, out, pairs=PAIRS, **settings):
    defaults = {"batch_size": 4, "learning_rate": 3e-3, "dtype": "float32", "every": 1000}
    return train_reward_model(pairs, model=lm, out=out, **grouped(**{**defaults, **settings})).path


def values(folder) -> list[float]:
    return [r.value for row in RewardModel(str(folder), dtype="float32")(GROUPS) for r in row]


def test_loss_by_hand():
    c, r = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    sigma = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))]
    assert reward_loss(c, r).tolist() == pytest.approx([-math.log(s) for s in sigma], rel=1e-6)
    assert reward_loss(c, r, torch.tensor([1.0, -1.0])).tolist() == pytest.approx([math.log(2)] * 2, rel=1e-6)
    smooth = [-0.9 * math.log(s) - 0.1 * math.log(1 - s) for s in sigma]
    assert reward_loss(c, r, label_smoothing=0.1).tolist() == pytest.approx(smooth, rel=1e-6)
    centred = [-math.log(s) + 0.5 * t**2 for s, t in zip(sigma, (3, 1), strict=True)]
    assert reward_loss(c, r, center=0.5).tolist() == pytest.approx(centred, rel=1e-6)


def test_micro_batches_change_nothing_and_the_folder_is_plain_hugging_face(tmp_path, lm):
    whole, cut = train(lm, tmp_path / "a", micro_tokens=10**6), train(lm, tmp_path / "b", micro_tokens=30)
    assert values(whole) == pytest.approx(values(cut), abs=1e-5)
    model = AutoModelForSequenceClassification.from_pretrained(whole, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(whole)
    ids = tokenizer("<|user|>q3<|end|><|assistant|>yes yes yes yes <|end|>", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert model(input_ids=ids).logits.item() == pytest.approx(values(whole)[6], abs=1e-5)


def test_learns_the_planted_preference_and_lora_comes_merged(tmp_path, lm):
    out = train(lm, tmp_path / "lora", lora=Lora(rank=4, alpha=8), epochs=15, learning_rate=1e-2)
    v = values(out)
    assert all(c > r for c, r in zip(v[::2], v[1::2], strict=True))
    assert not (out / "adapter_config.json").exists()
    assert json.loads((out / "reward_model.json").read_text())["last"]["rewards/accuracies"] == 1.0


class Interrupt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyboardInterrupt


def test_resumed_equals_uninterrupted_and_other_settings_are_refused(tmp_path, lm):
    whole = train(lm, tmp_path / "whole", every=1)
    with pytest.raises(KeyboardInterrupt):
        train(lm, tmp_path / "cut", every=1, callbacks=[Interrupt()])
    assert values(train(lm, tmp_path / "cut", every=1)) == values(whole)
    with pytest.raises(SettingsChanged, match="center"):
        train(lm, tmp_path / "cut", center=0.1)


def test_overlong_is_refused_with_its_count_or_dropped(tmp_path, lm):
    pairs = [*PAIRS, pair(99, "x" * 80, "y", 1.0)]
    with pytest.raises(InputError, match="1 of 13 .* longer than 40 tokens"):
        train(lm, tmp_path / "a", pairs, max_tokens=40)
    card = json.loads(
        (train(lm, tmp_path / "b", pairs, max_tokens=40, overlong="drop") / "reward_model.json").read_text()
    )
    assert card["examples"] == {"given": 13, "dropped": 1}


def test_no_pairs_and_bad_settings(tmp_path, lm):
    with pytest.raises(InputError, match="no pairs"):
        train(lm, tmp_path / "a", [])
    with pytest.raises(InputError, match="label_smoothing"):
        train(lm, tmp_path / "a", label_smoothing=0.5)


def test_padding_is_never_the_end_token(lm):
    rm = load_classifier(lm, "float32", new_head=True)
    rm.tokenizer.pad_token = rm.tokenizer.eos_token
    set_padding(rm)
    assert rm.tokenizer.pad_token_id != rm.tokenizer.eos_token_id
    assert rm.model.config.pad_token_id == rm.tokenizer.pad_token_id


def test_a_model_without_a_head_is_refused(lm):
    with pytest.raises(ModelError, match=r"no reward head.*score\.weight"):
        RewardModel(lm, dtype="float32")(GROUPS)
