"""A model's own successes as examples of other prompts."""

import math

import pytest

from trimtab.data.tasks.shots import own_successes, with_shots
from trimtab.errors import InputError
from trimtab.types import Completion, Group, Prompt, Reward


def made(name: str, *rewards: float, role: str = "user", finish: str = "stop") -> Group:
    prompt = Prompt(name, ({"role": role, "content": f"Q {name}\n"},), {"answer": name})
    completions = (Completion(f"A {name} {i}", "m", 0, i, finish, logprobs=(-1.0 + i,)) for i in range(len(rewards)))
    return Group(prompt, tuple(completions), tuple(map(Reward, rewards)))


def test_the_best_and_likeliest_success_of_each_prompt():
    shots = own_successes(
        [made("a", 0, 1, 1), made("b", 0, 0), made("c", math.nan, 0.5), made("d", 1, finish="length")]
    )
    assert [(p.id, c.text) for p, c in shots] == [("a", "A a 2"), ("c", "A c 1")]
    with pytest.raises(InputError, match="not one of 1 prompts"):
        own_successes([made("b", 0)])


def test_chat_prompts_get_earlier_turns_and_never_their_own_answer():
    shots = own_successes([made("a", 1), made("b", 1), made("c", 1)])
    system = {"role": "system", "content": "S"}
    prompt = Prompt("a", (system, {"role": "user", "content": "Q a\n"}), {"answer": "a"})
    (p,) = with_shots([prompt], shots, k=2)
    assert [m["role"] for m in p.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert p.messages[0] == system and p.messages[-1] == prompt.messages[-1]
    assert "A a 0" not in {m["content"] for m in p.messages}
    assert (p.id, p.target) == (prompt.id, prompt.target)
    assert with_shots([prompt], shots, k=2) == [p]
    with pytest.raises(InputError, match="3 shots were asked for, 2"):
        with_shots([prompt], shots, k=3)


def test_raw_text_gets_text_in_front():
    shots = own_successes([made("b", 1, role="text")])
    (p,) = with_shots([made("a", 1, role="text").prompt], shots, k=1)
    assert p.messages == ({"role": "text", "content": "Q b\nA b 0\n\nQ a\n"},)
    with pytest.raises(InputError, match="both raw text"):
        with_shots([made("a", 1).prompt], shots, k=1)
