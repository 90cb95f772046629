"""Text of others on a terminal: what could move its cursor, change its title or reorder a line is shown, not sent."""

import io
import os
import re
import sys
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # bidi marks, separators, invisible ones
    "\ud800-\udfff\U000e0000-\U000e007f]"  # half surrogates, tags
)


def visible(text: str) -> str:
    """The text with every control character, bidi mark and half surrogate as \\uXXXX (which JSON reads back)."""
    return _UNSAFE.sub(_escaped, text)


def markdown(text: object) -> str:
    """The text as Markdown that is only text: one line, `visible`, and no character that begins markup, a cell of a
    table or HTML."""
    line = visible(" ".join(str(text).split()))
    return re.sub(r"([|`*\[\]<>\\])", r"\\\1", line)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


class VisibleStream:
    """A text stream that sends `visible` text, and what its encoding lacks as an escape instead of an error."""

    encoding = "utf-8"  # or the CLI library would go round this stream where the locale is ASCII

    def __init__(self, stream: io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the visible text; the number of characters given."""
        self._stream.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Puts a `VisibleStream` before standard output and standard error, which may be closed or missing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open as long as the process
        if isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, VisibleStream(stream))
