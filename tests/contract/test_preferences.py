"""Every built-in preference: antisymmetric, one probability a pair, the same alone or in a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from trimtab.learners import fit_pairwise
from trimtab.lm.load import load_lm
from trimtab.rewards import ChoiceJudge, FromReward, Judge
from trimtab.testing import FakeSampler, check_preference, prompt, tiny_lm
from trimtab.types import Completion, Group, Pair, Reward


@dataclass(frozen=True)
class Letters:
    @property
    def card(self) -> dict[str, Any]:
        return {"kind": "letters"}

    def __call__(self, groups: Sequence[Group]) -> list[np.ndarray]:
        return [np.array([[c.text.count(x) for x in "abcd"] for c in g.completions], np.float32) for g in groups]


def groups(n: int = 4) -> list[Group]:
    rng = np.random.default_rng(0)
    return [
        Group(prompt(f"q{g}"), tuple(Completion("".join(rng.choice(list("abcd "), 9)), "m", 0, i) for i in range(3)))
        for g in range(n)
    ]


def longest(prompt_, rng) -> str:
    a, b = (prompt_.messages[0]["content"].split(f"<answer_{x}>\n")[1].split("\n</")[0] for x in "ab")
    return "[[A]]" if a.count("a") > b.count("a") else "[[B]]" if a.count("a") < b.count("a") else "[[C]]"


def pairwise(hidden: int):
    pairs = [Pair(g.prompt, *sorted(g.completions[:2], key=lambda c: -c.text.count("a"))) for g in groups(8)]
    return fit_pairwise(pairs, Letters(), hidden=hidden, steps=30)


KINDS = {
    "pairwise net": lambda tmp: pairwise(8),
    "pairwise linear": lambda tmp: pairwise(0),
    "judge": lambda tmp: Judge(FakeSampler(longest)),
    "judge of the order alone": lambda tmp: Judge(FakeSampler(lambda p, rng: "[[A]]")),
    "silent judge": lambda tmp: Judge(FakeSampler(lambda p, rng: "?"), retries=0),
    "choice judge": lambda tmp: ChoiceJudge(load_lm(str(tiny_lm(tmp / "lm", layers=1)), "float32")),
    "from a reward": lambda tmp: FromReward(
        lambda gs: [[Reward(float(len(c.text.split()))) for c in g.completions] for g in gs]
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_preferences(kind, tmp_path):
    check_preference(KINDS[kind](tmp_path), groups())
