"""Seconds to fit a router on 5,000 prompts x 9 models from vectors that are already there.

    make bench NAME=speed/router_fit            SMALL=1: 1,000 prompts, one round

Ours: every method, on 384 (MiniLM's width) and on 2,082 numbers (hashed n-grams), tags of 13 kinds, guard off and on
(with it a router is fitted twice). Peers on the same vectors: LLMRouter 0.4's kNN and MLP by the settings of its
package (label = the first best model; MLP 128-64, Adam, 100 epochs, batch 32, here 4 timed and scaled). Rounds
alternate. Last line: fit_s (the default method `tags` on 2,082 numbers, the slower width, median), fit_s_guarded, and
ratio = LLMRouter's MLP on the same vectors over ours, in CPU seconds (a shared machine stretches only the wall clock).
"""

import json
import os
import platform
import statistics
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from trimtab.data.matrix.matrix import ResponseMatrix
from trimtab.embeddings.ngrams import HashedNgrams
from trimtab.learners.model.fits import METHODS
from trimtab.learners.model.router import fit_router
from trimtab.types import Prompt

SMALL = os.environ.get("SMALL") == "1"
P, M, T = (1000 if SMALL else 5000), 9, 13
ROUNDS = 1 if SMALL else int(os.environ.get("ROUNDS", "3"))
RESULTS = Path(__file__).parents[1] / "results" / "router_fit.json"


def made() -> tuple[ResponseMatrix, dict[str, np.ndarray]]:
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


def llmrouter_mlp(X: np.ndarray, reward: np.ndarray, epochs: int) -> None:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential()
    for a, b in pairwise([X.shape[1], 128, 64, reward.shape[1]]):
        net.append(torch.nn.Linear(a, b)).append(torch.nn.ReLU())
    net = net[:-1]
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    x, y = torch.tensor(X), torch.tensor(reward.argmax(1))
    for _ in range(epochs):
        for at in torch.randperm(len(x)).split(32):
            loss = torch.nn.functional.cross_entropy(net(x[at]), y[at])
            adam.zero_grad()
            loss.backward()
            adam.step()


def llmrouter_knn(X: np.ndarray, reward: np.ndarray) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    KNeighborsClassifier(n_neighbors=5).fit(X, reward.argmax(1))


def main() -> None:
    import torch

    matrix, vectors = made()
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}

    def timed(name: str, work, scale: float = 1.0) -> None:
        start, used = time.perf_counter(), time.process_time()
        work()
        cpu.setdefault(name, []).append(scale * (time.process_time() - used))
        seconds.setdefault(name, []).append(scale * (time.perf_counter() - start))

    for _ in range(ROUNDS):
        for width, X in vectors.items():
            for method in METHODS:
                timed(f"{method}, {width}", lambda X=X, m=method: fit_router(matrix, vectors=X, method=m, guard=False))
            timed(f"tags with guard, {width}", lambda X=X: fit_router(matrix, vectors=X))
            epochs = 2 if SMALL else 4
            timed(f"LLMRouter MLP, {width}", lambda X=X, e=epochs: llmrouter_mlp(X, matrix.reward_PM, e), 100 / epochs)
            timed(f"LLMRouter kNN, {width}", lambda X=X: llmrouter_knn(X, matrix.reward_PM))
    median = {k: statistics.median(v) for k, v in seconds.items()}
    used = {k: statistics.median(v) for k, v in cpu.items()}
    for name, s in median.items():
        print(f"{name:28} {s:8.2f} s, CPU {used[name]:8.2f} s")
    result = {
        "fit_s": median["tags, 2082"], "fit_cpu_s": used["tags, 2082"],
        "fit_s_guarded": median["tags with guard, 2082"], "fit_cpu_s_guarded": used["tags with guard, 2082"],
        "fit_s_384": median["tags, 384"], "zooter_s": median["zooter, 2082"],
        "slowest_cpu_s": max(v for k, v in used.items() if not k.startswith("LLMRouter")),
        "ratio": used["LLMRouter MLP, 2082"] / used["tags, 2082"], "prompts": P, "models": M, "small": SMALL,
    }  # fmt: skip
    if not SMALL:
        about = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "threads": torch.get_num_threads(),
                 "date": time.strftime("%Y-%m-%d"), "seconds": median, "cpu_seconds": used}  # fmt: skip
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**result, **about}, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
