"""Every built-in sampler passes the contract; on the embedded model, OpenVINO is the same model as torch.

The OpenAI sampler runs here against a real server, llama.cpp's, on the very file that OpenVINO reads.
"""

import socket
import time

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.lm import catalog
from trimtab.samplers import HF, Cached, OpenAI, OpenVINO, fitting
from trimtab.store import Store
from trimtab.testing import FakeSampler, check_sampler, prompt, tiny_lm
from trimtab.types import Prompt, SamplingParams, Usage

NAME = "smollm2-135m"
PROMPTS = [
    prompt("What is the capital of France?"),
    prompt("Name three colours."),
    prompt("Write one sentence about the sea."),
    prompt("Count from one to five."),
]


def test_fake_sampler():
    check_sampler(FakeSampler(lambda p, rng: f"{rng.integers(10**6)} {rng.integers(10**6)}"))


def check_counts(sampler, n, params, runs):
    """A group's usage is its prompt once, one call, what `runs` of its completions took, and the call's time in all."""
    began = time.perf_counter()
    groups = sampler(PROMPTS, n, params)
    took = time.perf_counter() - began
    for g, length in zip(groups, sampler.lengths(PROMPTS), strict=True):
        written = sum(len(c.tokens) for c in g.completions) * runs / n
        want = Usage(length, 0.0, written, 1.0)
        assert [vars(g.usage)[k] for k in list(vars(want))[:4]] == pytest.approx(list(vars(want).values())[:4])
    assert took / 2 < sum(g.usage.seconds for g in groups) < took


def test_hf(tmp_path):
    sampler = HF(str(tiny_lm(tmp_path)), dtype="float32", batch=5)
    check_sampler(sampler)
    check_counts(sampler, 3, SamplingParams(max_tokens=12), 3)


@pytest.mark.model
def test_openvino():
    sampler = OpenVINO(NAME)
    check_sampler(sampler)
    check_counts(sampler, 3, SamplingParams(max_tokens=12), 3)
    check_counts(sampler, 2, SamplingParams(max_tokens=12, temperature=0), 1)  # greedy: one run gives both


@pytest.mark.model
def test_openvino_is_the_torch_model():
    """Greedy texts begin alike, and the log-probs of sampled tokens are the torch model's own: before temperature,
    top-p and top-k, to the 8 bits that OpenVINO computes in."""
    import torch

    from trimtab.lm.chat import encode_prompt
    from trimtab.lm.load import load_lm

    lm = load_lm(NAME, dtype="float32")
    sampler = OpenVINO(NAME)
    greedy = sampler(PROMPTS, 2, SamplingParams(temperature=0, max_tokens=24))
    mine = HF(NAME, dtype="float32")(PROMPTS, 1, SamplingParams(temperature=0, max_tokens=24))
    agree = []
    for a, b in zip(greedy, mine, strict=True):
        assert a.completions[0].tokens == a.completions[1].tokens
        pairs = list(zip(a.completions[0].tokens, b.completions[0].tokens, strict=False))
        agree.append(next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs)))
    assert np.mean(agree) >= 8, f"greedy texts part after {agree} tokens"
    for params in (
        SamplingParams(temperature=0.5, top_p=1.0, max_tokens=24, seed=1),
        SamplingParams(temperature=1.5, top_p=0.7, top_k=30, max_tokens=24, seed=2),
    ):
        own, tempered, given = [], [], []
        for group in sampler(PROMPTS, 2, params):
            ids = encode_prompt(lm.tokenizer, group.prompt)
            for c in group.completions:
                with torch.inference_mode():
                    logits = lm.model(torch.tensor([ids + list(c.tokens)])).logits[0, len(ids) - 1 : -1]
                rows = range(len(c.tokens))
                own += torch.log_softmax(logits, -1)[rows, list(c.tokens)].tolist()
                tempered += torch.log_softmax(logits / params.temperature, -1)[rows, list(c.tokens)].tolist()
                given += c.logprobs
        error = np.abs(np.array(given) - own).mean()
        assert error < 0.06, f"{error:.3f} nats a token from the torch model"
        assert np.abs(np.array(given) - tempered).mean() > 5 * error


@pytest.mark.model
def test_openvino_reads_the_states_of_torch_and_its_texts_stay():
    """To the 8 bits that it computes in, where the CPU rounds; to 1e-3 where not."""
    from trimtab.embeddings import GraphStates, HiddenStates

    read, params = {}, SamplingParams(temperature=0.8, top_p=1.0, max_tokens=12, seed=3)
    sampler = OpenVINO(NAME, layers=(15, 20), keep=lambda g, states: read.update({g.prompt.id: states}))
    groups = sampler(PROMPTS, 6, params)
    plain = OpenVINO(NAME)(PROMPTS, 6, params)
    same = [
        c == d for g, h in zip(groups, plain, strict=True) for c, d in zip(g.completions, h.completions, strict=True)
    ]
    assert np.mean(same) >= 0.8
    rounds = GraphStates(NAME).card["dtype"] != "float32"
    for g, want in zip(groups, HiddenStates(NAME, (15, 20), "text", dtype="float32").states(groups), strict=True):
        for key, got in read[g.prompt.id].items():
            off = np.linalg.norm(got - want[key], axis=1) / np.linalg.norm(want[key], axis=1)
            assert np.median(off) < (0.05 if rounds else 1e-3) and off.max() < (0.2 if rounds else 1e-2)


@pytest.mark.model
def test_openvino_seeds_belong_to_prompts():
    """A prompt keeps its completions alone or among others (the last bits of a logit may flip a token: most must
    agree), no two of a prompt are alike, and their order says nothing of how likely they are."""
    sampler = OpenVINO(NAME)
    params = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=12, seed=7)
    many = sampler(PROMPTS, 8, params)
    few = [sampler([p], 8, params)[0] for p in PROMPTS]
    same = [
        a.text == b.text
        for g, f in zip(many, few, strict=True)
        for a, b in zip(g.completions, f.completions, strict=False)
    ]
    assert np.mean(same) >= 0.7, f"only {np.mean(same):.0%} of the texts are the same alone and in company"
    for g in many:
        assert len({c.text for c in g.completions}) == 8
    sums = [[sum(c.logprobs) for c in g.completions] for g in many]
    assert any(row not in (sorted(row), sorted(row, reverse=True)) for row in sums), "completions came back sorted"
    (wide,) = OpenVINO(NAME, max_seqs=4)(PROMPTS[:1], 10, SamplingParams(temperature=1.0, max_tokens=4))
    assert len(wide.completions) == 10 and len({c.seed for c in wide.completions}) == 3  # requests of 4, 4 and 2


@pytest.mark.model
def test_openvino_finish_stop_strings_and_the_context():
    sampler = OpenVINO(NAME)
    params = SamplingParams(temperature=0, max_tokens=40)
    answers = [(p, g.completions[0]) for p, g in zip(PROMPTS, sampler(PROMPTS, 1, params), strict=True)]
    asked, c = next((p, c) for p, c in answers if c.finish == "stop")  # which one ends depends on the CPU's rounding
    assert "<|im_end|>" not in c.text and len(c.text.split()) > 1
    last = c.text.split()[-1]
    (cut,) = sampler([asked], 1, SamplingParams(temperature=0, max_tokens=40, stop=(last,)))
    assert cut.completions[0].text == c.text.split(last)[0] and cut.completions[0].finish == "stop"
    assert len(cut.completions[0].tokens) == len(cut.completions[0].logprobs) < len(c.tokens)
    (short,) = sampler([PROMPTS[0]], 1, SamplingParams(temperature=0, max_tokens=2))
    assert short.completions[0].finish == "length" and len(short.completions[0].tokens) == 2
    long = Prompt("long", ({"role": "text", "content": "word " * 9000},))
    with pytest.raises(InputError, match="1 of 2 prompts do not fit.*'long'"):
        sampler([PROMPTS[0], long], 1, params)
    assert fitting(sampler, [long, PROMPTS[0]], params) == ([PROMPTS[0]], [long])


@pytest.mark.model
def test_openai_on_a_real_server():
    xllamacpp = pytest.importorskip("xllamacpp")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = xllamacpp.CommonParams()
    settings.model.path = str(catalog.locate(NAME, "openvino"))
    settings.n_ctx, settings.n_parallel, settings.port = 4096, 4, port
    settings.cpuparams.n_threads = 2
    server = xllamacpp.Server(settings)
    sampler = OpenAI(f"{server.listening_address}/v1", NAME, concurrency=4)
    check_sampler(sampler, PROMPTS[:2])
    raw = Prompt("raw", ({"role": "text", "content": "The capital of France is"},))
    groups = sampler([PROMPTS[0], raw], 3, SamplingParams(temperature=0, max_tokens=24))
    assert [len(g.completions) for g in groups] == [3, 3]
    for (
        g
    ) in groups:  # what llama.cpp says greedily is its own affair: it differs from the other two engines on this file
        assert len({c.text for c in g.completions}) == 1 and g.completions[0].text.strip()
        assert all(c.finish == "length" or len(c.text) > 0 for c in g.completions)
        assert all(c.logprobs is None or max(c.logprobs) <= 0 for c in g.completions)


@pytest.mark.model
def test_cached_openvino_reads_back_what_it_wrote(tmp_path):
    params = SamplingParams(max_tokens=8)
    sampler = Cached(OpenVINO(NAME), Store(tmp_path), "train", batch=2)
    first = sampler(PROMPTS, 2, params)
    again = Cached(None, Store(tmp_path), "train")(PROMPTS, 2, params)
    assert [[c.tokens for c in g.completions] for g in again] == [[c.tokens for c in g.completions] for g in first]
    np.testing.assert_allclose(again[0].completions[0].logprobs, first[0].completions[0].logprobs, rtol=1e-6)


@pytest.mark.model
def test_openvino_gives_completions_in_an_order_that_says_nothing_of_their_logprobs():
    """GenAI returns a request's sequences the likeliest first; read by their numbers they are exchangeable. Otherwise
    "the first of equals" would be a likely completion. Mean rank at each place, within four standard errors."""
    prompts, n = [prompt(f"Tell me about the number {i}.") for i in range(40)], 6
    groups = OpenVINO(NAME)(prompts, n, SamplingParams(temperature=1.0, top_p=1.0, max_tokens=8, seed=5))
    rank_PN = np.array([[sum(c.logprobs) for c in g.completions] for g in groups]).argsort(1).argsort(1)
    error = np.sqrt((n**2 - 1) / 12 / len(prompts))
    assert np.abs(rank_PN.mean(0) - (n - 1) / 2).max() < 4 * error
