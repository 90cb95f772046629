"""What servers answer, read into completions: text, finish, log-probs and usage in the shapes that servers give them.

A reason to finish that is unknown stays as a note; what is no answer is said to be none. Nothing here sends anything.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trimtab.endpoints import Trouble, error_in
from trimtab.endpoints.faults import judged
from trimtab.types import HALF, Usage, whole_text

FINISH = {
    "stop": ("stop", "eos", "eos_token", "end_turn", "end_of_turn", "stop_sequence", "stop_token", "stop_word",
             "complete", "completed", "done", "finished", "end", "tool_calls", "tool_call", "function_call",
             "tool_use"),
    "length": ("length", "max_tokens", "max_token", "max_length", "max_new_tokens", "max_output_tokens", "token_limit",
               "max_completion_tokens", "model_length", "context_length_exceeded", "model_context_window_exceeded",
               "repetition", "repetition_truncation", "limit"),
    "filter": ("content_filter", "content_filtered", "content-filter", "filtered", "safety", "refusal", "recitation",
               "blocklist", "prohibited_content", "sensitive", "guardrail_intervened", "spii", "moderation"),
    "error": ("error", "abort", "aborted", "cancel", "cancelled", "canceled", "failed", "failure", "timeout",
              "network_error", "insufficient_system_resource", "malformed_function_call", "internal_error", "other"),
}  # fmt: skip
_MEANS = {word: finish for finish, words in FINISH.items() for word in words}
TEXT_PARTS = ("text", "output_text", "")


@dataclass(frozen=True)
class Choice:
    """One choice of an answer. `trouble` is set when it is none; `thought` counts the characters of its reasoning."""

    text: str = ""
    finish: str = "stop"
    note: str = ""
    logprobs: tuple[float, ...] | None = None
    thought: int = 0
    trouble: Trouble | None = None


def choices_of(payload: Any) -> list[Any]:
    """The choices in the order of their `index`, or in the order given where it is not a number each."""
    found = payload.get("choices") if isinstance(payload, Mapping) else None
    found = found if isinstance(found, list) else []
    places = [c.get("index") if isinstance(c, Mapping) else None for c in found]
    numbers = [i for i in places if isinstance(i, int)]
    if len(set(numbers)) == len(found):
        return [found[k] for k in sorted(range(len(found)), key=numbers.__getitem__)]
    return found


def trouble_in(payload: Any, fields: Mapping[str, str], max_tokens: int) -> Trouble | None:
    """What makes an answer none: an error inside it, no choices, or not one choice that is an answer."""
    choices = choices_of(payload)
    if found := error_in(payload, "choices"):
        return judged(found[0], found[1], fields, kind=found[2], hidden=True)
    if not choices:
        return Trouble(f"the answer has no choices: {str(payload)[:200]}", passing=True)
    trouble = None
    for choice in choices:
        trouble = read_choice(choice, max_tokens).trouble
        if trouble is None or trouble.blame == "prompt":  # what a filter cut is kept, as a failure
            return None
    return trouble


def read_choice(choice: Any, max_tokens: int, counted: float | None = None) -> Choice:
    """A choice of either API. `counted` are the tokens it took, where that is known."""
    if not isinstance(choice, Mapping):
        return Choice(trouble=Trouble(f"a choice is {str(choice)[:100]!r}, not an object", passing=True))
    if found := error_in({"error": choice.get("error")}, "error"):
        return Choice(trouble=judged(found[0], found[1], {}, kind=found[2], hidden=True))
    message = next((choice[k] for k in ("message", "delta") if isinstance(choice.get(k), Mapping)), None)
    word = _word(choice)
    meant = _MEANS.get(word.lower())
    if message is None and "text" not in choice and meant != "filter":
        return Choice(trouble=Trouble(f"a choice has neither message nor text: {str(choice)[:200]}", passing=True))
    text, odd = _text(choice.get("text") if message is None else message.get("content"))
    message = message or {}
    thought, calls = len(_thoughts(message)), _calls(message)
    notes = [odd, calls]
    if not text and isinstance(refusal := message.get("refusal"), str) and refusal:
        text, odd = _whole(refusal)
        notes = [*notes, odd, "a refusal"]
    if not text and thought:
        notes.append(f"only reasoning ({thought} characters)")
    if word not in ("stop", "length"):
        notes.append(f"finish_reason {word!r}" if word else "no finish_reason")
    note, logprobs = "; ".join(filter(None, notes)), read_logprobs(choice.get("logprobs"))
    known = counted if counted is not None else None if logprobs is None else len(logprobs)
    full = known is not None and known >= max_tokens
    finish = meant or ("length" if full else "stop")
    if finish == "filter":
        return Choice(text, "error", note, logprobs, thought, Trouble(f"the server's filter cut it ({note})", "prompt"))
    if finish == "error" or not (text or thought or calls or meant):
        return Choice(text, "error", note, logprobs, thought, Trouble(f"no answer ({note})", passing=True))
    return Choice(text, finish, note if text or note else "an empty answer", logprobs, thought)


def _word(choice: Mapping[str, Any]) -> str:
    """The reason to finish as one word; enumerations such as FinishReason.STOP without their name."""
    reason = choice.get("finish_reason") or choice.get("finishReason")
    if isinstance(reason, Mapping):
        reason = reason.get("type") or reason.get("reason")
    return str(reason or "").strip().rsplit(".", 1)[-1]


def _text(content: Any) -> tuple[str, str]:
    """The text of a message's content and a note on what is no text: a string, a list of parts (those that are text,
    joined), one part, or nothing."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return _whole(content)
    parts = [content] if isinstance(content, Mapping) else content if isinstance(content, list) else [str(content)]
    texts, odd = [], []
    for part in parts:
        kind = str(part.get("type") or "") if isinstance(part, Mapping) else ""
        value = part.get("text") if isinstance(part, Mapping) else part
        value = value.get("value") if isinstance(value, Mapping) else value
        if isinstance(value, str) and kind in TEXT_PARTS:
            texts.append(value)
        elif kind not in ("thinking", "reasoning", "redacted_thinking"):
            odd.append(kind or type(part).__name__)
    text, note = _whole("".join(texts))
    return text, "; ".join(filter(None, [note, f"parts that are no text: {', '.join(odd)}" if odd else ""]))


def _whole(text: str) -> tuple[str, str]:
    """Text without half characters, which no file can hold."""
    whole = whole_text(text)
    return whole, "" if whole == text else HALF


def _thoughts(message: Mapping[str, Any]) -> str:
    for key in ("reasoning_content", "reasoning", "thinking"):
        if value := message.get(key):
            return value if isinstance(value, str) else json.dumps(value, default=str)
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    hidden = [p for p in parts if isinstance(p, Mapping) and p.get("type") in ("thinking", "reasoning")]
    return json.dumps(hidden, default=str) if hidden else ""


def _calls(message: Mapping[str, Any]) -> str:
    """Calls of tools as JSON: they are what the model said where there is no text."""
    found = {k: message[k] for k in ("tool_calls", "function_call") if message.get(k)}
    return "; ".join(f"{k}: {json.dumps(v, ensure_ascii=True, default=str)}" for k, v in found.items())


def read_logprobs(block: Any) -> tuple[float, ...] | None:
    """Per-token log-probs of a choice in either API's form; None where the server does not give every one, and for
    numbers that are no log-probs (probabilities)."""
    if not isinstance(block, Mapping):
        return None
    if isinstance(block.get("content"), list):
        values = [t.get("logprob") if isinstance(t, Mapping) else None for t in block["content"]]
    else:
        values = block["token_logprobs"] if isinstance(block.get("token_logprobs"), list) else []
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if not numbers or len(numbers) < len(values) or max(numbers) > 1e-3:
        return None
    return tuple(min(x, 0.0) for x in numbers)


def read_usage(payload: Any, seconds: float) -> Usage:
    """The usage of one request: OpenAI's names, Anthropic's, Ollama's or llama.cpp's timings. None where it is not
    given; a prompt of 0 tokens is not given either."""
    payload = payload if isinstance(payload, Mapping) else {}
    usage = payload["usage"] if isinstance(payload.get("usage"), Mapping) else {}
    timings = payload["timings"] if isinstance(payload.get("timings"), Mapping) else {}
    prompt = _count(usage, "prompt_tokens", "input_tokens", "promptTokens", "prompt_eval_count")
    written = _count(usage, "completion_tokens", "output_tokens", "completionTokens", "generated_tokens", "eval_count")
    cached = None
    for key in ("prompt_tokens_details", "input_tokens_details"):
        if isinstance(usage.get(key), Mapping):
            cached = _count(usage[key], "cached_tokens")
    cached = cached if cached is not None else _count(usage, "cached_tokens", "prompt_cache_hit_tokens")
    apart = [_count(usage, k) for k in ("cache_read_input_tokens", "cache_creation_input_tokens")]
    if any(a is not None for a in apart) and "input_tokens" in usage:  # Anthropic counts them beside input_tokens
        cached, prompt = apart[0], None if prompt is None else prompt + sum(a or 0 for a in apart)
    if prompt is None and written is None and timings:
        new, cached, written = (_count(timings, k) for k in ("prompt_n", "cache_n", "predicted_n"))
        prompt = None if new is None else new + (cached or 0)
    return Usage(prompt or None, cached if prompt else None, written, 1.0, seconds)


def shared(usage: Usage, among: int, texts: bool) -> Usage:
    """One completion's share of a request's usage; a count of 0 beside `texts` is no count."""
    if texts and not usage.completion_tokens:
        usage = replace(usage, completion_tokens=None)
    return Usage(*(None if v is None else v / among for v in vars(usage).values()))


def _count(usage: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
            return float(value)
    return None
