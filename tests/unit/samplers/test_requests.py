"""Arguments refused by name, prompts that do not fit, and stop strings."""

import math

import pytest

from trimtab.errors import InputError, ModelError
from trimtab.samplers.requests import check, completion, cut_at_stop, encode, fitting
from trimtab.testing import prompt
from trimtab.types import Prompt, SamplingParams


class Letters:
    """One token a character; 0 is the end token."""

    chat_template = None
    name_or_path = "letters"
    bos_token_id = None

    def __call__(self, text, add_special_tokens=False):
        return {"input_ids": [ord(c) for c in text]}

    def decode(self, ids, **_):
        return "".join(chr(i) for i in ids if i)


def raw(text, id=""):
    return Prompt(id or text, ({"role": "text", "content": text},))


@pytest.mark.parametrize(
    "n, params, name",
    [
        (0, SamplingParams(), "n is 0"),
        (1, SamplingParams(max_tokens=0), "max_tokens"),
        (1, SamplingParams(temperature=-0.1), "temperature"),
        (1, SamplingParams(temperature=float("nan")), "temperature"),
        (1, SamplingParams(top_p=0.0), "top_p"),
        (1, SamplingParams(top_p=1.1), "top_p"),
        (1, SamplingParams(top_k=-1), "top_k"),
        (1, SamplingParams(stop="\n"), "stop"),  # a bare string would be taken letter by letter
        (1, SamplingParams(stop=("",)), "stop"),
    ],
)
def test_arguments_are_refused_by_name(n, params, name):
    with pytest.raises(InputError, match=name):
        check(n, params)


def test_long_prompts_are_named_with_their_counts_and_never_cut():
    prompts = [raw("abcd", "fits"), raw("a" * 9, "long one"), raw("b" * 12, "longer")]
    params = SamplingParams(max_tokens=6)
    with pytest.raises(
        InputError, match=r"2 of 3 .*leaves 4; too long: 'long one' \(9 tokens\), 'longer' \(12 tokens\)"
    ):
        encode(Letters(), prompts, params, 10, "m@1")
    assert encode(Letters(), prompts[:1], params, 10, "m@1") == [[97, 98, 99, 100]]


def test_fitting_splits_at_the_very_token():
    class Sized:
        context = 10

        def lengths(self, prompts):
            return [len(p.id) for p in prompts]

    a, b = prompt("aaaa"), prompt("bbbbb")
    assert fitting(Sized(), [b, a], SamplingParams(max_tokens=6)) == ([a], [b])


def test_stop_string_over_several_tokens_is_cut_and_its_tokens_are_kept():
    tokens = [ord(c) for c in "one END two"]
    assert cut_at_stop(tokens, Letters().decode, ("zzz", "END")) == ("one ", 7, True)
    assert cut_at_stop(tokens, Letters().decode, ("zzz",)) == ("one END two", 11, False)
    assert cut_at_stop(tokens, Letters().decode, ("ne", "o")) == ("", 1, True)  # the earliest place wins
    assert cut_at_stop([], Letters().decode, ("x",)) == ("", 0, False)


def test_a_model_whose_weights_are_no_numbers_is_refused():
    with pytest.raises(ModelError, match="m@1 gives log-probs that are NaN"):
        completion(Letters(), frozenset({0}), "m@1", 5, 2, [33] * 3, [math.nan] * 3, ())


def test_finish_is_truthful():
    def finish(text, stop=(), ended=False):
        tokens = [ord(c) for c in text] + [0] * ended
        c = completion(Letters(), frozenset({0}), "m@1", 5, 2, tokens, [-1.0] * len(tokens), stop)
        assert len(c.tokens) == len(c.logprobs) and (c.seed, c.index, c.model) == (5, 2, "m@1")
        return c.text, c.finish, len(c.tokens)

    assert finish("abc") == ("abc", "length", 3)
    assert finish("abc", ended=True) == ("abc", "stop", 4)
    assert finish("abc", stop=("b",)) == ("a", "stop", 2)
    assert finish("abc", stop=("b",), ended=True) == ("a", "stop", 2)
    assert finish("", ended=True) == ("", "stop", 1)
