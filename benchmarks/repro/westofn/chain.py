"""West-of-N on chain_sum samples with an exact verifier: labels made noisy on purpose, gold = the verifier.

    make demo && python -m benchmarks westofn_chain

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

Every seed is kept in `folder`, so a second start goes on (`limit_s`: no new seed after so many seconds). --small: one
seed of one setting.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from benchmarks.repro.westofn.chain_data import Known, load
from benchmarks.repro.westofn.experiment import Board, Teacher, Vectors, all_seeds, arm, label_pairs, pair_errors
from benchmarks.results import stacked
from benchmarks.run import Run
from trimtab.learners.completion.west_of_n.pseudo_pairs import judged_pairs, mix
from trimtab.rewards.extract import last_number
from trimtab.types import Group, Pair

SETTINGS = {"demo": "runs/demo", "folder": "runs/westofn", "settings": 6, "seeds": 12, "limit_s": float("inf")}
SMALL = {"settings": 1, "seeds": 1}
L2 = (1.0, 10.0, 100.0, 1000.0)
WAYS = {  # name: (labelled prompts, share of labels turned round, whether every arm runs)
    "10 prompts, 20% wrong": (10, 0.2, True),
    **{f"10 prompts, {wrong}% wrong": (10, wrong / 100, False) for wrong in (0, 10, 30, 40)},
    "40 prompts, 20% wrong": (40, 0.2, True),
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


def sweep(rows: list[dict]) -> list[dict]:
    """One row a setting of 10 labelled prompts and teacher: its error, the bound, what its pairs and students were."""
    out = []
    for name, (labelled, flip, _) in sorted(WAYS.items(), key=lambda kv: kv[1][1]):
        of = {r["arm"]: r for r in rows if r["setting"] == name}
        for teacher in ("same", "pairwise", "signals") if labelled == 10 and of else ():
            arms = {n: of[f"{teacher}, N={n}"] for n in NS}
            error = of[f"teacher {teacher}"]["error"]
            out.append({
                "wrong": flip, "seeds": of["base"]["seeds"], "teacher": teacher, "base": of["base"]["accuracy"],
                "error": error, "bound": round(1 - 2 * error[0], 4),
                "above_bound": {str(n): a["pseudo_ties_half"][1] > 1 - 2 * error[0] for n, a in arms.items()},
                **{k: {str(n): a[k] for n, a in arms.items()} for k in SWEPT},
                **{f"more_labels_{k}": of["more labels"][k] for k in ("accuracy_gain", "accuracy_gain_by_seed")},
            })  # fmt: skip
    return out


def main(run: Run) -> None:
    s = run.settings
    run.need(s.demo, "`make demo` makes it; demo=FOLDER names another")
    torch.set_num_threads(1)
    data = load(s.demo, Path(s.folder))
    settings = {
        name: (s.seeds, lambda seed, way=way: one_seed(data, way[0], way[1], seed, way[2]))
        for name, way in list(WAYS.items())[: s.settings]
    }
    rows = all_seeds(settings, Path(s.folder) / "chain_results", s.limit_s)
    rates = {k: round(float(np.mean([g.reward_N.mean() for g in data[k][0]])), 4) for k in ("train", "test")}
    figures = {"student": "linear Bradley-Terry probe, layer 20", "pass_rate": rates}
    run.write(figures, stacked({"arms": rows, "sweep": sweep(rows)}), l2=L2)
