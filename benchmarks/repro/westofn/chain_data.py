"""chain_sum samples of Qwen2.5-Coder-0.5B with their states: `make demo`'s store, and 32 more samples a test prompt.

`demo` is read; the further samples (the same sampler and settings, seed 1) and their states go to `folder`/chain, so
that West-of-N can be asked at N = 64, with the model's own judgement of a prompt's first two samples. What is missing
is made: about 4 minutes of one core. `load()` gives groups with the verifier's rewards and all stored vectors.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trimtab.embeddings import HiddenStates, Stored
from trimtab.rewards import ChoiceJudge, ReasoningGym
from trimtab.samplers import Cached, OpenVINO
from trimtab.store import Store
from trimtab.types import Group, SamplingParams

MODEL, LAYERS = "qwen2.5-coder-0.5b", (16, 20)
PARAMS = SamplingParams(temperature=0.8, top_p=1.0, max_tokens=32, seed=1)
KEYS = ("layer16.last", "layer16.mean", "layer20.last", "layer20.mean")


def more(demo: Store, folder: Path) -> tuple[list[Group], list[np.ndarray]]:
    """32 further samples of each of the demo's test prompts and their vectors; made where missing."""
    prompts = [g.prompt for g in demo.groups("test", None)]
    store = Store(folder / "chain")
    there = len(store.groups("more", None)) == len(prompts) if store.tables("embeddings") else False
    sampler, embedder = (None, None) if there else (OpenVINO(MODEL), HiddenStates(MODEL, LAYERS))
    groups = Cached(sampler, store, "more")(prompts, 32, PARAMS)
    return groups, Stored(embedder, store, "more", keys=KEYS)(groups)


@dataclass(frozen=True)
class Known:
    """A `Preference` that looks up what was asked before: P(first is preferred over second) by prompt id."""

    first: dict[str, float]
    pairwise: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group], asked: Sequence[np.ndarray]) -> list[np.ndarray]:
        assert all(a.tolist() == [[0, 1]] for a in asked)
        return [np.array([self.first[g.prompt.id]]) for g in groups]


def judge(demo: Store, folder: Path) -> dict[str, float]:
    """What the sampled model prefers of each test prompt's first two samples; asked where the file is missing."""
    file = folder / "chain" / "judge.json"
    if not file.exists():
        groups = demo.groups("test", None)
        said = ChoiceJudge(MODEL)(groups, [np.array([[0, 1]])] * len(groups))
        file.write_text(json.dumps({g.prompt.id: float(p[0]) for g, p in zip(groups, said, strict=True)}))
    return json.loads(file.read_text())


def load(run: str | Path, folder: Path) -> dict[str, Any]:
    """ "train" (150 prompts × 16, labels) and "test" (100 × 64, the pool): groups with rewards, (N, D) vectors.

    "judge" is what `judge` gives.
    """
    demo = Store(run)
    score = ReasoningGym("chain_sum")
    sides = {}
    for name in ("train", "test"):
        groups = demo.groups(name, None)
        sides[name] = (groups, Stored(None, demo, name, keys=KEYS)(groups))
    extra, vectors = more(demo, folder)
    joined = [
        replace(a, completions=a.completions + tuple(replace(c, index=c.index + 32) for c in b.completions))
        for a, b in zip(sides["test"][0], extra, strict=True)
    ]
    sides["test"] = (joined, [np.concatenate(x) for x in zip(sides["test"][1], vectors, strict=True)])
    return {"judge": judge(demo, folder)} | {
        name: ([replace(g, rewards=tuple(r)) for g, r in zip(groups, score(groups), strict=True)], x)
        for name, (groups, x) in sides.items()
    }
