"""What real servers answer, and what a completion makes of it: one row a shape."""

import json
import math
import re
import threading

import pytest

from trimtab.errors import EngineError
from trimtab.samplers import OpenAI
from trimtab.testing import prompt, scripted_server
from trimtab.types import Prompt, SamplingParams, Usage

PARAMS = SamplingParams(max_tokens=9, temperature=0.7)


def chat(content="four", finish="stop", **more):
    return {"model": "m", "choices": [{"index": 0, "message": {"content": content}, "finish_reason": finish, **more}]}


def message(finish="stop", **fields):
    return {"choices": [{"message": fields, "finish_reason": finish}]}


def ask(reply, prompts=("What is two and two?",), n=1, params=PARAMS, **settings):
    """The completions of every prompt from a server that always answers `reply`, or what it gives for a request."""
    answer = reply if callable(reply) else lambda number, asked: (200, {}, reply)
    with scripted_server(answer) as (url, _):
        groups = OpenAI(url, "m", backoff_s=0.01, **{"retries": 1, **settings})([prompt(t) for t in prompts], n, params)
    return [list(g.completions) for g in groups]


CALL = [{"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}]
THOUGHT = [{"type": "text", "text": "two and two"}]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "reply, text, finish, note",
    [
        (message("length", reasoning="Let me see"), "", "length", "only reasoning (10 characters)"),
        (message("stop", reasoning_content="It is 4", content=None), "", "stop", "only reasoning (7 characters)"),
        (message("stop", content="4", reasoning="hm"), "4", "stop", ""),
        (message("stop", content=[{"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}]), "four", "stop", ""),
        (message("stop", content=[{"type": "thinking", "thinking": THOUGHT}, {"text": "4"}]), "4", "stop", ""),
        (message("stop", content=["fo", "ur"]), "four", "stop", ""),
        (message("stop", content={"type": "output_text", "text": "4"}), "4", "stop", ""),
        (message("stop", content=[{"type": "text", "text": {"value": "4"}}]), "4", "stop", ""),
        (message("stop", content=[{"type": "image_url"}, {"text": "4"}]), "4", "stop", "no text: image_url"),
        (message("stop", refusal="I can't help."), "I can't help.", "stop", "a refusal"),
        (message("tool_calls", content=None, tool_calls=CALL), "", "stop", "tool_calls: " + json.dumps(CALL)),
        (message("stop", content="half \ud83d"), "half \ufffd", "stop", "half a character"),
        (message("stop", content=""), "", "stop", "an empty answer"),
        (chat(finish=None), "four", "stop", "no finish_reason"),
        (chat(finish=""), "four", "stop", "no finish_reason"),
        ({"choices": [{"message": {"content": "four"}}]}, "four", "stop", "no finish_reason"),
        (chat(finish=None) | {"usage": {"completion_tokens": 9}}, "four", "length", "no finish_reason"),
        (chat(finish="eos"), "four", "stop", "finish_reason 'eos'"),
        (chat(finish="eos_token"), "four", "stop", "finish_reason 'eos_token'"),
        (chat(finish="end_turn"), "four", "stop", "finish_reason 'end_turn'"),
        (chat(finish="STOP"), "four", "stop", "finish_reason 'STOP'"),
        (chat(finish="FinishReason.STOP"), "four", "stop", "finish_reason 'STOP'"),
        (chat(finish={"type": "stop_sequence"}), "four", "stop", "finish_reason 'stop_sequence'"),
        (chat(finish="max_tokens"), "four", "length", "finish_reason 'max_tokens'"),
        (chat(finish="MAX_TOKENS"), "four", "length", "finish_reason 'MAX_TOKENS'"),
        (chat(finish="repetition"), "four", "length", "finish_reason 'repetition'"),
        (chat(finish="model_context_window_exceeded"), "four", "length", "finish_reason 'model_context"),
        (chat(finish="whatever"), "four", "stop", "finish_reason 'whatever'"),
        (chat("I can", "content_filter"), "I can", "error", "filter cut it (finish_reason 'content_filter')"),
        (chat(None, "content_filter"), "", "error", "filter cut it (finish_reason 'content_filter')"),
        (chat("so", "SAFETY"), "so", "error", "filter cut it (finish_reason 'SAFETY')"),
        ({"choices": [{"text": "four", "finish_reason": "length"}]}, "four", "length", ""),
        ({"choices": [{"text": None, "message": {"content": "four"}, "finish_reason": "stop"}]}, "four", "stop", ""),
        (chat(error={"code": 0, "message": "ok"}), "four", "stop", ""),
        (chat("", error={"code": 400, "message": "content_filter"}), "", "error", "status 400: content_filter"),
        ({"choices": [{"finish_reason": "content_filter"}]}, "", "error", "filter cut it"),
    ],
)
def test_every_answer_is_read_for_what_it_is(reply, text, finish, note):
    ((c,),) = ask(reply)
    assert (c.text, c.finish) == (text, finish)
    assert note in c.note and bool(note) == bool(c.note)


@pytest.mark.parametrize(
    "reply, says",
    [
        (chat("", None), "no answer .no finish_reason"),
        (chat("", "whatever"), "no answer .finish_reason 'whatever'"),
        (chat("fo", "abort"), "no answer .finish_reason 'abort'"),
        (chat("fo", "error"), "no answer .finish_reason 'error'"),
        (chat("", "insufficient_system_resource"), "insufficient_system_resource"),
        ({"choices": None}, "the answer has no choices"),
        ({"choices": [None]}, "a choice is 'None'"),
        (chat("fo", None, error={"code": 502, "message": "upstream broke"}), "status 502: upstream broke"),
        ({"error": {"code": 503, "message": "no GPU"}}, "an error in the answer: status 503: no GPU"),
        ({"detail": "internal error"}, "status 500: internal error"),
        ("<html><head><title>502 Bad Gateway</title></head></html>", "<html> page '502 Bad Gateway'"),
        ('data: {"choices": []}\n\n', "is a stream"),
        (b"", "the answer is empty"),
        (b'{"choices": [{"message": {"content": "fo', "breaks off"),
    ],
)
def test_what_is_no_answer_is_an_error_for_one_and_a_failure_among_many(reply, says):
    with pytest.raises(EngineError, match=says):
        ask(reply)

    def mostly(number, asked):
        return 200, {}, reply if "bad" in str(asked.body) else chat()

    if "stream" in says:  # nothing good will come of that server
        return
    with pytest.warns(UserWarning, match="1 completions of 1 prompts failed"):
        (a,), (bad,), (b,) = ask(mostly, ("one", "bad", "two"))
    assert (a.text, b.text) == ("four", "four")
    assert bad.failed and not bad.text and bad.usage is None and re.search(says, bad.note)


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 529])
@pytest.mark.parametrize("hidden", [False, True])
def test_passing_trouble_is_tried_again_wherever_it_is_told(code, hidden):
    error = {"error": {"code": code, "message": "later"}}

    def answer(number, asked):
        return (200, {}, chat()) if number > 2 else (200 if hidden else code, {}, error)

    assert ask(answer, retries=2)[0][0].text == "four"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "status, error",
    [
        (400, {"message": "triggering the content management policy", "code": "content_filter"}),
        (400, {"message": "This model's maximum context length is 512 tokens"}),
        (403, {"message": "flagged by moderation"}),
        (413, {"message": "too big"}),
        (422, {"message": "Unprocessable"}),
        (500, {"message": "it crashes on this one"}),
        (200, {"message": "no", "code": 400}),
    ],
)
def test_one_bad_prompt_loses_only_itself(status, error):
    def answer(number, asked):
        return (status, {}, {"error": error}) if "bad" in str(asked.body) else (200, {}, chat())

    texts = [f"good {i}" for i in range(20)] + ["bad"]
    groups = ask(answer, texts, concurrency=3)
    assert [c.text for (c,) in groups[:-1]] == ["four"] * 20
    assert groups[-1][0].failed and error["message"] in groups[-1][0].note


@pytest.mark.parametrize(
    "status, error, retried",
    [(401, "wrong key", False), (402, "pay", False), (403, "not yours", False), (404, "no model m", False),
     (429, "insufficient_quota", False), (400, "unknown model", False), (400, "API key not valid", False)],
)  # fmt: skip
def test_what_every_prompt_would_meet_stops_at_once(status, error, retried):
    with scripted_server(lambda *_: (status, {}, {"error": {"message": error}})) as (url, seen):
        with pytest.raises(EngineError, match=error):
            OpenAI(url, "m", concurrency=2, backoff_s=0.01)([prompt(str(i)) for i in range(60)], 1, PARAMS)
        assert len(seen) <= 10  # of 60: what was on its way


def test_a_server_that_goes_down_stops_the_call_and_keeps_what_came_before():
    def answer(number, asked):
        return (200, {}, chat()) if number <= 10 else (500, {}, "down")

    with scripted_server(answer) as (url, seen):
        sampler = OpenAI(url, "m", concurrency=1, retries=0)
        came = []
        with pytest.raises(EngineError, match="status 500: down"):
            for place, _ in sampler.stream([prompt(str(i)) for i in range(100)], 1, PARAMS):
                came.append(place)
        assert came[:10] == list(range(10)) and 18 <= len(seen) <= 20  # eight in a row, and what was on its way


@pytest.mark.filterwarnings("ignore")
def test_a_choice_that_failed_is_asked_for_alone():
    def answer(number, asked):
        n = asked.body.get("n", 1)
        rows = [chat(f"{asked.body['seed']} {i}")["choices"][0] | {"index": i} for i in range(n)]
        if n > 1:
            rows[1] |= {"message": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "?"}}
            rows[2] |= {"finish_reason": "content_filter"}
        return 200, {}, {"choices": rows[::-1]}

    with scripted_server(answer) as (url, seen):
        ((group),) = OpenAI(url, "m", retries=0)([prompt("a")], 4, PARAMS)
    assert [s.body.get("n", 1) for s in seen] == [4, 1]
    assert [c.finish for c in group.completions] == ["stop", "stop", "error", "stop"]
    assert [c.text.split()[1] for c in group.completions] == ["0", "0", "2", "3"]
    assert [c.index for c in group.completions] == [0, 1, 2, 3]


LISTED = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25, "top_logprobs": []}]}


@pytest.mark.parametrize(
    "block, want",
    [
        (None, None), ({}, None), ({"content": None}, None), ({"content": []}, None), ([LISTED], None),
        (LISTED, (-0.5, -0.25)),
        ({"content": [{"logprob": -0.5}, {"logprob": None}]}, None),
        ({"content": [{"logprob": "-0.5"}]}, None),
        ({"content": [{"logprob": -9999.0}]}, (-9999.0,)),
        ({"content": [{"logprob": -math.inf}]}, None),
        ({"content": [{"logprob": math.nan}]}, None),
        ({"content": [{"logprob": 1e-7}]}, (0.0,)),
        ({"content": [{"logprob": 0.93}]}, None),  # a probability
        ({"content": ["a", "b"]}, None),
        ({"tokens": ["a", "b"], "token_logprobs": [-0.5, -0.25], "top_logprobs": None}, (-0.5, -0.25)),
        ({"tokens": ["a", "b"], "token_logprobs": [None, -0.25]}, None),
        ({"token_logprobs": "none"}, None),
    ],
)  # fmt: skip
def test_logprobs_are_all_there_or_absent(block, want):
    assert ask(chat(logprobs=block))[0][0].logprobs == want


@pytest.mark.parametrize(
    "usage, prompt_tokens, cached, completion",
    [
        ({"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}, 9, None, 7),
        ({"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}, 9, 4, 7),
        (
            {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 1},
            10,
            4,
            7,
        ),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 8, "completion_tokens": 7}, 9, 8, 7),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None, None, None),
        ({"prompt_tokens": 9, "completion_tokens": None}, 9, None, None),
        ({"prompt_tokens": "9", "completion_tokens": -1}, None, None, None),
        ({"total_tokens": 16}, None, None, None),
        (None, None, None, None),
        ("none", None, None, None),
    ],
)
def test_usage_in_all_shapes(usage, prompt_tokens, cached, completion):
    ((c,),) = ask(chat() | {"usage": usage})
    assert c.usage.seconds > 0
    assert c.usage == Usage(prompt_tokens, cached, completion, 1, c.usage.seconds)
    assert c.paid_tokens == completion


def test_usage_of_timings_and_of_several_completions():
    ((c,),) = ask(chat() | {"timings": {"prompt_n": 3, "cache_n": 8, "predicted_n": 5}})
    assert (c.usage.prompt_tokens, c.usage.cached_tokens, c.paid_tokens) == (11, 8, 5)

    def answer(number, asked):
        rows = [chat(f"t{i}")["choices"][0] for i in range(asked.body["n"])]
        return 200, {}, {"choices": rows, "usage": {"prompt_tokens": 12, "completion_tokens": 30}}

    (group,) = ask(answer, n=4)
    assert sum(c.usage.prompt_tokens for c in group) == 12 and sum(c.usage.completion_tokens for c in group) == 30
    assert sum(c.usage.calls for c in group) == 1 and {c.length for c in group} == {None}


@pytest.mark.parametrize(
    "reply, n, says",
    [
        (chat(""), 1, "2 of 2 answers are empty"),
        (message("length", reasoning="hm"), 1, "2 of 2 answers are only reasoning, without text: raise max_tokens"),
        (chat("", "length"), 1, "2 of 2 answers are empty"),
        (chat("What is two and two? It is four."), 1, "2 of 2 answers repeat the prompt first"),
        (chat() | {"model": "tiny-llama"}, 1, "asked for model 'm-large', 2 of 2 answers are by 'tiny-llama'"),
        ({"choices": chat()["choices"] * 3}, 2, "2 of 2 answers had more choices than asked for"),
        ({"choices": chat()["choices"] * 2}, 2, "all completions of a prompt are the same text, in 2 of 2 prompts"),
        (chat(), 2, "2 of 2 answers had fewer choices than asked for|2 of 4 answers had fewer choices"),
    ],
)
def test_answers_that_look_whole_and_are_worthless_are_told(reply, n, says):
    with scripted_server(lambda *_: (200, {}, reply)) as (url, _), pytest.warns(UserWarning, match=says):
        sampler = OpenAI(url, "m-large", retries=0)
        sampler([prompt("What is two and two?", id=str(i)) for i in range(2)], n, PARAMS)


@pytest.mark.parametrize("name", ["gpt-4o-2024-08-06", "openai/gpt-4o", "models/gpt-4o", "GPT-4o"])
def test_another_name_of_the_same_model_is_no_surprise(name, recwarn):
    with scripted_server(lambda *_: (200, {}, chat() | {"model": name})) as (url, _):
        OpenAI(url, "gpt-4o")([prompt("a")], 1, PARAMS)
    assert not recwarn.list


@pytest.mark.parametrize(
    "headers, data",
    [
        ({"content-type": "text/plain"}, json.dumps(chat("é4")).encode()),
        ({}, b"\xef\xbb\xbf" + json.dumps(chat("é4")).encode()),
        ({"content-type": "application/json; charset=iso-8859-1"}, json.dumps(chat("é4"), ensure_ascii=False).encode()),
        (
            {"content-type": "application/json; charset=latin-1"},
            json.dumps(chat("é4"), ensure_ascii=False).encode("latin-1"),
        ),
    ],
)
def test_json_is_utf8_whatever_the_header_says(headers, data):
    assert ask(lambda *_: (200, headers, data))[0][0].text == "é4"


def test_a_half_character_in_a_prompt_is_sent():
    ((c,),) = ask(chat(), ("ask \ud83d",))
    assert c.text == "four"


def test_raw_text_is_no_chat():
    with scripted_server(lambda *_: (200, {}, {"choices": [{"text": " four", "finish_reason": "stop"}]})) as (
        url,
        seen,
    ):
        (g,) = OpenAI(url, "m")([Prompt("p", ({"role": "text", "content": "2 + 2 ="},))], 1, PARAMS)
    assert g.completions[0].text == " four" and seen[0].body["prompt"] == "2 + 2 ="


@pytest.mark.parametrize("fault", ["breaks off", "hangs", "no body"])
def test_a_connection_that_breaks_is_tried_again(fault):
    release = threading.Event()

    def answer(number, asked):
        if number > 1:
            return 200, {}, chat()
        if fault == "hangs":
            release.wait(5)
        whole = json.dumps(chat())
        size = {"breaks off": str(len(whole)), "no body": "0"}.get(fault, str(len(whole)))
        return 200, {"content-length": size, "connection": "close"}, whole[:20] if fault == "breaks off" else ""

    ((c,),) = ask(answer, timeout_s=0.3)
    release.set()
    assert c.text == "four"


def test_one_prompt_that_never_ends_is_a_failure_and_the_others_go_on():
    release = threading.Event()

    def answer(number, asked):
        if "slow" in str(asked.body):
            release.wait(5)
        return 200, {}, chat()

    with pytest.warns(UserWarning, match="no answer within 0.3 s; raise timeout_s"):
        groups = ask(answer, ("one", "slow", "two"), timeout_s=0.3, retries=0)
    release.set()
    assert [c.finish for (c,) in groups] == ["stop", "error", "stop"]


def test_a_server_that_vanishes_stops_the_call_and_what_came_is_given_out():
    with scripted_server(lambda *_: (200, {"connection": "close"}, chat())) as (url, seen):
        stream = OpenAI(url, "m", concurrency=1, retries=0).stream([prompt(str(i)) for i in range(2000)], 1, PARAMS)
        assert next(stream)[0] == 0
    with pytest.raises(EngineError, match="cannot reach the server.*is it running"):
        for _ in stream:
            pass
    assert 1 <= len(seen) < 2000
