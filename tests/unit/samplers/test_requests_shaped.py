"""Requests are shaped: fields renamed, left out or bent with a warning; addresses tried; redirects and keys safe."""

import threading
import time

import pytest

from trimtab.errors import EngineError, InputError
from trimtab.samplers import OpenAI
from trimtab.testing import prompt, scripted_server
from trimtab.types import SamplingParams

PARAMS = SamplingParams(max_tokens=9, temperature=0.7, seed=3)
PROMPTS = [prompt(f"q{i}") for i in range(5)]


def choices(asked):
    n = asked.body.get("n", 1)
    return {
        "choices": [
            {"message": {"content": f"{asked.body.get('seed')} {i}"}, "finish_reason": "stop"} for i in range(n)
        ]
    }


def refusing(*names, words="Unsupported parameter: '{}' is not supported with this model.", status=400):
    """A server that refuses requests with one of these fields."""

    def answer(number, asked):
        for name in names:
            if name in asked.body:
                return status, {}, {"error": {"message": words.format(name), "type": "invalid_request_error"}}
        return 200, {}, choices(asked)

    return scripted_server(answer)


@pytest.mark.parametrize(
    "name, words",
    [
        ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        ("seed", "Unrecognized request argument supplied: seed"),
        ("logprobs", "property 'logprobs' is unsupported"),
        ("top_k", 'Invalid JSON payload received. Unknown name "top_k": Cannot find field.'),
    ],
)
def test_what_changes_no_meaning_is_bent_once_with_a_warning(name, words):
    with refusing(name, words=words) as (url, seen):
        with pytest.warns(UserWarning, match=f"write fields = {{{name} = "):
            groups = OpenAI(url, "m", retries=0, concurrency=2)(PROMPTS, 1, PARAMS)
        assert all(not c.failed for g in groups for c in g.completions)
        assert sum(name in s.body for s in seen) <= 2 and name not in seen[-1].body
        assert (seen[-1].body.get("max_completion_tokens") == 9) == (name == "max_tokens")


def test_several_refusals_one_after_another():
    with refusing("top_k", "seed", "logprobs") as (url, seen), pytest.warns(UserWarning):
        OpenAI(url, "m", retries=0, concurrency=1)(PROMPTS, 1, PARAMS)
    assert len(seen) == 3 + len(PROMPTS)


@pytest.mark.parametrize(
    "name, params, words",
    [
        (
            "temperature",
            PARAMS,
            "'temperature' does not support 0.7 with this model. Only the default (1) is supported.",
        ),
        ("top_p", SamplingParams(top_p=0.9), "top_p is not supported"),
        ("top_k", SamplingParams(top_k=20), "top_k is not supported"),
        ("stop", SamplingParams(stop=("END",)), "Unsupported parameter: 'stop'"),
    ],
)
def test_what_would_change_the_sampling_is_refused_with_the_line_to_write(name, params, words):
    with refusing(name, words=words) as (url, seen):
        with pytest.raises(EngineError, match=rf"write fields = {{{name} = false}} beside base_url"):
            OpenAI(url, "m", retries=0)(PROMPTS, 1, params)
        assert len(seen) <= len(PROMPTS)
        groups = OpenAI(url, "m", retries=0, fields={name: False})(PROMPTS, 1, params)
        assert all(c.finish == "stop" for g in groups for c in g.completions)


@pytest.mark.filterwarnings("ignore")
def test_top_p_that_has_no_effect_may_go_and_too_many_tokens_are_said():
    with refusing("top_p") as (url, _):
        OpenAI(url, "m", retries=0)(PROMPTS, 1, SamplingParams(temperature=0))
        OpenAI(url, "m", retries=0)(PROMPTS, 1, SamplingParams(top_p=1.0))
    both = "`temperature` and `top_p` cannot both be specified for this model"
    with refusing("top_p", words=both) as (url, seen):
        OpenAI(url, "m", retries=0, concurrency=1)(PROMPTS, 1, SamplingParams(temperature=0.7, top_p=1.0))
        assert "temperature" in seen[-1].body
    words = "max_tokens is too large: 9. This model supports at most 4 completion tokens"
    with refusing("max_tokens", words=words) as (url, _), pytest.raises(EngineError, match="Lower max_tokens"):
        OpenAI(url, "m", retries=0)(PROMPTS, 1, PARAMS)


@pytest.mark.parametrize(
    "most, words, status",
    [
        (1, "Only one completion choice is allowed", 400),
        (1, "'n' : number must be at most 1", 400),
        (1, "n > 1 is not supported", 422),
        (4, "n_cmpl cannot be greater than the number of slots, please increase -np", 500),
        (5, "Invalid 'n': integer above maximum value. Expected a value <= 5, but got 11 instead.", 400),
        (8, "body.n: Input should be less than or equal to 8", 422),
        (3, "candidateCount must be between 1 and 3", 400),
    ],
)
def test_n_falls_back_to_what_the_server_takes(most, words, status):
    def answer(number, asked):
        if asked.body.get("n", 1) > most:
            return status, {}, {"error": {"message": words}}
        return 200, {}, choices(asked)

    with scripted_server(answer) as (url, seen), pytest.warns(UserWarning, match="completions at a time instead of 11"):
        groups = OpenAI(url, "m", retries=0, concurrency=1)(PROMPTS[:3], 11, PARAMS)
    for g in groups:
        assert [c.index for c in g.completions] == list(range(11)) and len({c.text for c in g.completions}) == 11
    taken = [s.body.get("n", 1) for s in seen if s.body.get("n", 1) <= most]
    assert sum(taken) == 33 and len(seen) - len(taken) <= 2


def test_fields_are_renamed_and_left_out_from_the_start():
    fields = {"max_tokens": "max_completion_tokens", "temperature": False, "top_p": False, "top_k": False, "n": False,
              "seed": "random_seed", "logprobs": False}  # fmt: skip
    with scripted_server(lambda number, asked: (200, {}, choices(asked))) as (url, seen):
        (g,) = OpenAI(url, "m", fields=fields, extra={"min_p": 0.1, "user": None})(PROMPTS[:1], 3, PARAMS)
    assert len(seen) == 3 == len({c.seed for c in g.completions})
    assert seen[0].body.keys() == {"model", "messages", "max_completion_tokens", "random_seed", "min_p"}
    assert OpenAI(url, "m", fields=fields).settings == {"fields": fields} and OpenAI(url, "m").settings == {}


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"fields": {"max_token": "x"}}, "unknown field of a request 'max_token'; did you mean 'max_tokens'"),
        ({"fields": {"seed": 3}}, "seed = 3; write the server's name for it, or false"),
        ({"fields": {"seed": " "}}, "write the server's name"),
        ({"extra": {"stream": True}}, "stream is trimtab's own"),
        ({"extra": {"messages": []}, "api_key": "a b"}, "a blank at character 2"),
        ({"extra": {"when": {1, 2}}}, "cannot be written as JSON"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"base_url": ""}, "base_url is empty"),
        ({"base_url": "smb://h"}, "must begin with http"),
        ({"api_key": "sk-\u2026"}, "U.2026"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_anything_is_sent(settings, says):
    with scripted_server(lambda number, asked: (200, {}, choices(asked))) as (url, seen):
        with pytest.raises(InputError, match=says):
            OpenAI(**{"base_url": url, "model": "m", **settings})(PROMPTS, 1, PARAMS)
        assert not seen


@pytest.mark.parametrize("there", ["/v1", "", "/api/v1"])
@pytest.mark.parametrize("given", ["{}", "{}/", "{}/v1", "{}/v1/chat/completions", " {}/v1/ \n", "host{}"])
@pytest.mark.filterwarnings("ignore")
def test_base_urls_lead_to_the_api_or_say_so(given, there):
    def answer(number, asked):
        if asked.path.split("?")[0] == f"{there}/chat/completions":
            return 200, {}, choices(asked)
        return 404, {}, {"detail": "Not Found"}

    with scripted_server(answer) as (url, seen):
        root = url.removesuffix("/v1")
        base = given.format(root.removeprefix("http://") if given.startswith("host") else root).removeprefix("host")
        sampler = OpenAI(base, "m", retries=0, concurrency=1)
        if there == "/api/v1":
            with pytest.raises(EngineError, match="404: Not Found .check base_url"):
                sampler(PROMPTS, 1, PARAMS)
        else:
            assert all(not g.completions[0].failed for g in sampler(PROMPTS, 1, PARAMS))
            assert len(seen) <= len(PROMPTS) + 1


def test_azure_keeps_its_query_on_the_same_host():
    with scripted_server(lambda number, asked: (200, {}, choices(asked))) as (url, seen):
        OpenAI(f"{url}?api-version=2024-10-21", "m")(PROMPTS[:1], 1, PARAMS)
    assert seen[0].path == "/v1/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_on_the_same_host_are_followed_as_post_with_a_warning(status):
    def answer(number, asked):
        if asked.path == "/v1/chat/completions":
            return status, {"location": "/v1/chat/completions/"}, b""
        return 200, {}, choices(asked)

    with (
        scripted_server(answer) as (url, seen),
        pytest.warns(UserWarning, match="redirects to .*write that as base_url"),
    ):
        OpenAI(url, "m", api_key="sesame", retries=0, concurrency=1)(PROMPTS, 1, PARAMS)
    assert len(seen) == len(PROMPTS) + 1 and all(s.body["messages"] for s in seen)


def test_the_key_goes_to_no_other_host_and_loops_end():
    with (
        scripted_server(lambda number, asked: (200, {}, choices(asked))) as (other, stolen),
        scripted_server(lambda *_: (307, {"location": f"{other}/chat/completions"}, b"")) as (url, _),
    ):
        with pytest.raises(EngineError, match=f"redirects to {other}/chat/completions, another place"):
            OpenAI(url, "m", api_key="sesame", retries=0)(PROMPTS, 1, PARAMS)
        assert not stolen
    with (
        scripted_server(lambda number, asked: (307, {"location": f"/{number}"}, b"")) as (url, _),
        pytest.warns(UserWarning),
        pytest.raises(EngineError, match="more than 3 redirects"),
    ):
        OpenAI(url, "m", retries=0, concurrency=1)(PROMPTS, 1, PARAMS)


KEY = "sk-0123456789abcdefghij"


@pytest.mark.parametrize("status", [401, 400, 500, 200, 307])
def test_no_error_shows_the_key(status):
    reply = {"error": {"message": f"bad key {KEY} in Bearer {KEY[:15]}..."}}
    headers = {"location": f"http://elsewhere/{KEY}"} if status == 307 else {}
    with scripted_server(lambda *_: (status, headers, reply)) as (url, seen):
        sampler = OpenAI(url, "m", api_key=f"'{KEY}'\n", retries=0)
        with pytest.raises(EngineError) as e:
            sampler(PROMPTS, 1, PARAMS)
        assert seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY[:14] not in str(e.value) + repr(sampler)


def test_loopback_is_never_asked_through_a_proxy_and_a_broken_proxy_is_named(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with scripted_server(lambda number, asked: (200, {}, choices(asked))) as (url, _):
        assert not OpenAI(url, "m", retries=0)(PROMPTS, 1, PARAMS)[0].completions[0].failed
    monkeypatch.setenv("ALL_PROXY", "gopher://me:sesame@proxy")
    monkeypatch.setenv("all_proxy", "gopher://me:sesame@proxy")
    with pytest.raises(InputError, match="proxy variables") as e:
        OpenAI("http://api.example.com/v1", "m", retries=0)(PROMPTS, 1, PARAMS)
    assert "sesame" not in str(e.value)


def test_a_wait_ends_when_the_call_is_given_up():
    def answer(number, asked):
        if "q0" in str(asked.body):
            return 200, {}, choices(asked)
        return 429, {"retry-after": "60"}, {"error": "slow down"}

    with scripted_server(answer) as (url, _):
        others = set(threading.enumerate())  # other libraries keep pools of their own
        stream = OpenAI(url, "m").stream(PROMPTS, 1, PARAMS)
        begun = time.monotonic()
        assert next(stream)[0] == 0
        stream.close()
        while any(t.name.startswith("ThreadPoolExecutor") for t in {*threading.enumerate()} - others):
            time.sleep(0.01)
            assert time.monotonic() - begun < 30  # and not the 60 s that the server asks for
