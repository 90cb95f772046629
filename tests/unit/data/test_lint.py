import pytest

from trimtab.data.lint import EXPLANATIONS, FATAL, lint_pairs, without
from trimtab.data.preference import pairs_from_rows
from trimtab.testing import CHAT_TEMPLATE


def rows(*triples):
    return pairs_from_rows([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in triples])


def kinds(pairs, *args, **kwargs):
    return {f.kind: f.indices for f in lint_pairs(pairs, *args, **kwargs)}


def test_what_text_alone_shows():
    pairs = rows(("a", "x", "x"), ("a", "", "y"), ("a", "xy", "x"), ("a", "p", "q"), ("a", "p", "q"), ("a", "q", "p"))
    found = kinds(pairs)
    assert found == {
        "identical": (0,), "empty": (1,), "prefix": (2,), "repeated": (4,), "contradiction": (3, 4, 5),
    }  # fmt: skip
    assert without(pairs, lint_pairs(pairs)) == [pairs[2]]
    assert without(pairs, lint_pairs(pairs), {"repeated"}) == pairs[:4] + pairs[5:]


def test_ties_and_reversed_scores():
    both = {"prompt": "a", "chosen": "x", "rejected": "y"}
    pairs = pairs_from_rows(
        [both | {"margin": 1.0}, both | {"margin": 0.0, "chosen": "z"}, both | {"margin": -1.0, "chosen": "w"}]
    )
    assert kinds(pairs) == {"tie": (1,), "reversed": (2,)}
    assert kinds(rows(("a", "x", "y"))) == {}  # a margin of 0 everywhere only means that it is not known


class Letters:
    """One token a character; BOS is "^"."""

    eos_token_id, bos_token_id, chat_template = 0, ord("^"), CHAT_TEMPLATE
    swallow = ""

    def __call__(self, text, add_special_tokens=False):
        return {"input_ids": [ord(c) for c in ("^" if add_special_tokens else "") + text]}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt=False):
        text = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        if add_generation_prompt:
            return text + "<assistant>" + self.swallow
        return text


def test_length_limit_by_tokens():
    pairs = rows(("1234", "abc", "xyz"), ("1234", "abcdef", "abcdeg"), ("1234", "abcdef", "xbcdeg"))
    # raw prompts are "^1234" here, so 9 tokens leave room for 4
    assert kinds(pairs, Letters(), 9) == {"overlong": (1, 2), "identical_cut": (1,)}
    assert kinds(pairs, Letters(), 12) == {}


def test_template_whose_prompt_is_no_prefix_and_double_bos():
    chat = pairs_from_rows(
        [{"prompt": [{"role": "user", "content": "u"}], "chosen": [{"role": "assistant", "content": "a"}],
          "rejected": [{"role": "assistant", "content": "b"}]}]
    )  # fmt: skip
    assert kinds(chat, Letters()) == {}
    thinking = Letters()
    thinking.swallow = "<think>"  # the generation prompt opens what the finished conversation does not have
    assert kinds(chat, thinking) == {"template": (0,)}
    twice = Letters()
    twice.apply_chat_template = lambda messages, tokenize, add_generation_prompt=False: "^^" + messages[0]["content"]
    assert kinds(chat, twice)["double_bos"] == (0,)


@pytest.mark.parametrize("kind", sorted(FATAL))
def test_every_kind_is_explained(kind):
    assert EXPLANATIONS[kind]
