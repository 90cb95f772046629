"""Half a surrogate pair, wherever it comes from, takes no neighbour with it and is said."""

import json

import pytest

from trimtab.errors import InputError
from trimtab.rewards import score
from trimtab.samplers import OpenAI
from trimtab.store import Store
from trimtab.testing import prompt, scripted_server
from trimtab.types import HALF, Completion, Group, Prompt, Reward, SamplingParams, whole_text

PARAMS = SamplingParams(max_tokens=5)


@pytest.mark.parametrize(
    ("text", "whole"),
    [("", ""), ("plain", "plain"), ("カナ😀", "カナ😀"), ("\ud83d", "\ufffd"), ("a\udc00b", "a\ufffdb"),
     ("\ud83d\ude00", "😀"), ("\ude00\ud83d", "\ufffd\ufffd"), ("x\ud800", "x\ufffd"), ("\udcff.txt", "\ufffd.txt")],
)  # fmt: skip
def test_only_halves_are_replaced(text, whole):
    assert whole_text(text) == whole
    assert whole_text(whole) == whole


@pytest.mark.filterwarnings("ignore")
def test_an_answer_with_half_a_character_is_kept_with_its_neighbours(tmp_path):
    def answer(number, asked):
        said = asked.body["messages"][-1]["content"]
        texts = [f"{said} {i}" + ("\ud83d" if said == "b" and i == 1 else "") for i in range(asked.body.get("n", 1))]
        choices = [{"index": i, "message": {"content": t}, "finish_reason": "stop"} for i, t in enumerate(texts)]
        if said == "c":
            choices = [{"index": 0, "message": {"content": None, "refusal": "no \udc00"}, "finish_reason": "stop"}]
        return 200, {}, json.dumps({"model": "m", "choices": choices}).encode()

    store = Store(tmp_path)
    asked = [prompt("a"), prompt("b"), prompt("c")]
    store.add_prompts(asked, "test")
    with scripted_server(answer) as (url, _), store.writer("completions/test", {"model": "m"}) as writer:
        writer.append_groups(OpenAI(url, "m", backoff_s=0.01)(asked, 2, PARAMS))
    texts = [[c.text for c in g.completions] for g in store.groups("test")]
    assert texts == [["a 0", "a 1"], ["b 0", "b 1\ufffd"], ["no \ufffd", "no \ufffd"]]
    assert "half a character" in store.groups("test")[1].completions[1].note


def test_a_sampler_of_ones_own_and_a_note_of_a_reward_are_kept_too(tmp_path):
    store, p = Store(tmp_path), prompt("q")
    store.add_prompts([p], "test")
    texts = ["one", "two \ud800", "three"]
    with store.writer("completions/test", {"model": "m\ud800"}) as writer:
        group = Group(p, tuple(Completion(t, "m\ud800", 0, i, note="n\udfff" * (i == 2)) for i, t in enumerate(texts)))
        writer.append_groups([group])
    (group,) = store.groups("test")
    assert [c.text for c in group.completions] == ["one", "two \ufffd", "three"]
    assert [c.note for c in group.completions] == ["", HALF, f"n\ufffd; {HALF}"]
    assert store.settings("completions/test") == {"model": "m\ud800"}
    (scored,) = score([group], noted, store=store, name="test", reward_name="r", progress=False)
    assert [r.value for r in scored.rewards] == [3, 5, 5]
    assert [r.value for r in store.groups("test")[0].rewards] == [3, 5, 5], "stored under ids that are found again"


def noted(prompt, completion):
    text = completion if isinstance(completion, str) else completion.text
    return Reward(float(len(text)), "why \ud83d")


@pytest.mark.parametrize(
    "bad",
    [Prompt("p\ud800", ({"role": "user", "content": "x"},)), Prompt("p", ({"role": "user", "content": "\udfff"},)),
     Prompt("p", ({"role": "user", "content": "x"},), {"answer": "\ud800"})],
)  # fmt: skip
def test_a_prompt_is_refused_by_name_and_those_before_it_are_stored(tmp_path, bad):
    store = Store(tmp_path)
    with pytest.raises(InputError, match="half a surrogate pair in its (id|messages|target)"):
        store.add_prompts([prompt("good"), bad], "test")
    assert len(store.prompts()) == 1


def test_a_servers_model_name_is_refused_before_anything_is_sent():
    with pytest.raises(InputError, match="half a surrogate"):
        OpenAI("http://127.0.0.1:9/v1", "m\ud800")([prompt("a")], 1, PARAMS)
