"""Prompts and completions to token ids: the only place that knows chat templates and special tokens.

Sampling, embedding, training and serving all tokenise here, so the model sees the same tokens in each. It loads
no model: a tokenizer (Hugging Face) is an argument. It never cuts: a prompt that is too long is refused by who runs it.
What ends an answer is decided here too (`turn_end`, `end_tokens`), for training, reading and sampling alike.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from trimtab.errors import InputError
from trimtab.json_file import read_json
from trimtab.types import Completion, Prompt, fingerprint


def is_raw(prompt: Prompt) -> bool:
    """Whether the prompt is raw text (one message of role "text") that no template may touch. InputError when a "text"
    message stands beside others, when there is no message, or when one lacks a string `role` or `content` (which may be
    null where it calls tools)."""
    for i, message in enumerate(prompt.messages):
        for key in ("role", "content"):
            silent = key == "content" and message.get(key) is None and message.get("tool_calls")
            if not isinstance(message.get(key), str) and not silent:
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
    when the model has no chat template, or its template refuses the messages or does not show their tools.
    """
    if is_raw(prompt):
        return prompt.messages[0]["content"]
    if not tokenizer.chat_template:
        raise InputError(
            f"prompt {prompt.id!r} holds chat messages but {_name(tokenizer)} has no chat template (a base model): "
            'give the prompt as text (one message of role "text"), or use an instruction-tuned model'
        )
    return _written(tokenizer, prompt, add_generation_prompt=True)


def render_dialogue(tokenizer: Any, prompt: Prompt, answer: str) -> str:
    """Chat messages and an answer as one finished dialogue, as the template writes it. Same errors as
    `render_prompt`."""
    return _written(tokenizer, prompt, {"role": "assistant", "content": answer})


def conversation(prompt: Prompt) -> tuple[list[dict[str, Any]], list[Any]]:
    """(messages, tools) as chat templates and servers take them: the tools stand in the first message under "tools"."""
    messages = [dict(m) for m in prompt.messages]
    return messages, list(messages[0].pop("tools", None) or ()) if messages else []


def _written(tokenizer: Any, prompt: Prompt, *more: dict[str, Any], **how: Any) -> str:
    """What the template makes of the messages. Tools and calls that it leaves out are an error: the model would be
    trained, or asked, as if they were not there."""
    from jinja2.exceptions import TemplateError

    messages, tools = conversation(prompt)
    messages = [_for_template(m) for m in (*messages, *more)]

    def write(messages: list[dict[str, Any]], tools: list[Any]) -> str:
        return tokenizer.apply_chat_template(messages, tokenize=False, **how, **({"tools": tools} if tools else {}))

    checks: dict[str, Any] = {"tools": (messages, [])} if tools else {}
    if any(m.get("tool_calls") for m in messages):
        checks["tool_calls"] = ([{k: v for k, v in m.items() if k != "tool_calls"} for m in messages], tools)
    try:
        text = write(messages, tools)
        lost = [name for name, without in checks.items() if write(*without) == text]
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as e:  # templates are programs
        roles = ", ".join(m["role"] for m in messages)
        raise InputError(
            f"prompt {prompt.id!r}: the chat template of {_name(tokenizer)} refuses its messages (roles {roles}): {e}"
        ) from e
    if lost:
        raise InputError(
            f"prompt {prompt.id!r}: the chat template of {_name(tokenizer)} does not show {' and '.join(lost)}; take a "
            "model whose template does, or remove them from the prompt"
        )
    return text


def _for_template(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: text where content is null, a call's arguments as an object."""
    out = {**message, "content": message.get("content") or ""}
    if message.get("tool_calls"):
        out["tool_calls"] = [_call(c) for c in message["tool_calls"]]
    return out


def _call(call: Any) -> Any:
    """A tool call whose arguments are an object. Servers write JSON text, which a template would quote again."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call(call["function"])}
    try:
        return {**call, "arguments": json.loads(call["arguments"])}
    except (KeyError, TypeError, ValueError):
        return dict(call)


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


def encode_completion(tokenizer: Any, completion: Completion, prompt: Prompt | None = None) -> list[int]:
    """Token ids of the completion: its own `tokens` when they are this tokenizer's, else its text tokenised without
    special tokens, and what ends it (`turn_end`; after a raw `prompt` the tokenizer's end token) when `finish` is
    "stop".

    Tokens are this tokenizer's when they decode to the text (or to more, for a stop string is cut off the text only):
    another model's answer is read by its text, never by ids of another vocabulary. Caveat: tokenising text is not the
    inverse of decoding. A model may have written "ab" as two tokens that the tokenizer would merge, and a stop string
    also ends a completion with "stop" though no end token was emitted; engines that give `tokens` do not have this
    trouble.
    """
    if completion.tokens is not None and _spells(tokenizer, completion.tokens, completion.text):
        return list(completion.tokens)
    ids = list(tokenizer(completion.text, add_special_tokens=False)["input_ids"])
    if completion.finish != "stop":
        return ids
    raw = prompt is not None and is_raw(prompt)
    return ids + (_end_of_text(tokenizer) if raw else turn_end(tokenizer))


def turn_end(tokenizer: Any) -> list[int]:
    """What the chat template writes after an assistant's answer, up to the token that stops generation.

    Found by rendering a dialogue, for `tokenizer.eos_token` is another token in many models (Gemma, models trained from
    a base). Without a template, or with one that ends no turn, it is the tokenizer's end token; empty where there is
    none.
    """
    template = _template(tokenizer)
    if template is None:
        return _end_of_text(tokenizer)
    return list(_turn_end(tokenizer, template, tokenizer.eos_token_id) or _end_of_text(tokenizer))


def end_tokens(tokenizer: Any, configured: int | Iterable[int] | None = None) -> frozenset[int]:
    """Ids that stop a generation: the last of `turn_end`, the tokenizer's end token, and those of the model's settings
    (`configured`, and generation_config.json beside the tokenizer)."""
    given = [configured] if isinstance(configured, int) else list(configured or ())
    return frozenset([*given, *_stops(tokenizer), *turn_end(tokenizer)[-1:]])


def end_length(tokenizer: Any, ids: Sequence[int], ends: frozenset[int]) -> int:
    """How many of the last ids are the end of the turn and no text: 0 for an answer that was cut."""
    if not ids or ids[-1] not in ends:
        return 0
    end = turn_end(tokenizer) if tokenizer.chat_template else []
    return len(end) if end and list(ids[-len(end) :]) == end else 1


def encode_dialogue(tokenizer: Any, prompt: Prompt, completion: Completion) -> list[int]:
    """Token ids of prompt and completion as one finished dialogue through the chat template, no special tokens added.

    How reward models of others are trained: what the template writes after the last message is part of it. Raw prompts
    and tokenizers without a template give `encode_prompt` + `encode_completion`. Same errors as `render_prompt`.
    """
    if is_raw(prompt) or not tokenizer.chat_template:
        return encode_prompt(tokenizer, prompt) + encode_completion(tokenizer, completion, prompt)
    return _ids(tokenizer, render_dialogue(tokenizer, prompt, completion.text))


def template_hash(tokenizer: Any) -> str:
    """16 hex digits that identify how prompts and completions become tokens: the chat template, the special tokens it
    can use, and the end of a turn where it is not the tokenizer's end token."""
    end = turn_end(tokenizer)
    own = [] if end == _end_of_text(tokenizer) else [end]
    return fingerprint([_template(tokenizer), tokenizer.bos_token, tokenizer.eos_token, *own])[:16]


QUESTION, ANSWER, NEXT = "Question one", "Answer two", "Question three"
"""Texts of the dialogue that `turn_end` renders; no template changes or cuts them."""


@lru_cache(maxsize=8)
def _turn_end(tokenizer: Any, template: str, eos: int | None) -> tuple[int, ...]:
    """`turn_end` of one template, or nothing. What stands both after the last answer and before a next question ends
    the turn; what only one of the two has may end the text or open the next turn."""
    last = _rendered(tokenizer, (QUESTION, ANSWER))
    on = _rendered(tokenizer, (QUESTION, ANSWER, NEXT))
    after = None if last is None else last.rpartition(ANSWER)[2]
    between = None if on is None else on.rpartition(ANSWER)[2].partition(NEXT)[0]
    opening = _marks(tokenizer, (last or on or "").partition(QUESTION)[0])[-1:]  # of a user's turn: it ends none
    shared = after or ""
    if after and between:
        shared = "".join(a for a, _ in takewhile(lambda two: two[0] == two[1], zip(after, between, strict=False)))
        if found := _until_stop(tokenizer, shared, opening, -1):
            return found
    found = _until_stop(tokenizer, after or "", opening, -1) or _until_stop(tokenizer, between or "", opening, 0)
    if found or eos is None or not shared.strip():
        return found
    return (*_after_answer(tokenizer, shared.rstrip()), eos)  # "### End" and the like: plain text stops nothing


def _until_stop(tokenizer: Any, written: str, opening: Sequence[int], which: int) -> tuple[int, ...]:
    """Ids of what was written after the answer, up to a known stop token, else up to the first (`which` 0) or last (-1)
    special token that opens no turn; nothing when there is neither."""
    ids = _after_answer(tokenizer, written)
    stops, marks = _stops(tokenizer), set(_marks(tokenizer, written)) - set(opening)
    known = [i for i, token in enumerate(ids) if token in stops]
    special = [i for i, token in enumerate(ids) if token in marks]
    at = known[0] if known else special[which] if special else -1
    return tuple(ids[: at + 1])


def _after_answer(tokenizer: Any, written: str) -> list[int]:
    """Ids of a text as they stand behind an answer: some tokenizers begin a text of its own otherwise."""
    whole, answer = _ids(tokenizer, ANSWER + written), _ids(tokenizer, ANSWER)
    return whole[len(answer) :] if whole[: len(answer)] == answer else _ids(tokenizer, written)


def _marks(tokenizer: Any, text: str) -> list[int]:
    """Ids of the added tokens in a text, in order, but for white space (Gemma adds tokens of several new lines)."""
    added = getattr(tokenizer, "added_tokens_decoder", {})  # a tokenizer of one's own may have none
    special = {i for i, t in added.items() if t.special or t.content.strip(" \t\r\n▁")}
    return [i for i in _ids(tokenizer, text) if i in special]


def _rendered(tokenizer: Any, texts: Sequence[str]) -> str | None:
    """The dialogue of user and assistant by turns as the template writes it; None when it refuses or loses a text."""
    from jinja2.exceptions import TemplateError

    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in turns]
    for messages in (turns, [{"role": "system", "content": "Be brief."}, *turns], parts):
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError):  # templates are programs
            continue
        if all(t in text for t in texts):
            return text
    return None


def _stops(tokenizer: Any) -> frozenset[int]:
    """The tokenizer's end token, and those in the generation settings beside its files."""
    return frozenset([*_end_of_text(tokenizer), *_configured(str(getattr(tokenizer, "name_or_path", None) or ""))])


def _configured(folder: str) -> tuple[int, ...]:
    file = Path(folder) / "generation_config.json"
    if not folder or not file.is_file():
        return ()
    try:
        given = read_json(file, "generation settings").get("eos_token_id")
    except InputError:  # whoever loads the model says that the file is broken
        return ()
    return tuple(i for i in (given if isinstance(given, list) else [given]) if isinstance(i, int))


def _template(tokenizer: Any) -> str | None:
    """The chat template that `render_prompt` applies: the default one of several named ones."""
    template = tokenizer.chat_template
    if not isinstance(template, Mapping):
        return template or None
    return template.get("default")


def _end_of_text(tokenizer: Any) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _spells(tokenizer: Any, tokens: tuple[int, ...], text: str) -> bool:
    """Whether the ids are of this vocabulary and decode to the text. White space around it is not compared."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < len(tokenizer):
        return False
    return tokenizer.decode(tokens, skip_special_tokens=True).strip().startswith(text.strip())


def _name(tokenizer: Any) -> str:
    return f"the model {Path(str(tokenizer.name_or_path or 'given')).name!r}"
