"""Where a server is and who asks: base URLs in the forms that providers print, and API keys. No request is made here.

A key is never part of an error, a repr or a URL: what is wrong with it is said by its place.
"""

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from trimtab.errors import InputError

ENDINGS = ("/chat/completions", "/completions", "/embeddings", "/pooling", "/models")
SECRET = re.compile(r"key|token|secret|sig|signature|password|code", re.I)
AROUND = " \t\r\n\f\v\u00a0\u200b\u2060\ufeff\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"
EXAMPLE = "write the server's address, such as http://127.0.0.1:8000/v1"


@dataclass(frozen=True)
class Address:
    """A server's root, to which a path such as /embeddings is added, and the query that every request carries."""

    root: str
    query: str = ""

    def url(self, path: str) -> str:
        """The whole URL of `path`, which begins with a slash."""
        return f"{self.root}{path}{'?' if self.query else ''}{self.query}"

    @property
    def host(self) -> str:
        """The host's name, in lower case."""
        return urlsplit(self.root).hostname or ""

    @property
    def here(self) -> bool:
        """Whether the server is on this machine: no proxy stands between."""
        return self.host == "localhost" or _ip(self.host, "is_loopback")

    @property
    def azure(self) -> bool:
        """Whether Azure serves it, which takes a key in the header `api-key`."""
        return self.host.endswith((".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"))

    def others(self) -> list[str]:
        """Roots to try where this one has no such path, the likeliest last: with /v1, or without what is too much."""
        for ending in ("/v1", "/chat"):
            if self.root.endswith(ending):
                return [self.root.removesuffix(ending)]
        native = [f"{self.root.removesuffix('/api')}/v1"] if self.root.endswith("/api") else []  # Ollama's own API
        return [*native, f"{self.root}/v1"]


def address(base_url: str) -> Address:
    """The address that is meant by `base_url`: blanks, quotes, a trailing slash and a whole path such as
    /chat/completions are taken off. Without a scheme it is http for machines nearby and for ports, else https.

    InputError for what is no address, and for one that holds a password or a key.
    """
    text = base_url.strip(AROUND)
    if not text:
        raise InputError(f"base_url is empty; {EXAMPLE}")
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise InputError(f"base_url {_shown(text)!r} has a blank inside; {EXAMPLE}")
    if "://" not in text:
        text = text.lstrip("/")
        text = f"{'http' if _nearby(text) else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as e:
        raise InputError(f"base_url {_shown(text)!r} is not a URL ({e}); {EXAMPLE}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise InputError(f"base_url {_shown(text)!r} must begin with http:// or https://; {EXAMPLE}")
    if not host or host in ("http", "https"):
        raise InputError(f"base_url {_shown(text)!r} names no host; {EXAMPLE}")
    if "@" in parts.netloc:
        raise InputError(
            f"base_url holds a user name for {host}: leave it out and give the key "
            "'Basic ' + base64 of user:password instead"
        )
    if secret := next((k for k, v in parse_qsl(parts.query) if v and SECRET.search(k)), None):
        raise InputError(f"base_url holds a secret ({secret}=...) for {host}: leave it out and give it as the API key")
    path = re.sub("/+", "/", parts.path).rstrip("/")
    ending = next((e for e in ENDINGS if path.endswith(e)), "")
    return Address(f"{parts.scheme.lower()}://{parts.netloc}{path.removesuffix(ending)}", parts.query)


def clean_key(key: str | None, name: str = "api_key") -> str | None:
    """A key without what surrounds it where it was copied from: blanks, quotes, "Bearer ". None for none and for "".

    InputError, which never shows the key, for one that no HTTP header may hold.
    """
    if key is not None and not isinstance(key, str):
        raise InputError(f"{name} is {type(key).__name__}, not text")
    if not key:
        return None
    text = re.sub(r"^(authorization\s*:\s*)?bearer\s+", "", key.strip(AROUND), flags=re.I).strip(AROUND)
    if not text or text.lower() == "bearer":
        raise InputError(f"{name} is blank; give the key, or none for a server that asks for none")
    body = text[6:] if text.startswith("Basic ") else text
    for at, c in enumerate(body, start=len(text) - len(body) + 1):
        if not 32 < ord(c) < 127:
            what = "a line break" if c in "\r\n" else "a blank" if c.isspace() else f"U+{ord(c):04X}"
            raise InputError(f"{name} holds {what} at character {at} of {len(text)}, which no key has; copy it again")
    return text


def key_from(variable: str) -> str | None:
    """The key in an environment variable, None where it is not set. InputError for a blank one, and for a key written
    in the place of the variable's name."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise InputError(
            "api_key_env is the NAME of an environment variable that holds the key, such as OPENAI_API_KEY; what is "
            "there is no such name (is it the key itself?)"
        )
    value = os.environ.get(variable)
    if value is not None and not value.strip(AROUND):
        raise InputError(f"the environment variable {variable} is blank; set it to the key, or unset it")
    return clean_key(value, f"the environment variable {variable}")


def mask(text: str, key: str | None) -> str:
    """`text` without the key, whole or cut off, that a server may have quoted."""
    if not key:
        return text
    text = text.replace(key, "***")
    return re.sub(re.escape(key[:12]) + r"[^\s'\"]*", "***", text) if len(key) >= 12 else text


def _nearby(text: str) -> bool:
    """Whether "host:port/path" is more likely a server of one's own: its name, its number, or a port that it has."""
    parts = urlsplit(f"//{text}")
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    own = "." not in host or host.endswith((".local", ".internal", ".lan")) or _ip(host, "is_private")
    return own or port not in (None, 443)


def _ip(host: str, what: str) -> bool:
    try:
        return bool(getattr(ipaddress.ip_address(host), what))
    except ValueError:
        return False


def _shown(url: str) -> str:
    """A URL without user name, password and the values of its query."""
    return re.sub(r"=[^&]*", "=...", re.sub(r"//[^/@]*@", "//", url))
