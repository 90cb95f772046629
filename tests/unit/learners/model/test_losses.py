"""Router losses by hand."""

import math

import pytest
import torch

from trimtab.learners.model.losses import ROUTER_LOSSES, binary, contrast, hard_label, kl_forward, kl_reverse, silver

LOG3 = math.log(3)
KNOWN = torch.ones(1, 2, dtype=torch.bool)


def test_silver_labels_by_hand():
    assert silver(torch.tensor([[LOG3, 0.0]]))[0].tolist() == pytest.approx([0.75, 0.25])
    assert silver(torch.tensor([[LOG3, 0.0]]), 0.5)[0].tolist() == pytest.approx([0.9, 0.1])
    assert silver(torch.tensor([[LOG3, float("nan"), 0.0]]))[0].tolist() == pytest.approx([0.75, 0, 0.25])


def test_both_directions_by_hand():
    s, logits = torch.tensor([[0.75, 0.25]]), torch.zeros(1, 2)
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    reverse = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(kl_forward(logits, s, KNOWN)) == pytest.approx(forward)
    assert float(kl_reverse(logits, s, KNOWN)) == pytest.approx(reverse)
    assert forward != pytest.approx(reverse)
    right = torch.tensor([[LOG3, 0.0]])
    assert float(kl_forward(right, s, KNOWN)) == pytest.approx(0, abs=1e-6)
    assert float(kl_reverse(right, s, KNOWN)) == pytest.approx(0, abs=1e-6)


def test_reverse_is_finite_where_the_target_is_one_hot():
    assert torch.isfinite(kl_reverse(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), KNOWN)).all()


def test_hard_label_shares_ties():
    logits = torch.tensor([[LOG3, 0.0]])
    assert float(hard_label(logits, torch.tensor([[1.0, 0.0]]), KNOWN)) == pytest.approx(-math.log(0.75))
    tied = -(math.log(0.75) + math.log(0.25)) / 2
    assert float(hard_label(logits, torch.tensor([[1.0, 1.0]]), KNOWN)) == pytest.approx(tied)


def test_binary_by_hand():
    loss = binary(torch.tensor([[0.0, LOG3]]), torch.tensor([[1.0, 0.5]]), KNOWN)
    assert float(loss) == pytest.approx((math.log(2) - 0.5 * math.log(0.75) - 0.5 * math.log(0.25)) / 2)


def test_contrast_by_hand():
    logits, known = torch.tensor([[0.0, LOG3, 1.0]]), torch.ones(1, 3, dtype=torch.bool)
    loss = contrast(logits, torch.tensor([[1.0, 0.0, 0.4]]), known, top=1)  # best m0 against worst m1
    assert float(loss) == pytest.approx(math.log(1 + 3))
    assert float(contrast(logits, torch.tensor([[1.0, 0.9, 0.8]]), known, top=1)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ROUTER_LOSSES)
def test_laws(name):
    torch.manual_seed(0)
    loss = ROUTER_LOSSES[name]
    logits, target = torch.randn(5, 4), torch.rand(5, 4)
    target = target / target.sum(-1, keepdim=True)
    known = torch.ones(5, 4, dtype=torch.bool)
    both = loss(logits, target, known)
    assert torch.isfinite(both).all() and (both >= -1e-6).all()
    torch.testing.assert_close(
        torch.cat([loss(logits[i : i + 1], target[i : i + 1], known[:1]) for i in range(5)]), both
    )
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(loss(logits[:, order], target[:, order], known), both)
    # a missing model takes no part: its target may be anything, its logit too
    known[:, 1] = False
    odd_target, odd_logits = target.clone(), logits.clone()
    odd_target[:, 1], odd_logits[:, 1] = float("nan"), 7.0
    if name != "kl_reverse":  # which needs a renormalised target
        less = [0, 2, 3]
        torch.testing.assert_close(
            loss(odd_logits, odd_target, known), loss(logits[:, less], target[:, less], known[:, less])
        )
    assert torch.isfinite(loss(odd_logits, odd_target, known)).all()
