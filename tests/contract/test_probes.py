"""Every built-in probe is a RewardFn: one finite reward a completion, better than chance where there is a signal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from trimtab.learners import fit_probe
from trimtab.learners.completion.probe.losses import PROBE_LOSSES
from trimtab.learners.completion.probe.minibatch import PAPER
from trimtab.testing import check_learned_reward
from trimtab.types import Completion, Group, Prompt, Reward

ENDURING = replace(PAPER, lr=2e-3, batch=200)  # the paper's 13,800 steps at 5e-5, in fewer and longer ones
KINDS: dict[str, dict[str, Any]] = {
    **{loss: {"loss": loss} for loss in PROBE_LOSSES},
    **{
        f"{loss} adamw": {"loss": loss, "optimizer": "adamw", "schedule": ENDURING}
        for loss in ("mse", "ce", "pg", "bt")
    },
    "ce mlp": {"loss": "ce", "hidden": (16,)},
    "pg mlp of three layers": {"loss": "pg", "hidden": (16, 16)},
}


@dataclass(frozen=True)
class Numbers:
    @property
    def card(self) -> dict[str, Any]:
        return {"kind": "numbers"}

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [np.array([c.text.split() for c in g.completions], dtype=np.float32) for g in groups]


def make(prompts: int, n: int, signal: float, seed: int) -> list[Group]:
    rng = np.random.default_rng(seed)
    groups = []
    for p in range(prompts):
        own_ND, level_D = rng.normal(size=(n, 5)), rng.normal(size=5)
        chance_N = 1 / (1 + np.exp(-(signal * own_ND[:, 0] + level_D[1])))
        completions = (Completion(" ".join(map(str, x)), "m@0", i, i) for i, x in enumerate(own_ND + level_D))
        rewards = (Reward(float(rng.random() < c)) for c in chance_N)
        groups.append(
            Group(Prompt(f"{seed}-{p}", ({"role": "user", "content": "?"},)), tuple(completions), tuple(rewards))
        )
    return groups


def gain(probe: Any, groups: list[Group]) -> np.ndarray:
    """Reward of the completion of highest value minus the mean reward, per prompt."""
    best = [np.argmax([r.value for r in rewards]) for rewards in probe(groups)]
    return np.array([g.reward_N[i] - g.reward_N.mean() for g, i in zip(groups, best, strict=True)])


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny problems lose more by waiting for threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_signal_beats_the_constant_and_noise_ties_with_it(kind):
    test = make(300, 8, 3.0, 2)
    probe = fit_probe(make(60, 8, 3.0, 1), Numbers(), **KINDS[kind])
    check_learned_reward(probe, test[:5])
    assert gain(probe, test).mean() > 0.25
    nothing = gain(fit_probe(make(60, 8, 0.0, 1), Numbers(), **KINDS[kind]), make(300, 8, 0.0, 2))
    assert abs(nothing.mean()) < 3.5 * nothing.std() / np.sqrt(len(nothing))
