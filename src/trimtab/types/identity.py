"""Values to what identifies them: canonical JSON, fingerprints, names of callables, seeds. Imports nothing of ours."""

import hashlib
import json
import re
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; dataclasses become dicts, callables their `describe` name."""
    return _CANONICAL.encode(value)


def fingerprint(value: Any) -> str:
    """32 hex digits (128 bits of SHA-256) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _as_json(x: Any) -> Any:
    if is_dataclass(x) and not isinstance(x, type):
        return asdict(x)
    if isinstance(x, np.generic):
        return x.item()
    if callable(x):
        return describe(x)
    return str(x)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_as_json)
"""Made once: making an encoder takes longer than encoding a message does."""


HALF = "half a character was replaced"


def whole_text(text: str) -> str:
    """Text in which half a surrogate pair, which no file and no tokenizer can hold, is U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def describe(fn: Any) -> str:
    """The manifest's name for a callable: a dataclass's repr, a function's `module:name`; the same in every process."""
    if not is_dataclass(fn):
        return f"{fn.__module__}:{fn.__qualname__}"
    return re.sub(r"<function (\S+) at 0x[0-9a-f]+>", r"\1", repr(fn))  # a field that is a function shows its address


def completion_seed(seed: int, prompt_id: str, index: int = 0) -> int:
    """A 31-bit seed that depends on the run's seed, the prompt and the completion's index, and on nothing else."""
    return int(fingerprint([seed, prompt_id, index])[:8], 16) & 0x7FFFFFFF
