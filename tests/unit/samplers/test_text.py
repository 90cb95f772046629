"""A base model is given raw text, by a template for all prompts or one a source."""

import pytest

from trimtab.errors import InputError
from trimtab.samplers import AsText
from trimtab.testing import FakeSampler, check_sampler, prompt
from trimtab.types import Prompt, SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=9)


def test_as_text_gives_raw_text_and_is_a_sampler():
    seen = []

    def answer(p, rng):
        seen.append(p.messages[0])
        return f"word{rng.integers(1e9)} end"

    raw = AsText(FakeSampler(answer, "base@1"), {"": "Q: {prompt}\nA:"}, ("\n\n",))
    check_sampler(raw)
    assert seen[0] == {"role": "text", "content": "Q: Count from one to ten.\nA:"}
    assert raw.model.startswith("base@1+") and raw.model != AsText(raw.sampler, "{prompt}").model
    with pytest.raises(InputError, match="no template for prompts of 'x'"):
        raw([Prompt("i", prompt("q").messages, None, "x")], 1, GREEDY)
    with pytest.raises(InputError, match=r"has no \{prompt\}"):
        AsText(raw.sampler, "Question:")
