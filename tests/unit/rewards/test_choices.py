import math

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from trimtab.errors import InputError
from trimtab.lm.chat import encode_prompt
from trimtab.lm.load import LM, load_lm
from trimtab.rewards.choices import ChoiceJudge, PromptReward, log_odds
from trimtab.testing import check_learned_reward, prompt, tiny_lm
from trimtab.types import Completion, Group


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_lm(str(tiny_lm(tmp_path_factory.mktemp("choices") / "lm", layers=2)), "float32")


def groups(n: int = 3) -> list[Group]:
    return [Group(prompt(f"q{g}"), tuple(Completion("word " * (i + g), "m", 0, i) for i in range(3))) for g in range(n)]


def test_log_odds_are_the_models_own_and_batches_change_nothing(lm):
    texts = ["Is it?", "Is it really so, would you say?", "No"]
    a, b = (log_odds(lm, texts, ("Y", "N"), batch_tokens=t) for t in (10**6, 1))
    assert a == pytest.approx(b, abs=1e-4)
    ids = torch.tensor([encode_prompt(lm.tokenizer, prompt(texts[1]))])
    with torch.no_grad():
        logits = lm.model(ids).logits[0, -1]
    y, n = (lm.tokenizer(c)["input_ids"][0] for c in "YN")
    assert a[1] == pytest.approx((logits[y] - logits[n]).item(), abs=1e-4)


def test_log_odds_follow_a_soft_cap(lm):
    """Gemma 2 caps its logits behind the head, which moves their difference."""
    shape = {"vocab_size": 261, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 0.5}
    model = Gemma2ForCausalLM(Gemma2Config(**shape, **heads)).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    test_log_odds_are_the_models_own_and_batches_change_nothing(LM(model, lm.tokenizer, "capped", "0"))


def test_prompt_reward_is_a_scorer_and_says_what_does_not_fit(lm):
    check_learned_reward(PromptReward(lm), groups())
    (long,) = PromptReward(lm)([Group(prompt("q"), (Completion("x" * 600, "m", 0, 0),))])[0]
    assert math.isnan(long.value) and "over-long" in long.note


def test_both_orders_make_the_judge_antisymmetric(lm):
    pairs = [np.array([[0, 1], [1, 0], [2, 2]])] * 3
    for p in ChoiceJudge(lm)(groups(), pairs):
        assert p[0] + p[1] == pytest.approx(1, abs=1e-5) and p[2] == pytest.approx(0.5, abs=1e-5)
    biased = ChoiceJudge(lm, both_orders=False)(groups(), pairs)
    assert any(abs(p[0] + p[1] - 1) > 1e-3 for p in biased)


def test_choices_with_one_first_token_are_refused(lm):
    with pytest.raises(InputError, match="same first token"):
        log_odds(lm, ["x"], ("Yes", "Yet"))
