import pytest

from trimtab.errors import InputError
from trimtab.jobs.inputs import Source, examples, pairs, texts
from trimtab.testing import prompt, write_jsonl
from trimtab.types import Completion, Pair


def test_texts_of_every_shape(tmp_path):
    (tmp_path / "a.txt").write_text("one line\n\nanother\n")
    assert texts(tmp_path / "a.txt") == ["one line", "another"]
    assert texts(write_jsonl(tmp_path / "a.jsonl", [{"text": "some"}, {"text": "words"}])) == ["some", "words"]
    (pair,) = texts(write_jsonl(tmp_path / "p.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}]))
    assert (pair.chosen.text, pair.rejected.text) == ("a", "b")
    with pytest.raises(InputError, match="or `text`"):
        texts(write_jsonl(tmp_path / "b.jsonl", [{"prompt": "x"}]))


def test_pairs_in_memory_are_taken_as_they_are(tmp_path):
    pair = Pair(prompt("q"), Completion("a", "", 0, 0), Completion("b", "", 0, 1))
    assert pairs([pair]) == examples([pair], "kto") == texts([pair]) == [pair]
    file = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    roles = {chat: pairs(Source(str(file), chat=chat))[0].prompt.messages[0]["role"] for chat in (False, True)}
    assert roles == {False: "text", True: "user"}
