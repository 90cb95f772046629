"""An answer ends with what its model's chat template writes, found by rendering; text without one ends with EOS."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.decoders import BeamSearch
from trimtab.embeddings import HiddenStates
from trimtab.learners.run import Compute, Optim
from trimtab.learners.token.examples import encode_pairs
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.chat import encode_completion, encode_dialogue, end_length, end_tokens, template_hash, turn_end
from trimtab.lm.load import load_lm
from trimtab.samplers import HF
from trimtab.samplers.requests import completion
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group, Pair, Prompt, SamplingParams

EXTRA = ["<eot>", "<sot>", "<sep>", "<s>", "</s>"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tokenizer whose end token, like Gemma's and Qwen's base's, is not what ends a turn."""
    folder = tiny_lm(tmp_path_factory.mktemp("lm") / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": EXTRA})
    tokenizer.add_tokens(["<plain>", "\n\n"])
    return tokenizer


def speaking(tokenizer, template, eos="<|end|>"):
    tokenizer.chat_template, tokenizer.eos_token = template, eos
    return tokenizer


def each(turn, tail=""):
    return "{% for m in messages %}" + turn + "{% endfor %}" + tail


GENERATE = "{% if add_generation_prompt %}<sot>assistant\n{% endif %}"
TURN = "<sot>{{ m['role'] }}\n{{ m['content'] }}<eot>\n"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
ONE_ANSWER = "{% if messages|length > 2 %}{{ raise_exception('one turn') }}{% endif %}"
PHI = each(
    "<|{{ m['role'] }}|>\n{{ m['content'] }}<eot>\n", "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
)
LLAMA2 = each(
    "{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}{{ eos_token }}"
    "{% endif %}"
)
STRIPS = each("<sot>{{ m['role'] }}\n{{ m['content'] | trim }}<eot>\n", GENERATE)
THINKS = each(
    "<sot>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n"
    "{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}{% endif %}<eot>\n",
    GENERATE,
)
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}<sot>system\nHelp.<eot>\n{% endif %}" + each(TURN, GENERATE)
NEEDS_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}" + each(TURN)
PARTS = each("<sot>{{ m['role'] }}\n{% for p in m['content'] %}{{ p['text'] }}{% endfor %}<eot>\n")
BETWEEN = each("<sot>{{ m['role'] }}\n{{ m['content'] }}{% if not loop.last %}<eot>\n{% endif %}")
RETURNS = each("<sot>{{ m['role'] }}\n{{ m['content'] }}{% if loop.last %}{{ eos_token }}{% else %}<eot>{% endif %}")

FOUND = {
    "gemma": (NO_SYSTEM + each(TURN, GENERATE), ["<eot>"]),
    "chatml with a default system prompt": (DEFAULT_SYSTEM, ["<eot>"]),
    "chatml that always opens an answer": (DEFAULT_SYSTEM + "<sot>assistant\n", ["<eot>"]),
    "phi: the end token after the last turn": (PHI, ["<eot>"]),
    "mistral: the end token itself": (LLAMA2, ["<|end|>"]),
    "strips the answer": (STRIPS, ["<eot>"]),
    "adds a think block": (THINKS, ["<eot>"]),
    "refuses a second question": (ONE_ANSWER + each(TURN, GENERATE), ["<eot>"]),
    "asks for a system prompt": (NEEDS_SYSTEM, ["<eot>"]),
    "takes content as parts": (PARTS, ["<eot>"]),
    "writes nothing after the last turn": (BETWEEN, ["<eot>"]),
    "another end for the last turn": (RETURNS, ["<|end|>"]),
    "two special tokens": (each("<sot>{{ m['role'] }}\n{{ m['content'] }}<sep><eot>\n"), ["<sep>", "<eot>"]),
    "a text before the token": (each("<sot>{{ m['role'] }}\n{{ m['content'] }}\n#<eot>\n"), ["Ċ", "#", "<eot>"]),
    "plain text": (each("# {{ m['role'] }}\n{{ m['content'] }}\n/end\n\n"), ["Ċ", "/", "e", "n", "d", "<|end|>"]),
    "plain text between the turns": (
        each("{{ m['role'] }}: {{ m['content'] }}{% if not loop.last %}\n--\n{% endif %}"),
        ["<|end|>"],
    ),
    "a token that is not called special": (each("<sot>{{ m['role'] }}\n{{ m['content'] }}<plain>\n"), ["<plain>"]),
    "no end, only lines": (each("{{ m['role'] }}: {{ m['content'] }}\n"), ["<|end|>"]),
    "no end, the next speaker's mark": (each("<sot>{{ m['role'] }}\n{{ m['content'] }}"), ["<|end|>"]),
    "refuses everything": ("{{ raise_exception('never') }}", ["<|end|>"]),
    "breaks": ("{{ messages[0]['tools'][3].name }}", ["<|end|>"]),
    "by name": ({"default": each(TURN), "tool_use": each("{{ m['content'] }}<sep>")}, ["<eot>"]),
    "a base model": (None, ["<|end|>"]),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_end_of_a_turn_is_read_off_the_template(base, name):
    template, want = FOUND[name]
    tokenizer = speaking(base, template)
    assert tokenizer.convert_ids_to_tokens(turn_end(tokenizer)) == want
    written = encode_completion(tokenizer, Completion("yes", "m", 0, 0))
    assert tokenizer.convert_ids_to_tokens(written) == ["y", "e", "s", *want]
    assert encode_completion(tokenizer, Completion("yes", "m", 0, 0, "length")) == written[:3]
    ends = end_tokens(tokenizer)
    assert ends == {written[-1], tokenizer.eos_token_id}
    assert end_length(tokenizer, written, ends) == len(want) and end_length(tokenizer, written[:3], ends) == 0


def test_raw_text_ends_with_the_end_of_text(base):
    tokenizer = speaking(base, each(TURN, GENERATE))
    raw = Prompt("p", ({"role": "text", "content": "1 + 1 ="},))
    answer = Completion("2", "m", 0, 0)
    assert encode_completion(tokenizer, answer, raw)[1:] == [tokenizer.eos_token_id]
    (pair,) = encode_pairs([Pair(raw, answer, Completion("3", "m", 0, 1))], tokenizer, 99)
    assert {c[-1] for c in pair.completions} == {tokenizer.eos_token_id}
    assert encode_completion(tokenizer, answer, prompt("1 + 1 ="))[1:] == turn_end(tokenizer)


def test_without_any_end_token_an_answer_just_stops(base):
    tokenizer = speaking(base, None, eos=None)
    assert len(end_tokens(tokenizer)) == 1  # generation_config.json beside it
    tokenizer.name_or_path = ""
    assert encode_completion(tokenizer, Completion("a", "m", 0, 0)) == tokenizer("a")["input_ids"]
    assert end_tokens(tokenizer) == frozenset() and end_tokens(tokenizer, [3, 4]) == {3, 4}


def test_stored_keys_follow_the_end_of_the_turn(base):
    """Only where the end is not the tokenizer's own: cards of all other models stay valid."""
    from trimtab.types import fingerprint

    tokenizer = speaking(base, LLAMA2)
    plain = fingerprint([LLAMA2, tokenizer.bos_token, tokenizer.eos_token])[:16]
    assert template_hash(tokenizer) == plain
    tokenizer = speaking(base, each(TURN))
    assert template_hash(tokenizer) != fingerprint([each(TURN), tokenizer.bos_token, tokenizer.eos_token])[:16]


@pytest.fixture(scope="module")
def gemma_like(tmp_path_factory):
    where = tmp_path_factory.mktemp("gemma")
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm(where / "source"))
    model = AutoModelForCausalLM.from_pretrained(where / "source")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<sot>", "<sep>", "<eot>"]})
    model.resize_token_embeddings(len(tokenizer))
    speaking(tokenizer, each("<sot>{{ m['role'] }}\n{{ m['content'] }}<sep><eot>\n", GENERATE))
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<eot>")]
    model.save_pretrained(where / "model"), tokenizer.save_pretrained(where / "model")
    return str(where / "model")


@pytest.mark.parametrize("loss", ["sft", "dpo"])
def test_training_teaches_the_end_that_the_template_writes(gemma_like, tmp_path, loss):
    pairs = [Pair(prompt(f"say yes {i}"), Completion("yes", "m", 0, 0), Completion("no", "m", 0, 1, "length"))
             for i in range(8)]  # fmt: skip
    out = train_policy(
        pairs,
        model=gemma_like,
        out=tmp_path / "run",
        loss=loss,
        optim=Optim(epochs=25, batch_size=8, learning_rate=1e-2),
        compute=Compute(dtype="float32"),
    ).path
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = encode_dialogue(tokenizer, prompt("say yes 3"), Completion("yes", "m", 0, 0))
    sep, eot, eos = tokenizer.convert_tokens_to_ids(["<sep>", "<eot>", tokenizer.eos_token])
    assert ids[-3:-1] == [sep, eot]
    before, after = (
        torch.log_softmax(AutoModelForCausalLM.from_pretrained(f)(torch.tensor([ids])).logits[0].float(), -1)
        for f in (gemma_like, out)
    )
    for place, token in ((-4, sep), (-3, eot)):
        gained, other = ((after - before)[place, t].item() for t in (token, eos))
        assert gained > 1.0 and gained > other + 1.0


def test_search_sampling_and_embedding_share_the_end(gemma_like, tmp_path):
    lm = load_lm(gemma_like, "float32")
    sep, eot = turn_end(lm.tokenizer)
    ends = end_tokens(lm.tokenizer)
    assert ends == {lm.tokenizer.eos_token_id, eot}
    whole = completion(lm.tokenizer, ends, "m", 0, 0, [*b"hi", sep, eot], [-1.0] * 4, ())
    assert (whole.finish, len(whole.tokens)) == ("stop", 4)  # tokens stay as the engine gave them
    (found,) = BeamSearch(lm, width=400)([prompt("q")], 400, SamplingParams(max_tokens=1))
    ended = {c.tokens[-1] for c in found.completions if c.finish == "stop"}
    assert ended == ends
    sampled = HF(gemma_like, dtype="float32")([prompt("q")], 30, SamplingParams(max_tokens=40, seed=1))[0].completions
    assert all((c.tokens[-1] in ends) == (c.finish == "stop") for c in sampled)
    group = Group(prompt("q"), (Completion("ok", "m", 0, 0), Completion("ok", "m", 0, 1, "length")))
    text, last = (HiddenStates(lm, layers=(2,), pooling=p)([group])[0] for p in ("text", "last"))
    np.testing.assert_allclose(text[0], last[1], rtol=1e-4, atol=1e-5)  # before both tokens of the end
    assert np.abs(last[0] - last[1]).max() > 0.01


def test_the_generation_settings_say_where_a_long_end_stops(gemma_like, tmp_path):
    """Two marks that stop nothing by themselves: the one in generation_config.json does."""
    tokenizer = AutoTokenizer.from_pretrained(gemma_like)
    tokenizer.save_pretrained(tmp_path)
    sep = tokenizer.convert_tokens_to_ids("<sep>")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": sep}))
    assert turn_end(AutoTokenizer.from_pretrained(tmp_path)) == [sep]
    (tmp_path / "generation_config.json").write_text("not JSON")
    assert turn_end(AutoTokenizer.from_pretrained(tmp_path))[0] == sep
