"""What a row says to a model, in the shapes data sets use, to the messages of a prompt. Nothing is left out in silence.

    "2 + 3?"                                                                  a user's turn, or raw text
    [{"role": "user", "content": "2 + 3?"}]                                   chat messages, with every key they have
    [{"from": "human", "value": "2 + 3?"}]                                    ShareGPT's names for the same
    [{"role": "user", "content": [{"type": "text", "text": "2 + 3?"}]}]       content in parts, joined by line ends
    "[{\"role\": \"user\", ...}]"                                             messages written as JSON text, as in CSV

Columns beside them that a model must see: `tools` (a list, or JSON text) stays at the first message under "tools" for
the chat template, `system` or `system_prompt` becomes the first message. Images, sound and settings of a template are
refused by name. It renders nothing (lm.chat does).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.data.rows import check_depth, short
from trimtab.errors import InputError, unknown
from trimtab.types import Message

ROLES = ("system", "developer", "user", "assistant", "tool", "text")
SHAREGPT = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool", "function_call": "assistant",
    **{r: r for r in ROLES if r != "text"},
}  # fmt: skip
"""Who speaks in {"from": ..., "value": ...}, to our roles."""
SYSTEM = ("system", "system_prompt")
UNSEEN = ("images", "image", "videos", "video", "audio", "audios", "functions", "chat_template_kwargs")
"""Columns made for a model that no template of a language model would show."""
_ADDED = frozenset(("tools", *SYSTEM, *UNSEEN))


def prompt_messages(where: str, row: Mapping[str, Any], value: Any, *, chat: bool, field: str) -> tuple[Message, ...]:
    """The prompt in column `field`, with the row's system prompt and tools. InputError names place and column."""
    if chat and type(value) is list and len(value) == 1 and is_plain(value[0]):
        messages: tuple[Message, ...] = (value[0],)  # what nearly every row is, so that reading stays fast
    else:
        messages = messages_of(f"{where}: {field!r}", value, chat)
    if messages[-1]["role"] == "assistant":
        raise InputError(
            f"{where}: {field!r} ends with the assistant's own turn (a prefilled answer), which templates close; end "
            "it with a user's turn and put that text at the beginning of the answers"
        )
    return with_columns(where, row, messages)


def with_columns(where: str, row: Mapping[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with what the row's columns `system`, `system_prompt` and `tools` add to them."""
    if _ADDED.isdisjoint(row):
        return messages
    for name in UNSEEN:
        if _given(row.get(name)):
            raise InputError(
                f"{where}: column {name!r} is meant for the model, and trimtab shows a model text alone; remove the "
                "column, or rename it if a reward reads it"
            )
    tools = _tools(where, row.get("tools"))
    for name in SYSTEM:
        if _given(row.get(name)):
            messages = _with_system(where, name, row[name], messages)
    if tools:
        if messages[0]["role"] == "text":
            raise InputError(f"{where}: column 'tools' needs chat messages, the prompt is raw text; use chat (--chat)")
        messages = ({**messages[0], "tools": tools}, *messages[1:])
    return messages


def messages_of(where: str, value: Any, chat: bool) -> tuple[Message, ...]:
    """A text or a list of messages as messages; with `chat` text is a user's turn, without it raw text."""
    value = _spelled(where, value) if isinstance(value, str) else value
    if isinstance(value, str):
        if not value.strip():
            raise InputError(f"{where} is empty")
        return ({"role": "user" if chat else "text", "content": value},)
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{where} must be text or a list of messages, got {short(value)}")
    if not chat:
        raise InputError(f"{where} is a list of messages, but chat=False asks for raw text; set chat=True")
    found = tuple(m if is_plain(m) else _message(f"{where}, message {n}", m) for n, m in enumerate(value))
    if len(found) > 1:
        for n, m in enumerate(found):
            if m["role"] == "text":
                raise InputError(f"{where}, message {n}: role 'text' is raw text and must be the only message")
    return found


def is_messages(where: str, value: Any) -> bool:
    """Whether a cell holds messages: a list, or a list written as JSON text."""
    return isinstance(_spelled(where, value) if isinstance(value, str) else value, list | tuple)


def _given(value: Any) -> bool:
    """Whether a column says anything: null, NaN, empty text and empty lists do not."""
    return value is not None and value == value and value not in ("", [], {}, "[]", "null", "None")


def _spelled(where: str, text: str) -> Any:
    """Messages from JSON text, or the text itself when it is not about messages."""
    head = text[:400].lstrip()
    if (
        head[:1] != "["
        or head[1:].lstrip()[:1] != "{"
        or not any(f"{q}{k}{q}" in head for q in "\"'" for k in ("role", "from"))
    ):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise InputError(
            f"{where} looks like a list of messages written as text, but is not JSON ({e}); write it with json.dumps, "
            "or as Parquet or JSON lines"
        ) from e
    named = isinstance(value, list) and all(isinstance(m, dict) and {"role", "from"} & set(m) for m in value)
    return value if named else text


def is_plain(m: Any) -> bool:
    """Whether this is a role and a text and nothing else, as nearly every message is."""
    return type(m) is dict and len(m) == 2 and type(m.get("content")) is str and m.get("role") in ROLES


def _message(where: str, m: Any) -> Message:
    if not isinstance(m, Mapping):
        raise InputError(f"{where}: expected {{'role': text, 'content': text}}, got {short(m)}")
    if "from" in m and "role" not in m:
        m = _from_sharegpt(where, m)
    role, content = m.get("role"), m.get("content")
    if isinstance(content, list | tuple):
        content = _parts(where, content)
    silent = content is None and (_given(m.get("tool_calls")) or _given(m.get("function_call")))
    if not isinstance(role, str) or not (isinstance(content, str) or silent):
        raise InputError(f"{where}: expected {{'role': text, 'content': text}}, got {short(dict(m))}")
    if role not in ROLES:
        raise InputError(f"{where}: {unknown('role', role, ROLES)}")
    more = {k: v for k, v in m.items() if k not in ("role", "content") and v is not None}
    check_depth(where, more)
    for name in ("images", "image", "audio", "video"):
        if _given(more.get(name)):
            raise InputError(f"{where}: {name!r} cannot be shown to a language model; remove it, or the row")
    return {"role": role, "content": content, **more}


def _from_sharegpt(where: str, m: Mapping[str, Any]) -> Mapping[str, Any]:
    speaker = m["from"]
    if not isinstance(speaker, str) or "value" not in m:
        raise InputError(f"{where}: expected {{'from': text, 'value': text}}, got {short(dict(m))}")
    if speaker not in SHAREGPT:
        raise InputError(f"{where}: {unknown('speaker', speaker, SHAREGPT)}")
    rest = {k: v for k, v in m.items() if k not in ("from", "value")}
    if speaker != "function_call":
        return {"role": SHAREGPT[speaker], "content": m["value"], **rest}
    try:
        calls = json.loads(m["value"])
        calls = [
            {"name": c["name"], "arguments": c["arguments"]} for c in (calls if isinstance(calls, list) else [calls])
        ]
    except (ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"{where}: a function_call is JSON with 'name' and 'arguments', got {short(m['value'])}"
        ) from e
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": c} for c in calls],
        **rest,
    }


def _parts(where: str, parts: Sequence[Any]) -> str:
    """Text parts as one text, joined by line ends (as vLLM and llama.cpp do); any other part is refused by its type."""
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            kind = part.get("type") if isinstance(part, Mapping) else None
            raise InputError(
                f"{where}: content part {kind or short(part)!r} is not text, and trimtab shows a model text alone; "
                "remove the part, or the row"
            )
    if not texts:
        raise InputError(f"{where}: content is an empty list; give a text")
    return "\n".join(texts)


def _tools(where: str, value: Any) -> list[Any]:
    if not _given(value):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as e:
            raise InputError(f"{where}: column 'tools' is text, but not JSON ({e})") from e
    value = [value] if isinstance(value, Mapping) else value
    tools = [_tool(t) for t in value] if isinstance(value, list | tuple) else []
    if not tools or not all(isinstance(t, Mapping) for t in tools):
        raise InputError(f"{where}: column 'tools' must be a list of objects that describe tools, got {short(value)}")
    check_depth(where, tools)
    return tools


def _tool(value: Any) -> Any:
    """A tool that is itself written as JSON text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


def _with_system(where: str, name: str, text: Any, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if not isinstance(text, str):
        raise InputError(f"{where}: column {name!r} must be text, got {short(text)}")
    if not text.strip():
        return messages
    first = messages[0]
    if first["role"] == "text":
        raise InputError(
            f"{where}: column {name!r} is a system prompt, which raw text has no place for; use chat (--chat), or "
            "write it into the prompt"
        )
    if first["role"] in ("system", "developer"):
        if (first["content"] or "").strip() == text.strip():
            return messages
        raise InputError(f"{where}: column {name!r} and the messages have two different system prompts; keep one")
    return ({"role": "system", "content": text}, *messages)
