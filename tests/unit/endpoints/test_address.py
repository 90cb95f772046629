"""Base URLs as people paste them, keys as they are copied, and neither secret ever shown."""

import pytest

from trimtab.endpoints import address, clean_key, key_from, mask
from trimtab.errors import InputError


@pytest.mark.parametrize(
    "given, url",
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/embeddings"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/embeddings"),
        ("  'https://api.example.com/v1/chat/completions'\n", "https://api.example.com/v1/embeddings"),
        ("https://api.example.com//v1//completions/", "https://api.example.com/v1/embeddings"),
        ("HTTPS://host/v1/models#top", "https://host/v1/embeddings"),
        ("localhost:11434/v1", "http://localhost:11434/v1/embeddings"),
        ("vllm:8000", "http://vllm:8000/embeddings"),
        ("192.168.1.7/v1", "http://192.168.1.7/v1/embeddings"),
        ("[::1]:8080/v1", "http://[::1]:8080/v1/embeddings"),
        ("api.example.com/v1", "https://api.example.com/v1/embeddings"),
        ("gpu.example.com:9000/v1", "http://gpu.example.com:9000/v1/embeddings"),
        (
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "https://x.openai.azure.com/openai/deployments/d/embeddings?api-version=2024-10-21",
        ),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/embeddings"),
    ],
)
def test_addresses_in_every_form(given, url):
    assert address(given).url("/embeddings") == url


@pytest.mark.parametrize(
    "given, says",
    [
        ("", "base_url is empty"),
        ("   ", "base_url is empty"),
        ("not a url", "blank inside"),
        ("ftp://h/v1", "must begin with http"),
        ("unix:///run/llm.sock", "must begin with http"),
        ("http:///v1", "names no host"),
        ("http//host/v1", "names no host"),
        ("http://h:80x/v1", "is not a URL"),
        ("http://[::1/v1", "is not a URL"),
        ("https://me:sesame@h/v1", "leave it out and give the key"),
        ("https://h/v1?api_key=sesame", "holds a secret .api_key"),
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(given, says):
    with pytest.raises(InputError, match=says) as e:
        address(given)
    assert "sesame" not in str(e.value)


KEY = "sk-proj-0123456789abcdef"


@pytest.mark.parametrize(
    "given",
    [KEY, f" {KEY}\n", f"{KEY}\r\n", f'"{KEY}"', f"'{KEY}'\n", f"Bearer {KEY}", f"bearer  {KEY}", f"\u201c{KEY}\u201d",
     f"Authorization: Bearer {KEY}", f"\ufeff{KEY}\u200b"],
)  # fmt: skip
def test_keys_as_they_are_copied(given):
    assert clean_key(given) == KEY


@pytest.mark.parametrize(
    "given, says",
    [
        (" \n", "api_key is blank"),
        ("Bearer ", "api_key is blank"),
        (f"{KEY[:8]}\n{KEY[8:]}", "a line break at character 9 of 25"),
        (f"{KEY[:8]} {KEY[8:]}", "a blank at character 9"),
        (f"{KEY[:8]}\u2026{KEY[8:]}", r"U\+2026 at character 9"),
        (f"{KEY}é", r"U\+00E9 at character 25"),
    ],
)
def test_keys_that_no_header_holds_are_refused_unseen(given, says):
    with pytest.raises(InputError, match=says) as e:
        clean_key(given)
    assert "0123456789" not in str(e.value)


def test_no_key_and_a_key_for_a_password():
    assert clean_key(None) is None and clean_key("") is None
    assert clean_key("Basic bWU6c2VzYW1l") == "Basic bWU6c2VzYW1l"


def test_keys_from_the_environment(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert key_from("NO_SUCH_KEY") is None
    monkeypatch.setenv("SOME_KEY", f"{KEY}\n")
    assert key_from("SOME_KEY") == KEY
    for value, says in (("", "SOME_KEY is blank"), (" \n", "SOME_KEY is blank"), ("a\tb", "SOME_KEY holds a blank")):
        monkeypatch.setenv("SOME_KEY", value)
        with pytest.raises(InputError, match=says):
            key_from("SOME_KEY")
    with pytest.raises(InputError, match="is it the key itself") as e:
        key_from(KEY)
    assert KEY not in str(e.value)


def test_a_key_is_masked_whole_and_in_part():
    assert mask(f"bad key {KEY}!", KEY) == "bad key ***!"
    assert mask(f"bad key {KEY[:18]}...", KEY) == "bad key ***"
    assert mask("nothing", None) == "nothing"
