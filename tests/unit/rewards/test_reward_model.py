import json
import math

import numpy as np
import pytest
import torch

from trimtab.errors import InputError, ModelError
from trimtab.lm.load import load_classifier
from trimtab.rewards import resolve
from trimtab.rewards.reward_model import RewardModel
from trimtab.testing import check_learned_reward, prompt, tiny_lm
from trimtab.types import Completion, Group


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    where = tmp_path_factory.mktemp("rm")
    rm = load_classifier(str(tiny_lm(where / "lm", layers=2, context=96)), "float32", new_head=True)
    rm.model.save_pretrained(where / "rm")
    rm.tokenizer.save_pretrained(where / "rm")
    return str(where / "rm")


def groups(seed: int = 0) -> list[Group]:
    rng = np.random.default_rng(seed)
    texts = [["ab" * int(n) for n in rng.integers(1, 30, 5)] for _ in range(4)]
    return [
        Group(prompt(f"q{g}"), tuple(Completion(t, "m", 0, i) for i, t in enumerate(row)))
        for g, row in enumerate(texts)
    ]


def test_batches_and_order_change_nothing(folder):
    check_learned_reward(RewardModel(folder, dtype="float32"), groups())
    wide, narrow = (RewardModel(folder, dtype="float32", batch_tokens=b) for b in (10**6, 1))
    a, b = ([r.value for row in rm(groups()) for r in row] for rm in (wide, narrow))
    assert a == pytest.approx(b, abs=1e-5)


def test_rewards_are_transformers_own(folder):
    rm = RewardModel(folder, rendering="template", dtype="float32")
    lm, group = rm.lm(), groups()[0]
    for c, reward in zip(group.completions, rm([group])[0], strict=True):
        messages = [*group.prompt.messages, {"role": "assistant", "content": c.text}]
        ids = lm.tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            assert lm.model(input_ids=ids).logits.item() == pytest.approx(reward.value, abs=1e-5)


def test_overlong_is_nan_with_its_count_and_does_not_disturb_the_rest(folder):
    rm = RewardModel(folder, dtype="float32")
    (g,) = groups()[:1]
    long = Group(g.prompt, (*g.completions, Completion("z" * 200, "m", 0, 9)))
    rewards = rm([long])[0]
    assert math.isnan(rewards[-1].value) and rewards[-1].note.startswith("over-long: 2")
    assert [r.value for r in rewards[:-1]] == pytest.approx([r.value for r in rm([g])[0]], abs=1e-5)
    assert math.isnan(RewardModel(folder, dtype="float32", max_tokens=5)([g])[0][0].value)


def test_card_decides_the_rendering_and_guards_the_template(folder, tmp_path):
    import shutil

    copy = tmp_path / "rm"
    shutil.copytree(folder, copy)
    (copy / "reward_model.json").write_text(json.dumps({"rendering": "tokens"}))
    assert RewardModel(str(copy), dtype="float32").chosen_rendering() == "tokens"
    assert RewardModel(folder, dtype="float32").chosen_rendering() == "template"
    (copy / "reward_model.json").write_text(json.dumps({"rendering": "tokens", "template": "0" * 16}))
    with pytest.raises(ModelError, match="another chat template"):
        RewardModel(str(copy), dtype="float32")(groups())


def test_by_name(folder):
    rm = resolve("reward_model", model=folder, dtype="float32")
    assert rm == RewardModel(folder, dtype="float32") and rm([]) == []
    with pytest.raises(InputError, match="rendering"):
        resolve("reward_model", model=folder, rendering="chat")
