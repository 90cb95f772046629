"""The laws that every pair loss keeps (and that `trimtab.testing` users can expect of their own)."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.learners.token.losses import PAIR_LOSSES
from trimtab.testing import check_loss

B = 5


def inputs(loss, seed: int, at_reference: bool = False) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(B, generator=rng, dtype=torch.float64)

    values = {
        "chosen_length_B": uniform(1, 60).ceil(), "rejected_length_B": uniform(1, 60).ceil(),
        "chosen_kl_B": uniform(0, 2), "rejected_kl_B": uniform(0, 2),
    }  # fmt: skip
    for side in ("chosen", "rejected"):
        values[f"ref_{side}_logprob_B"] = -values[f"{side}_length_B"] * uniform(0.1, 3)
        values[f"{side}_logprob_B"] = values[f"ref_{side}_logprob_B"] * (1.0 if at_reference else 1.1)
        if at_reference:
            values[f"{side}_kl_B"] = torch.zeros(B, dtype=torch.float64)
    return {n: values[n].clone() for n in needs(loss)}


def needs(loss) -> list[str]:
    return [n for n, p in inspect.signature(loss).parameters.items() if p.kind is not p.KEYWORD_ONLY]


@pytest.fixture(params=sorted(PAIR_LOSSES))
def loss(request):
    return PAIR_LOSSES[request.param]


@given(seed=st.integers(0, 2**20))
@settings(max_examples=20, deadline=None)
def test_one_finite_value_a_pair_and_finite_gradients(seed):
    for fn in PAIR_LOSSES.values():
        x = {k: v.requires_grad_() for k, v in inputs(fn, seed).items()}
        out = fn(**x)
        assert all(t.shape == (B,) and t.isfinite().all() for t in out)
        assert not out.chosen_reward_B.requires_grad and not out.rejected_reward_B.requires_grad
        out.loss_B.sum().backward()
        assert all(x[k].grad.isfinite().all() for k in ("chosen_logprob_B", "rejected_logprob_B"))


def test_falls_when_the_chosen_becomes_likelier_and_never_falls_with_the_rejected(loss):
    for seed in range(10):
        x = {k: v.requires_grad_() for k, v in inputs(loss, seed, at_reference=True).items()}
        loss(**x).loss_B.sum().backward()
        assert (x["chosen_logprob_B"].grad < 0).all()
        assert (x["rejected_logprob_B"].grad >= 0).all()


def test_a_batch_is_a_loop_and_a_permutation_permutes(loss):
    x = inputs(loss, 3)
    whole = loss(**x)
    order = torch.tensor([3, 0, 4, 1, 2])
    for a, b in zip(loss(**{k: v[order] for k, v in x.items()}), whole, strict=True):
        torch.testing.assert_close(a, b[order], rtol=0, atol=0)
    for i in range(B):
        for a, b in zip(loss(**{k: v[i : i + 1] for k, v in x.items()}), whole, strict=True):
            torch.testing.assert_close(a[0], b[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust", "ln_dpo", "tdpo1", "tdpo2"])
def test_policy_equal_to_reference_gives_log_2(name):
    fn = PAIR_LOSSES[name]
    torch.testing.assert_close(fn(**inputs(fn, 1, at_reference=True)).loss_B, torch.full((B,), math.log(2)).double())


def test_a_reference_shift_of_both_sides_by_beta_free_constant_changes_nothing():
    """DPO sees only the difference of log-ratios: V*(s0) cancels (papers' eq. 9)."""
    fn = PAIR_LOSSES["dpo"]
    x = inputs(fn, 7)
    shifted = {k: v + (3.0 if k.startswith("ref") else 0.0) for k, v in x.items()}
    torch.testing.assert_close(fn(**x).loss_B, fn(**shifted).loss_B)


def test_settings_are_keywords_with_defaults(loss):
    for p in inspect.signature(loss).parameters.values():
        assert p.kind is not p.KEYWORD_ONLY or isinstance(p.default, (int, float))


def test_the_public_check_passes_ours_and_catches_a_wrong_sign(loss):
    check_loss(loss)

    def backwards(chosen_logprob_B, rejected_logprob_B):
        return PAIR_LOSSES["cpo"](
            rejected_logprob_B, chosen_logprob_B, torch.ones(len(chosen_logprob_B)), nll_weight=0.0
        )

    with pytest.raises(AssertionError, match="must fall when the chosen"):
        check_loss(backwards)
