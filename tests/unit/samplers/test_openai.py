"""The OpenAI sampler against a local server that misbehaves on purpose."""

import threading

import pytest

from trimtab.errors import EngineError, InputError
from trimtab.samplers import OpenAI
from trimtab.testing import check_sampler, prompt, scripted_server
from trimtab.types import Prompt, SamplingParams, completion_seed

PARAMS = SamplingParams(max_tokens=12, seed=1, temperature=0.7, stop=("END",))


def choices(body, n=None):
    """What a well-behaved server answers: the seed decides the text."""
    names = [f"s{body['seed']} c{i}" for i in range(n or body.get("n", 1))]
    if "messages" in body:
        block = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]}
        return [{"message": {"content": t}, "finish_reason": "stop", "logprobs": block} for t in names]
    return [{"text": t, "finish_reason": "length", "logprobs": {"token_logprobs": [-0.25]}} for t in names]


def serving(answer):
    """`answer(number, path, body)` gives (status, headers, text or JSON)."""
    return scripted_server(lambda number, asked: answer(number, asked.path, asked.body))


def good(number, path, body):
    return 200, {}, {"choices": choices(body)}


def sampler(url, **kw):
    return OpenAI(url, "m", backoff_s=0.01, **kw)


def test_contract_and_what_is_sent():
    with serving(good) as (url, seen):
        check_sampler(sampler(url))
        seen.clear()
        s = sampler(url + "/", api_key="key", extra={"min_p": 0.1})
        (group,) = s([prompt("hello")], 3, PARAMS)
        (asked,) = seen
        assert asked.path == "/v1/chat/completions" and asked.headers["Authorization"] == "Bearer key"
        seed = completion_seed(1, "hello", 0)
        assert asked.body == {
            "model": "m", "temperature": 0.7, "top_p": 0.95, "top_k": -1, "max_tokens": 12, "seed": seed,
            "n": 3, "stop": ["END"],
            "messages": [{"role": "user", "content": "hello"}], "logprobs": True, "min_p": 0.1,
        }  # fmt: skip
        assert "key" not in repr(s)
        c = group.completions[2]
        assert (c.text, c.finish, c.index, c.tokens, c.logprobs) == (f"s{seed} c2", "stop", 2, None, (-0.5, -1.5))


def test_raw_text_goes_to_completions():
    with serving(good) as (url, seen):
        (group,) = sampler(url)([Prompt("p", ({"role": "text", "content": "Once"},))], 1, PARAMS)
        assert seen[0].path == "/v1/completions" and seen[0].body["prompt"] == "Once" and "n" not in seen[0].body
        assert group.completions[0].finish == "length" and group.completions[0].logprobs == (-0.25,)


def test_tools_go_beside_the_messages():
    tools = [{"type": "function", "function": {"name": "is_prime", "parameters": {"type": "object"}}}]
    with serving(good) as (url, seen):
        sampler(url)([Prompt("p", ({"role": "user", "content": "7?", "tools": tools},))], 1, PARAMS)
        assert seen[0].body["tools"] == tools and seen[0].body["messages"] == [{"role": "user", "content": "7?"}]


def test_n_is_emulated_with_a_seed_each_when_the_server_gives_fewer():
    with serving(lambda k, path, body: (200, {}, {"choices": choices(body, 1)})) as (url, seen):
        groups = sampler(url)([prompt("a"), prompt("b")], 4, PARAMS)
    assert len(seen) == 8
    for g in groups:
        seeds = [completion_seed(1, g.prompt.id, i) for i in range(4)]
        assert [c.seed for c in g.completions] == seeds and [c.index for c in g.completions] == [0, 1, 2, 3]
        assert [c.text for c in g.completions] == [f"s{s} c0" for s in seeds]


def test_more_than_n_is_cut_to_n():
    with serving(lambda k, path, body: (200, {}, {"choices": choices(body, 9)})) as (url, _):
        assert len(sampler(url)([prompt("a")], 4, PARAMS)[0].completions) == 4


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_retried(status):
    def answer(number, path, body):
        return (status, {}, {"error": {"message": "busy"}}) if number <= 2 else good(number, path, body)

    with serving(answer) as (url, seen):
        (group,) = sampler(url)([prompt("a")], 2, PARAMS)
        assert len(group.completions) == 2 and len(seen) == 3


def test_retry_after_is_honoured():
    def answer(number, path, body):
        return (429, {"retry-after": "0.4"}, "slow down") if number == 1 else good(number, path, body)

    with serving(answer) as (url, seen):
        sampler(url)([prompt("a")], 1, PARAMS)
        assert seen[1].at - seen[0].at >= 0.4
    with (
        serving(lambda *_: (429, {"retry-after": "86400"}, "tomorrow")) as (url, seen),
        pytest.raises(EngineError, match="asks to wait 86400 s"),
    ):
        sampler(url)([prompt("a")], 1, PARAMS)


@pytest.mark.parametrize(
    "reply, match",
    [
        ((500, {}, "oh no"), r"prompt 'a': status 500: oh no \(tried 3 times\)"),
        ((401, {}, {"error": {"message": "bad key"}}), "401: bad key .check the API key"),
        ((404, {}, {"error": "no model m"}), "404: no model m .check base_url"),
        ((400, {}, {"error": {"message": "no such thing"}}), "prompt 'a': status 400: no such thing"),
        ((200, {}, "<html>hello</html>"), "not JSON: '<html>"),
        ((200, {}, {"choices": []}), r"prompt 'a': the answer has no choices.*tried 3 times"),
        ((200, {}, ["text"]), r"prompt 'a': the answer has no choices.*tried 3 times"),
        ((200, {}, {"choices": ["x"]}), r"not an object \(tried 3 times"),
        ((200, {}, {"choices": [{"index": 0}]}), r"neither message nor text.*tried 3 times"),
        ((200, {}, ""), r"the answer is empty \(tried 3 times"),
        ((200, {}, '{"choices": [{"mess'), r"breaks off.*tried 3 times"),
    ],
)
def test_trouble_that_stays_is_told_in_plain_words(reply, match):
    with serving(lambda *_: reply) as (url, seen), pytest.raises(EngineError, match=match):
        sampler(url, retries=2)([prompt("a")], 1, PARAMS)
    assert len(seen) == (3 if "tried 3" in match else 1)


def test_slow_and_absent_servers():
    release = threading.Event()
    with serving(lambda *_: (release.wait(10), good(*_))[1]) as (url, _):
        with pytest.raises(EngineError, match=r"no answer within 0\.2 s.*tried 2 times"):
            sampler(url, timeout_s=0.2, retries=1)([prompt("a")], 1, PARAMS)
        release.set()
    with pytest.raises(EngineError, match="cannot reach the server .*is it running"):
        sampler(url, retries=1)([prompt("a")], 1, PARAMS)
    with pytest.raises((InputError, EngineError)):
        sampler("not a url", retries=0)([prompt("a")], 1, PARAMS)


def test_odd_logprobs_are_absent_never_zero():
    def answer(number, path, body):
        block = {"content": [{"logprob": -0.5}, {"token": "b"}]}
        return 200, {}, {"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "logprobs": block}]}

    with serving(answer) as (url, _):
        assert sampler(url)([prompt("a")], 1, PARAMS)[0].completions[0].logprobs is None


def test_many_prompts_run_at_once_and_come_in_order():
    together = threading.Barrier(4, timeout=20)  # breaks unless four requests are in flight at the same time

    def answer(number, path, body):
        together.wait()
        return good(number, path, body)

    prompts = [prompt(str(i)) for i in range(8)]
    with serving(answer) as (url, _):
        groups = sampler(url, concurrency=4)(prompts, 2, PARAMS)
    assert [g.prompt for g in groups] == prompts
    assert groups[5].completions[1].text == f"s{completion_seed(1, '5', 0)} c1"


@pytest.mark.parametrize(("given", "sent"), [(None, "Bearer from-the-shell"), ("own", "Bearer own"), ("", None)])
def test_the_key_is_the_environments_unless_one_is_given(monkeypatch, given, sent):
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-shell")
    with serving(good) as (url, seen):
        sampler(url, api_key=given)([prompt("hello")], 1, PARAMS)
        assert seen[0].headers.get("Authorization") == sent
