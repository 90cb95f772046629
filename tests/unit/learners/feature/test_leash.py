import json
import math
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.learners.token.conftest import grouped, make_groups, make_pairs, tensors
from trimtab.errors import InputError, ModelError
from trimtab.learners.feature.leash import FeatureLeash, Sparse, completion_features, top_mask
from trimtab.learners.feature.sae import SAE, identity_sae
from trimtab.learners.run import Lora
from trimtab.learners.token.examples import Example, encode_pairs
from trimtab.learners.token.losses import dpo, fpo, simpo
from trimtab.learners.token.plan import plan_memory
from trimtab.learners.token.step import PolicyStep, loss_needs
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.forward import FINAL_NORM, hidden_at, watched
from trimtab.lm.tree import branch_rows, lay_out
from trimtab.store import Store

from .conftest import make_sae

PAIRS = make_pairs(6)
TWO = branch_rows([[1]], [[[5, 6], [7, 8]]], 0)
"""One prompt token; chosen and rejected of two tokens each: rows of five tokens."""


def sparse(*dense: float) -> Sparse:
    ids = np.flatnonzero(dense).astype(np.int32)
    return Sparse(ids, np.array(dense, dtype=np.float32)[ids])


def plain_sae(layer: int = 1) -> SAE:
    """Three features, which are the positive parts of three numbers."""
    return SAE(torch.eye(3), torch.zeros(3), torch.eye(3), torch.zeros(3), "relu", centered=False, layer=layer)


def drift(leash: FeatureLeash, hidden: list[list[float]], chosen: Sparse, rejected: Sparse, requires_grad=False):
    hidden_BTD = torch.tensor([hidden], requires_grad=requires_grad)
    example = Example((1,), ((5, 6), (7, 8)), features=(chosen, rejected))
    return hidden_BTD, leash.drift({1: hidden_BTD}, TWO, [example])


HIDDEN = [[9.0, 9, 9], [1, 0, 2], [3, -4, 0], [0, 1, 0], [2, 0, 1]]
"""The prompt's state (which must not count), two chosen tokens, two rejected tokens."""


def test_hand_worked_value_on_two_tokens_and_three_features():
    # chosen: mean relu = (2, 0, 1), reference (1, 0, 0); top-1 of the policy {0}, of the reference {0}: D = 1
    # rejected: mean (1, .5, .5), reference (0, 0, 1); top-1 {0} and {2}: D = (1 + .25) / k = 1.25
    leash = FeatureLeash(plain_sae(), k=1, alpha=0.5)
    _, found = drift(leash, HIDDEN, sparse(1, 0, 0), sparse(0, 0, 1))
    assert found.chosen_B.tolist() == [1.0]
    assert found.rejected_B.tolist() == [1.25], "the paper divides by k = 1, not by the two of the union"
    assert found.penalty_B.tolist() == [0.5 * (1.25 - 1.0)]


def test_hand_worked_loss():
    # h_w/|y_w| = (-2 + 4)/2 = 1, h_l/|y_l| = (-6 + 5)/2 = -.5, beta 2: u = 3 - delta, delta = .5*2*(1.25 - 1) = .25
    leash = FeatureLeash(plain_sae(), k=1, alpha=0.5)
    _, found = drift(leash, HIDDEN, sparse(1, 0, 0), sparse(0, 0, 1))
    names = ["chosen_logprob_B", "rejected_logprob_B", "ref_chosen_logprob_B", "ref_rejected_logprob_B"]
    terms = {n: torch.tensor([v]) for n, v in zip(names, (-2.0, -6.0, -4.0, -5.0), strict=True)}
    terms |= {"chosen_length_B": torch.tensor([2]), "rejected_length_B": torch.tensor([2])}
    cases = ((fpo, 3.0, 2.0), (dpo, 2 * (2 + 1), 2.0), (simpo, 2 * (-1 + 3) - 0.5, 2.0))
    for loss, u, beta in cases:
        step = PolicyStep(partial(loss, beta=beta), loss_needs(loss), 0.0, 512, None, True, leash=leash)
        plain = step.loss(**{n: terms[n] for n in step.needs})
        result = step._leashed(plain, dict(terms), found)
        assert result.loss_B.item() == pytest.approx(math.log1p(math.exp(-(u - 0.25))), abs=1e-6)
        assert torch.equal(result.rejected_reward_B, plain.rejected_reward_B)


def test_the_union_holds_what_the_reference_lacks_in_its_own_top_k():
    # the policy's top-1 of the rejected moves to feature 1, where the reference has 0.25 outside its top-1
    leash = FeatureLeash(plain_sae(), k=1)
    hidden = [*HIDDEN[:3], [0, 4, 0], [0, 4, 0]]
    _, found = drift(leash, hidden, sparse(2, 0, 1), sparse(0, 0.25, 1))
    assert found.rejected_B.item() == pytest.approx((4 - 0.25) ** 2 + (0 - 1) ** 2)
    kept_only_top = drift(leash, hidden, sparse(2, 0, 1), sparse(0, 0, 1))[1].rejected_B.item()
    assert kept_only_top != pytest.approx(found.rejected_B.item())


def test_zeros_never_enter_the_top_k():
    assert top_mask(torch.tensor([[0.0, 3, 0], [1, 2, -5]]), 2).tolist() == [[False, True, False], [False, True, True]]


def test_stop_gradient_spares_the_chosen_and_without_it_its_drift_is_rewarded():
    for stop, moves in ((True, False), (False, True)):
        leash = FeatureLeash(plain_sae(), k=1, stop_gradient=stop)
        hidden, found = drift(leash, HIDDEN, sparse(1, 0, 0), sparse(0, 0, 1), requires_grad=True)
        found.penalty_B.sum().backward()
        assert hidden.grad is not None
        assert bool(hidden.grad[0, 1:3].abs().sum() > 0) == moves
        assert hidden.grad[0, 3:].abs().sum() > 0
        assert hidden.grad[0, 0].abs().sum() == 0, "the prompt is not on the leash"
        if moves:  # lowering the penalty moves feature 0 of the chosen further from its reference
            assert hidden.grad[0, 1, 0] < 0


def test_hold_and_free_choose_the_features():
    case = (HIDDEN, sparse(1, 0, 0), sparse(0, 0, 1))
    held = drift(FeatureLeash(plain_sae(), hold=(1,)), *case)[1]
    assert (held.chosen_B.item(), held.rejected_B.item()) == (0.0, 0.25)
    freed = drift(FeatureLeash(plain_sae(), k=3, free=(0,)), *case)[1]
    assert freed.rejected_B.item() == pytest.approx((0.25 + 0.25) / 3)
    assert freed.chosen_B.item() == pytest.approx(1.0 / 3)
    both = drift(FeatureLeash(plain_sae(), hold=(1, 2)), *case)[1]
    assert both.rejected_B.item() == pytest.approx((0.25 + 0.25) / 2), "features held by choice: their mean"
    with pytest.raises(InputError, match="feature 3 does not exist"):
        _ = FeatureLeash(plain_sae(), hold=(3,)).dictionary


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk", "identity"])
def test_gradient_is_that_of_the_plain_formula(lm, kind):
    """Encoding everything with gradient, as one would write it down, gives the same penalty and the same gradient."""
    sae = make_sae(kind=kind) if kind != "identity" else identity_sae(32, 2)
    leash = FeatureLeash(sae, k=5)
    rows = branch_rows([[1, 2], [3]], [[[5, 6, 9], [7]], [[8, 4], [2, 2, 2]]], 0)
    rng = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, rows.ids_BT.shape[1], 32, generator=rng, requires_grad=True)
    reference = torch.randn(4, sae.width, generator=rng).relu() * 0.3
    examples = [
        Example((1,), ((5,), (7,)), features=tuple(sparse(*reference[i : i + 2][j].tolist()) for j in (0, 1)))
        for i in (0, 2)
    ]
    found = leash.drift({2: hidden}, rows, examples)
    (ours,) = torch.autograd.grad(found.penalty_B.sum(), hidden)
    features_XF = sae.encode(hidden.flatten(0, 1)[rows.own_X])
    pooled_CF = torch.stack([features_XF[rows.owner_X == c].mean(0) for c in range(4)])
    on = top_mask(pooled_CF, 5) | top_mask(reference, 5)
    drifts = torch.stack([((pooled_CF[c] - reference[c])[on[c]] ** 2).sum() / 5 for c in range(4)])
    want = 0.5 * (drifts[[1, 3]] - drifts[[0, 2]].detach())
    torch.testing.assert_close(found.penalty_B, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours, torch.autograd.grad(want.sum(), hidden)[0], rtol=1e-4, atol=1e-6)


def train(lm_folder, out, pairs=PAIRS, **settings):
    defaults = {"batch_size": 3, "learning_rate": 1e-3, "every": 1000, "dtype": "float32", "loss": "fpo"}
    return train_policy(pairs, model=lm_folder, out=out, **grouped(**{**defaults, **settings})).path


def losses(out) -> list[float]:
    return [x["loss"] for x in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in x]


def assert_same_run(a, b, atol=1e-5):
    for key, value in tensors(a).items():
        torch.testing.assert_close(value, tensors(b)[key], rtol=0, atol=atol)
    assert losses(a) == pytest.approx(losses(b), abs=1e-5)


def test_alpha_0_is_ln_dpo_exactly(lm_folder, tmp_path):
    leashed = train(lm_folder, tmp_path / "a", leash=FeatureLeash(make_sae(), alpha=0.0), epochs=2)
    plain = train(lm_folder, tmp_path / "b", loss="ln_dpo", epochs=2)
    assert losses(leashed) == losses(plain)
    for key, value in tensors(plain).items():
        assert torch.equal(value, tensors(leashed)[key]), key


def test_the_leash_pulls_and_is_logged(lm_folder, tmp_path):
    strong = FeatureLeash(make_sae(), alpha=50.0)
    out = train(lm_folder, tmp_path / "a", leash=strong, epochs=4)
    loose = train(lm_folder, tmp_path / "b", leash=FeatureLeash(make_sae(), alpha=0.0), epochs=4)
    last = [json.loads((o / "policy.json").read_text())["last"] for o in (out, loose)]
    assert last[0]["feature/drift_rejected"] < 0.8 * last[1]["feature/drift_rejected"]
    assert last[0]["feature/penalty"] == pytest.approx(
        50 * (last[0]["feature/drift_rejected"] - last[0]["feature/drift_chosen"]), rel=1e-3
    )


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_micro_batches_padding_and_layout_change_nothing(lm_folder, tmp_path, kind):
    leash = FeatureLeash(make_sae(kind=kind), alpha=5.0)
    same = {"leash": leash, "learning_rate": 3e-4}  # Adam makes of a rounding error in a tiny gradient a whole step
    whole = train(lm_folder, tmp_path / "a", **same, micro_tokens=10**6)
    assert_same_run(whole, train(lm_folder, tmp_path / "b", **same, micro_rows=1))
    assert_same_run(whole, train(lm_folder, tmp_path / "c", **same, share_prompt=False, micro_tokens=10**6))
    assert_same_run(whole, train(lm_folder, tmp_path / "d", **same, checkpointing=True))


def test_offline_cache_is_the_online_reference(lm, tmp_path):
    sae = make_sae(layer=3)
    examples = encode_pairs(PAIRS, lm.tokenizer, 512)
    store = Store(tmp_path)
    cached = FeatureLeash(sae).with_features(examples, lm, store, budget=90)
    again = FeatureLeash(sae).with_features(examples[::-1], lm, store)[::-1]
    for e, other in zip(cached, again, strict=True):
        rows = lay_out([e.prompt], [e.completions], share_prompt=False)
        with torch.no_grad(), watched(lm.model, [3]) as seen:
            hidden_at(lm.model, rows)
        features_XF = sae.encode(seen[3].flatten(0, 1)[rows.own_X])
        for c, (kept, same) in enumerate(zip(e.features, other.features, strict=True)):
            online_F = features_XF[rows.owner_X == c].mean(0)
            offline_F = np.zeros(sae.width, np.float32)
            offline_F[kept.ids] = kept.values
            np.testing.assert_allclose(offline_F, online_F.numpy(), rtol=1e-6, atol=1e-6)
            assert kept.values.tolist() == same.values.tolist()
            assert len(kept.ids) > 6, "more than one token's k: the whole vector is kept"


def test_layer_3_of_3_is_before_the_final_norm(lm):
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad(), watched(lm.model, [0, 1, 3, FINAL_NORM]) as seen:
        states = lm.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.equal(seen[0], states[0])
    assert torch.equal(seen[1], states[1])
    assert torch.equal(seen[-1], states[3])
    assert not torch.allclose(seen[3], states[3])
    assert torch.equal(lm.model.model.norm(seen[3]), states[3])


def test_adapters_and_other_margins(lm_folder, tmp_path):
    leash = FeatureLeash(make_sae(), alpha=5.0)
    for n, (loss, lora) in enumerate([("simpo", None), ("dpo", Lora(rank=2)), ("ipo", None), ("tdpo2", Lora(rank=2))]):
        out = train(lm_folder, tmp_path / str(n), loss=loss, lora=lora, leash=leash)
        assert json.loads((out / "policy.json").read_text())["settings"]["leash"]["alpha"] == 5.0
        assert all(map(math.isfinite, losses(out)))


def test_what_has_no_margin_is_refused(lm_folder, tmp_path):
    leash = FeatureLeash(make_sae())
    with pytest.raises(InputError, match="pass leash="):
        train(lm_folder, tmp_path / "a")
    with pytest.raises(InputError, match="orpo has no margin"):
        train(lm_folder, tmp_path / "b", loss="orpo", leash=leash)
    with pytest.raises(InputError, match="kto has no margin"):
        train(lm_folder, tmp_path / "c", make_groups(4), loss="kto", leash=leash)
    with pytest.raises(ModelError, match="reads 16 numbers"):
        train(lm_folder, tmp_path / "d", leash=FeatureLeash(make_sae(size=16)))
    with pytest.raises(InputError, match="of layer 2, the leash asks for layer 3"):
        train(lm_folder, tmp_path / "e", leash=FeatureLeash(make_sae(), layer=3))


def test_held_out_pairs_are_leashed_too(lm_folder, tmp_path):
    out = train(lm_folder, tmp_path / "a", leash=FeatureLeash(make_sae()), held_out=make_pairs(3, seed=9), every=1)
    log = [json.loads(x) for x in (out / "log.jsonl").read_text().splitlines()]
    assert any("eval_feature/drift_rejected" in x for x in log)


def test_the_memory_plan_holds_no_reference(lm_folder):
    plan = plan_memory(lm_folder, longest_row=100, sae_width=48)
    assert plan.reference == 0
    assert plan.leash >= 4 * 2 * 32 * 48
    assert plan.total - plan.leash == plan_memory(lm_folder, longest_row=100).total
    assert plan.total < plan_memory(lm_folder, longest_row=100, live_reference=True).total + plan.leash


def test_completions_of_a_group_are_pooled_apart(lm):
    sae = make_sae()
    together = completion_features(lm.model, sae, [[1, 2]], [[[5, 6, 7], [8]]])[0]
    alone = [completion_features(lm.model, sae, [[1, 2]], [[c]])[0][0] for c in ([5, 6, 7], [8])]
    for a, b in zip(together, alone, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        np.testing.assert_allclose(a.values, b.values, atol=1e-5)
