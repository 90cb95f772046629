"""Templates are applied once, special tokens appear once, and what cannot be rendered is refused with a reason."""

import pytest
from transformers import AutoTokenizer

from trimtab.errors import InputError
from trimtab.lm.chat import (
    conversation,
    encode_completion,
    encode_prompt,
    render_dialogue,
    render_prompt,
    template_hash,
)
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Prompt


@pytest.fixture
def tokenizer(tmp_path):
    return AutoTokenizer.from_pretrained(tiny_lm(tmp_path / "lm"))


def text(content):
    return Prompt("t", ({"role": "text", "content": content},))


def ids(tokenizer, *tokens):
    return [tokenizer.convert_tokens_to_ids(t) for t in tokens]


def with_bos(tokenizer):
    """A Llama-2-like tokenizer: its post-processor adds a BOS, and so does its template."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.bos_token = "<|system|>"
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", bos)]
    )
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    return tokenizer


def test_template_applied_once(tokenizer):
    p = prompt("Hi")
    assert render_prompt(tokenizer, p) == "<|user|>Hi<|end|><|assistant|>"
    assert encode_prompt(tokenizer, p) == ids(tokenizer, "<|user|>", "H", "i", "<|end|>", "<|assistant|>")


def test_raw_text_is_left_alone(tokenizer):
    assert render_prompt(tokenizer, text("Hi\n")) == "Hi\n"
    assert encode_prompt(tokenizer, text("Hi")) == ids(tokenizer, "H", "i")


def test_one_bos_whoever_adds_it(tokenizer):
    tok = with_bos(tokenizer)
    for p in (prompt("Hi"), text("Hi"), text("<|system|>Hi")):
        assert encode_prompt(tok, p).count(tok.bos_token_id) == 1, p
        assert encode_prompt(tok, p)[0] == tok.bos_token_id
    assert tok.bos_token_id not in encode_completion(tok, Completion("Hi", "m", 0, 0))


def test_completion_tokens_win_over_text(tokenizer):
    eos = tokenizer.eos_token_id
    own = tuple(ids(tokenizer, "H", "i"))  # cut by a stop string: no end token though it finished
    assert encode_completion(tokenizer, Completion("Hi", "m", 0, 0, tokens=own)) == list(own)
    assert encode_completion(tokenizer, Completion("H", "m", 0, 0, tokens=own)) == list(own)
    assert encode_completion(tokenizer, Completion("Hi", "m", 0, 0, "stop")) == [*ids(tokenizer, "H", "i"), eos]
    assert encode_completion(tokenizer, Completion("Hi", "m", 0, 0, "length")) == ids(tokenizer, "H", "i")
    assert encode_completion(tokenizer, Completion("", "m", 0, 0, tokens=())) == []


def test_base_model_refuses_messages(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r'"Hi"|no chat template.*role "text"'):
        encode_prompt(tokenizer, prompt("Hi"))
    assert encode_prompt(tokenizer, text("Hi")) == ids(tokenizer, "H", "i")


def test_template_that_refuses_a_role(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(InputError, match="'Hi'.*roles user.*System role not supported"):
        render_prompt(tokenizer, prompt("Hi"))


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ((), "has no messages"),
        (({"role": "user"},), "message 0 needs a string 'content'"),
        (({"role": "text", "content": "a"}, {"role": "user", "content": "b"}), "must be the only message"),
        (({"role": "text", "content": ""},), "is empty"),
    ],
)
def test_bad_prompts(tokenizer, messages, says):
    with pytest.raises(InputError, match=says):
        encode_prompt(tokenizer, Prompt("p1", messages))


def test_template_hash_follows_the_template(tokenizer):
    before = template_hash(tokenizer)
    assert before == template_hash(tokenizer) and len(before) == 16
    tokenizer.chat_template += " "
    assert template_hash(tokenizer) != before


@pytest.mark.parametrize("foreign", [(7, 8), (151_645,), (-1,)])
def test_ids_of_another_vocabulary_are_never_fed(tokenizer, foreign):
    read = encode_completion(tokenizer, Completion("Hi", "another model", 0, 0, "length", tokens=foreign))
    assert read == ids(tokenizer, "H", "i")


TOOLS = [{"type": "function", "function": {"name": "is_prime", "parameters": {"type": "object"}}}]
CALLS = [{"type": "function", "function": {"name": "is_prime", "arguments": '{"n": 7}'}}]
CALLED = (
    {"role": "user", "content": "7?", "tools": TOOLS},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "content": "true", "name": "is_prime"},
)
SHOWS_TOOLS = (
    "{% if tools %}[{% for t in tools %}{{ t.function.name }}{% endfor %}]{% endif %}{% for m in messages %}"
    "<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments.n }})"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_tools_and_calls_are_written_by_the_template(tokenizer):
    tokenizer.chat_template = SHOWS_TOOLS
    p = Prompt("t", CALLED)
    assert render_prompt(tokenizer, p) == "[is_prime]<user>7?<assistant>is_prime(7)<tool>true<assistant>"
    assert render_dialogue(tokenizer, p, "Yes.") == "[is_prime]<user>7?<assistant>is_prime(7)<tool>true<assistant>Yes."
    messages, tools = conversation(p)
    assert tools == TOOLS and messages[0] == {"role": "user", "content": "7?"} and "tools" in p.messages[0]
    assert conversation(prompt("Hi"))[1] == []


@pytest.mark.parametrize(
    ("messages", "lost"),
    [
        (CALLED[:1], "tools"),
        (({"role": "user", "content": "7?"}, *CALLED[1:]), "tool_calls"),
        (CALLED, "tools and tool_"),
    ],
)
def test_a_template_that_leaves_tools_out_is_refused(tokenizer, messages, lost):
    with pytest.raises(InputError, match=f"prompt 't': the chat template of the model 'lm' does not show {lost}"):
        encode_prompt(tokenizer, Prompt("t", messages))


def test_null_content_is_no_word_none(tokenizer):
    tokenizer.chat_template = SHOWS_TOOLS.replace("{{ m.content }}", "{{ m['content'] + '' }}")
    assert "None" not in render_prompt(tokenizer, Prompt("t", CALLED))
    with pytest.raises(InputError, match="message 0 needs a string 'content'"):
        render_prompt(tokenizer, Prompt("t", ({"role": "assistant", "content": None},)))


def test_a_template_that_breaks_is_an_error_of_ours(tokenizer):
    tokenizer.chat_template = "{{ messages[0].content + 3 }}"
    with pytest.raises(InputError, match="refuses its messages .roles user"):
        render_prompt(tokenizer, prompt("Hi"))
