"""Whose fault an answer is that is none: this prompt's, this field's, the server's, or every request's.

Providers differ in status, shape and words: errors come as {"error": {...}}, as text, as a list, inside a 200. A fault
of the prompt loses one prompt; one of the key, the model or the address stops the work before more is paid.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trimtab.errors import EngineError

Blame = Literal["prompt", "field", "request", "server", "all"]
"""Who is to blame: this prompt; a field that was sent; this request, nobody knows why; the server, which tries again
could not heal; or everything that would be sent there."""

ADVICE = {
    401: "check the API key",
    402: "the account must be paid",
    403: "the API key may not use this model",
    404: "check base_url (it usually ends in /v1) and the model's name",
    413: "too long for the server",
}
PASSING = {408, 409, 425, 429}  # and every 5xx but 501 and 505
FILTER = re.compile(
    r"content[_ ]?(filter|management|policy|moderation)|responsible[_ ]?ai|moderation|flagged|data_inspection_failed|"
    r"safety (system|filter|policy|setting)|inappropriate content|prohibited[_ ]content|sensitive (content|words)|"
    r"violat\w+ .{0,40}polic|guardrail|nsfw"
)
LENGTH = re.compile(
    r"context[_ ](length|window|size)|(maximum|max) (context|model|input|prompt|sequence) length|max_model_len|"
    r"(prompt|input|message|text|request)s?( is| are|_)? ?too (long|large)|too many (input )?tokens|reduce the length|"
    r"exceed\w* (the |this |a )?(model'?s? |available |maximum |allowed )*(context|length|tokens|input)|"
    r"string_above_max_length|"
    r"could not finish the message because max_tokens"
)
QUOTA = re.compile(r"insufficient[_ ](quota|balance|credit|fund)|credit balance|out of credits|payment required")
MODEL = re.compile(
    r"model\b.{0,80}(not found|not exist|unknown|not a valid|no access|decommissioned|deprecated|not available)|"
    r"(no such|unknown|invalid) model|model_not_found|no endpoints found"
)
KEY = re.compile(r"unauthori[sz]ed|authenticat\w+|api[ _-]?key|credentials|permission denied|forbidden")
COMPLAINT = re.compile(
    r"unsupported|support|unknown|unrecogni[sz]ed|unexpected|permitted|allowed|extra|invalid|cannot|must|at most|"
    r"maximum|too large|only|additional|deprecated|greater|less|should|out of range|unavailable|removed|instead"
)
CODES = {  # words that stand where others have a number
    429: re.compile(r"rate.?limit|too many requests|throttl|quota|resource.?exhausted"),
    529: re.compile(r"overload|capacity|unavailable|busy|try again"),
    401: re.compile(r"(invalid|incorrect|missing|expired|no).{0,20}(api.?key|token|credential)|unauthori|authenticat"),
    404: re.compile(r"not.?found|does not exist|no such"),
    400: re.compile(r"invalid.?request|bad.?request|invalid.?argument|invalid.?param|unprocessable|validation"),
    504: re.compile(r"time.?d?.?out|deadline"),
}


@dataclass(frozen=True)
class Trouble:
    """What is wrong with one answer: in words, whose fault, whether it may pass, and what the server said."""

    reason: str
    blame: Blame = "server"
    passing: bool = False
    status: int = 0
    said: str = ""
    field: str = ""
    wait_s: float | None = None


class Fault(EngineError):
    """A request that was given up; `trouble` says whose fault it is."""

    def __init__(self, message: str, trouble: Trouble):
        super().__init__(message)
        self.trouble = trouble

    def __reduce__(self) -> tuple[type["Fault"], tuple[str, Trouble]]:
        return Fault, (str(self), self.trouble)  # it may come from a worker process

    @property
    def blame(self) -> Blame:
        return self.trouble.blame


def judged(
    status: int, said: str, fields: Mapping[str, str], *, param: str = "", kind: str = "", hidden: bool = False
) -> Trouble:
    """The trouble of an error with this status, message and kind (its code or type in words); `fields` are ours by the
    server's names, `hidden` when it came in a 200."""
    low = f"{said} {kind}".strip().lower()
    reason = f"{'an error in the answer: ' if hidden else ''}status {status}: {said[:400]}"
    passing = status in PASSING or (status >= 500 and status not in (501, 505))

    def made(blame: Blame, passing: bool = False, advice: str = "", field: str = "") -> Trouble:
        return Trouble(f"{reason} ({advice})" if advice else reason, blame, passing, status, low, field)

    if QUOTA.search(low):
        return made("all", advice="the account has nothing left")
    if "request too large" in low or (status not in (401, 404, 429) and FILTER.search(low)):
        return made("prompt", advice="the server refuses this prompt")
    if status == 413 or (status != 429 and LENGTH.search(low)):
        return made("prompt", advice=ADVICE[413])
    if status not in (401, 403, 404, 429) and (field := _field(said.lower(), param, fields)):
        return made("field", field=field)
    if status in (401, 402, 403, 404, 405, 501, 505) or (status < 500 and status != 429 and MODEL.search(low)):
        return made("all", advice=ADVICE.get(status, ADVICE[404] if status != 400 else "check the model's name"))
    if passing:
        return made("server", passing=True)
    if KEY.search(low):
        return made("all", advice=ADVICE[401])
    return made("request", advice="the server refuses the request")


def error_in(payload: Any, wanted: str) -> tuple[int, str, str] | None:
    """The status, words and kind of an error inside an answer that came as a success; None where `wanted` is there and
    no error beside it. An error without a code is taken for one that may pass (500) unless its words say otherwise."""
    payload = payload[0] if isinstance(payload, list) and len(payload) == 1 else payload
    if not isinstance(payload, Mapping):
        return None
    error = payload.get("error") or payload.get("errors")
    base = payload.get("base_resp")
    if not error and isinstance(base, Mapping) and base.get("status_code"):  # MiniMax
        error = {"code": base["status_code"], "message": base.get("status_msg")}
    holder = error if isinstance(error, Mapping) else payload
    code = next((holder[k] for k in ("code", "status", "status_code", "statusCode", "error_code") if holder.get(k)), 0)
    words = message_of({**payload, "error": error})
    if not error:
        if payload.get(wanted):
            return None
        if not any(payload.get(k) for k in ("detail", "message", "msg", "error_msg", "code")):
            return None
    elif isinstance(error, Mapping) and not code and str(error.get("message") or "ok").lower() in ("ok", "success"):
        return None  # {"code": 0}: the way some say that nothing is wrong
    kind = kind_of(payload)
    return _status(code, f"{words} {kind}".lower()), words, kind


def _status(code: Any, words: str) -> int:
    text = str(code)
    if text.isdigit() and 400 <= int(text) < 600:
        return int(text)
    return next((status for status, pattern in CODES.items() if pattern.search(words)), 500)


def message_of(payload: Any) -> str:
    """The words of an error in any of the shapes that servers give it."""
    if isinstance(payload, list):
        return "; ".join(filter(None, map(message_of, payload[:3])))
    if not isinstance(payload, Mapping):
        return "" if payload is None else str(payload)
    for key in ("error", "errors", "detail", "message", "msg", "error_msg", "error_message"):
        if value := payload.get(key):
            where = ".".join(map(str, payload["loc"])) if isinstance(payload.get("loc"), list | tuple) else ""
            raw = payload.get("metadata", {}).get("raw") if isinstance(payload.get("metadata"), Mapping) else None
            parts = [where, message_of(value), "" if raw is None else str(raw)[:200]]
            return ": ".join(filter(None, parts))
    return json.dumps(payload, default=str)[:300] if payload else ""


def kind_of(payload: Any) -> str:
    """The code and type of an error in words, those of an inner error included; numbers left out."""
    if not isinstance(payload, Mapping):
        return ""
    error = payload.get("error")
    holders = [payload, error, error.get("innererror") if isinstance(error, Mapping) else None]
    found = [str(h[k]) for h in holders if isinstance(h, Mapping) for k in ("code", "type", "error_type") if h.get(k)]
    return " ".join(w for w in found if not w.isdigit())


def param_of(payload: Any) -> str:
    """The parameter that an error names in a field of its own."""
    error = payload.get("error") if isinstance(payload, Mapping) else None
    return str(error.get("param") or "") if isinstance(error, Mapping) else ""


def _field(said: str, param: str, fields: Mapping[str, str]) -> str:
    """Which of our fields (the values, by the server's names) the server complains of; "" for none."""
    if param in fields:
        return fields[param]
    if not COMPLAINT.search(said):
        return ""
    return next((ours for theirs, ours in fields.items() if _names(said, theirs)), "")


def _names(said: str, name: str) -> bool:
    if name == "n":
        return bool(
            re.search(r"""['"`]n['"`]|\bn\b ?(=|>|<|must|is|cannot|should|greater)|n_cmpl|body[.: ]+n\b""", said)
            or re.search(
                r"completion choice|(multiple|number of) (choices|completions|generations)|candidate_?count", said
            )
        )
    if name == "stop":
        return bool(re.search(r"""['"`]stop['"`]|body[.: ]+stop\b|stop sequences""", said))
    return bool(re.search(rf"(?<![a-z_]){re.escape(name.lower())}(?![a-z_])", said))


Check = Callable[[Any], Trouble | None]
"""What is wrong with an answer's JSON, None for nothing."""
