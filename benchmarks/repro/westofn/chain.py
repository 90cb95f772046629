"""West-of-N on chain_sum samples with an exact verifier: labels made noisy on purpose, gold = the verifier.

    make demo && python benchmarks/repro/westofn/chain_data.py      the samples and states, once
    python benchmarks/repro/westofn/chain.py                        SMALL=1: one seed of one setting

150 prompts × 16 samples give labels, validation and test; 100 other prompts × 64 are the unlabelled pool. A seed draws
10 or 40 labelled prompts (4 pairs each, a share of the labels turned round), 20 validation prompts labelled the same
way, and tests on the rest. Students are linear Bradley-Terry probes on the last token's state of layer 20; every
student's L2 (1, 10, 100, 1000) is chosen on the validation pairs, the base's too. Teachers:

    same      the base itself: the student's kind on the student's features, labelled data only
    pairwise  a pairwise net on the same features
    signals   a linear probe on seven numbers that no hidden state of one sample holds: mean, sum and lowest log-prob,
              length, the share of the prompt's samples with the same answer, whether it is the commonest, whether any

"RLAIF labels" are the sampled model's own: its log-odds of A and B for a prompt's first two samples, both orders.
Settings of 0, 10, 30 and 40 % wrong labels run only the sizes of N: the sweep in which the teachers' error varies.

Every seed is cached under RUNS/chain_results, so a second start goes on (LIMIT_S: no new seed after so many
seconds). Writes benchmarks/results/westofn_chain.json.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from chain_data import RUNS, Known, load
from experiment import OF_PAIRS, Board, Teacher, Vectors, arm, label_pairs, pair_errors

from trimtab.learners import judged_pairs, mix
from trimtab.rewards.extract import last_number
from trimtab.types import Group, Pair

SMALL = os.environ.get("SMALL") == "1"
OUT = Path(__file__).parents[2] / "results" / "westofn_chain.json"
L2 = (1.0, 10.0, 100.0, 1000.0)
SETTINGS = {  # name: (labelled prompts, share of labels turned round, seeds, whether every arm runs)
    "10 prompts, 20% wrong": (10, 0.2, 12, True),
    **{f"10 prompts, {wrong}% wrong": (10, wrong / 100, 12, False) for wrong in (0, 10, 30, 40)},
    "40 prompts, 20% wrong": (40, 0.2, 12, True),
}
NS = (2, 8, 32, 64)
SWEPT = ("pseudo_accuracy", "pseudo_ties_half", "accuracy_gain", "accuracy_gain_by_seed", "best_of_n_gain")
MORE_WEIGHT = {f"N={n}, 4:1": {"n": n, "ratio": 4.0} for n in (8, 64)}
"""Four pseudo-labelled pairs to one labelled, for a teacher that errs less than the labels do."""


def signals(g: Group) -> np.ndarray:
    answers = [last_number(c.text) for c in g.completions]
    votes = Counter(a for a in answers if a is not None)
    most = max(votes.values(), default=0)
    rows = []
    for c, a in zip(g.completions, answers, strict=True):
        p = np.array(c.logprobs or (0.0,))
        share = votes[a] / len(answers) if a is not None else 0.0
        rows.append([p.mean(), p.sum(), p.min(), np.log1p(len(p)), share, a is not None, most and votes[a] == most])
    return np.array(rows, dtype=np.float32)


class Students:
    """Fits the student at every L2 and keeps the one that orders the validation pairs best (ties: the stronger)."""

    def __init__(self, embed: Vectors, validation: list[Pair], l2: tuple[float, ...] = L2):
        self.embed, self.validation, self.l2 = embed, validation, l2
        self.last: dict[float, object] = {}

    def __call__(self, pairs: list[Pair], seed: int) -> object:
        best, self.last = None, {}
        for l2 in sorted(self.l2, reverse=True):
            fitted = self.last[l2] = Teacher("linear", self.embed, l2)(pairs, seed)
            groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in self.validation]
            right = np.mean([np.sign(r[0].value - r[1].value) for r in fitted(groups)])
            if best is None or right > best[0]:
                best = (right, fitted)
        assert best is not None
        return best[1]


def every_l2(board: Board, arm: str, student: Students, test: list[Group]) -> None:
    """The same arm at each fixed L2: shows what choosing it well is worth by itself."""
    for l2, fitted in student.last.items():
        board.test(f"{arm} | L2 {l2:g}", fitted, test)


def one_seed(data: dict, labelled: int, flip: float, seed: int, every_arm: bool) -> Board:
    (side, side_x), (pool, pool_x) = data["train"], data["test"]
    everything, vectors = side + pool, side_x + pool_x
    states = Vectors.of("layer20", everything, [x[:, 1792:2688] for x in vectors])
    hints = Vectors.of("signals", everything, [signals(g) for g in everything])
    gold = {(g.prompt.id, c.model, c.index): float(r) for g in everything
            for c, r in zip(g.completions, g.reward_N, strict=True)}  # fmt: skip
    rng, board = np.random.default_rng(seed), Board()
    order = rng.permutation(len(side))
    train, valid, test = ([side[i] for i in order[a:b]] for a, b in ((0, labelled), (40, 60), (60, None)))
    base = label_pairs(train, 4, flip, rng)
    student = Students(states, label_pairs(valid, 4, flip, rng))
    fitted = student(base, seed)
    board.test("base", fitted, test)
    every_l2(board, "base", student, test)
    human = label_pairs(pool, 1, flip, np.random.default_rng(seed + 999))
    board.test("more labels", student(mix(base, human, seed=seed), seed), test)
    board.note("more labels", kept=len(human))
    every_l2(board, "more labels", student, test)
    rlaif, _ = judged_pairs(pool, Known(data["judge"]))
    board.test("RLAIF labels", student(mix(base, rlaif, seed=seed), seed), test)
    gaps = {p.prompt.id: gold[p.prompt.id, p.chosen.model, p.chosen.index]
            - gold[p.prompt.id, p.rejected.model, p.rejected.index] for p in rlaif}  # fmt: skip
    board.by_id("RLAIF labels", "pseudo_accuracy", {i: float(gap > 0) for i, gap in gaps.items() if gap})
    board.note("RLAIF labels", kept=len(rlaif), pseudo_differs=np.mean([gap != 0 for gap in gaps.values()]))
    teachers = {
        "same": fitted, "pairwise": Teacher("pairwise", states)(base, seed),
        "signals": Teacher("linear", hints, 1.0)(base, seed),
    }  # fmt: skip
    for name, teacher in teachers.items():
        board.by_id(f"teacher {name}", "error", pair_errors(teacher, test))
        if name == "signals":
            board.test("teacher signals", teacher, test)
        ways: dict[str, dict] = {f"N={n}": {"n": n} for n in NS}
        more = {
            "N=64, best vs random": {"n": 64, "pairing": "best_vs_random"},
            "N=64, sure half": {"n": 64, "confidence": 0.5}, "N=64, likely half": {"n": 64, "logprob": 0.5},
            "N=64, both filters": {"n": 64, "confidence": 0.5, "logprob": 0.5},
        } | MORE_WEIGHT  # fmt: skip
        for way, settings in (ways | more if every_arm else ways).items():
            _, mixed = arm(board, f"{name}, {way}", base, pool, test, gold, teacher, student, seed, **settings)
            if way == "N=64":
                first_mix = mixed
                every_l2(board, f"{name}, {way}", student, test)
        if not every_arm:
            continue
        again = {"same": student, "pairwise": Teacher("pairwise", states), "signals": Teacher("linear", hints, 1.0)}
        arm(board, f"{name}, N=64, round 2", base, pool, test, gold, again[name](first_mix, seed), student, seed, n=64)
    return board


def sweep(results: dict) -> list[dict]:
    """One row a setting of 10 labelled prompts and teacher: its error, the bound, what its pairs and students were."""
    out = []
    for name, (labelled, flip, _, _) in sorted(SETTINGS.items(), key=lambda kv: kv[1][1]):
        rows = {r["arm"]: r for r in results.get(name, {"rows": []})["rows"]}
        for teacher in ("same", "pairwise", "signals") if labelled == 10 and rows else ():
            arms = {n: rows[f"{teacher}, N={n}"] for n in NS}
            error = rows[f"teacher {teacher}"]["error"]
            out.append({
                "wrong": flip, "seeds": results[name]["seeds"], "teacher": teacher, "base": rows["base"]["accuracy"],
                "error": error, "bound": round(1 - 2 * error[0], 4),
                "above_bound": {str(n): a["pseudo_ties_half"][1] > 1 - 2 * error[0] for n, a in arms.items()},
                **{k: {str(n): a[k] for n, a in arms.items()} for k in SWEPT},
                **{f"more_labels_{k}": rows["more labels"][k] for k in ("accuracy_gain", "accuracy_gain_by_seed")},
            })  # fmt: skip
    return out


def main() -> None:
    torch.set_num_threads(1)
    cache = RUNS / "chain_results"
    cache.mkdir(parents=True, exist_ok=True)
    data = load()
    begun, results = time.time(), {}
    for name, (labelled, flip, seeds, every_arm) in list(SETTINGS.items())[: 1 if SMALL else None]:
        total = Board()
        done = 0
        for seed in range(1 if SMALL else seeds):
            file = cache / f"{labelled}-{flip}-{seed}.json"
            if not file.exists():
                if time.time() - begun > float(os.environ.get("LIMIT_S", "1e9")):
                    break
                board = one_seed(data, labelled, flip, seed, every_arm)
                file.write_text(json.dumps([board.by_prompt, board.by_seed]))
                print(name, seed, round(time.time() - begun), flush=True)
            board = Board()
            board.add(*json.loads(file.read_text()))
            board.note_gains("base")
            total.add(board.by_prompt, board.by_seed)
            done += 1
        if done:
            results[name] = {"seeds": done, "rows": total.rows("base")}
    report = {
        "settings": results, "sweep": sweep(results), "student": "linear Bradley-Terry probe, layer 20", "l2": L2,
        "pass_rate": {k: round(float(np.mean([g.reward_N.mean() for g in data[k][0]])), 4) for k in ("train", "test")},
        "command": "python benchmarks/repro/westofn/chain.py", "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if not SMALL:
        OUT.write_text(json.dumps(report, indent=1) + "\n")
    for name, r in results.items():
        print(f"\n{name}, {r['seeds']} seeds")
        for row in r["rows"]:
            print(show(row))
    sys.stdout.flush()


def show(row: dict) -> str:
    parts = [f"{row['arm']:32}"]
    for k in ("accuracy", "sure", "best_of_n"):
        if k in row:
            mean, (gain, low, high) = row[k][0], row[f"{k}_gain"]
            parts.append(f"{k} {mean:.3f} ({gain:+.3f} [{low:+.3f}, {high:+.3f}])")
    parts += [f"{k} {row[k][0]:.3f} [{row[k][1]:.3f}, {row[k][2]:.3f}]" for k in OF_PAIRS if k in row]
    parts += [
        f"{k} {row[k]:.3f}"
        for k in ("pseudo_differs", "kept", "mean_logprob", "accuracy_up", "best_of_n_up")
        if row.get(k) is not None
    ]
    return "  ".join(parts)


if __name__ == "__main__":
    main()
