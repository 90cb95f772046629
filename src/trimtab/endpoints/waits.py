"""How long a server asks to wait, in the ways that servers say it; None where it does not, or says nonsense."""

import email.utils
import math
import re
import time
from collections.abc import Mapping

EPOCH = 1e9
"""From here on a number is a moment in seconds since 1970, not a span."""
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def asked(headers: Mapping[str, str], said: str = "") -> float | None:
    """Seconds to wait: retry-after-ms, Retry-After (seconds, a span such as 1m2s, or a date), the reset of a rate limit
    that is used up, or the words of the message."""
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return _sane(ms / 1000)
    if value := headers.get("retry-after"):
        return _sane(_span(value))
    resets = [
        _span(value)
        for name, value in headers.items()
        if "ratelimit-reset" in name.lower() and _number(headers.get(name.lower().replace("reset", "remaining"))) == 0
    ]
    if known := [r for r in map(_sane, resets) if r is not None]:
        return max(known)
    found = re.search(
        r"(?:try again|retry|wait)\D{0,20}?(\d+(?:\.\d+)?) ?(ms|milliseconds|seconds|secs?|s|minutes|m)\b", said
    )
    if found:
        unit = "ms" if found[2].startswith(("ms", "milli")) else found[2][0]
        return _sane(float(found[1]) * UNITS[unit])
    return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _span(value: str) -> float | None:
    """A number of seconds, a moment since 1970 (in seconds or milliseconds), a span (6m0s, 120ms), or a date."""
    if (number := _number(value)) is not None:
        moment = number / 1000 if number >= 1000 * EPOCH else number
        return moment - time.time() if moment >= EPOCH else number
    value = value.strip().lower()
    if re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d))+", value):
        return sum(float(n) * UNITS[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h|d)", value))
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None


def _sane(seconds: float | None) -> float | None:
    """None for no wait at all: our own, which grows, is the better one."""
    return seconds if seconds is not None and seconds > 0 else None
