"""Routing on real outcomes: 5,091 queries, 9 LLMs, 13 tasks (LLMRouter's data), random 80/20, five seeds.

Rows: the nulls, LLMRouter 0.4's kNN and MLP (llmrouter.py), this package's methods, and two that know more than a
router may: the best model of the *known* task, and the oracle. All on the same vectors. Figures: reward, best_single,
lower, gap of the row `tags, MiniLM + n-grams` (lower: 95 % paired bootstrap of its gain over the best single model,
over all test prompts). `file`: other rows of LLMRouter's form. --small: 800 queries, two seeds.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.repro.zooter import llmrouter
from benchmarks.run import Run
from trimtab.data.matrix.files import load_matrix
from trimtab.data.matrix.matrix import ResponseMatrix, overlap, split_matrix
from trimtab.embeddings import Encoder
from trimtab.embeddings.ngrams import Both, HashedNgrams
from trimtab.evaluation.metrics import paired_bootstrap
from trimtab.evaluation.routing.measures import gap, route
from trimtab.learners.model.router import fit_router
from trimtab.types import fingerprint

SETTINGS = {"file": "", "queries": 0, "seeds": 5, "epochs": 100}
SMALL = {"queries": 800, "seeds": 2, "epochs": 20}
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


def main(run: Run) -> None:
    s = run.settings
    everything = load_matrix(Path(s.file) if s.file else data.find("router9"))
    some = np.random.default_rng(0).permutation(len(everything))[: s.queries]
    at = some if s.queries else np.arange(len(everything))
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
    for seed in range(s.seeds):
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
        keep("LLMRouter kNN, MiniLM", T[n, llmrouter.knn(X, R).predict(Z)])
        keep("LLMRouter MLP, MiniLM", T[n, llmrouter.mlp_choices(llmrouter.mlp(X, R, s.epochs, seed), Z)])
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
    figures = {
        "reward": goal["reward"], "best_single": by["best single on train"]["reward"], "lower": goal["gain"][1],
        "gap": goal["gap"], "gap_known_task": by["best model of the known task"]["gap"],
        "gain_over_known_task": list(ahead[:3]), "gap_fast": by["tags, n-grams"]["gap"],
        "gap_llmrouter": max(by["LLMRouter kNN, MiniLM"]["gap"], by["LLMRouter MLP, MiniLM"]["gap"]),
        "fit_s": goal["fit_s"], "duplicates_across_splits": moved_total, "guard": guards,
    }  # fmt: skip
    run.write(figures, rows)
