"""Asking a server for JSON: one POST with bounded retries that honour Retry-After, for every client in the house.

It knows no API: callers read the body, it decides what may pass (429, 5xx, time-outs, no connection) and what will not.
"""

import email.utils
import random
import time
from typing import TYPE_CHECKING, Any

from trimtab.errors import EngineError, InputError

if TYPE_CHECKING:
    import httpx

ADVICE = {
    401: "check the API key",
    403: "the API key may not use this model",
    404: "check base_url (it usually ends in /v1) and the model's name",
    413: "too long for the server",
}
PASSING = {408, 409, 425, 429}  # and every 5xx
LONGEST_WAIT_S = 300.0


def headers(api_key: str | None) -> dict[str, str]:
    """The header that carries a key; none without one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def post_json(
    client: "httpx.Client", url: str, body: dict[str, Any], *, retries: int, backoff_s: float, about: str = ""
) -> Any:
    """The JSON of a 2xx answer to `body` sent to `url`.

    What may pass is tried again `retries` times after `backoff_s` * 2^attempt seconds (spread by a quarter) or what
    Retry-After says. EngineError, which names `about`, after the last try, and at once for a refusal, for a wait of
    more than LONGEST_WAIT_S and for an answer that is not JSON; InputError when `url` is none.
    """
    import httpx

    place = f"{url}: {about}: " if about else f"{url}: "
    reason = ""
    for attempt in range(retries + 1):
        wait_s = backoff_s * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, no secret
        try:
            reply = client.post(url, json=body)
        except httpx.TimeoutException:
            reason = f"no answer within {client.timeout.read:g} s; raise timeout_s or send less at once"
        except httpx.TransportError as e:
            reason = f"cannot reach the server ({e}); is it running?"
        except httpx.InvalidURL as e:
            raise InputError(f"base_url: {url!r} is not a URL ({e})") from e
        else:
            if reply.is_success:
                try:
                    return reply.json()
                except ValueError as e:
                    raise EngineError(f"{place}the answer is not JSON: {reply.text[:200]!r}") from e
            reason = f"status {reply.status_code}: {_message(reply)}"
            if reply.status_code not in PASSING and reply.status_code < 500:
                advice = ADVICE.get(reply.status_code, "the server refuses the request")
                raise EngineError(f"{place}{reason} ({advice})")
            wait_s = _retry_after(reply, wait_s)
            if wait_s > LONGEST_WAIT_S:
                raise EngineError(f"{place}{reason}; the server asks to wait {wait_s:.0f} s: try again later")
        if attempt < retries:
            time.sleep(wait_s)
    raise EngineError(f"{place}{reason} (tried {retries + 1} times)")


def _message(reply: "httpx.Response") -> str:
    try:
        error = reply.json().get("error")
        return str(error.get("message", error) if isinstance(error, dict) else error or reply.text)[:300]
    except (ValueError, AttributeError):
        return reply.text[:300]


def _retry_after(reply: "httpx.Response", otherwise: float) -> float:
    """Seconds that Retry-After asks for (a number or a date), else `otherwise`."""
    value = reply.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return otherwise
