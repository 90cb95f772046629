"""FPO's claims repeated at the smallest size: SmolLM2-135M-Instruct, sentiment of film-review continuations by rule.

    python benchmarks/repro/fpo/sample.py FOLDER && python benchmarks/repro/fpo/run.py FOLDER [--minutes 40]

A TopK SAE is trained on layer 24 (SST-2 sentences and the training samples) and checked; then every method learns from
the same best-of-6 against worst-of-6 pairs with LoRA of rank 16, one epoch, one learning rate, the same seed. Measured
on prompts never trained on: accuracy on held-out pairs (by the mean log-ratio to the start), the oracle's reward of two
samples a prompt, entropy and KL at those samples, distinct-2, self-BLEU. Intervals: paired bootstrap over prompts,
against the start. Every finished run is kept in FOLDER, a second start continues; what did not fit in `--minutes` is
listed as not run. Writes benchmarks/results/fpo_repro.json, which docs/results/fpo.md quotes.
"""

import argparse
import gzip
import json
import platform
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sample import MODEL, PARAMS, scored
from task import DATA, sentiment

from trimtab.data.pairs import best_vs_worst
from trimtab.evaluation.diversity import diversity
from trimtab.evaluation.metrics import paired_bootstrap
from trimtab.learners.feature.changes import contrast, mean_features
from trimtab.learners.feature.check import check_sae
from trimtab.learners.feature.leash import FeatureLeash
from trimtab.learners.feature.sae import identity_sae, load_sae, random_sae
from trimtab.learners.feature.train import train_sae
from trimtab.learners.token.policy import Policy, load_policy
from trimtab.learners.token.trainer import Lora, train_policy
from trimtab.models.load import load_lm
from trimtab.samplers.hf import HF
from trimtab.types import Group, SamplingParams

OUT = Path(__file__).parents[2] / "results" / "fpo_repro.json"
LAYER, WIDTH, K = 24, 1152, 24
RATE, BATCH, PAIRS = 1e-3, 8, 96
SAMPLES = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=PARAMS.max_tokens, seed=7)


@dataclass(frozen=True)
class Run:
    """One training: a loss, its settings, and which leash."""

    name: str
    loss: str
    settings: dict[str, float] = field(default_factory=dict)
    leash: str = ""
    alpha: float = 0.5
    stop: bool = True
    k: int = 50
    hold: str = ""
    """"target": the features that tell chosen from rejected; "control": as many others of like activity."""


RUNS = [
    Run("sft", "sft"),
    Run("dpo", "dpo"),
    Run("ln_dpo b=2", "ln_dpo", {"beta": 2.0}),
    Run("fpo b=2", "fpo", {"beta": 2.0}, "sae"),
    Run("simpo", "simpo"),
    Run("tdpo2", "tdpo2"),
    Run("tdpo1", "tdpo1"),
    Run("orpo", "orpo"),
    Run("kto", "kto"),
    Run("fpo b=2 random dictionary", "fpo", {"beta": 2.0}, "random"),
    Run("fpo b=2 hidden state", "fpo", {"beta": 2.0}, "hidden", k=576),
    Run("hold target", "fpo", {"beta": 2.0}, "sae", alpha=20.0, hold="target"),
    Run("hold control", "fpo", {"beta": 2.0}, "sae", alpha=20.0, hold="control"),
    Run("fpo b=2 a=2", "fpo", {"beta": 2.0}, "sae", alpha=2.0),
    Run("fpo b=2 a=2 no stop", "fpo", {"beta": 2.0}, "sae", alpha=2.0, stop=False),
    Run("fpo b=0.1", "fpo", {"beta": 0.1}, "sae"),
    Run("ln_dpo b=0.1", "ln_dpo", {"beta": 0.1}),
    Run("fpo b=10", "fpo", {"beta": 10.0}, "sae"),
    Run("ln_dpo b=10", "ln_dpo", {"beta": 10.0}),
    Run("fpo b=5", "fpo", {"beta": 5.0}, "sae"),
    Run("fpo b=2 no stop", "fpo", {"beta": 2.0}, "sae", stop=False),
    Run("fpo b=2 a=0.1", "fpo", {"beta": 2.0}, "sae", alpha=0.1),
    Run("fpo b=2 k=10", "fpo", {"beta": 2.0}, "sae", k=10),
    Run("fpo b=2 k=200", "fpo", {"beta": 2.0}, "sae", k=200),
    Run("simpo + leash", "simpo", {}, "sae"),
    Run("dpo + leash", "dpo", {}, "sae"),
]


def make_sae(folder: Path, lm: Any, groups: list[Group]) -> dict[str, Any]:
    with gzip.open(DATA / "sst2" / "train.tsv.gz", "rt", encoding="utf-8") as f:
        lines = [line.rsplit("\t", 1)[0].strip() for _, line in zip(range(3000), f, strict=False)]
    texts = [t for t in lines if len(t.split()) >= 8][:700]
    begun = time.process_time()
    sae = train_sae(
        [*texts, *groups], lm, layer=LAYER, out=folder / "sae", width=WIDTH, k=K, samples=200_000, budget=1024
    )
    check = json.loads((folder / "sae" / "sae.json").read_text())
    wrong = {
        n: check_sae(sae, lm, texts[:60], layer=n, everywhere=False).plain()["fvu"] for n in (LAYER - 1, LAYER + 1)
    }
    return {**check, "neighbours": wrong, "cpu_s": round(time.process_time() - begun)}


def leash_of(run: Run, folder: Path) -> FeatureLeash | None:
    if not run.leash:
        return None
    sae = load_sae(folder / "sae")
    if run.leash == "random":
        sae = random_sae(sae)
    elif run.leash == "hidden":
        sae = identity_sae(sae.inputs, LAYER)
    held = json.loads((folder / "held.json").read_text())[run.hold] if run.hold else []
    return FeatureLeash(sae, LAYER, alpha=run.alpha, k=run.k, stop_gradient=run.stop, hold=tuple(held))


def held_features(folder: Path, lm: Any, groups: list[Group], count: int = 30) -> dict[str, list[int]]:
    """Target: strongest contrast between chosen and rejected completions, either way; control: others as active."""
    sae, pairs = load_sae(folder / "sae"), best_vs_worst(groups)
    good, bad = ([Group(p.prompt, (getattr(p, side),)) for p in pairs] for side in ("chosen", "rejected"))
    target = [*contrast(lm, sae, good, bad, count=count // 2), *contrast(lm, sae, bad, good, count=count // 2)]
    activity_F = mean_features(lm, sae, [*good, *bad]).mean(0)
    others = [f for f in np.argsort(-activity_F).tolist() if f not in target]
    control = []
    for f in target:
        nearest = min(others, key=lambda o: abs(activity_F[o] - activity_F[f]))
        others.remove(nearest)
        control.append(nearest)
    return {"target": target, "control": control}


def train(run: Run, folder: Path, groups: list[Group], out: Path) -> dict[str, Any]:
    pairs = best_vs_worst(groups)[:PAIRS]
    if run.loss == "kto":  # the same completions, unpaired
        data: Any = [
            Group(p.prompt, (p.chosen, p.rejected), tuple(s)) for p, s in zip(pairs, sides(pairs), strict=True)
        ]
    else:
        data = pairs
    begun = time.process_time()
    train_policy(
        data, model=MODEL, out=out, loss=run.loss, loss_settings=run.settings, lora=Lora(16, 32), learning_rate=RATE,
        batch_size=BATCH * (2 if run.loss == "kto" else 1), dtype="float32", reference_store=folder / "reference",
        leash=leash_of(run, folder), trainer={"save_strategy": "no"},
    )  # fmt: skip
    log = [json.loads(x) for x in (out / "log.jsonl").read_text().splitlines()]
    steps = [x for x in log if "loss" in x]
    keys = (
        "loss",
        "rewards/margins",
        "rewards/accuracies",
        "feature/penalty",
        "feature/drift_chosen",
        "feature/drift_rejected",
    )
    late = {k: float(np.mean([x[k] for x in steps[-5:] if k in x])) for k in keys if any(k in x for x in steps[-5:])}
    return {"cpu_s": round(time.process_time() - begun, 1), "steps": len(steps), "late": late}


def sides(pairs: list[Any]) -> list[list[Any]]:
    from trimtab.types import Reward

    return [[Reward(1.0), Reward(0.0)] for _ in pairs]


def measure(policy: Policy, start: Policy, test: list[Group]) -> dict[str, Any]:
    pairs = best_vs_worst(test)
    groups = [Group(p.prompt, (p.chosen, p.rejected)) for p in pairs]
    ours, theirs = policy.logprobs(groups), start.logprobs(groups)
    ratio = np.array(
        [[float((a - b).mean()) for a, b in zip(x, y, strict=True)] for x, y in zip(ours, theirs, strict=True)]
    )
    samples = sample(policy, [g.prompt for g in test])
    found = diversity(samples, policy, start)
    return {
        "accuracy": (ratio[:, 0] > ratio[:, 1]).astype(float).tolist(), "margin": (ratio[:, 0] - ratio[:, 1]).tolist(),
        "reward": [float(np.mean([r.value for r in rs])) for rs in sentiment(samples)],
        "entropy": found.entropy.tolist(), "kl": found.kl.tolist(),
        "distinct_2": found.distinct_2.tolist(), "self_bleu": found.self_bleu.tolist(),
        "texts": [g.completions[0].text for g in samples[:3]],
    }  # fmt: skip


def sample(policy: Policy, prompts: list[Any]) -> list[Group]:
    """Samples of a policy that is in memory: the sampler's own loop with the model handed over."""
    from trimtab.samplers import hf

    sampler = HF(MODEL, batch=64, dtype="float32")
    original = hf._load
    hf._load = lambda *_: policy.lm
    try:
        return sampler(prompts, 2, SAMPLES)
    finally:
        hf._load = original


def summary(results: dict[str, Any]) -> dict[str, Any]:
    start, table = results["start"], {}
    for name, r in results.items():
        row: dict[str, Any] = {}
        for key in ("accuracy", "margin", "reward", "entropy", "kl", "distinct_2", "self_bleu"):
            plain = paired_bootstrap(r[key])
            row[key] = [round(x, 4) for x in (plain.mean, plain.lower, plain.upper)]
            if name != "start" and key in ("reward", "entropy", "distinct_2", "self_bleu"):
                d = paired_bootstrap(r[key], start[key])
                row[key + "_against_start"] = [round(x, 4) for x in (d.mean, d.lower, d.upper)]
        table[name] = row | {k: r[k] for k in ("train",) if k in r}
    rival = "ln_dpo b=2"
    for name in (n for n in results if n.startswith("fpo") and rival in results):
        for key in ("accuracy", "reward", "entropy", "kl"):
            d = paired_bootstrap(results[name][key], results[rival][key])
            table[name][key + "_against_ln_dpo"] = [round(x, 4) for x in (d.mean, d.lower, d.upper)]
    return table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=40.0)
    args = parser.parse_args()
    folder, begun = args.folder, time.monotonic()
    groups, test = scored(str(folder), "train"), scored(str(folder), "test")
    lm = load_lm(MODEL, "float32")
    sae = _cached(folder / "sae_report.json", lambda: make_sae(folder, lm, groups))
    _cached(folder / "held.json", lambda: held_features(folder, lm, groups))
    start = Policy(lm, budget=1024)
    results: dict[str, Any] = {"start": _cached(folder / "start.json", lambda: measure(start, start, test))}
    missing = []
    for run in RUNS:
        file = folder / f"run {run.name}.json"
        if not file.is_file() and time.monotonic() - begun > 60 * args.minutes:
            missing.append(run.name)
            continue

        def do(run: Run = run) -> dict[str, Any]:
            out = folder / "policy"
            shutil.rmtree(out, ignore_errors=True)
            trained = train(run, folder, groups, out)
            policy = Policy(load_policy(out, dtype="float32").policy.lm, budget=1024)
            return {**measure(policy, start, test), "train": trained}

        results[run.name] = _cached(file, do)
        one = summary({k: results[k] for k in dict.fromkeys(["start", run.name])})[run.name]
        print(run.name, {k: one[k] for k in ("accuracy", "reward", "entropy", "kl")}, one["train"], flush=True)
        write(sae, results, missing, len(best_vs_worst(groups)), len(test))
    write(sae, results, missing, len(best_vs_worst(groups)), len(test))


def write(sae: dict[str, Any], results: dict[str, Any], missing: list[str], pairs: int, test: int) -> None:
    found = {
        "command": "python benchmarks/repro/fpo/run.py FOLDER", "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, 1 thread", "model": MODEL, "layer": LAYER, "learning_rate": RATE,
        "pairs": min(pairs, PAIRS), "test_prompts": test, "sae": sae, "runs": summary(results), "not_run": missing,
        "texts": {k: r["texts"] for k, r in results.items()},
    }  # fmt: skip
    OUT.write_text(json.dumps(found, indent=1, ensure_ascii=False))


def _cached(file: Path, make: Any) -> Any:
    if file.is_file():
        return json.loads(file.read_text())
    found = make()
    file.write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
