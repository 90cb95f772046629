from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from trimtab.errors import InputError, ModelError
from trimtab.learners.completion.probe.pairwise import PairwiseProbe, fit_pairwise
from trimtab.testing import prompt
from trimtab.types import Completion, Group, Pair


@dataclass(frozen=True)
class Numbers:
    kind: str = "numbers"

    @property
    def card(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [np.array([c.text.split() for c in g.completions], dtype=np.float32) for g in groups]


def completion(vector, index: int) -> Completion:
    return Completion(" ".join(f"{v:.4f}" for v in vector), "m", 0, index)


def cycle(n: int, seed: int) -> list[Pair]:
    """Rock beats scissors beats paper beats rock: no value a completion orders them (noise beside the code)."""
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(n):
        hand = int(rng.integers(3))
        codes = [np.concatenate([np.eye(3)[h], rng.normal(size=2)]) for h in (hand, (hand + 1) % 3)]
        pairs.append(Pair(prompt(f"q{i}"), completion(codes[0], 0), completion(codes[1], 1)))
    return pairs


def accuracy(probe: PairwiseProbe, pairs: Sequence[Pair]) -> float:
    groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in pairs]
    p = probe(groups, [np.array([[0, 1]])] * len(groups))
    return float(np.mean([x[0] > 0.5 for x in p]))


def test_the_net_learns_a_cycle_that_no_pointwise_value_can():
    train, test = cycle(200, 0), cycle(100, 1)
    assert accuracy(fit_pairwise(train, Numbers(), hidden=16, l2=0.01, lr=0.02), test) > 0.97
    assert accuracy(fit_pairwise(train, Numbers(), hidden=0), test) < 0.7


def test_swapping_the_two_flips_the_probability_exactly():
    probe = fit_pairwise(cycle(40, 0), Numbers(), hidden=8, steps=50)
    group = [
        Group(prompt("x"), tuple(completion(v, i) for i, v in enumerate(np.random.default_rng(2).normal(size=(5, 5)))))
    ]
    pairs = np.array([[0, 1], [2, 4], [3, 3]])
    (p,), (q,) = probe(group, [pairs]), probe(group, [pairs[:, ::-1]])
    np.testing.assert_allclose(p + q, 1, atol=1e-12)
    assert p[2] == 0.5


def test_same_pairs_same_weights_in_any_order_and_save_then_load(tmp_path):
    pairs = cycle(30, 0)
    a, b = (fit_pairwise(x, Numbers(), hidden=8, steps=60, seed=5) for x in (pairs, pairs[::-1]))
    assert a.weights_hash == b.weights_hash and repr(a) == repr(b)
    back = PairwiseProbe.load(a.save(tmp_path / "p"), Numbers())
    assert back.weights_hash == a.weights_hash and accuracy(back, pairs) == accuracy(a, pairs)
    with pytest.raises(ModelError, match="other embeddings"):
        PairwiseProbe.load(tmp_path / "p", Numbers("words"))
    with pytest.raises(InputError, match="no readable pairwise probe"):
        PairwiseProbe.load(tmp_path / "none")


def test_refusals():
    with pytest.raises(InputError, match="no pairs"):
        fit_pairwise([], Numbers())
    with pytest.raises(InputError, match="one training prompt"):
        fit_pairwise(cycle(1, 0), Numbers())
