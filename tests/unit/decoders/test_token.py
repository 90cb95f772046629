from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby, product

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from trimtab.decoders import Plain
from trimtab.decoders.token import BeamSearch, ChunkedBestOfN
from trimtab.errors import InputError
from trimtab.lm.growing_tree import TokenTree
from trimtab.lm.load import LM, load_lm
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Prompt, Reward, SamplingParams

V, END = 5, 4


def upto(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=1.0, top_p=1.0, max_tokens=tokens, seed=1)


class Digits:
    """A tokenizer whose text is its token ids."""

    eos_token_id, bos_token_id, chat_template = END, None, None

    def __call__(self, text, add_special_tokens=False):
        return {"input_ids": [int(c) for c in text]}

    def decode(self, ids, skip_special_tokens=True):
        return "".join(str(i) for i in ids if i != END)


def raw(text: str) -> Prompt:
    return Prompt(text, ({"role": "text", "content": text},))


def digit_lm(seed: int) -> LM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, eos_token_id=END, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5) if p.dim() > 1 else torch.nn.init.ones_(p)
    return LM(model, Digits(), f"digits{seed}", "0")


@torch.no_grad()
def plain_logprobs(model, ids: list[int], completion: tuple[int, ...]) -> list[float]:
    logits = model(torch.tensor([[*ids, *completion]])).logits[0].float().log_softmax(-1)
    return [logits[len(ids) + t - 1, c].item() for t, c in enumerate(completion)]


@torch.no_grad()
def plain_sums(model, ids: list[int], completions: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    """The summed log-prob of every completion by the model's plain forward, one batch a length."""
    sums = {}
    for _, same in groupby(sorted(completions, key=len), len):
        rows = list(same)
        tokens_BT = torch.tensor([[*ids, *c] for c in rows])
        logprob_BTV = model(tokens_BT).logits.float().log_softmax(-1)[:, len(ids) - 1 : -1]
        chosen_BT = logprob_BTV.gather(2, tokens_BT[:, len(ids) :, None])[..., 0]
        sums |= dict(zip(rows, chosen_BT.sum(1).tolist(), strict=True))
    return sums


def every_answer(longest: int):
    for n in range(1, longest + 1):
        for body in product(range(V - 1), repeat=n - 1):
            yield (*body, END)
    yield from product(range(V - 1), repeat=longest)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_wide_beams_are_exhaustive_search(seed, weight):
    lm, ref = digit_lm(seed), digit_lm(seed + 100)
    search = BeamSearch(lm, width=64, reference=ref, reference_weight=weight, length_penalty=0.0)
    for p, group in zip(["12", "0333"], search([raw("12"), raw("0333")], 64, upto(4)), strict=True):
        ids = [int(c) for c in p]
        ours, theirs = (plain_sums(m.model, ids, every_answer(4)) for m in (lm, ref))
        scores = {c: ours[c] - weight * theirs[c] for c in ours}
        best = sorted((c for c in scores if c[-1] == END), key=lambda c: -scores[c])
        assert group.completions[0].tokens == best[0] and group.completions[0].finish == "stop"
        assert group.reward_N[0] == pytest.approx(scores[best[0]], abs=1e-4)
        free = BeamSearch(lm, 64, reference=ref, reference_weight=weight, require_end=False)
        assert free([raw(p)], 1, upto(4))[0].reward_N[0] == pytest.approx(max(scores.values()), abs=1e-4)


@pytest.mark.parametrize(("penalty", "weight"), [(1.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (1.0, 0.4)])
def test_length_penalty_divides_as_documented_and_the_reward_is_what_ranks(penalty, weight):
    lm, ref = digit_lm(7), digit_lm(107)
    search = BeamSearch(lm, 64, length_penalty=penalty, reference=ref, reference_weight=weight)
    (group,) = search([raw("21")], 64, upto(4))
    ended = [c for c in every_answer(4) if c[-1] == END]
    ours, theirs = (plain_sums(m.model, [2, 1], ended) for m in (lm, ref))
    scores = {c: (ours[c] - weight * theirs[c]) / len(c) ** penalty for c in ended}
    assert group.completions[0].tokens == max(scores, key=scores.__getitem__)
    best = [(c.tokens, v) for c, v in zip(group.completions, group.reward_N, strict=True) if c.finish == "stop"]
    assert [v for _, v in best] == pytest.approx([scores[t] for t, _ in best], abs=1e-4)
    assert sorted((v for _, v in best), reverse=True) == [v for _, v in best]
    assert sum(group.completions[0].logprobs) == pytest.approx(ours[group.completions[0].tokens], abs=1e-4)


def test_a_cut_answer_with_a_length_penalty_has_its_objective_too():
    (group,) = BeamSearch(digit_lm(7), 3, length_penalty=1.0, require_end=False)([raw("21")], 3, upto(2))
    for c, v in zip(group.completions, group.reward_N, strict=True):
        assert v == pytest.approx(np.mean(c.logprobs), abs=1e-5)


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_lm(str(tiny_lm(tmp_path_factory.mktemp("beam") / "lm", seed=3)), "float32")


PROMPTS = [prompt("ab"), prompt("what is the colour of the sea?"), prompt("0123456789")]


def test_never_below_the_same_search_by_transformers(lm):
    from trimtab.lm.chat import encode_prompt

    ours = Plain(BeamSearch(lm, width=5, require_end=False))(PROMPTS, upto(12))
    for p, answer in zip(PROMPTS, ours, strict=True):
        ids = encode_prompt(lm.tokenizer, p)
        with torch.no_grad():
            theirs = lm.model.generate(
                torch.tensor([ids]), num_beams=5, length_penalty=0.0, do_sample=False, max_new_tokens=12
            )[0, len(ids) :].tolist()
        ends = [i for i, t in enumerate(theirs) if t == lm.tokenizer.eos_token_id]
        theirs = tuple(theirs[: ends[0] + 1] if ends else theirs)
        assert sum(answer.completion.logprobs) >= sum(plain_logprobs(lm.model, ids, theirs)) - 1e-4


def test_logprobs_and_batching(lm):
    from trimtab.lm.chat import encode_prompt

    together = BeamSearch(lm, width=4)(PROMPTS, 4, upto(10))
    alone = BeamSearch(lm, width=4, batch=1)(PROMPTS, 4, upto(10))
    answers = Plain(BeamSearch(lm, width=4))(PROMPTS, upto(10))
    for p, a, b, answer in zip(PROMPTS, together, alone, answers, strict=True):
        assert [c.tokens for c in a.completions] == [c.tokens for c in b.completions]
        assert a.prompt == p and answer.completion.tokens == a.completions[0].tokens
        assert answer.tokens == pytest.approx(sum(len(c.tokens) for c in a.completions)) == a.usage.completion_tokens
        assert a.usage.calls == 1 and a.usage.prompt_tokens == len(encode_prompt(lm.tokenizer, p))
        for c, value in zip(a.completions, a.reward_N, strict=True):
            want = plain_logprobs(lm.model, encode_prompt(lm.tokenizer, p), c.tokens)
            assert c.logprobs == pytest.approx(want, abs=1e-4) and value == pytest.approx(sum(want), abs=1e-3)
        assert len({c.tokens for c in a.completions}) == len(a.completions)


def test_one_beam_is_greedy(lm):
    from trimtab.lm.chat import encode_prompt

    for p in PROMPTS:
        ids = encode_prompt(lm.tokenizer, p)
        with torch.no_grad():
            greedy = lm.model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=8)[0, len(ids) :]
        (found,) = BeamSearch(lm, width=1, require_end=False)([p], 1, upto(8))
        if found.completions[0].finish == "length":
            assert list(found.completions[0].tokens) == greedy.tolist()


def test_cut_answers_say_so(lm):
    answer = Plain(BeamSearch(lm, width=2))([PROMPTS[0]], upto(1))[0]
    ended = answer.completion.tokens[-1] == lm.tokenizer.eos_token_id
    assert ended or (answer.completion.finish == "length" and "cut" in answer.note)
    with pytest.raises(InputError, match="context"):
        BeamSearch(lm)([PROMPTS[0]], 1, upto(4000))
    with pytest.raises(InputError, match="width 5 cannot give 6"):
        BeamSearch(lm)([PROMPTS[0]], 6, upto(4))
    with pytest.raises(InputError, match="leave out stop"):
        BeamSearch(lm)([PROMPTS[0]], 1, SamplingParams(stop=("x",)))
    with pytest.raises(InputError, match="needs a reference"):
        BeamSearch(lm, reference_weight=1.0)


def test_the_tree_is_the_plain_forward_also_with_sliding_windows():
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
        num_key_value_heads=1, max_position_embeddings=64, sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    model = Gemma3ForCausalLM(config).eval()
    prompts = [[3, 4, 5, 6, 7, 8], [9, 10]]
    tree = TokenTree(model, prompts)
    first = tree.grow(torch.zeros(2, 2, dtype=torch.long), torch.tensor([[1, 2], [3, 4]]))
    second = tree.grow(torch.tensor([[1, 1], [0, 1]]), torch.tensor([[5, 6], [7, 8]]))
    paths = {(0, 0): ([2, 5], 1), (0, 1): ([2, 6], 1), (1, 0): ([3, 7], 0), (1, 1): ([4, 8], 1)}
    for (b, k), (path, parent) in paths.items():
        with torch.no_grad():
            want = model(torch.tensor([[*prompts[b], *path]])).logits[0].log_softmax(-1)
        torch.testing.assert_close(second[b, k], want[-1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(first[b, parent], want[-2], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(tree.first_logprobs_BV[b], want[-3], rtol=1e-4, atol=1e-4)
    tree.keep(torch.tensor([1]))
    third = tree.grow(torch.tensor([[0, 1]]), torch.tensor([[9, 9]]))
    with torch.no_grad():
        want = model(torch.tensor([[9, 10, 4, 8, 9]])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(third[0, 1], want, rtol=1e-4, atol=1e-4)


def vowels(groups):
    return [[Reward(float(c.text.count("3"))) for c in g.completions] for g in groups]


def test_chunks_follow_the_reward_and_keep_their_logprobs():
    lm = digit_lm(2)
    guided, params = ChunkedBestOfN(lm, vowels, n=8, chunk=1), upto(6)
    groups = guided([raw(str(i) + str(j)) for i in range(4) for j in range(4)], 1, params)
    plain = ChunkedBestOfN(lm, vowels, n=1, chunk=6)([g.prompt for g in groups], 1, params)
    count = [g.completions[0].text.count("3") for g in groups]
    assert count == [g.reward_N[0] for g in groups]
    assert np.mean(count) > np.mean([g.completions[0].text.count("3") for g in plain]) + 1
    for g in groups:
        (c,) = g.completions
        ids = [int(x) for x in g.prompt.messages[0]["content"]]
        assert c.logprobs == pytest.approx(plain_logprobs(lm.model, ids, c.tokens), abs=1e-4)
        assert (c.finish == "stop") == (c.tokens[-1] == END) and len(c.tokens) <= c.usage.completion_tokens <= 8 * 6
    assert guided([groups[0].prompt], 1, params)[0] == groups[0]  # same seed, same answer
    (answer,) = Plain(guided)([groups[0].prompt], params)
    assert answer.group == groups[0]
    (several,) = guided([groups[0].prompt], 4, params)
    assert several.completions[0] == groups[0].completions[0] and len({c.tokens for c in several.completions}) > 1


def test_a_search_by_chunks_keeps_to_top_k_and_top_p():
    lm = digit_lm(2)
    for params in (replace(upto(6), top_k=1), replace(upto(6), top_p=1e-6), replace(upto(6), temperature=0.0)):
        (greedy,) = ChunkedBestOfN(lm, vowels, n=3, chunk=2)([raw("12")], 1, params)
        (beam,) = BeamSearch(lm, width=1, require_end=False)([raw("12")], 1, upto(6))
        assert greedy.completions[0].tokens == beam.completions[0].tokens[: len(greedy.completions[0].tokens)]


def test_an_unscored_partial_answer_is_never_chosen():
    lm = digit_lm(2)

    def first_only(groups):
        return [
            [Reward(1.0) if i == 2 else Reward(float("nan"), "no") for i in range(len(g.completions))] for g in groups
        ]

    (group,) = ChunkedBestOfN(lm, first_only, n=4, chunk=2)([raw("1")], 1, upto(4))
    assert group.reward_N == [1.0]
    with pytest.raises(InputError, match="scored no partial answer"):
        ChunkedBestOfN(lm, lambda gs: [[Reward(float("nan"), "x")] * 4 for _ in gs], n=4, chunk=2)(
            [raw("1")], 1, upto(8)
        )
