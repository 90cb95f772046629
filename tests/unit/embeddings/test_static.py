"""Static vectors by hand from the table; blind to order, not to counts; empty text is zero."""

import numpy as np
import pytest

from trimtab.embeddings import StaticVectors
from trimtab.errors import ModelError
from trimtab.lm.load import load_lm
from trimtab.testing import prompt, tiny_lm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_lm(tmp_path_factory.mktemp("lm"))


def test_vectors_by_hand(folder):
    table = load_lm(str(folder), "float32").model.get_input_embeddings().weight.numpy()
    table = table - table.mean(0)
    ids = {c: load_lm(str(folder)).tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "ab"}
    want = np.log(3) * table[ids["a"]] + np.log(2) * table[ids["b"]]
    static = StaticVectors(str(folder))
    found = static.embed_prompts([prompt("aab"), prompt("aba"), prompt("", id="empty")])
    np.testing.assert_allclose(found[0], want / np.linalg.norm(want), atol=1e-5)
    np.testing.assert_array_equal(found[0], found[1])
    assert not found[2].any() and static.card["kind"] == "static" and len(static.card["revision"]) == 12


def test_a_folder_without_a_table_is_said(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="no table of input embeddings"):
        StaticVectors(str(tmp_path)).embed_prompts([prompt("a")])
