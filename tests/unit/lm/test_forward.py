"""Log-probs on the forest are those of one plain forward pass a completion."""

import numpy as np
import pytest
import torch
import transformers as t

from trimtab.errors import ModelError
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.forward import completion_logprobs
from trimtab.lm.load import LM, load_lm
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_lm(str(tiny_lm(tmp_path_factory.mktemp("lm"))), "float32")


GROUPS = [
    Group(prompt("1 + 1 ="), tuple(Completion(t, "m", i, i) for i, t in enumerate(["2", "two", "2"]))),
    Group(prompt("hm"), (Completion("", "m", 0, 0, tokens=()), Completion("ok", "m", 1, 1, "length"))),
]


@pytest.mark.parametrize("options", [{}, {"batch_tokens": 12}, {"shared": False}])
def test_same_as_a_plain_pass(lm, options):
    got = completion_logprobs(lm, GROUPS, **options)
    for group, arrays in zip(GROUPS, got, strict=True):
        start = encode_prompt(lm.tokenizer, group.prompt)
        for c, array in zip(group.completions, arrays, strict=True):
            ids = encode_completion(lm.tokenizer, c)
            with torch.no_grad():
                logits = lm.model(torch.tensor([start + ids])).logits[0].log_softmax(-1)
            want = [float(logits[len(start) - 1 + t, token]) for t, token in enumerate(ids)]
            np.testing.assert_allclose(array, want, rtol=1e-4, atol=1e-4)


def cohere(lm):
    """A model that scales its logits behind the head, as its configuration says."""
    config = t.CohereConfig(vocab_size=len(lm.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                            num_attention_heads=4, logit_scale=0.25)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LM(t.CohereForCausalLM(config).eval(), lm.tokenizer, "cohere", "0")


def test_a_head_that_scales_and_caps_is_followed_and_any_other_refused(lm):
    scaled = cohere(lm)
    test_same_as_a_plain_pass(scaled, {})
    softer = cohere(lm)
    softer.model.register_forward_hook(lambda module, args, out: _halved(out))
    with pytest.raises(ModelError, match="changes its logits"):
        completion_logprobs(softer, GROUPS)


def _halved(out):
    out.logits = out.logits / 2
    return out
