from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from trimtab.types import Completion, Group, Prompt, Reward


@dataclass(frozen=True)
class Numbers:
    """An embedder that reads the numbers a completion's text consists of."""

    scale: float = 1.0

    @property
    def card(self) -> dict[str, Any]:
        return {"kind": "numbers", "scale": self.scale}

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [
            self.scale
            * np.array([c.text.split() for c in g.completions], dtype=np.float32).reshape(len(g.completions), -1)
            for g in groups
        ]


def groups_from(x_PND: np.ndarray, reward_PN: np.ndarray) -> list[Group]:
    return [
        Group(
            Prompt(f"p{p:03d}", ({"role": "user", "content": str(p)},)),
            tuple(Completion(" ".join(f"{v:.5f}" for v in row), "m@0", i, i) for i, row in enumerate(x_ND)),
            tuple(Reward(float(r), "" if np.isfinite(r) else "not scored") for r in reward_N),
        )
        for p, (x_ND, reward_N) in enumerate(zip(x_PND, reward_PN, strict=True))
    ]


def planted(prompts: int, n: int, *, dim: int = 6, signal: float = 3.0, seed: int = 0):
    """Rows with a prompt's part and a completion's part; the reward depends on one direction of the latter and on the
    prompt's difficulty. signal = 0 is noise."""
    rng = np.random.default_rng(seed)
    own_PND = rng.normal(size=(prompts, n, dim))
    level_P1D = rng.normal(size=(prompts, 1, dim))
    logit_PN = signal * own_PND[..., 0] + level_P1D[..., 1]
    reward_PN = (rng.random((prompts, n)) < 1 / (1 + np.exp(-logit_PN))).astype(float)
    return own_PND + level_P1D, reward_PN


@pytest.fixture
def numbers():
    return Numbers


@pytest.fixture
def make_groups():
    return lambda *a, **k: groups_from(*planted(*a, **k))


@pytest.fixture
def make_rows():
    return planted


@pytest.fixture
def as_groups():
    return groups_from


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny problems lose more by waiting for threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
