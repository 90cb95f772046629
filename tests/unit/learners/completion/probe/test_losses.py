import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.learners.completion.probe.losses import LOSS_UNITS, PROBE_LOSSES, bradley_terry, ce, mse, pg, ratio

LN2, LN3 = math.log(2), math.log(3)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(a: torch.Tensor, *b: float) -> None:
    torch.testing.assert_close(a, t(*b), rtol=0, atol=1e-6)


def test_every_loss_says_what_it_is_about():
    assert PROBE_LOSSES.keys() == LOSS_UNITS.keys() == {"mse", "ce", "pg", "bt", "ratio"}


def test_mse_by_hand():
    close(mse(t(0.5, -1.0), t(1.0, 0.0)).loss_B, 0.25, 1.0)


def test_ce_by_hand_and_its_minus_sign():
    # sigmoid(ln 3) = 3/4: -ln(3/4) = 0.287682 for success, -ln(1/4) = 1.386294 for failure, their mean for r = 1/2
    out = ce(t(0.0, LN3, LN3, LN3), t(1.0, 1.0, 0.0, 0.5))
    close(out.loss_B, 0.693147, 0.287682, 1.386294, 0.836988)
    close(out.predicted, 0.5, 0.75, 0.75, 0.75)
    assert (out.loss_B > 0).all()  # the paper's Eq. 3 as printed, without the minus, would be negative everywhere


def test_ce_does_not_overflow():
    close(ce(t(1000.0, 1000.0, -1000.0), t(1.0, 0.0, 1.0)).loss_B, 0.0, 1000.0, 1000.0)


def test_pg_by_hand():
    # rho = (1/4, 3/4); at beta = 1/2 the weights are (1, 9): rho = (0.1, 0.9)
    value, reward = t(0.0, LN3)[None], t(1.0, 0.0)[None]
    close(pg(value, reward).loss_B, -0.25)
    close(pg(value, 1 - reward).loss_B, -0.75)
    close(pg(value, reward, beta=0.5).loss_B, -0.1)
    # three completions with weights (1, 1, 2): rho = (1/4, 1/4, 1/2), rewards (1, 0, 1)
    close(pg(t(0.0, 0.0, LN2)[None], t(1.0, 0.0, 1.0)[None]).loss_B, -0.75)


def test_pg_mask_takes_a_completion_out():
    value, reward = t(0.0, LN3, 7.0)[None], t(1.0, 0.0, math.nan)[None]
    out = pg(value, reward, torch.tensor([[1, 1, 0]]))
    close(out.loss_B, -0.25)
    close(out.predicted[0], 0.25, 0.75, 0.0)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1)), min_size=2, max_size=8), st.floats(-3, 3))
def test_pg_baseline_is_a_no_op(rows, baseline):
    value = torch.tensor([[v for v, _ in rows]], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([[r for _, r in rows]], dtype=torch.float64)
    plain, shifted = pg(value, reward).loss_B, pg(value, reward, baseline=baseline).loss_B
    torch.testing.assert_close(shifted, plain + baseline)  # only the printed loss moves
    (a,), (b,) = torch.autograd.grad(plain.sum(), value), torch.autograd.grad(shifted.sum(), value)
    assert (a - b).abs().max() < 1e-14


def test_pg_chunk_of_equal_rewards_has_no_gradient():
    value = t(0.3, -2.0, 1.1)[None].requires_grad_()
    pg(value, torch.full((1, 3), 0.7, dtype=torch.float64)).loss_B.sum().backward()
    assert value.grad is not None and value.grad.abs().max() < 1e-16


def test_pg_at_the_ends_of_beta():
    value, reward = t(0.1, 0.9, 0.5)[None], t(0.2, 0.3, 1.0)[None]
    close(pg(value, reward, beta=1e-4).loss_B, -0.3)  # the argmax's reward
    close(pg(value, reward, beta=1e8).loss_B, -0.5)  # the mean reward: plain sampling


def test_pg_beta_only_rescales_the_values():
    value, reward = t(0.1, 0.9, 0.5)[None], t(0.2, 0.3, 1.0)[None]
    torch.testing.assert_close(pg(value, reward, beta=0.1).loss_B, pg(value * 10, reward).loss_B)


def test_bradley_terry_by_hand():
    out = bradley_terry(t(LN3, 2.0), t(0.0, 2.0))
    close(out.loss_B, 0.287682, LN2)  # sigmoid(ln 3) = 3/4; equal values give log 2
    close(bradley_terry(t(LN3), t(0.0), beta=0.5).loss_B, 0.105361)  # sigmoid(2 ln 3) = 9/10


def test_ratio_by_hand():
    # weights 3 and 1: rho difference 1/2, -ln sigmoid(1/2) = 0.474077; with an other of weight 4: (3 - 1) / 8 = 1/4
    close(ratio(t(LN3), t(0.0)).loss_B, 0.474077)
    close(ratio(t(LN3), t(0.0), t(2 * LN2)[None]).loss_B, 0.575939)
    close(ratio(t(LN3), t(0.0), t(2 * LN2, math.nan)[None]).loss_B, 0.575939)  # a NaN other is absent
    close(ratio(t(LN3), t(0.0), alpha=2.0).loss_B, 0.313262)  # -ln sigmoid(1)


def test_ratio_is_bounded_by_alpha_and_its_gradient_vanishes():
    chosen = t(60.0).requires_grad_()
    out = ratio(chosen, t(0.0), alpha=1.0)
    close(out.predicted, 0.731059)  # sigmoid(1) caps the preference probability
    out.loss_B.sum().backward()
    assert chosen.grad is not None and chosen.grad.abs().max() < 1e-20


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6), st.floats(0.1, 5), st.floats(0.1, 5))
def test_with_log_ratios_appendix_b_is_bradley_terry(values, alpha, beta):
    value = torch.tensor(values, dtype=torch.float64)
    log_rho = torch.log_softmax(value / beta, 0)  # over chosen, rejected and any others: the denominators cancel
    loss = -torch.nn.functional.logsigmoid(alpha * log_rho[0] - alpha * log_rho[1])
    expected = bradley_terry(value[:1], value[1:2], beta=beta / alpha).loss_B[0]
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(PROBE_LOSSES))
def test_a_better_value_for_the_better_completion_lowers_every_loss(name):
    fn, low, high = PROBE_LOSSES[name], t(0.2), t(0.6)
    if LOSS_UNITS[name] == "row":
        assert fn(high, t(1.0)).loss_B < fn(low, t(1.0)).loss_B
    elif LOSS_UNITS[name] == "chunk":
        reward = t(1.0, 0.0)[None]
        assert fn(torch.stack([high, low], 1), reward).loss_B < fn(torch.stack([low, high], 1), reward).loss_B
    else:
        assert fn(high, low).loss_B < fn(low, high).loss_B
