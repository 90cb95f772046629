"""The OpenAI sampler against a local server that misbehaves on purpose."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trimtab.errors import EngineError, InputError
from trimtab.samplers import OpenAI
from trimtab.testing import check_sampler, prompt
from trimtab.types import Prompt, SamplingParams, completion_seed

PARAMS = SamplingParams(max_tokens=12, seed=1, temperature=0.7, stop=("END",))


def choices(body, n=None):
    """What a well-behaved server answers: the seed decides the text."""
    names = [f"s{body['seed']} c{i}" for i in range(n or body.get("n", 1))]
    if "messages" in body:
        block = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]}
        return [{"message": {"content": t}, "finish_reason": "stop", "logprobs": block} for t in names]
    return [{"text": t, "finish_reason": "length", "logprobs": {"token_logprobs": [-0.25]}} for t in names]


@contextmanager
def serving(answer):
    """A server on a free port. `answer(number, path, body)` gives (status, headers, text or JSON)."""
    seen, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                seen.append((self.path, body, self.headers.get("authorization"), time.monotonic()))
                number = len(seen)
            status, headers, reply = answer(number, self.path, body)
            data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
            try:
                self.send_response(status)
                for k, v in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(k, v)
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client had enough

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


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
        path, body, auth, _ = seen[0]
        assert path == "/v1/chat/completions" and auth == "Bearer key" and len(seen) == 1
        seed = completion_seed(1, "hello", 0)
        assert body == {
            "model": "m", "temperature": 0.7, "top_p": 0.95, "max_tokens": 12, "seed": seed, "n": 3, "stop": ["END"],
            "messages": [{"role": "user", "content": "hello"}], "logprobs": True, "min_p": 0.1,
        }  # fmt: skip
        assert "key" not in repr(s)
        c = group.completions[2]
        assert (c.text, c.finish, c.index, c.tokens, c.logprobs) == (f"s{seed} c2", "stop", 2, None, (-0.5, -1.5))


def test_raw_text_goes_to_completions():
    with serving(good) as (url, seen):
        (group,) = sampler(url)([Prompt("p", ({"role": "text", "content": "Once"},))], 1, PARAMS)
        assert seen[0][0] == "/v1/completions" and seen[0][1]["prompt"] == "Once" and "n" not in seen[0][1]
        assert group.completions[0].finish == "length" and group.completions[0].logprobs == (-0.25,)


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
        assert seen[1][3] - seen[0][3] >= 0.4
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
        ((400, {}, {"error": {"message": "context is 512 tokens"}}), "prompt 'a': status 400: context is 512 tokens"),
        ((200, {}, "<html>hello</html>"), "not JSON: '<html>"),
        ((200, {}, {"choices": []}), "prompt 'a' has no choices"),
        ((200, {}, ["text"]), "prompt 'a' has no choices"),
        ((200, {}, {"choices": [{"message": {"content": "x"}, "finish_reason": None}]}), "known finish_reason"),
        ((200, {}, {"choices": ["x"]}), "lacks text"),
    ],
)
def test_trouble_that_stays_is_told_in_plain_words(reply, match):
    with serving(lambda *_: reply) as (url, seen), pytest.raises(EngineError, match=match):
        sampler(url, retries=2)([prompt("a")], 1, PARAMS)
    assert len(seen) == (3 if reply[0] == 500 else 1)


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
