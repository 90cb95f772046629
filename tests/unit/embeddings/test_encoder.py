"""The sentence encoder gives its own vectors for prompt and completion joined, and never cuts silently."""

import numpy as np
import pytest

from trimtab.embeddings import Encoder
from trimtab.embeddings.encoder import head_and_tail
from trimtab.embeddings.text import completion_texts, prompt_text
from trimtab.errors import InputError
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Prompt


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A random two-layer BERT over letters with a window of 32 tokens, in sentence-transformers' layout."""
    st = pytest.importorskip("sentence_transformers")
    import string

    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    letters = list(string.ascii_lowercase + string.digits + ".?+=")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + c for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(vocab))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    config = BertConfig(vocab_size=len(vocab), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=40)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)
    model.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    body = modules.Transformer(str(folder / "bert"), max_seq_length=32)
    st.SentenceTransformer(modules=[body, modules.Pooling(16)], device="cpu").save(str(folder / "st"))
    return Encoder(str(folder / "st"))


GROUPS = [
    Group(prompt("one"), (Completion("a", "m", 0, 0), Completion("bb", "m", 1, 1), Completion("a", "m", 2, 2))),
    Group(Prompt("r", ({"role": "text", "content": "two "},)), (Completion("c", "m", 0, 0),)),
]


def test_texts():
    assert completion_texts(GROUPS) == ["one\n\na", "one\n\nbb", "one\n\na", "two c"]
    turns = Prompt("p", ({"role": "system", "content": "s"}, {"role": "user", "content": "u"}))
    assert prompt_text(turns) == "s\n\nu"


def test_same_as_the_library(encoder):
    from sentence_transformers import SentenceTransformer

    want = SentenceTransformer(encoder.model, device="cpu").encode(completion_texts(GROUPS))
    got = encoder(GROUPS)
    assert [g.shape for g in got] == [(3, 16), (1, 16)] and got[0].dtype == np.float32
    np.testing.assert_allclose(np.concatenate(got), want, rtol=1e-4, atol=1e-5)
    alone = encoder.embed_prompts([g.prompt for g in GROUPS])
    np.testing.assert_allclose(
        alone, SentenceTransformer(encoder.model, device="cpu").encode(["one", "two "]), atol=1e-5
    )
    assert encoder([]) == [] and encoder.embed_prompts([]).shape == (0, 16)


def test_overflow_is_refused_and_counted_or_keeps_head_and_tail(encoder):
    long = [*GROUPS, Group(prompt("q"), (Completion("x" * 40, "m", 0, 0),))]
    with pytest.raises(InputError, match=r"1 of 5 texts exceed .*32 tokens: prompt 'q' completion 0 \(43 tokens\)"):
        encoder(long)
    cutting = Encoder(encoder.model, overflow="head+tail")
    np.testing.assert_allclose(cutting(long)[0], encoder(GROUPS)[0], rtol=1e-4, atol=1e-5)
    assert cutting.card["overflow"] == "head+tail" and encoder.card["overflow"] == "refuse"
    with pytest.raises(InputError, match="unknown overflow policy"):
        Encoder(encoder.model, overflow="cut")


def test_head_and_tail_fit_the_window(encoder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder.model)
    words = " ".join(f"w{i}" for i in range(50))
    cut = head_and_tail(tokenizer, words, 32)
    head, tail = cut.split("\n...\n")
    assert words.startswith(head) and words.endswith(tail) and len(head) > 8 and len(tail) > 8
    assert 26 <= len(tokenizer(cut)["input_ids"]) <= 32


@pytest.mark.model
def test_minilm_knows_what_is_alike():
    """The embedded encoder: 384 unit vectors, and a paraphrase nearer than another subject."""
    a, b, c = Encoder().embed_prompts(
        [prompt("How do I cook rice?"), prompt("What is the way to boil rice?"), prompt("The capital of France")]
    )
    np.testing.assert_allclose([np.linalg.norm(v) for v in (a, b, c)], 1.0, rtol=1e-5)
    assert len(a) == 384 and a @ b > 0.7 > 0.3 > a @ c
