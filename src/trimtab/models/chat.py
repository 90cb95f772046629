"""Prompts and completions to token ids: the only place that knows chat templates and special tokens.

Sampling, embedding, training and serving all tokenise here, so the model sees the same tokens in each. It loads
nothing: a tokenizer (Hugging Face) is an argument. It never cuts: a prompt that is too long is refused by who runs it.
"""

from collections.abc import Mapping
from typing import Any

from trimtab.errors import InputError
from trimtab.types import Completion, Prompt, fingerprint


def is_raw(prompt: Prompt) -> bool:
    """Whether the prompt is raw text (one message of role "text") that no template may touch. InputError when a "text"
    message stands beside others, when there is no message, or when one lacks a string `role` or `content`."""
    for i, message in enumerate(prompt.messages):
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise InputError(
                    f"prompt {prompt.id!r}: message {i} needs a string {key!r}, it has {message.get(key)!r}"
                )
    if not prompt.messages:
        raise InputError(f"prompt {prompt.id!r} has no messages; give it one, or drop it")
    raw = [m["role"] == "text" for m in prompt.messages]
    if any(raw) and len(raw) > 1:
        raise InputError(f'prompt {prompt.id!r}: a message of role "text" is raw text and must be the only message')
    return raw[0]


def render_prompt(tokenizer: Any, prompt: Prompt) -> str:
    """The prompt as text, ready for the model's first answer token.

    Messages go through the tokenizer's chat template once, with the generation prompt; the result holds its special
    tokens as text, so tokenise it without adding any (`encode_prompt` does). Raw text comes back as it is. InputError
    when the model has no chat template, or its template refuses the messages.
    """
    if is_raw(prompt):
        return prompt.messages[0]["content"]
    if not tokenizer.chat_template:
        raise InputError(
            f"prompt {prompt.id!r} holds chat messages but {_name(tokenizer)} has no chat template (a base model): "
            'give the prompt as text (one message of role "text"), or use an instruction-tuned model'
        )
    from jinja2.exceptions import TemplateError

    messages = [dict(m) for m in prompt.messages]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as e:
        roles = ", ".join(m["role"] for m in messages)
        raise InputError(
            f"prompt {prompt.id!r}: the chat template of {_name(tokenizer)} refuses its messages (roles {roles}): {e}"
        ) from e


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of the prompt. Messages: the template's text with no special tokens added, so there is never a second
    BOS. Raw text: with the tokenizer's own special tokens (a BOS where the model wants one, once). Same errors as
    `render_prompt`; InputError for a prompt without a single token."""
    text = render_prompt(tokenizer, prompt)
    raw = is_raw(prompt)
    ids = list(tokenizer(text, add_special_tokens=raw)["input_ids"])
    bos = tokenizer.bos_token_id
    if raw and bos is not None and ids[:2] == [bos, bos]:  # the text began with the BOS token itself
        ids = ids[1:]
    if not ids:
        raise InputError(f"prompt {prompt.id!r} is empty: the model needs at least one token to start from")
    return ids


def encode_completion(tokenizer: Any, completion: Completion) -> list[int]:
    """Token ids of the completion: its own `tokens` when they are this tokenizer's, else its text tokenised without
    special tokens, and the end token when `finish` is "stop".

    Tokens are this tokenizer's when they decode to the text (or to more, for a stop string is cut off the text only):
    another model's answer is read by its text, never by ids of another vocabulary. Caveat: tokenising text is not the
    inverse of decoding. A model may have written "ab" as two tokens that the tokenizer would merge, and a stop string
    also ends a completion with "stop" though no end token was emitted; engines that give `tokens` do not have this
    trouble.
    """
    if completion.tokens is not None and _spells(tokenizer, completion.tokens, completion.text):
        return list(completion.tokens)
    ids = list(tokenizer(completion.text, add_special_tokens=False)["input_ids"])
    end = tokenizer.eos_token_id
    return [*ids, end] if completion.finish == "stop" and end is not None else ids


def encode_dialogue(tokenizer: Any, prompt: Prompt, completion: Completion) -> list[int]:
    """Token ids of prompt and completion as one finished dialogue through the chat template, no special tokens added.

    How reward models of others are trained: what the template writes after the last message is part of it. Raw prompts
    and tokenizers without a template give `encode_prompt` + `encode_completion`. Same errors as `render_prompt`.
    """
    if is_raw(prompt) or not tokenizer.chat_template:
        return encode_prompt(tokenizer, prompt) + encode_completion(tokenizer, completion)
    from jinja2.exceptions import TemplateError

    messages = [*map(dict, prompt.messages), {"role": "assistant", "content": completion.text}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError as e:
        raise InputError(
            f"prompt {prompt.id!r}: the chat template of {_name(tokenizer)} refuses the dialogue: {e}"
        ) from e
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def template_hash(tokenizer: Any) -> str:
    """16 hex digits that identify how prompts become tokens: the chat template and the special tokens it can use."""
    template = tokenizer.chat_template
    if isinstance(template, Mapping):  # several named templates: the one that render_prompt applies
        template = tokenizer.get_chat_template()
    return fingerprint([template, tokenizer.bos_token, tokenizer.eos_token])[:16]


def _spells(tokenizer: Any, tokens: tuple[int, ...], text: str) -> bool:
    """Whether the ids are of this vocabulary and decode to the text. White space around it is not compared."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < len(tokenizer):
        return False
    return tokenizer.decode(tokens, skip_special_tokens=True).strip().startswith(text.strip())


def _name(tokenizer: Any) -> str:
    from pathlib import Path

    return f"the model {Path(str(tokenizer.name_or_path or 'given')).name!r}"
