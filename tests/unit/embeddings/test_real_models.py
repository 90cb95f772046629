"""On the embedded SmolLM2: the forest gives a plain pass's states, and llama.cpp's server agrees with them."""

import numpy as np
import pytest
import torch

from trimtab.embeddings import Endpoint, HiddenStates
from trimtab.lm import catalog
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.forward import FINAL_NORM, forest_states
from trimtab.lm.load import load_lm
from trimtab.lm.tree import single
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Prompt

pytestmark = pytest.mark.model
MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def lm():
    return load_lm(MODEL, "float32")


def test_states_of_a_real_model(lm):
    group = Group(
        prompt("What is 12 + 7?"), tuple(Completion(t, "m", i, i) for i, t in enumerate(["19", "It is 19.", ""]))
    )
    (got,) = HiddenStates(lm, layers=(20, 5)).states([group])
    start = encode_prompt(lm.tokenizer, group.prompt)
    assert start.count(lm.tokenizer.convert_tokens_to_ids("<|im_start|>")) == 3  # system, user, assistant: once each
    for n, c in enumerate(group.completions):
        ids = start + encode_completion(lm.tokenizer, c)
        assert ids[-1] == lm.tokenizer.convert_tokens_to_ids("<|im_end|>")
        with torch.no_grad():
            hidden = lm.model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in (20, 5):
            want = hidden[layer][0].numpy()
            for key, vector in (("last", want[-1]), ("mean", want[len(start) :].mean(0))):
                difference = np.linalg.norm(got[f"layer{layer}.{key}"][n] - vector) / np.linalg.norm(vector)
                assert difference < 1e-4


def test_a_real_server_agrees(lm):
    """llama.cpp pools the last token's state after the final norm, scaled to length 1 (weights Q4_1, ours Q8_0)."""
    x = pytest.importorskip("xllamacpp")
    params = x.CommonParams()
    params.model.path = str(catalog.locate(MODEL, "gguf"))
    params.n_ctx, params.n_parallel, params.embedding = 512, 1, True
    params.cpuparams.n_threads = 1
    params.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    server = x.Server(params)
    prompts = [
        Prompt(t, ({"role": "text", "content": t},)) for t in ("The capital of France is", "Twelve plus seven is")
    ]
    vectors = Endpoint(server.listening_address + "/v1", MODEL).embed_prompts(prompts)
    for p, vector in zip(prompts, vectors, strict=True):
        (chain,) = single([encode_prompt(lm.tokenizer, p)])
        state = forest_states(lm, chain, [FINAL_NORM])[FINAL_NORM][-1].numpy()
        assert vector @ state / np.linalg.norm(state) > 0.98
