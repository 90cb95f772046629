"""chain_sum samples of Qwen2.5-Coder-0.5B with their states: `make demo`'s store, and 32 more samples a test prompt.

DEMO (default runs/demo) is read; the further samples (the same sampler and settings, seed 1) and their states go to
RUNS/chain (default runs/westofn/chain), so that West-of-N can be asked at N = 64, with the model's own judgement of a
prompt's first two samples. `python chain_data.py` makes them: about 4 minutes of one core. `load()` gives groups with
the verifier's rewards and all stored vectors.
"""

import json
import os
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

DEMO = Path(os.environ.get("DEMO", "runs/demo"))
RUNS = Path(os.environ.get("RUNS", "runs/westofn"))
MODEL, LAYERS = "qwen2.5-coder-0.5b", (16, 20)
PARAMS = SamplingParams(temperature=0.8, top_p=1.0, max_tokens=32, seed=1)
KEYS = ("layer16.last", "layer16.mean", "layer20.last", "layer20.mean")


def more(sampler: OpenVINO | None = None, embedder: HiddenStates | None = None) -> tuple[list[Group], list[np.ndarray]]:
    """32 further samples of each of the demo's test prompts and their vectors; made where missing."""
    prompts = [g.prompt for g in Store(DEMO).groups("test", None)]
    store = Store(RUNS / "chain")
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


def judge(ask: ChoiceJudge | None = None) -> dict[str, float]:
    """What the sampled model prefers of each test prompt's first two samples; asked where the file is missing."""
    file = RUNS / "chain" / "judge.json"
    if ask and not file.exists():
        groups = Store(DEMO).groups("test", None)
        said = ask(groups, [np.array([[0, 1]])] * len(groups))
        file.write_text(json.dumps({g.prompt.id: float(p[0]) for g, p in zip(groups, said, strict=True)}))
    return json.loads(file.read_text())


def load() -> dict[str, Any]:
    """ "train" (150 prompts × 16, labels) and "test" (100 × 64, the pool): groups with rewards, (N, D) vectors.

    "judge" is what `judge` gives.
    """
    demo = Store(DEMO)
    score = ReasoningGym("chain_sum")
    sides = {}
    for name in ("train", "test"):
        groups = demo.groups(name, None)
        sides[name] = (groups, Stored(None, demo, name, keys=KEYS)(groups))
    extra, vectors = more()
    joined = [
        replace(a, completions=a.completions + tuple(replace(c, index=c.index + 32) for c in b.completions))
        for a, b in zip(sides["test"][0], extra, strict=True)
    ]
    sides["test"] = (joined, [np.concatenate(x) for x in zip(sides["test"][1], vectors, strict=True)])
    return {"judge": judge()} | {
        name: ([replace(g, rewards=tuple(r)) for g, r in zip(groups, score(groups), strict=True)], x)
        for name, (groups, x) in sides.items()
    }


if __name__ == "__main__":
    groups, vectors = more(
        OpenVINO(MODEL, threads=int(os.environ.get("OMP_NUM_THREADS", "0"))), HiddenStates(MODEL, LAYERS)
    )
    judge(ChoiceJudge(MODEL))
    print(sum(len(g.completions) for g in groups), "samples,", vectors[0].shape[1], "numbers each")
