"""A connection to one server: JSON in, JSON out, with bounded retries that honour what the server asks for.

Redirects on the same host are followed as POST; a key goes to no other host. A path that is not there is tried once
with and once without /v1. Loopback is never asked through a proxy; everything else obeys the proxy variables.
"""

import json
import random
import re
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx

from trimtab.endpoints.address import Address, address, clean_key, key_from, mask
from trimtab.endpoints.faults import Check, Fault, Trouble, judged, kind_of, message_of, param_of
from trimtab.endpoints.waits import asked
from trimtab.errors import InputError

KEY_VARIABLE = "OPENAI_API_KEY"
LONGEST_WAIT_S = 300.0
HOPS = 3


@dataclass(frozen=True)
class Reply:
    """The JSON of an answer, and the seconds of the request that brought it."""

    json: Any
    seconds: float


@dataclass
class Connection:
    """A context manager; safe to use from many threads. `close` wakes those that wait to try again.

    `api_key` None is the one in the environment variable OPENAI_API_KEY, as in OpenAI's own client; "" is none,
    which callers give where the address is not the user's or the server no OpenAI API.
    InputError on entering when the address or the key can not be meant so.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    retries: int = 5
    backoff_s: float = 1.0
    concurrency: int = 8

    def __post_init__(self) -> None:
        self._check()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._answered = False
        self._moved: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._key = key_from(KEY_VARIABLE) if self.api_key is None else clean_key(self.api_key)
        self._at = self._given = address(self.base_url)
        self._others = self._at.others()
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        timeout = httpx.Timeout(self.timeout_s, connect=min(10.0, self.timeout_s), pool=None)
        headers = _headers(self._at, self._key) | {"Content-Type": "application/json", "Accept": "application/json"}
        plain = self._at.here and self._at.root.startswith("http://")  # no certificates to load: 20 ms a call
        try:
            self._client = httpx.Client(
                headers=headers, timeout=timeout, limits=limits, trust_env=not self._at.here, verify=not plain
            )
        except (ValueError, ImportError) as e:
            names = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
            raise InputError(f"the proxy variables ({names}) name no proxy that can be used: {_bare(str(e))}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._client.close()

    def close(self) -> None:
        """No further attempt is made."""
        self._over.set()

    def post(
        self, path: str, body: Mapping[str, Any], check: Check, *, about: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> Reply:  # fmt: skip
        """The answer to `body` sent to `path`, once `check` finds nothing wrong with it.

        What may pass is tried again `retries` times after `backoff_s` * 2^attempt seconds (spread by a quarter) or what
        the server asks for. Fault, which names `about` and whose fault it is, after the last try, and at once for a
        refusal and for a wait of more than LONGEST_WAIT_S. `fields` are the caller's by the server's names.
        """
        content, attempt = _encoded(body), 0
        while True:
            root = self._at.root
            url = self._moved.get(path) or self._at.url(path)
            begun = time.perf_counter()
            payload, trouble = self._once(url, path, content, check, fields or {})
            if trouble is None:
                self._arrived(root)
                return Reply(payload, time.perf_counter() - begun)
            if self._elsewhere(root, trouble):
                continue
            if trouble.status in (404, 405):
                url = self._given.url(path)
            place = mask(": ".join(filter(None, [url.split("?")[0], about])), self._key)
            if not trouble.passing:
                raise Fault(f"{place}: {trouble.reason}", trouble)
            wait_s = trouble.wait_s or self.backoff_s * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311
            if wait_s > LONGEST_WAIT_S:
                reason = f"{trouble.reason}; the server asks to wait {wait_s:.0f} s: try again later"
                raise Fault(f"{place}: {reason}", replace(trouble, blame="all"))
            if attempt == self.retries or self._over.wait(wait_s):
                raise Fault(f"{place}: {trouble.reason} (tried {attempt + 1} times)", trouble)
            attempt += 1

    def _once(
        self, url: str, path: str, content: bytes, check: Check, fields: Mapping[str, str]
    ) -> tuple[Any, Trouble | None]:
        """One attempt: the answer's JSON, and what is wrong with it."""
        for _ in range(HOPS + 1):
            try:
                reply = self._client.post(url, content=content)
            except httpx.InvalidURL as e:
                raise InputError(f"base_url: {url.split('?')[0]!r} is not a URL ({e})") from None
            except httpx.RequestError as e:
                return None, self._broken(e)
            except RuntimeError as e:  # the client was closed: somebody pressed Ctrl-C
                return None, Trouble(f"given up ({e})", "all")
            if not reply.has_redirect_location:
                payload, trouble = _read(reply, check, fields)
                return payload, trouble and replace(trouble, reason=mask(trouble.reason, self._key))
            target = urljoin(url, reply.headers["location"])
            if trouble := self._refused_hop(url, target, reply.status_code):
                return None, trouble
            warnings.warn(
                f"{url.split('?')[0]} redirects to {target.split('?')[0]}; write that as base_url", stacklevel=2
            )
            self._moved[path] = url = target
        return None, Trouble(f"more than {HOPS} redirects; check base_url", "all")

    def _refused_hop(self, url: str, target: str, status: int) -> Trouble | None:
        """What speaks against following a redirect: another host (the key is not for it), or from https to http."""
        here, there = urlsplit(url), urlsplit(target)
        upgraded = (here.scheme, there.scheme) == ("http", "https") and here.hostname == there.hostname
        upgraded = upgraded and not self._at.here
        if (here.scheme, here.netloc) == (there.scheme, there.netloc) or upgraded:
            return None
        bare = mask(_bare(target.split("?")[0]), self._key)
        return Trouble(
            f"status {status}: redirects to {bare}, another place; write that as base_url", "all", False, status
        )

    def _broken(self, e: httpx.RequestError) -> Trouble:
        said = mask(_bare(str(e)), self._key)
        if isinstance(e, httpx.TimeoutException):
            if isinstance(e, httpx.ConnectTimeout):
                return Trouble(
                    f"cannot reach the server (no connection within {min(10.0, self.timeout_s):g} s)", "all", True
                )
            return Trouble(f"no answer within {self.timeout_s:g} s; raise timeout_s or send less at once", passing=True)
        if "WRONG_VERSION_NUMBER" in said:
            return Trouble(f"the server does not speak https ({said}); write http:// in base_url", "all")
        if "CERTIFICATE" in said:
            return Trouble(f"its certificate is not trusted ({said}); name yours in SSL_CERT_FILE", "all")
        if isinstance(e, httpx.ProxyError):
            return Trouble(f"the proxy refuses ({said}); check HTTPS_PROXY and NO_PROXY", "all", True)
        if isinstance(e, httpx.ConnectError | httpx.UnsupportedProtocol):
            return Trouble(f"cannot reach the server ({said}); is it running?", "all", True)
        return Trouble(f"the connection broke off ({said or type(e).__name__})", passing=True)

    def _elsewhere(self, root: str, trouble: Trouble) -> bool:
        """Whether to ask again at another root, because this one has no such path and nothing was ever answered."""
        if trouble.status not in (404, 405) or "model" in trouble.said or self._answered:
            return False
        with self._lock:
            if root == self._at.root and self._others:
                self._at = Address(self._others.pop(), self._at.query)
            return root != self._at.root

    def _arrived(self, root: str) -> None:
        with self._lock:
            first, self._answered = not self._answered, True
        if first and root != self._given.root:
            warnings.warn(f"{self._given.root} has no such path, {root} has: write that as base_url", stacklevel=2)

    def _check(self) -> None:
        for name, value, least in (
            ("concurrency", self.concurrency, 1), ("retries", self.retries, 0), ("backoff_s", self.backoff_s, 0),
        ):  # fmt: skip
            if not value >= least:
                raise InputError(f"{name} is {value!r}; it must be {least} or more")
        if not self.timeout_s > 0:
            raise InputError(f"timeout_s is {self.timeout_s!r}; it must be above 0")


def _headers(at: Address, key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if key.startswith("Basic "):
        return {"Authorization": key}
    return {"api-key": key} if at.azure else {"Authorization": f"Bearer {key}"}


def _encoded(body: Mapping[str, Any]) -> bytes:
    """JSON as UTF-8; half characters, which UTF-8 does not have, as escapes. InputError for what JSON does not have."""
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise InputError(f"the request cannot be written as JSON ({e}); check `extra` and the prompts") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(body).encode()


def _read(reply: httpx.Response, check: Check, fields: Mapping[str, str]) -> tuple[Any, Trouble | None]:
    """The JSON of a reply and what is wrong with it."""
    payload, odd = _parsed(reply)
    if reply.is_success:
        return payload, odd or check(payload)
    said = message_of(payload) if odd is None else _text(reply)
    words = " ".join(said.split())
    found = judged(reply.status_code, words, fields, param=param_of(payload), kind=kind_of(payload))
    should = reply.headers.get("x-should-retry", "").lower()
    passing = found.passing if should not in ("true", "false") or found.blame != "server" else should == "true"
    return None, replace(found, passing=passing, wait_s=asked(reply.headers, found.said))


def _parsed(reply: httpx.Response) -> tuple[Any, Trouble | None]:
    """UTF-8 whatever the header says, as JSON must be; the header's encoding where it is not."""
    data = reply.content
    if not data.strip():
        return None, Trouble("the answer is empty", passing=True)
    try:
        return json.loads(data), None
    except UnicodeDecodeError:
        try:
            return json.loads(data.decode(reply.charset_encoding or "latin-1")), None
        except (ValueError, LookupError):
            pass
    except (ValueError, RecursionError):
        pass
    shown = _text(reply)[:200]
    if data.lstrip().startswith(b"data:"):
        return None, Trouble(
            f"the answer is a stream, which nobody asked for ({shown!r}); set extra stream = false", "all"
        )
    if data.lstrip().startswith((b"{", b"[")):
        return None, Trouble(f"the answer is JSON that breaks off or is broken: {shown!r}", passing=True)
    return None, Trouble(f"the answer is not JSON: {shown!r}; does base_url lead to the API (it usually ends in /v1)?")


def _text(reply: httpx.Response) -> str:
    """The body, or the title of an HTML page."""
    text = reply.text
    if "<html" in text[:500].lower() or "<!doctype" in text[:100].lower():
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
        return f"<html> page {title[1].strip()!r}" if title else " ".join(text.split())
    return text


def _bare(text: str) -> str:
    """Without the user name and password of a URL in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)
