"""What a server does wrong becomes a bounded retry or an error in words, never a wrong vector."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from trimtab.embeddings import Endpoint, from_card
from trimtab.errors import EngineError, InputError
from trimtab.testing import prompt, scripted_server
from trimtab.types import Completion, Group, Prompt

GROUPS = [
    Group(prompt("one"), (Completion("a", "m", 0, 0), Completion("bb", "m", 1, 1), Completion("a", "m", 2, 2))),
    Group(Prompt("raw", ({"role": "text", "content": "two "},)), (Completion("ccc", "m", 0, 0),)),
]
TEXTS = ["one\n\na", "one\n\nbb", "two ccc"]


def vector(text):
    return [float(len(text)), float(ord(text[-1])), 1.0]


@pytest.fixture
def server():
    """A server that plays `faults` in order (a status, a body, or "hang up"), then answers, its rows in reverse."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.seen.append((self.path, self.headers.get("Authorization"), body))
            always = self.server.always
            fault = always or (self.server.faults.pop(0) if self.server.faults else None)
            if fault == "hang up":
                self.connection.close()
                return
            rows = [{"index": i, "embedding": vector(t)} for i, t in enumerate(body["input"])]
            status, reply = fault if fault else (200, json.dumps({"data": rows[::-1]}))
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.seen, http.faults, http.always = [], [], None
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()


def endpoint(server, **options):
    return Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "enc", backoff_s=0.0, **options)


def test_vectors_in_order_in_batches_each_text_once(server):
    got = endpoint(server, batch=2, api_key="sesame", dimensions=3)(GROUPS)
    want = [[vector(t) for t in (TEXTS[0], TEXTS[1], TEXTS[0])], [vector(TEXTS[2])]]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, np.array(b, dtype=np.float32))
    assert [body["input"] for *_, body in server.seen] == [TEXTS[:2], TEXTS[2:]]
    assert {(path, key) for path, key, _ in server.seen} == {("/v1/embeddings", "Bearer sesame")}
    assert server.seen[0][2]["dimensions"] == 3 and server.seen[0][2]["model"] == "enc"
    prompts = endpoint(server).embed_prompts([g.prompt for g in GROUPS])
    np.testing.assert_array_equal(prompts, np.array([vector("one"), vector("two ")], dtype=np.float32))
    assert endpoint(server)([]) == []


def test_passing_faults_are_retried(server):
    server.faults += [(429, "slow down"), (500, "oops"), "hang up", (503, "")]
    (first, _) = endpoint(server)(GROUPS)
    assert first.shape == (3, 3) and len(server.seen) == 5


def test_retries_are_bounded(server):
    server.faults += [(500, "oops")] * 3
    with pytest.raises(EngineError, match=r"status 500: oops \(tried 3 times\)"):
        endpoint(server, retries=2)(GROUPS)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ((401, "who?"), "status 401: who.*API key"),
        ((404, "no"), "/v1/embeddings: status 404.*check base_url"),
        ((400, "input too long"), "completion 0 of prompt 'one': status 400: input too long"),
        ((200, "<html>"), "not JSON"),
        ((200, '{"object": "list"}'), "no embeddings reply.*KeyError"),
        ((200, '{"data": [{"index": 0, "embedding": [1, 2]}]}'), "1 rows for 3 texts"),
        ((200, '{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}, {}]}'), "index"),
        ((200, json.dumps({"data": [{"index": i, "embedding": [1] * (i + 1)} for i in range(3)]})), "ferent lengths"),
        ((200, json.dumps({"data": [{"embedding": [1.0, None if i else 2.0]} for i in range(3)]})), "NaN.*tion 1"),
        ((200, json.dumps({"data": [{"embedding": [[1.0], [2.0]]} for i in range(3)]})), "does not pool"),
        ((200, json.dumps({"data": [{"embedding": "no base64!"} for i in range(3)]})), "no embeddings reply"),
        ((200, json.dumps({"data": [{"embedding": []} for i in range(3)]})), "empty vectors"),
    ],
)
def test_other_faults_say_what_is_wrong_at_once(server, fault, says):
    server.always = fault
    with pytest.raises(EngineError, match=says):
        endpoint(server)(GROUPS)
    assert len(server.seen) == {404: 2, 400: 2}.get(fault[0], 1)  # without /v1; halves, down to the text


VECTORS = [[1.0, -2.0], [0.25, 0.0], [3.0, 3.5]]


@pytest.mark.parametrize(
    "reply",
    [
        {"data": [{"embedding": v} for v in VECTORS]},
        {"data": [{"embedding": v, "index": None} for v in VECTORS]},
        {"data": [{"embedding": v, "index": str(i)} for i, v in enumerate(VECTORS)][::-1]},
        {"data": [{"embedding": [v], "index": i} for i, v in enumerate(VECTORS)]},
        {"data": [{"embedding": base64.b64encode(np.array(v, "<f4").tobytes()).decode()} for v in VECTORS]},
        {"embeddings": VECTORS},
        {"embeddings": {"float": VECTORS}},
        [{"embedding": v, "index": i} for i, v in enumerate(VECTORS)],
        VECTORS,
    ],
)
def test_vectors_in_every_shape_that_servers_give(server, reply):
    server.always = (200, json.dumps(reply))
    assert endpoint(server).embed_prompts([prompt(t) for t in "abc"]).tolist() == VECTORS


def test_a_refused_batch_is_halved_and_a_field_that_is_unknown_left_out(server):
    def answer(number, asked):
        texts = asked.body["input"]
        if "encoding_format" in asked.body:
            return 400, {}, {"error": {"message": "unknown field encoding_format", "param": "encoding_format"}}
        if len(texts) > 2:
            return (
                422,
                {},
                {"error": f"batch size {len(texts)} > maximum allowed batch size 2", "error_type": "Validation"},
            )
        if "dimensions" in asked.body:
            return 400, {}, {"error": {"message": "This model does not support specifying dimensions."}}
        return 200, {}, {"data": [{"embedding": vector(t)} for t in texts]}

    with scripted_server(answer) as (url, seen):
        got = Endpoint(url, "enc", batch=5).embed_prompts([prompt(t) for t in "abcde"])
        assert got.tolist() == [vector(t) for t in "abcde"] and [len(s.body["input"]) for s in seen[2:]] == [2, 3, 1, 2]
        with pytest.raises(EngineError, match=r"write fields = \{dimensions = false\}"):
            Endpoint(url, "enc", dimensions=8).embed_prompts([prompt("a")])
        Endpoint(url, "enc", fields={"encoding_format": False, "dimensions": "size"}, dimensions=8, extra={"user": "u"},
                 concurrency=3, batch=1).embed_prompts([prompt(t) for t in "xyz"])  # fmt: skip
        assert seen[-1].body.keys() == {"model", "input", "size", "user"}
    with pytest.raises(InputError, match="unknown field.*'dimension'.*did you mean 'dimensions'"):
        Endpoint(url, "enc", fields={"dimension": False})


def test_vectors_that_say_nothing_are_doubted(server):
    prompts = [prompt(t) for t in "abc"]
    for value, says in ((0.0, "3 of 3 vectors are all zeros"), (0.5, "3 different texts have one and the same vector")):
        server.always = (200, json.dumps({"data": [{"embedding": [value] * 4} for _ in prompts]}))
        with pytest.warns(UserWarning, match=says):
            endpoint(server).embed_prompts(prompts)


def test_widths_that_change_between_batches(server):
    server.faults += [(200, '{"data": [{"index": 0, "embedding": [1, 2]}]}')]
    with pytest.raises(EngineError, match=r"different lengths \(\[2, 3\]\)"):
        endpoint(server, batch=1)(GROUPS)


def test_no_server_and_bad_url():
    with pytest.raises(EngineError, match="cannot reach the server.*is it running"):
        Endpoint("http://127.0.0.1:9/v1", "enc", retries=1, backoff_s=0.0)(GROUPS)
    with pytest.raises(InputError, match="must begin with http"):
        Endpoint("ftp://localhost:8080", "enc")


def test_the_key_is_in_neither_repr_nor_card():
    e = Endpoint("http://h/v1", "enc", api_key="sesame")
    assert "sesame" not in repr(e) + str(e.card)


def test_a_cards_address_is_not_sent_the_environments_key(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    card = endpoint(server).card
    from_card(card)(GROUPS)
    from_card(card, api_key="own")(GROUPS)
    assert {key for _, key, _ in server.seen} == {None, "Bearer own"}
