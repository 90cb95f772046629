import math

import pytest
import torch

from trimtab.learners.token.examples import encode_pairs
from trimtab.learners.token.reference import trl_columns, with_reference
from trimtab.lm.load import load_lm
from trimtab.store import Store

from .conftest import make_pairs


def test_the_cache_is_trls_columns(tmp_path, lm_folder):
    """TRL's `ref_chosen_logps`: the sum over the completion's tokens, its end token included, of the plain forward."""
    lm = load_lm(lm_folder, "float32")
    examples = encode_pairs(make_pairs(4), lm.tokenizer, 10**6)
    rows = trl_columns(with_reference(examples, lm, Store(tmp_path)))
    for row in rows:
        for side in ("chosen", "rejected"):
            ids, completion = row["prompt_ids"], row[f"{side}_ids"]
            with torch.no_grad():
                logprobs = lm.model(torch.tensor([ids + completion])).logits[0].log_softmax(-1)
            want = math.fsum(logprobs[len(ids) + t - 1, c].item() for t, c in enumerate(completion))
            assert row[f"ref_{side}_logps"] == pytest.approx(want, abs=1e-4)
            assert completion[-1] == lm.tokenizer.eos_token_id


def test_order_and_company_change_no_entry(tmp_path, lm_folder):
    lm = load_lm(lm_folder, "float32")
    examples = encode_pairs(make_pairs(5), lm.tokenizer, 10**6)
    all_at_once = trl_columns(with_reference(examples, lm, Store(tmp_path / "a")))
    store = Store(tmp_path / "b")
    with_reference(examples[3:], lm, store)  # a subset first
    later = trl_columns(with_reference(examples[::-1], lm, store))[::-1]
    for a, b in zip(all_at_once, later, strict=True):
        assert a["ref_chosen_logps"] == pytest.approx(b["ref_chosen_logps"], abs=1e-4)
        assert a["chosen_ids"] == b["chosen_ids"]
    assert store.read(store.tables("logprobs")[0]).num_rows == 10
