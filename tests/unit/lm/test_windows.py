"""Which window each layer has is said once, and shared prompts, forests and beams see what the plain forward sees."""

import numpy as np
import pytest
import torch
import transformers as t

from trimtab.decoders import BeamSearch
from trimtab.embeddings import HiddenStates
from trimtab.errors import ModelError
from trimtab.learners.token.policy import Policy
from trimtab.lm import forward, tree
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.forward import completion_logprobs
from trimtab.lm.load import LM, load_tokenizer
from trimtab.lm.tree import layer_windows
from trimtab.samplers import HF
from trimtab.tensors import token_logprobs
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group, SamplingParams

SLIDING, FULL = "sliding_attention", "full_attention"
SHAPE = {
    "vocab_size": 261, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 256, "eos_token_id": 257,
    "bos_token_id": None,
}  # fmt: skip
GROUP = Group(prompt("which is longer?"), (Completion("a long answer", "m", 0, 0), Completion("short", "m", 0, 1)))
LENGTH = 33  # prompt, first answer and end token in bytes: the window of exactly the length
FAMILIES = {
    "mistral": (t.MistralConfig, {"sliding_window": 5}, {"": 5}),
    "mistral, exactly the text": (t.MistralConfig, {"sliding_window": LENGTH}, {"": LENGTH}),
    "mistral, one less": (t.MistralConfig, {"sliding_window": LENGTH - 1}, {"": LENGTH - 1}),
    "mistral, wider": (t.MistralConfig, {"sliding_window": 100}, {"": 100}),
    "mistral, none": (t.MistralConfig, {"sliding_window": None}, {"": None}),
    "mixtral": (t.MixtralConfig, {"sliding_window": 3, "num_local_experts": 4}, {"": 3}),
    "phi3": (t.Phi3Config, {"sliding_window": 4}, {"": 4}),
    "starcoder2": (t.Starcoder2Config, {"sliding_window": 4}, {"": 4}),
    "qwen2, upper layers": (
        t.Qwen2Config, {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
        {FULL: None, SLIDING: 4},
    ),
    "qwen2, all layers": (
        t.Qwen2Config, {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}, {SLIDING: 4}
    ),
    "qwen2, switched off": (t.Qwen2Config, {"sliding_window": 4, "use_sliding_window": False}, {FULL: None}),
    "gemma2": (t.Gemma2Config, {"sliding_window": 4, "head_dim": 8}, {FULL: None, SLIDING: 4}),
    "gemma3": (
        t.Gemma3TextConfig, {"sliding_window": 6, "head_dim": 8, "layer_types": [SLIDING, SLIDING, FULL]},
        {FULL: None, SLIDING: 6},
    ),
    "llama with a leftover": (t.LlamaConfig, {"sliding_window": 3, "layer_types": [SLIDING] * 3}, {"": None}),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(str(tiny_lm(tmp_path_factory.mktemp("lm") / "tiny")))


def model_of(name):
    kind, more, _ = FAMILIES[name]
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(kind(**SHAPE, **more)).eval().requires_grad_(False)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3) if p.dim() > 1 else None
    return model


def plain(model, ids, start):
    row = torch.tensor([ids])
    return token_logprobs(model(input_ids=row, use_cache=False).logits, row)[0, start - 1 :].numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layout_gives_the_plain_forward(tokenizer, name):
    model, want = model_of(name), FAMILIES[name][2]
    config = model.config.get_text_config()
    assert layer_windows(config) == want
    lm = LM(model, tokenizer, name, "0")
    start = encode_prompt(tokenizer, GROUP.prompt)
    answers = [encode_completion(tokenizer, c) for c in GROUP.completions]
    assert len(start + answers[0]) == LENGTH
    expected = [plain(model, start + a, len(start)) for a in answers]
    close = {"rtol": 0, "atol": 2e-4}
    for got in (Policy(lm).logprobs([GROUP])[0], completion_logprobs(lm, [GROUP])[0]):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, **close)
    shared, alone = (HiddenStates(lm, layers=(1, 3), shared=s)([GROUP])[0] for s in (True, False))
    np.testing.assert_allclose(shared, alone, rtol=1e-4, atol=1e-4)
    (found,) = BeamSearch(lm, width=3)([GROUP.prompt], 3, SamplingParams(max_tokens=12))
    for c in found.completions:
        np.testing.assert_allclose(c.logprobs, plain(model, [*start, *c.tokens], len(start)), **close)
    window = config.sliding_window if "sliding_window" in config.to_dict() else None
    forward.check_forward(model, start, answers)
    assert getattr(config, "sliding_window", None) == window  # narrowed for the check only


def test_a_forward_that_forgets_a_wide_window_is_found(tokenizer, monkeypatch):
    """The window is wider than the text, as Mistral's 4096 is: the check narrows it and sees."""
    model = model_of("mistral, wider")
    start, answers = [7, 8, 9, 10, 11], [[20, 21, 22, 23, 24], [30, 31, 32]]
    forward.check_forward(model, start, answers)
    monkeypatch.setattr(tree, "layer_windows", lambda config: {"": None})
    with pytest.raises(ModelError, match="differ by"):
        forward.check_forward(model, start, answers)
    assert model.config.sliding_window == 100


def test_layers_that_follow_no_mask_are_refused_by_name():
    config = t.Qwen2Config(**SHAPE, layer_types=[FULL, "linear_attention", FULL])
    with pytest.raises(ModelError, match=r"qwen2.*linear_attention.*share_prompt=False"):
        layer_windows(config)
    assert layer_windows(t.LlamaConfig()) == {"": None}


def test_sampling_sees_the_window_beside_longer_prompts(tokenizer, tmp_path):
    model = model_of("mistral")
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    prompts = [prompt("hi"), prompt("a much longer question than the first?")]
    for g in HF(str(tmp_path), dtype="float32")(prompts, 3, SamplingParams(max_tokens=9, seed=3)):
        start = encode_prompt(tokenizer, g.prompt)
        for c in g.completions:
            np.testing.assert_allclose(c.logprobs, plain(model, [*start, *c.tokens], len(start)), rtol=1e-3, atol=1e-3)
