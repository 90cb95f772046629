"""Every loss against a value worked by hand: log π of (chosen, rejected) = (−4, −6) over (4, 5) tokens, log π_ref =
(−5, −5.5), forward KL (0.2, 0.6), β = 0.5, so h = (1, −0.5) and u = β·1.5 = 0.75."""

import math

import pytest
import torch

from trimtab.learners.token.losses import PAIR_LOSSES, kto, sft

INPUTS = {
    "chosen_logprob_B": -4.0, "rejected_logprob_B": -6.0, "ref_chosen_logprob_B": -5.0, "ref_rejected_logprob_B": -5.5,
    "chosen_length_B": 4.0, "rejected_length_B": 5.0, "chosen_kl_B": 0.2, "rejected_kl_B": 0.6,
}  # fmt: skip
HAND = {  # settings, loss, chosen reward, rejected reward
    "dpo": ({"beta": 0.5}, 0.3868710061, 0.5, -0.25),  # log(1 + e^-0.75)
    "cdpo": ({"beta": 0.5}, 0.4618710061, 0.5, -0.25),  # 0.3868710 + 0.1 * 0.75
    "robust": ({"beta": 0.5}, 0.2931210061, 0.5, -0.25),  # (0.9 * 0.3868710 - 0.1 * 1.1368710) / 0.8
    "ipo": ({"beta": 0.5}, 0.4225, 0.125, -0.05),  # (1/4 + 0.5/5 - 1)^2
    "ln_dpo": ({"beta": 0.5}, 0.6094704307, 0.125, -0.05),  # log(1 + e^-(0.5 * 0.35))
    "fpo": ({"beta": 0.5}, 0.6094704307, 0.125, -0.05),  # without its leash, ln_dpo
    "hinge": ({"beta": 0.5}, 0.25, 0.5, -0.25),  # 1 - 0.75
    "simpo": ({"beta": 2.0, "gamma": 0.5}, 0.7443966601, -2.0, -2.4),  # log(1 + e^0.1)
    "orpo": ({"beta": 0.1}, 1.0554230683, -0.1, -0.12),  # 1 - 0.1 log σ(0.2 + 0.1003...)
    "cpo": ({"beta": 0.1}, 1.5981388694, -0.4, -0.6),  # log(1 + e^-0.2) + 4/4
    "tdpo1": ({"beta": 0.5}, 0.4554924815, 0.6, 0.05),  # log(1 + e^-(0.5 (1.5 - 0.4)))
    "tdpo2": ({"beta": 0.5, "alpha": 0.5}, 0.4200553357, 0.6, 0.05),  # log(1 + e^-(0.5 (1.5 - 0.5 * 0.4)))
}


def arguments(loss, **changes):
    names = loss.__code__.co_varnames[: loss.__code__.co_argcount]
    return {n: torch.tensor([{**INPUTS, **changes}[n]], dtype=torch.float64) for n in names}


def test_every_loss_has_a_hand_value():
    assert HAND.keys() == PAIR_LOSSES.keys()


@pytest.mark.parametrize("name", HAND)
def test_hand_value(name):
    settings, loss, chosen, rejected = HAND[name]
    got = PAIR_LOSSES[name](**arguments(PAIR_LOSSES[name]), **settings)
    assert got.loss_B.item() == pytest.approx(loss, abs=1e-9)
    assert got.chosen_reward_B.item() == pytest.approx(chosen, abs=1e-12)
    assert got.rejected_reward_B.item() == pytest.approx(rejected, abs=1e-12)


def test_ipo_summed_as_printed():
    ipo = PAIR_LOSSES["ipo"]
    assert ipo(**arguments(ipo), beta=0.5, per_token=False).loss_B.item() == pytest.approx(0.25)  # (1.5 - 1)^2


def test_tdpo2_stops_the_gradient_of_the_chosen_kl_only():
    for name, chosen_gradient in (("tdpo1", True), ("tdpo2", False)):
        inputs = {k: v.requires_grad_() for k, v in arguments(PAIR_LOSSES[name]).items()}
        PAIR_LOSSES[name](**inputs).loss_B.sum().backward()
        grad = inputs["chosen_kl_B"].grad
        assert (grad is not None and grad.item() != 0) is chosen_gradient
        assert inputs["rejected_kl_B"].grad.item() > 0  # a rejected completion's drift is punished


def test_orpo_is_finite_at_certain_and_hopeless_completions():
    orpo = PAIR_LOSSES["orpo"]
    for logprob in (-1e-9, -1e-4, -800.0):
        inputs = {k: v.requires_grad_() for k, v in arguments(orpo, chosen_logprob_B=logprob).items()}
        out = orpo(**inputs)
        out.loss_B.sum().backward()
        assert out.loss_B.isfinite().all() and inputs["chosen_logprob_B"].grad.isfinite().all()


def test_sft_by_hand():
    out = sft(torch.tensor([-4.0, -6.0]), torch.tensor([4, 3]))
    assert out.loss_B.tolist() == [1.0, 2.0] and out.rejected_reward_B.isnan().all()


def test_kto_by_hand():
    """h = (1, −0.5), z0 = mean(0.5, 0.1) = 0.3, β = 0.5: 1 − σ(0.35) and 1 − σ(0.4)."""
    out = kto(
        torch.tensor([-4.0, -6.0]), torch.tensor([-5.0, -5.5]), torch.tensor([True, False]),
        torch.tensor([-2.5, -3.9]), torch.tensor([-3.0, -4.0]), beta=0.5,
    )  # fmt: skip
    assert out.loss_B.tolist() == pytest.approx([0.4133824211, 0.4013123399], abs=1e-6)
    assert out.chosen_reward_B[0].item() == pytest.approx(0.5) and math.isnan(out.chosen_reward_B[1])
    assert out.rejected_reward_B[1].item() == pytest.approx(-0.25) and math.isnan(out.rejected_reward_B[0])


def test_kto_baseline_is_never_negative_and_has_no_gradient():
    mismatched = torch.tensor([-9.0], requires_grad=True)
    logprob = torch.tensor([-5.0], requires_grad=True)
    out = kto(
        logprob, torch.tensor([-5.0]), torch.tensor([True]), mismatched, torch.tensor([-3.0]), undesirable_weight=3
    )
    assert out.loss_B.item() == pytest.approx(0.5)  # z0 = max(0, −6) = 0
    out.loss_B.sum().backward()
    assert mismatched.grad is None and logprob.grad.item() == pytest.approx(-0.1 * 0.25)
