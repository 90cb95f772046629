import math

import pytest
import torch

from trimtab.tensors import Head, linear_forward_kl, linear_logprobs, pad_right, token_logprobs


def test_pad_right_by_hand():
    ids, mask = pad_right([[5, 6], [], [7]], 9)
    assert ids.tolist() == [[5, 6], [9, 9], [7, 9]]
    assert mask.tolist() == [[1, 1], [0, 0], [1, 0]]


def test_token_logprobs_shift_by_hand():
    logits = torch.log(torch.tensor([[[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]]))
    got = token_logprobs(logits, torch.tensor([[0, 1, 0]]), chunk=1)
    torch.testing.assert_close(got, torch.tensor([[math.log(0.8), math.log(0.5)]]))


def heads(bias: bool, scale: float, softcap: float):
    g = torch.Generator().manual_seed(0)
    W = torch.randn(13, 5, generator=g, dtype=torch.float64, requires_grad=True)
    b = torch.randn(13, generator=g, dtype=torch.float64, requires_grad=True) if bias else None
    h = torch.randn(7, 5, generator=g, dtype=torch.float64, requires_grad=True)
    return h, Head(W, b, scale, softcap), g


def plain_logits(h, head):
    z = head.scale * torch.nn.functional.linear(h, head.weight_VD, head.bias_V)
    return head.softcap * torch.tanh(z / head.softcap) if head.softcap else z


CASES = [(False, 1.0, 0.0), (True, 0.5, 0.0), (True, 1.3, 2.0)]


@pytest.mark.parametrize(("bias", "scale", "softcap"), CASES)
@pytest.mark.parametrize("chunk", [1, 3, None])
def test_linear_logprobs_equals_autograd(bias, scale, softcap, chunk):
    h, head, g = heads(bias, scale, softcap)
    target = torch.randint(13, (7,), generator=g)
    weight = torch.randn(7, generator=g, dtype=torch.float64)
    leaves = [x for x in (h, head.weight_VD, head.bias_V) if x is not None]
    want = torch.log_softmax(plain_logits(h, head), -1).gather(1, target[:, None])[:, 0]
    want_grads = torch.autograd.grad((want * weight).sum(), leaves)
    got = linear_logprobs(h, head, target, chunk=chunk)
    got_grads = torch.autograd.grad((got * weight).sum(), leaves)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    for a, b in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("bias", "scale", "softcap"), CASES)
@pytest.mark.parametrize("chunk", [2, None])
def test_linear_forward_kl_equals_autograd(bias, scale, softcap, chunk):
    h, head, g = heads(bias, scale, softcap)
    ref_h = torch.randn(7, 5, generator=g, dtype=torch.float64)
    ref_head = Head(torch.randn(13, 5, generator=g, dtype=torch.float64), None, 1.0, softcap)
    weight = torch.randn(7, generator=g, dtype=torch.float64)
    leaves = [x for x in (h, head.weight_VD, head.bias_V) if x is not None]
    p, q = (torch.log_softmax(plain_logits(*x), -1) for x in ((ref_h, ref_head), (h, head)))
    want = (p.exp() * (p - q)).sum(-1)
    want_grads = torch.autograd.grad((want * weight).sum(), leaves)
    got = linear_forward_kl(h, head, ref_h, ref_head, chunk=chunk)
    got_grads = torch.autograd.grad((got * weight).sum(), leaves)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    for a, b in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert torch.all(linear_forward_kl(h, head, h, head).abs() < 1e-12)


def test_linear_logprobs_frozen_head_and_bfloat16():
    h, head, g = heads(False, 1.0, 0.0)
    target = torch.randint(13, (7,), generator=g)
    frozen = Head(head.weight_VD.detach())
    (grad,) = torch.autograd.grad(linear_logprobs(h, frozen, target).sum(), [h])
    (want,) = torch.autograd.grad(torch.log_softmax(h @ head.weight_VD.T, -1).gather(1, target[:, None]).sum(), [h])
    torch.testing.assert_close(grad, want)
    low = linear_logprobs(h.bfloat16(), Head(head.weight_VD.bfloat16()), target)
    assert low.dtype == torch.float32  # log-probabilities never live in bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        auto = linear_logprobs(h.float(), Head(head.weight_VD.float()), target)
    torch.testing.assert_close(auto, low)
