import math

import numpy as np
import pytest
import torch

from trimtab.evaluation.diversity import distinct, diversity, next_token_measures, self_bleu, spread
from trimtab.learners.token.policy import Policy
from trimtab.lm.load import load_lm
from trimtab.tensors import Head, linear_entropy
from trimtab.testing import prompt, tiny_lm
from trimtab.types import Completion, Group


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    return [Policy(load_lm(str(tiny_lm(folder / str(s), seed=s)), "float32")) for s in (0, 1)]


def group(name: str, *texts: str) -> Group:
    return Group(prompt(name), tuple(Completion(t, "x", 0, i) for i, t in enumerate(texts)))


def test_distinct_by_hand():
    assert distinct(["a b a b", "a c"], 1) == 3 / 6
    assert distinct(["a b a b", "a c"], 2) == 3 / 4  # ab, ba, ab; ac
    assert math.isnan(distinct(["a"], 2))


def test_self_bleu_ends_and_hand_value():
    assert self_bleu(["the cat sat on the mat"] * 3) == 1.0
    assert self_bleu(["a b c d", "e f g h"]) == 0.0
    # one of two words, one of (1 + 1) / (1 + 1) bigrams missing: sqrt(1/2 * (0 + 1)/(1 + 1))
    assert self_bleu(["a b", "a c"], n=2) == pytest.approx(math.sqrt(0.5 * 0.5))
    assert math.isnan(self_bleu(["alone"]))


def test_spread_by_hand():
    assert spread(np.array([[1.0, 0], [0, 2.0]])) == pytest.approx(1.0)
    assert spread(np.array([[1.0, 0], [3.0, 0]])) == pytest.approx(0.0)


def test_entropy_of_known_distributions():
    head = Head(torch.eye(4))
    hidden = torch.log(torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.125, 0.125]]))
    got = linear_entropy(hidden, head, chunk=1)
    torch.testing.assert_close(got, torch.tensor([math.log(4), 1.75 * math.log(2)]))
    top = linear_entropy(hidden, head, top=2)
    assert top.tolist() == pytest.approx([math.log(2), -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)])


def test_next_token_measures_equal_full_logits(policies):
    ours, other = policies
    groups = [group("one", "ab", "cde"), group("two", "f")]
    entropy, kl = next_token_measures(groups, ours, other)
    for i, g in enumerate(groups):
        tokens, completions = ours.encode(g)
        rows = [[*tokens, *c][:n] for c in completions for n in range(len(tokens), len(tokens) + len(c))]
        p, q = (torch.log_softmax(torch.tensor(x.next_logprobs(rows)).double(), -1) for x in policies)
        assert entropy[i] == pytest.approx(-(p.exp() * p).sum(-1).mean().item(), rel=1e-4)
        assert kl[i] == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-4)


def test_a_policy_is_no_distance_from_itself(policies):
    found = diversity([group("one", "a b", "a c")], policies[0], policies[0])
    assert found.kl[0] == pytest.approx(0.0, abs=1e-6)
    assert set(found.plain()) == {"distinct_1", "distinct_2", "self_bleu", "entropy", "kl"}
    assert math.isnan(diversity([group("one", "a b", "a c")]).plain()["kl"])
