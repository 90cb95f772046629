import importlib.util
import itertools
import json

import numpy as np
import pytest
import torch

from trimtab.errors import InputError, ModelError, SettingsChanged
from trimtab.learners.feature.states import hidden_rows, token_rows
from trimtab.learners.feature.train import store_states, stream_states, train_sae
from trimtab.store import Store

TEXTS = ["".join(np.random.default_rng(i).choice(list("abcdefgh "), 50)) for i in range(40)]
LENS = importlib.util.find_spec("sae_lens") is not None


def test_states_are_stored_once_and_streamed_whole(lm, tmp_path):
    rows, store = token_rows(lm.tokenizer, TEXTS), Store(tmp_path)
    table, count = store_states(rows, lm, 2, store)
    assert count == sum(len(t) - 1 for t in TEXTS)
    files = sorted(p.name for p in (tmp_path / table).iterdir())
    assert store_states(rows, lm, 2, store) == (table, count)
    assert sorted(p.name for p in (tmp_path / table).iterdir()) == files
    epoch = torch.cat(list(itertools.islice(stream_states(store, table, 40, seed=0), count // 40)))
    want = torch.cat([s[2] for i in range(0, 40, 32) for s in hidden_rows(lm, rows[i : i + 32], [2])])
    assert epoch.shape == want.shape
    torch.testing.assert_close(epoch.sort(0).values, want.sort(0).values, rtol=0, atol=0)
    assert not torch.equal(epoch, want)
    again = next(stream_states(store, table, 40, seed=0))
    assert torch.equal(again, epoch[:40])
    assert not torch.equal(again, next(stream_states(store, table, 40, seed=1)))


def test_a_killed_pass_goes_on(lm, tmp_path):
    rows = token_rows(lm.tokenizer, TEXTS)
    whole, count = store_states(rows, lm, 2, Store(tmp_path / "a"))
    calls = []

    class Cut(type(lm.model)):
        def forward(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().forward(*args, **kwargs)

    plain = type(lm.model)
    lm.model.__class__ = Cut
    try:
        with pytest.raises(KeyboardInterrupt):
            store_states(rows, lm, 2, Store(tmp_path / "b"))
    finally:
        lm.model.__class__ = plain
    assert store_states(rows, lm, 2, Store(tmp_path / "b")) == (whole, count)
    a, b = (
        {i: row for ids, t in Store(tmp_path / n).tensors(whole) for i, row in zip(ids, t["states"], strict=True)}
        for n in ("a", "b")
    )
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[i], b[i]) for i in a)


def test_too_little_text_is_refused(lm, tmp_path):
    with pytest.raises(InputError, match="9 texts are too few"):
        train_sae(TEXTS[:9], lm, layer=2, out=tmp_path)
    with pytest.raises(InputError, match="too few for 10,000 features"):
        train_sae(TEXTS, lm, layer=2, out=tmp_path, width=10_000)


@pytest.mark.skipif(LENS, reason="sae-lens is installed")
def test_without_the_library_it_says_what_to_install(lm, tmp_path):
    with pytest.raises(ModelError, match="pip install sae-lens"):
        train_sae(TEXTS, lm, layer=2, out=tmp_path, width=64, batch_size=64)


@pytest.mark.skipif(not LENS, reason="sae-lens is not installed")
def test_a_trained_sae_passes_its_own_check(lm, tmp_path):
    settings = {"layer": 2, "out": tmp_path / "sae", "width": 64, "k": 12, "samples": 60_000, "batch_size": 256}
    sae = train_sae(TEXTS, lm, **settings)
    card = json.loads((tmp_path / "sae" / "sae.json").read_text())
    assert card["check"]["problems"] == []
    assert card["check"]["fvu"] < 0.5 < min(card["check"]["elsewhere"].values())
    assert card["check"]["l0"] == pytest.approx(12, abs=1)
    assert (sae.layer, sae.kind, sae.k, sae.card["fvu"]) == (2, "topk", 12, card["check"]["fvu"])
    assert train_sae(TEXTS, lm, **settings).fingerprint == sae.fingerprint
    with pytest.raises(SettingsChanged):
        train_sae(TEXTS, lm, **{**settings, "k": 13})
