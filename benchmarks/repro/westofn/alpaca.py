"""West-of-N on AlpacaEval answers: one annotator labels, another one judges.

604 prompts, split by prompt and seed: 20 labelled, 60 to validate, 250 unlabelled, the rest to test. Labels and
validation: gpt4_turbo's preferences (against gpt4_1106_preview, continuous) between answers of the 16 models that both
annotators judged, 4 pairs a prompt. Judge: gpt4's labels (against text_davinci_003) of the same 16 models on the test
prompts: accuracy over pairs that it tells apart, "sure" the pairs of a win against a loss, best of 16. The pool's N
samples are answers of N of 92 models, those 16 first. Students are linear Bradley-Terry probes on 14 marks of form and
256 hashed n-grams of the answer, L2 (1, 10, 100, 1000) chosen on the validation pairs. Teachers as in chain.py; "hints"
reads likeness to the prompt's other answers and the rank of its form among them. The answers come
without log-probs: the likelihood filter reads those of SmolLM2-135M for the first 400 characters. Every seed is kept
in `folder`. --small: one seed.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.repro.westofn.alpaca_data import (
    Likelihood,
    form_vectors,
    groups,
    hints,
    labels,
    names,
    rows,
    word_vectors,
)
from benchmarks.repro.westofn.chain import Students, every_l2
from benchmarks.repro.westofn.experiment import Board, Teacher, Vectors, all_seeds, arm, label_pairs, pair_errors
from benchmarks.run import Run
from trimtab.evaluation.reward_models.report import null_values
from trimtab.learners.completion.west_of_n.pseudo_pairs import mix
from trimtab.types import Group, Reward

SETTINGS = {"folder": "runs/westofn", "labelled": 20, "seeds": 3, "limit_s": float("inf")}
SMALL = {"seeds": 1}
L2 = (1.0, 10.0, 100.0, 1000.0)
NS = (2, 8, 16, 32, 64)


def rewarded(gs: list[Group], label_PM: np.ndarray) -> list[Group]:
    """The groups with one annotator's labels as rewards; an answer without a label is left out."""
    out = []
    for g, label_M in zip(gs, label_PM, strict=True):
        keep = [i for i in range(len(g.completions)) if np.isfinite(label_M[g.completions[i].index])]
        cs = tuple(g.completions[i] for i in keep)
        out.append(replace(g, completions=cs, rewards=tuple(Reward(float(label_M[c.index])) for c in cs)))
    return out


def load(folder: Path) -> dict:
    data = rows()
    both, rest = names(data)
    everything = groups(data, both + rest)
    words, marks = word_vectors(everything, folder), form_vectors(everything, folder)
    few = [replace(g, completions=tuple(c for c in g.completions if c.index < len(both))) for g in everything]
    return {
        "all": everything,
        "states": Vectors.of("words", everything, [np.concatenate(x, 1) for x in zip(words, marks, strict=True)]),
        "hints": Vectors.of("hints", everything, [hints(w, m) for w, m in zip(words, marks, strict=True)]),
        "w": rewarded(few, labels(data, both, "w")), "g4": rewarded(few, labels(data, both, "g4")),
        "likelihood": Likelihood(folder), "models": (len(both), len(rest)),
    }  # fmt: skip


def one_seed(data: dict, labelled: int, seed: int) -> Board:
    rng, board = np.random.default_rng(seed), Board()
    order = rng.permutation(len(data["all"]))
    train, valid, pool, test = np.split(order, [labelled, 120, 370])[0], order[60:120], order[120:370], order[370:]
    base = label_pairs([data["w"][i] for i in train], 4, 0.0, rng)
    student = Students(data["states"], label_pairs([data["w"][i] for i in valid], 4, 0.0, rng), L2)
    judged = [data["g4"][i] for i in test]
    unlabelled = [g for g in (data["all"][i] for i in pool) if len(g.completions) >= max(NS)]
    gold = {(g.prompt.id, c.model, c.index): float(r) for g in data["g4"]
            for c, r in zip(g.completions, g.reward_N, strict=True)}  # fmt: skip
    fitted = student(base, seed)
    board.test("base", fitted, judged, 0.75)
    every_l2(board, "base", student, judged)
    human = label_pairs([data["w"][i] for i in pool], 1, 0.0, np.random.default_rng(seed + 999))
    board.test("more labels", student(mix(base, human, seed=seed), seed), judged, 0.75)
    board.note("more labels", kept=len(human))
    for name in ("longest", "shortest", "random"):
        board.test(
            name, lambda gs, name=name: [[Reward(float(x)) for x in v] for v in null_values(gs)[0][name]], judged, 0.75
        )
    teachers = {
        "same": lambda pairs: student(pairs, seed),
        "pairwise": lambda pairs: Teacher("pairwise", data["states"], 0.3)(pairs, seed),
        "hints": lambda pairs: Teacher("linear", data["hints"], 1.0)(pairs, seed),
    }
    for name, fit in teachers.items():
        teacher = fitted if name == "same" else fit(base)
        board.by_id(f"teacher {name}", "error", pair_errors(teacher, judged))
        if name == "hints":
            board.test("teacher hints", teacher, judged, 0.75)
        ways = {f"N={n}": {"n": n} for n in NS} | {
            "N=16, best vs random": {"n": 16, "pairing": "best_vs_random"},
            "N=16, sure half": {"n": 16, "confidence": 0.5},
            "N=16, likely half": {"n": 16, "logprob": 0.5, "likelihood": data["likelihood"]},
            "N=16, both filters": {"n": 16, "confidence": 0.5, "logprob": 0.5, "likelihood": data["likelihood"]},
        }
        first_mix = base
        for way, settings in ways.items():
            _, mixed = arm(
                board,
                f"{name}, {way}",
                base,
                unlabelled,
                judged,
                gold,
                teacher,
                student,
                seed,
                sure_gap=0.75,
                **settings,
            )
            if way == "N=16":
                first_mix = mixed
                every_l2(board, f"{name}, {way}", student, judged)
        arm(
            board, f"{name}, N=16, round 2", base, unlabelled, judged, gold, fit(first_mix), student, seed, n=16,
            sure_gap=0.75,
        )  # fmt: skip
    return board


def main(run: Run) -> None:
    s = run.settings
    torch.set_num_threads(1)
    data = load(Path(s.folder))
    settings = {f"{s.labelled} labelled prompts": (s.seeds, lambda seed: one_seed(data, s.labelled, seed))}
    rows = all_seeds(settings, Path(s.folder) / "alpaca_results", s.limit_s)
    run.write({"models": data["models"]}, rows, l2=L2)
