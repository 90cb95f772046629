"""Zooter's two tables in shape, on published outcomes: router9, zeroeval (gsm + crux), alpacaeval.

Table 1: every model, the best single model by both definitions (mean rank and %Uplift over subsets, on train), Zooter,
our router, and ranking (RMR) where there are texts: by the longest answer, the shortest, agreement (zeroeval: the share
of the pool with the same final answer) and another judge (alpacaeval: GPT-4 against davinci-003, when the reward is
GPT-4-turbo against gpt4_1106); oracle. Table 2: beta 0 to 1
and hard labels. In-domain: random 80/20, three seeds. Leave one task out: router9, each task as the test set of a
router that never saw it. Reward noise: Gaussian noise on the training rewards, clean test rewards, to see whether tag
smoothing denoises. Subsets are the data's own tasks. Vectors: hashed n-grams (512), so nothing is downloaded.
docs/results/zooter.md quotes it. --small: one seed, a few settings.
"""

import re
import time
from collections import Counter

import numpy as np

from benchmarks.data import find
from benchmarks.run import Run
from trimtab.data.matrix.files import load_matrix
from trimtab.data.matrix.matrix import ResponseMatrix, split_matrix
from trimtab.embeddings.ngrams import HashedNgrams
from trimtab.evaluation.metrics import paired_bootstrap
from trimtab.evaluation.routing.measures import gap, mean_rank, route, uplift
from trimtab.evaluation.routing.rank import longest, rank_pool, shortest
from trimtab.learners.model.router import fit_router
from trimtab.types import Reward

SETTINGS = {
    "pools": ("router9", "zeroeval", "alpacaeval"), "seeds": 3, "betas": ("0", "0.1", "0.3", "0.5", "0.7", "0.9", "1"),
    "variants": True, "noise": ("0.5", "1.0"), "held_tasks": 99,
}  # fmt: skip
SMALL = {"seeds": 1, "betas": ("0", "0.3", "1"), "variants": False, "noise": (), "held_tasks": 2}
EMBED = HashedNgrams(512)


def full(matrix: ResponseMatrix, most: int) -> ResponseMatrix:
    """The `most` models with the fewest missing cells, without the prompts that still miss one."""
    order = np.argsort(np.isnan(matrix.reward_PM).sum(0), kind="stable")[:most]
    pool = matrix.pool([matrix.models[i] for i in sorted(order)])
    return pool.rows(~np.isnan(pool.reward_PM).any(1))


def load(name: str) -> ResponseMatrix:
    if name == "router9":
        return load_matrix(find("router9"))
    if name == "alpacaeval":
        w, g4 = (load_matrix(find("alpacaeval"), reward=r) for r in ("w", "g4"))
        names = [m for m in w.models if m in g4.models and m != "gpt4_1106_preview"]  # the reference ties with itself
        both = full(w.pool(names), 16)
        place = {p.id: i for i, p in enumerate(g4.prompts)}
        columns = [g4.models.index(m) for m in both.models]
        OTHER_JUDGE.update(
            {p.id: dict(zip(both.models, g4.reward_PM[place[p.id], columns], strict=True)) for p in both.prompts}
        )
        return both
    gsm, crux = (load_matrix(find(f"zeroeval_{n}"), tag=n) for n in ("gsm", "crux"))
    short = [{m.partition("@")[0]: m for m in side.models} for side in (gsm, crux)]
    common = sorted(set(short[0]) & set(short[1]))
    sides = [side.pool([names[c] for c in common]) for side, names in zip((gsm, crux), short, strict=True)]
    return ResponseMatrix(
        tuple(p for s in sides for p in s.prompts), tuple(common), np.concatenate([s.reward_PM for s in sides]),
        tuple(t for s in sides for t in s.tags), text_PM=tuple(t for s in sides for t in s.text_PM),
    )  # fmt: skip


OTHER_JUDGE: dict[str, dict[str, float]] = {}
ANSWER = re.compile(r'"answer":\s*"?(.*?)"?\s*}?\s*$', re.S)


def agreement(groups) -> list[list[Reward]]:
    """Share of the pool whose final answer is the same; 0 for an answer that has none."""
    out = []
    for g in groups:
        found = [m.group(1).strip() if (m := ANSWER.search(c.text)) else None for c in g.completions]
        count = Counter(a for a in found if a is not None)
        out.append([Reward(count[a] / len(found) if a is not None else 0.0) for a in found])
    return out


def other_judge(groups) -> list[list[Reward]]:
    """The preference of the judge that did not make the rewards."""
    return [[Reward(OTHER_JUDGE[g.prompt.id][c.model]) for c in g.completions] for g in groups]


def ranked(value: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """Reward of the ranker's first, the mean over those it cannot tell apart."""
    top = value == np.nanmax(value, axis=1, keepdims=True)
    return np.where(top, reward, 0).sum(1) / top.sum(1)


RANKERS = {
    "alpacaeval": {"RMR longest": longest, "RMR shortest": shortest, "RMR other judge": other_judge},
    "zeroeval": {"RMR longest": longest, "RMR shortest": shortest, "RMR agreement": agreement},
    "router9": {},
}


def subset_scores(systems: dict[str, np.ndarray], tags) -> np.ndarray:
    names = sorted({t for row in tags for t in row})
    at = [np.array([t in row for row in tags]) for t in names]
    return np.array([[r[a].mean() for r in systems.values()] for a in at])


def values(router, matrix: ResponseMatrix, vectors: np.ndarray) -> np.ndarray:
    return router.reward(vectors)[:, [router.models.index(m) for m in matrix.models]]


def experiment(matrix: ResponseMatrix, splits, settings, noise: float = 0.0, rankers=None) -> tuple[list[dict], dict]:
    """Rows of one table over the joined test prompts of all splits, and facts about its best single models."""
    place = {p.id: i for i, p in enumerate(matrix.prompts)}
    X = EMBED.embed_prompts(matrix.prompts)
    routed: dict[str, list] = {}
    clean, tags, by_rank, by_uplift, guards = [], [], [], [], []
    for seed, (train, test) in enumerate(splits):
        a, b = ([place[p.id] for p in side.prompts] for side in (train, test))
        T = test.reward_PM
        clean.append(T)
        tags += test.tags
        scores = subset_scores({m: train.reward_PM[:, i] for i, m in enumerate(train.models)}, train.tags)
        best = int(train.reward_PM.mean(0).argmax())
        by_rank.append(train.models[int(mean_rank(scores).argmin())])
        by_uplift.append(train.models[int(uplift(scores).argmax())])
        rows = {f"model {m}": T[:, i] for i, m in enumerate(test.models)}
        rows |= {"random": T.mean(1), "best single (mean)": T[:, best], "oracle": T.max(1)}
        rows |= {"BMA by MTR": T[:, test.models.index(by_rank[-1])]}
        rows |= {"BMA by %Uplift": T[:, test.models.index(by_uplift[-1])]}
        if rankers:
            rows |= {k: ranked(v, T) for k, v in rank_pool(test, rankers).items()}
        noisy = train
        if noise:
            rng = np.random.default_rng(seed)
            reward = train.reward_PM + noise * rng.normal(size=train.reward_PM.shape)
            noisy = ResponseMatrix(train.prompts, train.models, reward, train.tags)
        for name, method, options in settings:
            asked = {"guard": False, **options}
            router = fit_router(noisy, EMBED, vectors=X[a], method=method, seed=seed, **asked)
            guards += [router.card["guard"]] if asked["guard"] else []
            rows[name] = route(values(router, test, X[b]), T)
        for name, r in rows.items():
            routed.setdefault(name, []).append(r)
    joined = {k: np.concatenate(v) for k, v in routed.items()}
    single = joined["best single (mean)"]
    models = [i for i, k in enumerate(joined) if k.startswith("model ")]
    scores = subset_scores(joined, tags)
    rank, share = mean_rank(scores, pool=models), uplift(scores, pool=models)
    out = []
    for i, (name, r) in enumerate(joined.items()):
        gain, place_ = paired_bootstrap(r, single, draws=2000), gap(r, np.concatenate(clean), draws=500)
        out.append({"system": name, "reward": float(r.mean()), "gain": list(gain[:3]), "gap": list(place_[:3]),
                    "MTR": float(rank[i]), "uplift": float(share[i])})  # fmt: skip
    return out, {"BMA by MTR": by_rank, "BMA by %Uplift": by_uplift, "subsets": scores.shape[0], "guards": guards}


GUARDED = ("tags (ours), guarded", "tags", {"guard": True})


def fitted(betas: list[float], variants: bool) -> list[tuple[str, str, dict]]:
    """Name, method and options of every router that is fitted in domain."""
    out = [(f"zooter beta {b:g}", "zooter", {"beta": b}) for b in betas]
    out += [("zooter hard label", "zooter", {"beta": 1.0, "loss": "hard"}), ("tags (ours)", "tags", {}), GUARDED]
    if variants:
        out += [("zooter v1 beta 0.3", "zooter", {"beta": 0.3, "form": "v1"}), ("bce", "bce", {})]
        out += [("zooter KL(Z||s) beta 0.3", "zooter", {"beta": 0.3, "loss": "kl_reverse"})]
        out += [("zooter temperature 0.1 beta 0.3", "zooter", {"beta": 0.3, "temperature": 0.1})]
    return out


NOISY = [(f"zooter beta {b:g}", "zooter", {"beta": b}) for b in (0.0, 0.3, 1.0)] + [("tags (ours)", "tags", {})]


def show(title: str, rows: list[dict]) -> None:
    print(f"\n{title}\n{'system':32} reward   gain over best single        gap    MTR  %Uplift")
    for r in sorted(rows, key=lambda r: r["reward"]):
        gain = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*r["gain"])
        print(f"{r['system']:32} {r['reward']:.4f}  {gain}  {r['gap'][0]:6.1f}  {r['MTR']:5.2f}  {r['uplift']:.2f}")


def main(run: Run) -> None:
    s = run.settings
    settings = fitted([float(b) for b in s.betas], s.variants)
    for name in s.pools:
        start = time.time()
        matrix = load(name)
        splits = [split_matrix(matrix, 0.2, seed)[:2] for seed in range(s.seeds)]
        rows, facts = experiment(matrix, splits, settings, rankers=RANKERS[name])
        tables = {"in domain": rows}
        show(f"{name}: {len(matrix)} prompts, {len(matrix.models)} models, in domain", rows)
        for sigma in s.noise:
            rows, _ = experiment(matrix, splits[:2], NOISY, noise=float(sigma))
            rows = tables[f"noise {sigma}"] = [r for r in rows if not r["system"].startswith("model ")]
            show(f"{name}: training rewards with noise of {sigma}", rows)
        if name == "router9":
            task = np.array([t[0] for t in matrix.tags])
            held = sorted(set(task))[: s.held_tasks]
            out = [(matrix.rows(task != t), matrix.rows(task == t)) for t in held]
            guarded = ("tags (ours), guarded by tags", "tags", {"guard": True, "guard_by": "tags"})
            tables["leave one task out"], more = experiment(matrix, out, [*NOISY, GUARDED, guarded])
            facts["guards out of domain"] = more["guards"]
            show("router9: leave one task out", tables["leave one task out"])
        facts |= {"prompts": len(matrix), "models": len(matrix.models), "seconds": time.time() - start}
        found = [{"pool": name, "table": t, **r} for t, rs in tables.items() for r in rs]
        run.write({name: facts}, found, keep=("pool",))
