"""How long a server asks to wait, in every way that servers say it."""

import email.utils
import time

import pytest

from trimtab.endpoints.waits import asked


def date(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize(
    "headers, said, seconds",
    [
        ({}, "", None),
        ({"retry-after": "3"}, "", 3),
        ({"retry-after": "0.25"}, "", 0.25),
        ({"retry-after": "1m2s"}, "", 62),
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"retry-after": lambda: str(time.time() + 40)}, "", 40),
        ({"retry-after": lambda: str(int(1000 * (time.time() + 40)))}, "", 40),
        ({"retry-after": lambda: date(30)}, "", 30),
        ({"retry-after": lambda: date(-3600)}, "", None),
        ({"retry-after": "0"}, "", None),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "inf"}, "", None),
        ({"retry-after": "99999999999999999999"}, "", 1e17),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, "", 360),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, "", 0.12),
        ({"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "1s"}, "", None),
        ({"x-ratelimit-reset-requests": "1s"}, "", None),
        ({}, "rate limit reached: please try again in 20s. visit", 20),
        ({}, "please try again in 350ms", 0.35),
        ({}, "please retry in 12.5 seconds", 12.5),
        ({}, "try again in 2 minutes", 120),
        ({}, "please try again later", None),
    ],
)
def test_waits(headers, said, seconds):
    found = asked({k: v() if callable(v) else v for k, v in headers.items()}, said)
    assert found is None if seconds is None else found == pytest.approx(seconds, abs=1.5, rel=0.2)
