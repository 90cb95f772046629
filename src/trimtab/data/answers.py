"""A row's `chosen`, `rejected` or `completion` to one text each, with the prompt that whole dialogues repeat.

An answer is a text, one assistant message, or a dialogue whose last message is the answer. What its text cannot hold
(tool calls, reasoning, a turn marked as untrained) is refused with its place; other keys are given back to be kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.data.messages import is_messages, is_plain, messages_of, prompt_messages
from trimtab.data.rows import short
from trimtab.errors import InputError
from trimtab.types import Message

Sides = dict[str, str | tuple[Message, ...]]
BEYOND_TEXT = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "refusal")
"""Keys of an answer that are part of what the model says."""
SCORES = ("score", "rating", "reward")
"""What data sets call the number that a margin is the difference of: chosen_score, score_chosen, chosen-rating, ..."""
_SCORES = [
    (form.format("chosen", word), form.format("rejected", word))
    for word in SCORES
    for form in ("{0}_{1}", "{1}_{0}", "{0}-{1}", "{1}-{0}")
]
PROMPT_LIKE = ("conversations", "messages", "instruction", "question", "query", "input")


def sides_of(where: str, row: Mapping[str, Any], fields: Sequence[str]) -> Sides:
    """Each field's cell as a text or as messages. InputError for anything else."""
    sides: Sides = {}
    for field in fields:
        value = row[field]
        if type(value) is list and len(value) == 1 and is_plain(value[0]):
            sides[field] = (value[0],)
            continue
        talk = is_messages(f"{where}: field {field!r}", value)
        if isinstance(value, str) and not talk:
            sides[field] = value
        elif talk and len(value):
            sides[field] = messages_of(f"{where}: field {field!r}", value, True)
        else:
            hint = "; put the object into a list" if isinstance(value, Mapping) else ""
            raise InputError(
                f"{where}: field {field!r} must be text or one assistant message, it is {short(value)}{hint}"
            )
    return sides


def read_row(
    where: str, row: Mapping[str, Any], fields: Sequence[str], chat: bool
) -> tuple[tuple[Message, ...], list[str], dict[str, Any]]:
    """(prompt messages, a text a field, further keys of the answers) of a row."""
    sides = sides_of(where, row, fields)
    talks = {f: s for f, s in sides.items() if not isinstance(s, str)}
    prompt = row.get("prompt")
    if prompt is not None:
        chat = chat or bool(talks) or is_messages(f"{where}: 'prompt'", prompt)
        begun = {f: s[:-1] for f, s in talks.items() if len(s) > 1}
        if begun:
            messages = prompt_messages(where, row, _shared(where, prompt, begun), chat=True, field=next(iter(begun)))
        else:
            messages = prompt_messages(where, row, prompt, chat=chat, field="prompt")
    else:
        shared = _implicit(where, row, sides)
        messages = prompt_messages(where, row, shared, chat=True, field=fields[0])
    texts, more = [], {}
    for field, side in sides.items():
        message = side if isinstance(side, str) else side[-1]
        if isinstance(message, str):
            texts.append(message)
            continue
        if message["role"] != "assistant" or len(message) > 2:
            _check_answer(f"{where}: field {field!r}", message)
            more[field] = {k: v for k, v in message.items() if k not in ("role", "content")}
        texts.append(message["content"] or "")
    return messages, texts, more


def margin_of(where: str, row: Mapping[str, Any]) -> float:
    """The column `margin`, or the difference of the two scores, else 0 (unknown)."""
    if "margin" in row and (margin := number(where, row, "margin")) is not None:
        return margin
    for names in _SCORES:
        if names[0] in row and names[1] in row:
            chosen, rejected = (number(where, row, n) for n in names)
            if chosen is not None and rejected is not None:
                return chosen - rejected
    return 0.0


def number(where: str, row: Mapping[str, Any], field: str) -> float | None:
    """A cell as a finite number, None where it is absent, null or NaN (which Parquet has for null)."""
    value = row.get(field)
    if type(value) is float and -math.inf < value < math.inf:
        return value
    if value is None or value != value:
        return None
    try:
        if isinstance(value, bool | list | Mapping):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{where}: field {field!r} must be a finite number or null, it is {short(value)}")
    return found


def _shared(where: str, prompt: Any, begun: Mapping[str, tuple[Message, ...]]) -> tuple[Message, ...]:
    """What dialogues say before their answers, which must be the prompt again (a system message may be in one only)."""
    field, before = next(iter(begun.items()))
    if any(_turns(other) != _turns(before) for other in begun.values()):
        raise InputError(f"{where}: chosen and rejected are dialogues that part ways before their last message")
    if isinstance(prompt, str) and not is_messages(f"{where}: 'prompt'", prompt):
        users = [m["content"] for m in before if m["role"] == "user"]
        shared, fits = before, prompt.strip() in [str(u).strip() for u in users[:1] + users[-1:]]
    else:
        given = messages_of(f"{where}: 'prompt'", prompt, True)
        both = _system(given) and _system(before)
        fits = _turns(given if both else _said(given)) == _turns(before if both else _said(before))
        shared = given if _system(given) else before
    if not fits:
        raise InputError(
            f"{where}: field {field!r} is a dialogue that does not begin with the prompt; give the last message alone, "
            "or the same turns in both"
        )
    return shared


def _implicit(where: str, row: Mapping[str, Any], sides: Sides) -> tuple[Message, ...]:
    """The common beginning of two dialogues, which must be all but their last message."""
    dialogues = [s for s in sides.values() if not isinstance(s, str)]
    if len(dialogues) < 2 or min(map(len, dialogues)) < 2:
        other = next((k for k in PROMPT_LIKE if row.get(k) is not None), None)
        way = f"rename the column {other!r} to 'prompt'" if other else "only two dialogues may leave it to be found"
        raise InputError(f"{where}: no field 'prompt' ({way}); it has: {', '.join(map(str, row))}")
    first, second = dialogues[:2]
    if len(first) != len(second) or _turns(first[:-1]) != _turns(second[:-1]):
        raise InputError(
            f"{where}: chosen and rejected must be the same dialogue up to their last message, one assistant message; "
            f"they have {len(first)} and {len(second)} messages"
        )
    return first[:-1]


def _turns(messages: Sequence[Message]) -> list[Any]:
    """Messages without white space at their ends, to be compared."""
    return [{**m, "content": (m["content"] or "").strip()} for m in messages]


def _said(messages: Sequence[Message]) -> Sequence[Message]:
    """The turns without the system message."""
    return messages[1:] if _system(messages) else messages


def _system(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[0]["role"] in ("system", "developer")


def _check_answer(where: str, message: Message) -> None:
    """InputError when a message is no answer, or says what its text alone cannot hold."""
    if message["role"] != "assistant":
        raise InputError(f"{where} must be text or one assistant message, it is {short(dict(message))}")
    for name in BEYOND_TEXT:
        if message.get(name) not in (None, "", [], {}):
            raise InputError(
                f"{where}: the answer has {name!r}, which a completion's text cannot hold; render it into the content "
                "with the model's chat template, or leave the row out"
            )
    if message.get("train") is False or message.get("weight") not in (None, 1, True):
        raise InputError(
            f"{where}: the answer is marked not to be trained on in full ('train' or 'weight'); leave it out"
        )
