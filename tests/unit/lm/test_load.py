"""A folder becomes an LM whose id follows its contents; what cannot be loaded says what to do."""

import pytest
import torch

from trimtab.errors import InputError, ModelError
from trimtab.lm.load import LM, default_dtype, load_lm, load_tokenizer
from trimtab.testing import tiny_lm


def test_folder(tmp_path):
    folder = tiny_lm(tmp_path / "lm", context=384)
    lm = load_lm(str(folder))
    assert isinstance(lm, LM) and lm.id == f"{folder}@{lm.revision}" and lm.context == 384
    assert lm.model.dtype == default_dtype() and not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert load_lm(str(folder), "bfloat16").model.dtype == torch.bfloat16
    assert load_tokenizer(str(folder)).eos_token == "<|end|>"


def test_revision_follows_the_weights(tmp_path):
    a, b, c = (load_lm(str(tiny_lm(tmp_path / n, seed=s))).revision for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert a == b != c


def test_errors(tmp_path):
    folder = tiny_lm(tmp_path / "lm")
    with pytest.raises(InputError, match="bfloat17.*bfloat16"):
        load_lm(str(folder), "bfloat17")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="model.safetensors: is no whole safetensors file"):
        load_lm(str(folder))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"cannot read a tokenizer.*tokenizer\.json"):
        load_tokenizer(str(folder))
