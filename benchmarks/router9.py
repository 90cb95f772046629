"""Routing on real outcomes: 5,091 queries, 9 LLMs, 13 tasks (LLMRouter's data), random 80/20, five seeds.

    make bench NAME=router9            SMALL=1: 800 queries, two seeds

Rows: the nulls, LLMRouter 0.4's kNN and MLP (by the settings of its package and configs: label = the first model with
the highest performance; kNN with 5 uniform Euclidean neighbours; MLP 128-64 ReLU, Adam 1e-3, weight decay 1e-4, 100
epochs, batch 32), this package's methods, and two that know more than a router may: the best model of the *known* task,
and the oracle. All on the same vectors. Last line: reward, best_single, lower, gap of the row
`tags, MiniLM + n-grams` (lower: 95 % paired bootstrap of its gain over the best single model, over all test prompts).
"""

import json
import os
import platform
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from trimtab.data.matrix.files import load_matrix
from trimtab.data.matrix.matrix import ResponseMatrix, overlap, split_matrix
from trimtab.embeddings import Encoder
from trimtab.embeddings.ngrams import Both, HashedNgrams
from trimtab.evaluation.metrics import paired_bootstrap
from trimtab.evaluation.routing.measures import gap, route
from trimtab.learners.model.router import fit_router
from trimtab.types import fingerprint

SMALL = os.environ.get("SMALL") == "1"
DATA = Path(os.environ.get("TRIMTAB_DATA", Path(__file__).parents[2] / "shared" / "data"))
FILE = Path(os.environ.get("ROUTER9", DATA / "router9" / "router9_train.jsonl.gz"))
RESULTS = Path(__file__).parent / "results" / "router9.json"
SEEDS = range(2 if SMALL else 5)
GOAL = "tags, MiniLM + n-grams"


def stored(name: str, matrix: ResponseMatrix, embed, rows: np.ndarray) -> np.ndarray:
    """Vectors of some prompts; those of all are kept in the temporary folder, so that embedding is paid once."""
    key = fingerprint([name, embed.card, [p.id for p in matrix.prompts]])[:16]
    file = Path(tempfile.gettempdir()) / f"trimtab-vectors-{key}.npy"
    if file.is_file():
        return np.load(file)[rows]
    start = time.perf_counter()
    vectors = embed.embed_prompts([matrix.prompts[i] for i in rows])
    if len(rows) == len(matrix):
        np.save(file, vectors)
    print(f"embedded {len(rows)} prompts with {name} in {time.perf_counter() - start:.1f} s", flush=True)
    return vectors


def llmrouter_labels(reward: np.ndarray) -> np.ndarray:
    return np.nanargmax(reward, axis=1)


def llmrouter_knn(X, reward, Z) -> np.ndarray:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=5).fit(X, llmrouter_labels(reward)).predict(Z)


def llmrouter_mlp(X, reward, Z, seed: int, epochs: int) -> np.ndarray:
    import torch

    torch.manual_seed(seed)
    layers = [X.shape[1], 128, 64, reward.shape[1]]
    net = torch.nn.Sequential()
    for a, b in pairwise(layers):
        net.append(torch.nn.Linear(a, b)).append(torch.nn.ReLU())
    net = net[:-1]
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(llmrouter_labels(reward))
    for _ in range(epochs):
        for at in torch.randperm(len(x)).split(32):
            loss = torch.nn.functional.cross_entropy(net(x[at]), y[at])
            adam.zero_grad()
            loss.backward()
            adam.step()
    with torch.no_grad():
        return net(torch.tensor(Z, dtype=torch.float32)).argmax(1).numpy()


def main() -> None:
    if not FILE.is_file():
        sys.exit(f"{FILE} is not here; set TRIMTAB_DATA or ROUTER9 to LLMRouter-style rows")
    everything = load_matrix(FILE)
    at = np.random.default_rng(0).permutation(len(everything))[:800] if SMALL else np.arange(len(everything))
    matrix, ngrams, minilm = everything.rows(at), HashedNgrams(), Encoder(overflow="head+tail")
    vectors = {"n-grams": stored("n-grams", everything, ngrams, at), "MiniLM": stored("MiniLM", everything, minilm, at)}
    vectors["MiniLM + n-grams"] = np.concatenate([vectors["MiniLM"], vectors["n-grams"]], axis=1)
    encoders = {"n-grams": ngrams, "MiniLM": minilm, "MiniLM + n-grams": Both(minilm, ngrams)}
    note = matrix.note or "no repeats"
    print(f"{len(matrix)} prompts, {len(matrix.models)} models, {matrix.missing} missing cells; {note}")

    ours = [("tags", e, {}) for e in vectors] + [
        ("knn", "MiniLM", {"k": 20}), ("knn", "MiniLM", {"k": 100}), ("clusters", "MiniLM", {}), ("bce", "MiniLM", {}),
        ("mf", "MiniLM", {}), ("routerdc", "MiniLM", {}), ("zooter", "MiniLM", {"beta": 1.0}),
        ("zooter", "MiniLM", {"beta": 0.3}), ("zooter", "MiniLM", {"beta": 0.0}),
    ]  # fmt: skip
    routed: dict[str, list[np.ndarray]] = {}
    rewards, fit_seconds, guards, moved_total = [], {}, {}, 0
    place = {p.id: i for i, p in enumerate(matrix.prompts)}
    for seed in SEEDS:
        train, test, moved = split_matrix(matrix, 0.2, seed)
        moved_total += moved + overlap(train, test)[0]
        a, b = ([place[p.id] for p in side.prompts] for side in (train, test))
        R, T, n = train.reward_PM, test.reward_PM, np.arange(len(test))
        rewards.append(T)

        def keep(name: str, reward: np.ndarray) -> None:
            routed.setdefault(name, []).append(reward)

        keep("random", np.nanmean(T, 1))
        keep("best single on train", T[:, int(np.nanmean(R, 0).argmax())])
        task = np.array([t[0] for t in train.tags])
        best_of = {t: int(np.nanmean(R[task == t], 0).argmax()) for t in set(task)}
        keep("best model of the known task", T[n, [best_of[t[0]] for t in test.tags]])
        keep("oracle", np.nanmax(T, 1))
        X, Z = vectors["MiniLM"][a], vectors["MiniLM"][b]
        keep("LLMRouter kNN, MiniLM", T[n, llmrouter_knn(X, R, Z)])
        keep("LLMRouter MLP, MiniLM", T[n, llmrouter_mlp(X, R, Z, seed, 20 if SMALL else 100)])
        for method, which, options in ours:
            said = "".join(f" {k}={v:g}" for k, v in options.items())
            name, start = f"{method}{said}, {which}", time.perf_counter()
            router = fit_router(
                train, encoders[which], vectors=vectors[which][a], method=method, guard=False, seed=seed, **options
            )
            fit_seconds.setdefault(name, []).append(time.perf_counter() - start)
            value = router.reward(vectors[which][b])[:, [router.models.index(m) for m in matrix.models]]
            keep(name, route(value, T))
        guarded = fit_router(train, encoders["MiniLM + n-grams"], vectors=vectors["MiniLM + n-grams"][a], seed=seed)
        guards[seed] = guarded.card["guard"]
        print(f"seed {seed}: {guards[seed]}", flush=True)

    T = np.concatenate(rewards)
    single = np.concatenate(routed["best single on train"])
    rows = []
    for name, parts in routed.items():
        r = np.concatenate(parts)
        each = [gap(p, t, draws=2).mean for p, t in zip(parts, rewards, strict=True)]
        gain = paired_bootstrap(r, single)
        rows.append({
            "router": name, "reward": float(r.mean()), "gain": list(gain[:3]), "gap": float(np.mean(each)),
            "gap_sd_over_seeds": float(np.std(each)), "fit_s": float(np.median(fit_seconds.get(name, [0.0]))),
        })  # fmt: skip
    rows.sort(key=lambda row: row["gap"])
    print(f"{'router':36} reward  gain over best single      gap (sd over seeds)  fit s")
    for row in rows:
        gain = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row["gain"])
        gap_ = f"{row['gap']:6.2f} ({row['gap_sd_over_seeds']:.2f})"
        print(f"{row['router']:36} {row['reward']:.4f}  {gain}  {gap_}  {row['fit_s']:8.2f}")
    by = {row["router"]: row for row in rows}
    goal = by[GOAL]
    ahead = paired_bootstrap(np.concatenate(routed[GOAL]), np.concatenate(routed["best model of the known task"]))
    result = {
        "reward": goal["reward"], "best_single": by["best single on train"]["reward"], "lower": goal["gain"][1],
        "gap": goal["gap"], "gap_known_task": by["best model of the known task"]["gap"],
        "gain_over_known_task": list(ahead[:3]), "gap_fast": by["tags, n-grams"]["gap"],
        "gap_llmrouter": max(by["LLMRouter kNN, MiniLM"]["gap"], by["LLMRouter MLP, MiniLM"]["gap"]),
        "fit_s": goal["fit_s"], "duplicates_across_splits": moved_total, "seeds": len(SEEDS), "small": SMALL,
    }  # fmt: skip
    if not SMALL:
        about = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "date": time.strftime("%Y-%m-%d")}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**result, **about, "guard": guards, "rows": rows}, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
