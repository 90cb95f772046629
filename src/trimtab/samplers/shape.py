"""A request's fields: what the user renamed or left out, and what the server has refused so far.

A refusal that names a field is met once, with a warning, where the meaning stays: another name for max_tokens, smaller
n, no seed, no log-probs, no top-k where the whole vocabulary is meant. What would change how completions are drawn is
never left out unasked: the error says which line to write.
"""

import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.endpoints import Fault
from trimtab.errors import InputError, unknown
from trimtab.types import SamplingParams

FIELDS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "n", "stop", "logprobs")
RESERVED = ("messages", "prompt", "stream")
LIMIT = re.compile(
    r"(?:<=|at most|maximum(?: value)?(?: of| is|:)?|up to|between 1 and|less than or equal to|exceeds?) ?(\d+)"
)
ONLY_ONE = re.compile(r"only one|only 1|single|multiple|not support|unsupported|must be 1\b|n ?= ?1|n ?> ?1|\[1, ?1\]")
LEFT_OUT = {
    "seed": "the same seed need not give the same text", "logprobs": "completions have no log-probs",
    "top_k": "the server's own top_k applies, if it has one", "top_p": "it had no effect",
}  # fmt: skip


def check_shape(fields: Mapping[str, str | bool], extra: Mapping[str, Any]) -> None:
    """InputError for a field that no request has, and for one that would make the answer unreadable."""
    for name, value in fields.items():
        if name not in FIELDS:
            raise unknown("field of a request", name, FIELDS)
        if not isinstance(value, bool) and not (isinstance(value, str) and value.strip()):
            raise InputError(f"fields: {name} = {value!r}; write the server's name for it, or false to leave it out")
    if odd := [k for k in RESERVED if extra.get(k)]:
        raise InputError(f"extra: {', '.join(odd)} is trimtab's own; leave it out")


@dataclass
class Shape:
    """The server's names of our fields, what they may hold, and how often that changed. Shared by many threads."""

    fields: Mapping[str, str | bool]
    logprobs: bool
    names: dict[str, str] = field(init=False)
    most: int = 2**31
    version: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        given = {k: k if v is True else v for k, v in self.fields.items()}
        self.names = {k: str(v) for k in FIELDS if (v := given.get(k, k))}
        self.most = self.most if "n" in self.names else 1

    def body(self, params: SamplingParams, n: int, seed: int, raw: bool) -> dict[str, Any]:
        """The fields of a request for n completions, by the server's names. Top-k is always said: a server would fill
        in its own (-1 is the whole vocabulary)."""
        ours: dict[str, Any] = {
            "temperature": params.temperature, "top_p": params.top_p, "max_tokens": params.max_tokens, "seed": seed,
            "top_k": params.top_k or -1,
        }  # fmt: skip
        ours |= {"n": n} if n > 1 else {}
        ours |= {"stop": list(params.stop)} if params.stop else {}
        ours |= {"logprobs": 1 if raw else True} if self.logprobs else {}
        return {self.names[k]: v for k, v in ours.items() if k in self.names}

    def ours(self) -> dict[str, str]:
        """Our names by the server's."""
        return {theirs: ours for ours, theirs in self.names.items()}

    def bend(self, fault: Fault, params: SamplingParams, n: int, version: int) -> None:
        """Leaves out or renames the field that a refusal of the request of this `version` names. Fault, with the line
        to write, where that would change what is sampled."""
        name, said = fault.trouble.field, fault.trouble.said
        with self._lock:
            if version != self.version:
                return  # another thread has met it meanwhile: ask again
            told = self._met(name, said, params, n)
            if told is None:
                raise Fault(f"{fault}. {_advice(name, said)}", fault.trouble)
            self.version += 1
        warnings.warn(f"{fault.trouble.reason[:200]}: {told}", stacklevel=2)

    def _met(self, name: str, said: str, params: SamplingParams, n: int) -> str | None:
        """Changes the shape; what was done in words, None where it cannot be done without a change of meaning."""
        if name == "n" and n > 1:
            found = LIMIT.search(said)
            most = int(found[1]) if found else 1 if ONLY_ONE.search(said) else n // 2
            self.most = most if 1 <= most < n else max(1, n // 2)
            return f"asking for {self.most} completions at a time instead of {n}"
        if name == "max_tokens" and self.names.get(name) == name and "max_completion_tokens" in said:
            self.names[name] = "max_completion_tokens"
            return 'sending max_completion_tokens instead; write fields = {max_tokens = "max_completion_tokens"}'
        idle = {
            "seed": True, "logprobs": True, "top_k": not params.top_k,
            "top_p": params.top_p == 1 or params.temperature == 0,
        }  # fmt: skip
        if name == "temperature" and idle["top_p"] and "top_p" in said:
            name = "top_p"  # not both, says the server
        if name in self.names and idle.get(name):
            del self.names[name]
            return f"sending no {name} ({LEFT_OUT[name]}); write fields = {{{name} = false}}"
        return None


def _advice(name: str, said: str) -> str:
    if name == "max_tokens" and re.search(r"too large|at most|maximum|less than|exceed", said):
        return "Lower max_tokens"
    default = {"max_tokens": "answers are then as long as the server likes"}.get(name, "the server's own then applies")
    return (
        f"To leave it out write fields = {{{name} = false}} beside base_url (Python: fields={{{name!r}: False}}); "
        f'{default}. Under another name: fields = {{{name} = "its_name"}}'
    )
