import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trimtab.errors import InputError, ModelError
from trimtab.learners.feature.check import check_sae
from trimtab.learners.feature.sae import SAE, identity_sae, load_sae, random_sae
from trimtab.learners.feature.states import hidden_rows, token_rows
from trimtab.lm.forward import FINAL_NORM, watched

from .conftest import make_sae

TEXTS = ["".join(np.random.default_rng(i).choice(list("abcdefgh "), 40)) for i in range(30)]
HIDDEN = torch.randn(7, 32, generator=torch.Generator().manual_seed(5)) * 3 + 1


def three(kind: str, **more) -> SAE:
    return SAE(torch.eye(3), torch.tensor([0.0, -1.0, 0.5]), 2 * torch.eye(3), torch.ones(3), kind, **more)


def test_encode_and_decode_by_hand():
    hidden = torch.tensor([[3.0, 3.0, 0.0]])  # less b_dec: 2 2 -1, with b_enc: 2 1 -.5
    assert three("relu").encode(hidden).tolist() == [[2, 1, 0]]
    assert three("relu", centered=False).encode(hidden).tolist() == [[3, 2, 0.5]]
    assert three("topk", k=1).encode(hidden).tolist() == [[2, 0, 0]]
    assert three("topk", k=3).encode(hidden).tolist() == [[2, 1, 0]]
    assert three("jumprelu", threshold_F=torch.tensor([2.0, 0.5, 0.0])).encode(hidden).tolist() == [[0, 1, 0]]
    assert three("relu").decode(torch.tensor([[2.0, 1, 0]])).tolist() == [[5, 3, 1]]


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_a_norm_is_undone(norm):
    sae = SAE(torch.cat([torch.eye(3), -torch.eye(3)], 1), torch.zeros(6), torch.cat([torch.eye(3), -torch.eye(3)]),
              torch.zeros(3), norm=norm)  # fmt: skip
    hidden = torch.tensor([[3.0, 10.0, -4.0]])
    torch.testing.assert_close(sae.decode(sae.encode(hidden), hidden), hidden, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="pass the hidden states"):
        sae.decode(sae.encode(hidden))


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk"])
def test_saved_and_loaded_is_the_same(tmp_path, kind):
    sae = make_sae(kind=kind)
    loaded = load_sae(sae.save(tmp_path / kind))
    assert torch.equal(loaded.encode(HIDDEN), sae.encode(HIDDEN))
    assert torch.equal(loaded.decode(sae.encode(HIDDEN)), sae.decode(sae.encode(HIDDEN)))
    assert (loaded.layer, loaded.site, loaded.kind, loaded.fingerprint) == (2, "residual", kind, sae.fingerprint)
    assert loaded.fingerprint != make_sae(kind=kind, seed=1).fingerprint


def test_named_releases_come_through_their_library(monkeypatch):
    class Theirs:
        def from_pretrained(self, release: str, sae_id: str, device: str):
            assert (release, sae_id, device) == ("gpt2-small-res-jb", "blocks.1.hook_resid_post", "cpu")
            return type("Loaded", (), {"save_model": lambda _, folder: make_sae().save(folder)})()

    monkeypatch.setitem(sys.modules, "sae_lens", SimpleNamespace(SAE=Theirs()))
    loaded = load_sae("gpt2-small-res-jb", "blocks.1.hook_resid_post")
    assert loaded.fingerprint == make_sae().fingerprint
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(ModelError, match="pip install sae-lens"):
        load_sae("gpt2-small-res-jb", "blocks.1.hook_resid_post")


def test_random_dictionary_keeps_shape_and_sparsity():
    sae, other = make_sae(), random_sae(make_sae(), seed=3)
    assert other.w_enc_DF.shape == sae.w_enc_DF.shape
    torch.testing.assert_close(other.w_enc_DF.norm(dim=0), sae.w_enc_DF.norm(dim=0))
    assert not torch.allclose(other.w_enc_DF, sae.w_enc_DF)
    assert torch.equal(random_sae(make_sae(), seed=3).w_enc_DF, other.w_enc_DF)
    assert ((other.encode(HIDDEN) > 0).sum(-1) <= 6).all()
    with pytest.raises(InputError, match="TopK"):
        random_sae(make_sae(kind="relu"))


def test_identity_is_the_hidden_state(tmp_path):
    assert torch.equal(identity_sae(32).encode(HIDDEN), HIDDEN)
    with pytest.raises(InputError, match="no files"):
        identity_sae(32).save(tmp_path)


def fitted(lm, place: int) -> SAE:
    """An exact dictionary of one place: the principal directions of its states, both ways round."""
    states = torch.cat([s[place] for s in hidden_rows(lm, token_rows(lm.tokenizer, TEXTS), [place])])
    mean = states.mean(0)
    basis_DR = torch.linalg.svd(states - mean, full_matrices=False).Vh[:12].T  # 12 of 32 directions
    return SAE(
        torch.cat([basis_DR, -basis_DR], 1), torch.zeros(24), torch.cat([basis_DR.T, -basis_DR.T]), mean, "relu",
        layer=2, site="residual",
    )  # fmt: skip


def test_the_right_place_passes(lm):
    found = check_sae(fitted(lm, 2), lm, TEXTS)
    assert not found.problems
    assert found.require() is found
    assert found.fvu < min(found.elsewhere.values())
    assert set(found.elsewhere) == {0, 1, 3, -1}
    states = torch.cat([s[2] for s in hidden_rows(lm, token_rows(lm.tokenizer, TEXTS), [2])]).double()
    sae = fitted(lm, 2)
    rest = states - sae.decode(sae.encode(states.float())).double()
    want = (rest.square().sum() / (states - states.mean(0)).square().sum()).item()
    assert found.fvu == pytest.approx(want, rel=1e-5)
    assert found.tokens == len(states) == sum(len(t) - 1 for t in TEXTS)


@pytest.mark.parametrize(("place", "message"), [(1, "layer 1"), (3, "layer 3"), (-1, "behind the final norm")])
def test_a_layer_off_by_one_and_a_post_norm_site_are_caught(lm, place, message):
    found = check_sae(fitted(lm, place), lm, TEXTS)  # its files say layer 2
    assert any(message in p and "probably trained there" in p for p in found.problems)
    with pytest.raises(ModelError, match="probably trained there"):
        found.require()


def test_what_the_files_say_must_match(lm):
    sae = fitted(lm, 2)
    assert any("say layer 2, not 3" in p for p in check_sae(sae, lm, TEXTS, layer=3).problems)
    assert any("hook_mlp_out" in p for p in check_sae(replace(sae, site="blocks.1.hook_mlp_out"), lm, TEXTS).problems)
    assert any("reads 16 numbers" in p for p in check_sae(make_sae(size=16), lm, TEXTS).problems)
    assert any("unexplained" in p for p in check_sae(make_sae(), lm, TEXTS).problems)
    warned = check_sae(replace(sae, model="some/other-model", card={"l0": 1.0}), lm, TEXTS[:1]).warnings
    assert any("trained on some/other-model" in w for w in warned)
    assert any("its card says 1.0" in w for w in warned)


def test_dead_features_are_counted(lm):
    sae = fitted(lm, 2)
    dead = replace(sae, b_enc_F=torch.where(torch.arange(24) < 6, -1e6, 0.0))
    assert check_sae(dead, lm, TEXTS).dead == 0.25
    assert check_sae(dead, lm, TEXTS).l0 <= 18


def test_hooks_leave_with_the_block(lm):
    def count() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())

    before = count()
    with watched(lm.model, [0, 1, 3, FINAL_NORM]):
        assert count() == before + 4
    with pytest.raises(InputError, match="layer 9 does not exist"), watched(lm.model, [1, 9]):
        pass
    assert count() == before
