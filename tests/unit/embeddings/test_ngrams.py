"""The fast encoder: same text same vector, what counts is counted, long texts are read to the end."""

import numpy as np

from trimtab.embeddings import HiddenStates
from trimtab.embeddings.ngrams import Both, HashedNgrams, OfPrompts, char_hashes, word_hashes
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group


def data(text):
    return np.frombuffer(text.encode(), np.uint8)


def test_words_pairs_and_marks_are_counted():
    hashes = word_hashes(data("  the cat. the cat"))
    assert len(hashes) == 5 + 4 and len(set(hashes.tolist())) == 3 + 3  # the cat . ; the-cat cat-. .-the
    assert set(word_hashes(data("cat")).tolist()) < set(hashes.tolist())
    assert word_hashes(data("ab cd"))[0] != word_hashes(data("ba cd"))[0]
    assert len(word_hashes(data(" \n "))) == 1 and len(word_hashes(data(""))) == 0  # a newline is a mark
    assert len(char_hashes(data("abcd"))) == 2 + 1 and len(char_hashes(data("ab"))) == 0


def test_vectors_do_not_depend_on_the_batch_and_see_the_end():
    embed = HashedNgrams(64)
    long = "word " * 5000
    a = embed.embed_texts([long + "end", long, "", "Ünïcode €"])
    assert a.shape == (4, embed.card["width"]) == (4, sum(embed.blocks))
    assert np.isfinite(a).all() and (a[0] != a[1]).any() and not a[2, :128].any()
    np.testing.assert_array_equal(embed.embed_texts([long])[0], a[1])
    np.testing.assert_allclose(np.linalg.norm(a[0, :64]), 1, rtol=1e-5)


def test_both_puts_two_encoders_side_by_side():
    pair = Both(HashedNgrams(16), HashedNgrams(32))
    assert pair.embed_prompts([prompt("x y")]).shape == (1, sum(pair.blocks)) and pair.card["second"]["dim"] == 32


def test_any_embedder_reads_prompts_with_an_empty_answer(tmp_path):
    states = HiddenStates(str(tiny_lm(tmp_path)), layers=(2,), dtype="float32")
    reader = OfPrompts(states)
    prompts = [prompt("one"), prompt("another prompt")]
    found = reader.embed_prompts(prompts)
    (want,) = states([Group(prompts[1], (Completion("", "m@0", 0, 0),))])
    np.testing.assert_allclose(found[1], want[0], atol=1e-5)
    assert found.shape == (2, 32) and reader.card == {"kind": "of prompts", "embedder": states.card}
    assert reader.embed_prompts([]).shape == (0, 0)
