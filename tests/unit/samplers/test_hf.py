"""The transformers sampler on a tiny model: the distribution it draws from, and that neighbours change nothing."""

import math

import pytest
import torch

from trimtab.errors import InputError
from trimtab.lm.load import load_lm
from trimtab.samplers.hf import HF, choose_tokens
from trimtab.testing import check_sampler, prompt, tiny_lm
from trimtab.types import Prompt, SamplingParams

LOGITS = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))
PROMPTS = [prompt("Hi"), prompt("A much longer prompt than the first one."), prompt("Tell me.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_lm(tmp_path_factory.mktemp("tiny")))


def drawn(u, **kw):
    params = SamplingParams(**{"temperature": 1.0, "top_p": 1.0, **kw})
    return choose_tokens(LOGITS, torch.tensor([u]), params).item()


@pytest.mark.parametrize(
    "u, kw, token",
    [
        (0.05, {}, 0), (0.11, {}, 1), (0.59, {}, 1), (0.61, {}, 2), (0.76, {}, 3), (0.9999, {}, 3),
        (0.99, {"temperature": 0.0}, 1),
        (0.6, {"top_k": 2}, 1), (0.7, {"top_k": 2}, 3),  # {.5, .25} renormalised: 2/3, 1/3
        (0.99, {"top_p": 0.5}, 1),  # the first alone reaches 0.5
        (0.99, {"top_p": 0.51}, 3),  # and no longer reaches 0.51
        (0.99, {"top_p": 0.76}, 2),
        (0.6, {"top_p": 0.7, "top_k": 2}, 1),
    ],
)  # fmt: skip
def test_tokens_by_hand(u, kw, token):
    """0.1, 0.5, 0.15, 0.25 in that order (sorted when something is cut off): cumulative .1 .6 .75 1."""
    assert drawn(u, **kw) == token


def test_temperature_by_hand():
    """T = 1/2 squares the odds: .01 .25 .0225 .0625 over .345, so token 0 ends at 0.029 and token 1 at 0.754."""
    assert [drawn(u, temperature=0.5) for u in (0.028, 0.030, 0.753, 0.755)] == [0, 1, 1, 2]


def test_frequencies_follow_the_distribution():
    u = (torch.arange(4000) + 0.5) / 4000
    tokens = choose_tokens(LOGITS.expand(4000, 4), u, SamplingParams(temperature=1.0, top_p=1.0))
    torch.testing.assert_close(torch.bincount(tokens) / 4000, LOGITS.exp()[0], atol=1e-3, rtol=0)


def test_contract(folder):
    check_sampler(HF(folder))


def test_neighbours_and_n_change_nothing(folder):
    params = SamplingParams(temperature=1.0, max_tokens=16, seed=5)
    together = HF(folder, batch=7, dtype="float64")(PROMPTS, 4, params)
    for p, group in zip(PROMPTS, together, strict=True):
        (alone,) = HF(folder, batch=1, dtype="float64")([p], 2, params)
        assert [c.tokens for c in alone.completions] == [c.tokens for c in group.completions[:2]]
        for a, b in zip(alone.completions, group.completions, strict=False):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-9)
    assert len({c.text for g in together for c in g.completions}) == 12


def test_logprobs_are_the_models_own_whatever_the_temperature(folder):
    from trimtab.lm.chat import encode_prompt

    lm = load_lm(folder, dtype="float64")
    (group,) = HF(folder, dtype="float64")(
        PROMPTS[:1], 3, SamplingParams(temperature=0.5, top_p=0.8, top_k=20, max_tokens=10)
    )
    ids = encode_prompt(lm.tokenizer, PROMPTS[0])
    for c in group.completions:
        logits = lm.model(torch.tensor([ids + list(c.tokens)])).logits[0, len(ids) - 1 : -1]
        own = torch.log_softmax(logits, -1)[range(len(c.tokens)), list(c.tokens)]
        assert c.logprobs == pytest.approx(own.tolist(), abs=1e-6)


def test_greedy_is_transformers_greedy(folder):
    from trimtab.lm.chat import encode_prompt

    lm = load_lm(folder, dtype="float64")
    groups = HF(folder, dtype="float64")(PROMPTS, 2, SamplingParams(temperature=0, max_tokens=20))
    for g in groups:
        ids = torch.tensor([encode_prompt(lm.tokenizer, g.prompt)])
        out = lm.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)
        assert all(list(c.tokens) == out[0, ids.shape[1] :].tolist() for c in g.completions)


def test_finish_and_the_end_token(folder):
    """At a high temperature the end token comes early: then it is the last token, once, and not part of the text."""
    end = load_lm(folder).tokenizer.eos_token_id
    (group,) = HF(folder)([PROMPTS[0]], 40, SamplingParams(temperature=3.0, top_p=1.0, max_tokens=60))
    assert {c.finish for c in group.completions} == {"stop", "length"}
    for c in group.completions:
        assert (c.tokens[-1] == end) == (c.finish == "stop") and end not in c.tokens[:-1]
        assert len(c.tokens) == 60 or c.finish == "stop"
        assert "<|end|>" not in c.text and all(math.isfinite(x) for x in c.logprobs)


def test_stop_strings(folder):
    params = SamplingParams(temperature=1.0, max_tokens=40, seed=2)
    (free,) = HF(folder)([PROMPTS[0]], 4, params)
    stop = free.completions[0].text[5:7]
    (cut,) = HF(folder)([PROMPTS[0]], 4, SamplingParams(temperature=1.0, max_tokens=40, seed=2, stop=(stop,)))
    for a, b in zip(free.completions, cut.completions, strict=True):
        assert b.text == a.text.split(stop)[0] and (stop not in a.text or b.finish == "stop")


def test_raw_text_is_not_templated_and_long_prompts_are_refused(folder):
    raw = Prompt("raw", ({"role": "text", "content": "abc"},))
    assert HF(folder).lengths([raw]) == [3]
    with pytest.raises(InputError, match="'raw'"):
        HF(folder)([raw], 1, SamplingParams(max_tokens=510))
    assert len(HF(folder)([raw], 1, SamplingParams(max_tokens=509, stop=tuple("abcdefghij")))) == 1
