"""Whose fault a refusal is, by status and words of real servers; errors inside a success are found."""

import pickle

import pytest

from trimtab.endpoints.faults import Fault, error_in, judged, kind_of, message_of

SENT = {k: k for k in ("temperature", "top_p", "top_k", "max_tokens", "seed", "n", "logprobs", "stop")}
TOO_LONG = "This model's maximum context length is 4096 tokens. However, your messages resulted in 5120 tokens."
FILTERED = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."


@pytest.mark.parametrize(
    "status, said, blame, field",
    [
        (400, TOO_LONG, "prompt", ""),
        (400, "the request exceeds the available context size, try increasing it", "prompt", ""),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", "prompt", ""),
        (400, "'max_tokens' is too large: 500. This model's maximum context length is 512 tokens", "prompt", ""),
        (500, TOO_LONG, "prompt", ""),
        (413, "Payload Too Large", "prompt", ""),
        (429, "Request too large for gpt on tokens per min (TPM): Limit 10000, Requested 30000", "prompt", ""),
        (400, FILTERED, "prompt", ""),
        (403, "Your chosen model requires moderation and your input was flagged for: violence", "prompt", ""),
        (400, "Input data may contain inappropriate content.", "prompt", ""),
        (451, "content policy", "prompt", ""),
        (400, "Unsupported value: 'temperature' does not support 0.7 with this model.", "field", "temperature"),
        (400, "Unrecognized request argument supplied: top_k", "field", "top_k"),
        (422, "body.top_k: Extra inputs are not permitted", "field", "top_k"),
        (400, 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', "field", "seed"),
        (400, "property 'logprobs' is unsupported", "field", "logprobs"),
        (400, "Only one completion choice is allowed", "field", "n"),
        (500, "n_cmpl cannot be greater than the number of slots, please increase -np", "field", "n"),
        (400, "'n' : number must be at most 1", "field", "n"),
        (
            400,
            "max_tokens is too large: 99999. This model supports at most 4096 completion tokens",
            "field",
            "max_tokens",
        ),
        (400, "stop sequences must be at most 4", "field", "stop"),
        (401, "Incorrect API key provided", "all", ""),
        (402, "Payment Required", "all", ""),
        (403, "permission denied", "all", ""),
        (404, "The model `m` does not exist", "all", ""),
        (400, "m is not a valid model ID; model not found", "all", ""),
        (400, "API key not valid. Please pass a valid API key.", "all", ""),
        (429, "You exceeded your current quota: insufficient_quota", "all", ""),
        (501, "Not Implemented", "all", ""),
        (429, "Rate limit reached for requests", "server", ""),
        (429, "You exceeded your current quota, please check your plan and billing details", "server", ""),
        (529, "Overloaded", "server", ""),
        (503, "Loading model", "server", ""),
        (408, "", "server", ""),
        (400, "invalid request", "request", ""),
        (422, "Unprocessable", "request", ""),
    ],
)
def test_blame(status, said, blame, field):
    found = judged(status, said, SENT)
    assert (found.blame, found.field) == (blame, field)
    assert found.passing == (blame == "server")


GOOD = {"choices": [{"message": {"content": "4"}}]}


@pytest.mark.parametrize(
    "payload, status",
    [
        (GOOD, None),
        ({**GOOD, "error": None}, None),
        ({**GOOD, "error": {}}, None),
        ({**GOOD, "error": {"code": 0, "message": ""}}, None),
        ({**GOOD, "base_resp": {"status_code": 0, "status_msg": "success"}}, None),
        ({"choices": []}, None),
        ({"error": {"message": "Rate limit exceeded", "code": 429}}, 429),
        ({**GOOD, "error": {"message": "Provider returned error", "code": 502}}, 502),
        ({"error": {"message": "slow down", "type": "rate_limit_exceeded"}}, 429),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529),
        ({"error": "model is overloaded"}, 529),
        ({"error": "something broke"}, 500),
        ({"code": 429, "msg": "too fast", "choices": None}, 429),
        ({"code": "1302", "message": "rate limit of this account"}, 429),
        ({"code": "500", "message": "?"}, 500),
        ({"detail": "Not Found"}, 404),
        ({"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs", "type": "value_error"}]}, 500),
        ({"object": "error", "message": "invalid api key", "code": 40101}, 401),
        ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 429),
        ([{"error": {"code": 503, "message": "unavailable", "status": "UNAVAILABLE"}}], 503),
        ("text", None),
    ],
)
def test_errors_inside_a_success(payload, status):
    found = error_in(payload, "choices")
    assert found is None if status is None else found is not None and found[0] == status


@pytest.mark.parametrize(
    "kind, blame",
    [("content_filter", "prompt"), ("context_length_exceeded", "prompt"), ("insufficient_quota", "all"),
     ("model_not_found", "all"), ("invalid_request_error", "request")],
)  # fmt: skip
def test_the_code_counts_where_the_message_says_nothing(kind, blame):
    payload = {"error": {"message": "no", "code": kind, "type": "invalid_request_error"}}
    assert judged(400, "no", SENT, kind=kind_of(payload)).blame == blame
    inner = {"error": {"message": "no", "code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}
    assert judged(400, "no", SENT, kind=kind_of(inner)).blame == "prompt"


def test_a_fault_survives_the_way_from_a_worker():
    fault = Fault("no", judged(400, "content_filter", SENT))
    again = pickle.loads(pickle.dumps(fault))
    assert str(again) == "no" and again.trouble == fault.trouble and again.blame == "prompt"


@pytest.mark.parametrize(
    "payload, words",
    [
        ({"error": {"message": "a"}}, "a"),
        ({"error": "b"}, "b"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too large"}]}, "body.n: too large"),
        ([{"error": {"message": "c"}}], "c"),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": "the truth"}}},
            "Provider returned error: the truth",
        ),
        ("d", "d"),
        (None, ""),
    ],
)
def test_words_of_an_error(payload, words):
    assert message_of(payload) == words
