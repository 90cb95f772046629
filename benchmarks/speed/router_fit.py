"""Seconds to fit a router on 5,000 prompts x 9 models from vectors that are already there.

Ours: every method, on 384 (MiniLM's width) and on 2,082 numbers (hashed n-grams), tags of 13 kinds, guard off and on
(with it a router is fitted twice). Peers on the same vectors: LLMRouter 0.4's kNN and MLP by the settings of its
package (label = the first best model; MLP 128-64, Adam, 100 epochs, batch 32, here 4 timed and scaled). Rounds
alternate. Last line: fit_s (the default method `tags` on 2,082 numbers, the slower width, median), fit_s_guarded, and
ratio = LLMRouter's MLP on the same vectors over ours, in CPU seconds (a shared machine stretches only the wall clock).
"""

import statistics
import time

import numpy as np

from benchmarks.repro.zooter import llmrouter
from benchmarks.run import Run
from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.embeddings.ngrams import HashedNgrams
from trimtab.learners.model.fits import METHODS
from trimtab.learners.model.router import fit_router
from trimtab.types import Prompt

SETTINGS = {"prompts": 5000, "rounds": 3, "epochs": 4}
SMALL = {"prompts": 1000, "rounds": 1, "epochs": 2}
M, T = 9, 13


def made(P: int) -> tuple[ResponseMatrix, dict[str, np.ndarray]]:
    """13 kinds of prompts, rewards of kind and noise, vectors around a centre a kind."""
    rng = np.random.default_rng(0)
    tag = rng.integers(0, T, P)
    prompts = tuple(Prompt(str(i), ({"role": "user", "content": f"prompt {i}"},)) for i in range(P))
    reward = (rng.random((P, M)) < rng.random((T, M))[tag]).astype(float)
    matrix = ResponseMatrix(prompts, tuple(f"m{i}" for i in range(M)), reward, tuple((f"t{t}",) for t in tag))
    vectors = {}
    for name, width in (("384", 384), ("2082", sum(HashedNgrams().blocks))):
        centre = rng.normal(size=(T, width)) * 0.5
        vectors[name] = (centre[tag] + rng.normal(size=(P, width))).astype(np.float32)
    return matrix, vectors


def main(run: Run) -> None:
    s = run.settings
    matrix, vectors = made(s.prompts)
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}

    def timed(name: str, work, scale: float = 1.0) -> None:
        start, used = time.perf_counter(), time.process_time()
        work()
        cpu.setdefault(name, []).append(scale * (time.process_time() - used))
        seconds.setdefault(name, []).append(scale * (time.perf_counter() - start))

    for _ in range(s.rounds):
        for width, X in vectors.items():
            for method in METHODS:
                timed(f"{method}, {width}", lambda X=X, m=method: fit_router(matrix, vectors=X, method=m, guard=False))
            timed(f"tags with guard, {width}", lambda X=X: fit_router(matrix, vectors=X))
            mlp = lambda X=X: llmrouter.mlp(X, matrix.reward_PM, s.epochs)  # noqa: E731
            timed(f"LLMRouter MLP, {width}", mlp, 100 / s.epochs)
            timed(f"LLMRouter kNN, {width}", lambda X=X: llmrouter.knn(X, matrix.reward_PM))
    median = {k: statistics.median(v) for k, v in seconds.items()}
    used = {k: statistics.median(v) for k, v in cpu.items()}
    for name, x in median.items():
        print(f"{name:28} {x:8.2f} s, CPU {used[name]:8.2f} s")
    figures = {
        "fit_s": median["tags, 2082"], "fit_cpu_s": used["tags, 2082"],
        "fit_s_guarded": median["tags with guard, 2082"], "fit_cpu_s_guarded": used["tags with guard, 2082"],
        "fit_s_384": median["tags, 384"], "zooter_s": median["zooter, 2082"],
        "slowest_cpu_s": max(v for k, v in used.items() if not k.startswith("LLMRouter")),
        "ratio": used["LLMRouter MLP, 2082"] / used["tags, 2082"],
    }  # fmt: skip
    run.write(figures, [{"way": k, "seconds": v, "cpu_seconds": used[k]} for k, v in median.items()])
