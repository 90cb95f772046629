"""A small local language model as the judge of AlpacaEval answers, beside GPT-4's labels and a ruler.

Two sets of pairs (a model's answer, the baseline's): AlpacaEval 2 (labels of gpt4_turbo, 1 to 2, read as the better one
of the two) and AlpacaEval 1 (gpt4's labels). `pairs` of each are drawn with a seed among those that the annotator told
apart and whose longest question has at most `tokens` tokens; the others are counted, nothing is cut. `model` judges
every pair in both orders, twice: `Judge` reads a written verdict, asked for again when it cannot be read; `ChoiceJudge`
reads the log-odds of A and B. Answers are kept in parts in `folder`, so that a second start goes on; `limit_s` stops
after so many seconds. --small: two short pairs.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.repro.westofn.alpaca_data import rows
from benchmarks.run import Run
from trimtab.evaluation.metrics import Interval, mean_interval, paired_bootstrap
from trimtab.evaluation.reward_models.win_rate import win_rates
from trimtab.rewards import ChoiceJudge, Judge
from trimtab.rewards.choices import A_OR_B
from trimtab.rewards.judge import JUDGING, Comparison, summarise
from trimtab.rewards.verdicts import PAIR_TEMPLATE, fill
from trimtab.samplers import OpenVINO
from trimtab.types import Completion, Group, Prompt

SETTINGS = {
    "model": "qwen2.5-coder-0.5b", "tokens": 450, "pairs": 30, "threads": 0, "folder": "runs/westofn",
    "limit_s": float("inf"),
}  # fmt: skip
SMALL = {"tokens": 200, "pairs": 2}
SETS = {  # name: (judged model, the baseline's column, the label's)
    "AlpacaEval 2": ("FuseChat-Llama-3.2-3B-Instruct", "ref_w", "w"),
    "AlpacaEval 1": ("alpaca-farm-ppo-human", "ref_g4", "g4"),
}
JUDGES = ("choice", "written")
PART = 10
BOTH = np.array([[0, 1], [1, 0]])


def pairs(data: list[dict], s, model: str, baseline: str, key: str) -> tuple[list[Group], np.ndarray, dict[str, int]]:
    """Groups of (the model's answer, the baseline's), the labels from 0 to 1, and what was left out."""
    found, labels = [], []
    counts = {"prompts": len(data), "no_label": 0, "undecided": 0, "too_long": 0}
    sampler = OpenVINO(s.model)
    for r in data:
        given = r["models"].get(model, {})
        label = given.get(key)
        if label is None or not given["out"].strip():
            counts["no_label"] += 1
        elif label == 1.5 or given["out"] == r[baseline]:
            counts["undecided"] += 1
        else:
            words = {"prompt": r["instruction"], "a": given["out"], "b": r[baseline], "reference": ""}
            texts = [fill(t, **words) for t in (PAIR_TEMPLATE, A_OR_B)]
            prompts = [Prompt("", ({"role": "user", "content": t},)) for t in texts]
            if max(sampler.lengths(prompts)) > s.tokens:
                counts["too_long"] += 1
                continue
            prompt = Prompt(str(r["id"]), ({"role": "user", "content": r["instruction"]},))
            found.append(Group(prompt, (Completion(given["out"], model, 0, 0), Completion(r[baseline], "base", 0, 1))))
            labels.append(label - 1)
    counts["fit"] = len(found)
    order = np.random.default_rng(0).permutation(len(found))[: s.pairs]
    return [found[i] for i in order], np.array(labels)[order], counts


def written(s, groups: list[Group]) -> list[dict]:
    """Comparisons by the verdict that the model writes."""
    sampler = OpenVINO(s.model, threads=s.threads)
    judge = Judge(sampler, params=replace(JUDGING, max_tokens=200))
    return [asdict(row[0]) for row in judge.compare(groups, [BOTH[:1]] * len(groups))]


def choice(s, groups: list[Group]) -> list[dict]:
    """Comparisons by P(A), each order read by itself."""
    read = ChoiceJudge(s.model, both_orders=False, dtype="bfloat16")(groups, [BOTH] * len(groups))
    return [asdict(Comparison(float(p[0]), 1 - float(p[1]), 1.0, 2, 0)) for p in read]


def judged(s, name: str, judge: str, groups: list[Group], begun: float) -> list[Comparison]:
    """The comparisons that are known, in the order of the groups, after what time allows was added."""
    folder = Path(s.folder) / "judge_local" / f"{s.model}-{s.tokens}"
    folder.mkdir(parents=True, exist_ok=True)
    ask: Callable[[Any, list[Group]], list[dict]] = {"choice": choice, "written": written}[judge]
    out = []
    for start in range(0, len(groups), PART):
        part = groups[start : start + PART]
        file = folder / f"{name[-1]}-{judge}-{'-'.join(g.prompt.id for g in part)}.json"
        if not file.exists():
            if time.time() - begun > s.limit_s:
                break
            then = time.time()
            made = {"comparisons": ask(s, part), "seconds": round(time.time() - then, 1)}
            file.write_text(json.dumps(made))
            print(name, judge, start + len(part), made["seconds"], flush=True)
        out += [Comparison(**c) for c in json.loads(file.read_text())["comparisons"]]
    return out


def three(interval: Interval) -> list[float]:
    return [round(float(x), 4) for x in interval[:3]]


def right(preference_P: np.ndarray, label_P: np.ndarray) -> np.ndarray:
    """1 where the preference is on the label's side, 0 where on the other, one half for none; NaN unread."""
    side = np.sign(preference_P - 0.5) * np.sign(label_P - 0.5)
    return np.where(np.isfinite(preference_P), (side + 1) / 2, math.nan)


def preferences(judge: str, found: list[Comparison]) -> np.ndarray:
    """P(model's answer is preferred) over both orders: the verdicts' mean, or the mean of the log-odds."""
    first, second = (np.array([getattr(c, k) for c in found]) for k in ("shown_first", "shown_second"))
    if judge == "written":
        return (first + second) / 2
    odds = [np.log(p) - np.log1p(-p) for p in np.clip([first, second], 1e-12, 1 - 1e-12)]
    return 1 / (1 + np.exp(-(odds[0] + odds[1]) / 2))


def report(judge: str, found: list[Comparison], groups: list[Group], label_P: np.ndarray) -> dict:
    """What the judge said of the first pairs: unread, position, agreement beside the ruler's, win rates."""
    groups, label_P = groups[: len(found)], label_P[: len(found)]
    length, other = (np.array([len(g.completions[i].text) for g in groups], float) for i in (0, 1))
    preference = preferences(judge, found)
    known = np.isfinite(preference)
    if not known.any():
        return {"pairs": len(found), "unread": len(found)}
    first, second = (np.array([getattr(c, k) for c in found])[known] for k in ("shown_first", "shown_second"))
    says_a, says_b = (first > 0.5) & (second < 0.5), (first < 0.5) & (second > 0.5)
    same = (first - 0.5) * (second - 0.5) > 0
    mine = right(preference, label_P)
    longest = right(0.5 + np.sign(length - other) / 4, label_P)
    rates, gpt4 = win_rates(preference, length, other), win_rates(label_P, length, other)
    summary = asdict(summarise([found]))
    return {
        "pairs": len(found), "unread": int((~known).sum()), "calls": summary["calls"], "tokens": summary["tokens"],
        "first_both_times": three(mean_interval(says_a.astype(float))),
        "second_both_times": three(mean_interval(says_b.astype(float))),
        "position_bias": round(summary["position_bias"], 4),
        "agreement": three(mean_interval(mine[known])),
        "agreement_where_consistent": [
            int(same.sum()), *(three(mean_interval(mine[known][same])) if same.any() else [math.nan] * 3)
        ],
        "longest": three(mean_interval(longest[known])),
        "over_longest": three(paired_bootstrap(mine[known], longest[known])),
        "random": 0.5,
        "prefers_longer": three(mean_interval(right(preference, 0.5 + np.sign(length - other) / 4)[known])),
        "win_rate": three(rates.win_rate), "length_controlled": three(rates.length_controlled),
        "label_win_rate": three(gpt4.win_rate), "label_length_controlled": three(gpt4.length_controlled),
    }  # fmt: skip


def main(run: Run) -> None:
    s = run.settings
    torch.set_num_threads(s.threads or torch.get_num_threads())
    begun, data = time.time(), rows()
    found = []
    chosen = {name: pairs(data, s, *way) for name, way in SETS.items()}
    for judge in JUDGES:
        for name, (groups, label_P, _) in chosen.items():
            if said := judged(s, name, judge, groups, begun):
                found.append({"set": name, "judge": judge, **report(judge, said, groups, label_P)})
                print(json.dumps(found[-1], indent=1))
    sets = {name: {"model": SETS[name][0], "counts": counts} for name, (_, _, counts) in chosen.items()}
    run.write({"sets": sets}, found, verdict_tokens=200, choice_dtype="bfloat16")
