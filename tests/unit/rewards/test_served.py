import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from trimtab.errors import EngineError
from trimtab.lm.chat import encode_completion, encode_prompt
from trimtab.lm.load import load_tokenizer
from trimtab.rewards.served import ServedReward
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group


class Pooling(BaseHTTPRequestHandler):
    """vLLM's /pooling in shape: the reward is the number of tokens; more than 40 are refused with 400."""

    shape = "good"
    keys: ClassVar[list[str | None]] = []

    def do_POST(self):
        self.keys.append(self.headers.get("Authorization"))
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        rows = asked["input"]
        status, body = 200, {"data": [{"index": i, "data": [float(len(r))]} for i, r in enumerate(rows)][::-1]}
        if any(len(r) > 40 for r in rows):
            status, body = 400, {"error": "too long"}
        if self.shape == "labels":
            body = {"data": [{"index": i, "data": [0.1, 0.9]} for i in range(len(rows))]}
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    http = HTTPServer(("127.0.0.1", 0), Pooling)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(tiny_lm(tmp_path_factory.mktemp("served") / "lm", layers=1))


def groups() -> list[Group]:
    return [Group(prompt("q"), tuple(Completion("x" * n, "m", 0, i) for i, n in enumerate((3, 60, 9))))]


def test_rewards_come_back_in_order_and_the_refused_one_is_nan(server, folder):
    rewards = ServedReward(server, "rm", folder)(groups())[0]
    tokenizer = load_tokenizer(folder)
    g = groups()[0]
    sizes = [len(encode_prompt(tokenizer, g.prompt) + encode_completion(tokenizer, c)) for c in g.completions]
    assert [r.value for r in rewards[::2]] == sizes[::2]
    assert math.isnan(rewards[1].value) and "too long" in rewards[1].note


def test_a_reward_server_gets_its_own_key_or_none(server, folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    monkeypatch.setattr(Pooling, "keys", [])
    ServedReward(server, "rm", folder)(groups())
    assert set(Pooling.keys) == {None}
    ServedReward(server, "rm", folder, api_key="own")(groups())
    assert "Bearer own" in Pooling.keys


def test_a_server_of_another_kind_is_an_error(server, folder, monkeypatch):
    monkeypatch.setattr(Pooling, "shape", "labels")
    with pytest.raises(EngineError, match="2 numbers for one text"):
        ServedReward(server, "rm", folder)([Group(prompt("q"), (Completion("x", "m", 0, 0),))])
    with pytest.raises(EngineError, match="cannot reach the server.*is it running"):
        ServedReward("http://127.0.0.1:9", "rm", folder, retries=0)(groups())
