"""FPO's claims repeated at the smallest sizes, where every method and sweep can be run: sentiment by rule.

    python benchmarks/repro/fpo/run.py FOLDER [--model stories|smollm2] [--minutes 40]

stories: the TinyStories Llama of 260,032 parameters (all weights trained); smollm2: SmolLM2-135M-Instruct with LoRA. A
TopK SAE is trained on one layer's states over the model's own samples, and checked on texts held out. Every method
learns one epoch from the same best-of-n against worst-of-n pairs with the same seed and the same three learning rates;
the rate is chosen by the oracle's reward on validation prompts. On test prompts: accuracy on held-out pairs (by the
mean log-ratio to the start), the oracle's reward of two samples a prompt at temperature 1, next-token entropy and
KL(policy | start) at those samples, distinct-2, self-BLEU; how far the SAE's features moved. Intervals: 95 % paired
bootstrap over prompts. Every finished run is kept in FOLDER, a second start continues; what did not fit into
`--minutes` of processor time is listed as not run. Writes benchmarks/results/fpo_<model>.json; docs/results/fpo.md
quotes it.
"""

import argparse
import json
import platform
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from stories import convert
from task import openings, reviews, sentiment

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
from trimtab.models.load import LM, load_lm
from trimtab.samplers import hf
from trimtab.store import Store
from trimtab.types import Group, Reward, SamplingParams

RESULTS = Path(__file__).parents[2] / "results"


@dataclass(frozen=True)
class Setup:
    """Sizes of one model's repeat."""

    name: str
    layer: int
    others: tuple[int, ...]
    width: int
    k: int
    samples: int
    lora: Lora | None
    rates: tuple[float, ...]
    """The first is used for the sweeps."""
    batch: int
    prompts: tuple[int, int, int]
    """Training, validation, test."""
    n: int
    tokens: int


STORIES = Setup("stories", 4, (2,), 256, 8, 400_000, None, (1e-3, 3e-4, 3e-3), 16, (200, 48, 120), 6, 32)
SMOLLM2 = Setup("smollm2", 24, (), 1152, 24, 200_000, Lora(16, 32), (1e-3,), 8, (112, 0, 64), 6, 16)


@dataclass(frozen=True)
class Run:
    """One training: a loss, its settings, which leash, and the place of its learning rate."""

    name: str
    loss: str
    settings: dict[str, float] = field(default_factory=dict)
    leash: str = ""
    alpha: float = 0.5
    """In units of 1 / the mean square of the start's top features on training pairs: dictionaries differ in scale."""
    stop: bool = True
    k: int = 50
    layer: int = 0
    hold: str = ""
    """"target": the features that tell chosen from rejected; "control": as many others of like activity."""
    rate: int = 0

    @property
    def key(self) -> str:
        """Its name, with the learning rate's place when it is not the first."""
        return self.name + (f" rate {self.rate}" if self.rate else "")


def fpo(name: str, beta: float = 2.0, **more: Any) -> Run:
    return Run(f"fpo {name}".strip(), "fpo", {"beta": beta}, more.pop("leash", "sae"), **more)


CORE = [
    Run("sft", "sft"), Run("dpo", "dpo"), Run("ln_dpo", "ln_dpo", {"beta": 2.0}), fpo(""), Run("simpo", "simpo"),
    Run("tdpo2", "tdpo2"), Run("tdpo1", "tdpo1"), Run("orpo", "orpo"), Run("kto", "kto"),
]  # fmt: skip
SWEEPS = [
    fpo("random dictionary", leash="random"), fpo("hidden state", leash="hidden"),
    fpo("alpha 20", alpha=20.0), fpo("alpha 20 random dictionary", alpha=20.0, leash="random"),
    fpo("alpha 20 hidden state", alpha=20.0, leash="hidden"), fpo("alpha 20 no stop", alpha=20.0, stop=False),
    fpo("alpha 100", alpha=100.0), fpo("hold target", alpha=100.0, hold="target"),
    fpo("hold control", alpha=100.0, hold="control"), fpo("alpha 5", alpha=5.0),
    fpo("beta 0.1", 0.1), Run("ln_dpo beta 0.1", "ln_dpo", {"beta": 0.1}), fpo("beta 10", 10.0),
    Run("ln_dpo beta 10", "ln_dpo", {"beta": 10.0}), fpo("alpha 0.5 no stop", stop=False),
    fpo("alpha 5 no stop", alpha=5.0, stop=False), fpo("alpha 20 k 10", alpha=20.0, k=10),
    fpo("alpha 20 k 200", alpha=20.0, k=200), fpo("beta 5", 5.0), Run("ln_dpo beta 5", "ln_dpo", {"beta": 5.0}),
    fpo("alpha 0.1", alpha=0.1),
    Run("simpo + leash", "simpo", {}, "sae", alpha=20.0), Run("dpo + leash", "dpo", {}, "sae", alpha=20.0),
]  # fmt: skip


def sampled(setup: Setup, model: str, folder: Path) -> dict[str, list[Group]]:
    """Groups with the oracle's rewards, by split; from the store when they are there."""
    sampler = hf.HF(model, batch=128, dtype="float32")
    store, names = Store(folder / "samples"), ("train", "validation", "test")
    params = SamplingParams(temperature=0.8, top_p=1.0, max_tokens=setup.tokens, seed=1)
    if not store.prompts():
        total = sum(setup.prompts)
        prompts = openings(sampler, total) if setup.name == "stories" else reviews(total)
        for name, end in zip(names, np.cumsum(setup.prompts), strict=True):
            mine = prompts[end - setup.prompts[names.index(name)] : end]
            store.add_prompts(mine, name, {"task": setup.name})
    for name in names:
        with store.writer(f"completions/{name}", {"model": sampler.model, "params": params, "n": setup.n}) as writer:
            have = {r["prompt_id"] for r in store.read(f"completions/{name}").to_pylist()}
            todo = [p for p in store.prompts(name) if p.id not in have]
            for i in range(0, len(todo), 32):
                writer.append_groups(sampler(todo[i : i + 32], setup.n, params))
                writer.flush()
    groups = {name: store.groups(name) for name in names}
    return {
        n: [replace(g, rewards=tuple(r)) for g, r in zip(gs, sentiment(gs), strict=True)] for n, gs in groups.items()
    }


def make_sae(setup: Setup, layer: int, folder: Path, lm: LM, groups: list[Group]) -> dict[str, Any]:
    begun = time.process_time()
    out = folder / f"sae{layer}"
    sae = train_sae(
        groups, lm, layer=layer, out=out, width=setup.width, k=setup.k, samples=setup.samples, batch_size=1024,
        learning_rate=1e-3,
    )  # fmt: skip
    report = json.loads((out / "sae.json").read_text())
    random = check_sae(random_sae(sae), lm, groups[:20], everywhere=False).plain()
    return {**report["check"], "states": report["states"], "fvu_random_dictionary": random["fvu"],
            "cpu_s": round(time.process_time() - begun)}  # fmt: skip


def leash_of(setup: Setup, run: Run, folder: Path, lm: LM, pairs: list[Any]) -> FeatureLeash | None:
    if not run.leash:
        return None
    layer = run.layer or setup.layer
    sae = load_sae(folder / f"sae{layer}")
    if run.leash == "random":
        sae = random_sae(sae)
    elif run.leash == "hidden":
        sae = identity_sae(sae.inputs, layer)
    held = json.loads((folder / "held.json").read_text())[run.hold] if run.hold else []
    k = sae.width if run.leash == "hidden" else min(run.k, sae.width)
    top = np.sort(mean_features(lm, sae, pairs[:60]) ** 2, axis=1)[:, -k:]
    return FeatureLeash(sae, layer, alpha=run.alpha / float(top.mean()), k=k, stop_gradient=run.stop, hold=tuple(held))


def held_features(setup: Setup, folder: Path, lm: LM, groups: list[Group], count: int = 20) -> dict[str, list[int]]:
    """Target: strongest contrast between chosen and rejected completions, either way; control: others as active."""
    sae, pairs = load_sae(folder / f"sae{setup.layer}"), best_vs_worst(groups)
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


def train(setup: Setup, run: Run, lm: LM, folder: Path, groups: list[Group]) -> tuple[Policy, dict[str, Any]]:
    out = folder / "policy"
    shutil.rmtree(out, ignore_errors=True)
    pairs: Any = best_vs_worst(groups)
    if run.loss == "kto":  # the same completions, unpaired; twice the batch, so as many steps
        pairs = [Group(p.prompt, (p.chosen, p.rejected), (Reward(1.0), Reward(0.0))) for p in pairs]
    begun, leash = time.process_time(), leash_of(setup, run, folder, lm, pairs)
    train_policy(
        pairs, model=lm.name, out=out, loss=run.loss, loss_settings=run.settings, lora=setup.lora,
        learning_rate=setup.rates[run.rate], batch_size=setup.batch * (2 if run.loss == "kto" else 1), dtype="float32",
        reference_store=folder / "reference", micro_tokens=1024, leash=leash,
        trainer={"save_strategy": "no"},
    )  # fmt: skip
    log = [json.loads(x) for x in (out / "log.jsonl").read_text().splitlines()]
    steps = [x for x in log if "loss" in x]
    late = {
        k: float(np.mean([x[k] for x in steps[-5:]]))
        for k in ("loss", "rewards/margins", "feature/penalty", "feature/drift_chosen", "feature/drift_rejected")
        if k in steps[-1]
    }
    facts = {"cpu_s": round(time.process_time() - begun, 1), "steps": len(steps), "late": late}
    facts |= {"alpha": leash.alpha} if leash else {}
    return Policy(load_policy(out, dtype="float32").policy.lm), facts


def measure(setup: Setup, policy: Policy, start: Policy, groups: dict[str, list[Group]], sae: Any) -> dict[str, Any]:
    pairs = [Group(p.prompt, (p.chosen, p.rejected)) for p in best_vs_worst(groups["test"])]
    ours, theirs = policy.logprobs(pairs), start.logprobs(pairs)
    ratio_P2 = [[float((a - b).mean()) for a, b in zip(x, y, strict=True)] for x, y in zip(ours, theirs, strict=True)]
    samples = {s: draw(setup, policy.lm, [g.prompt for g in groups[s]]) for s in ("validation", "test") if groups[s]}
    reward = {s: [float(np.mean([r.value for r in rs])) for rs in sentiment(gs)] for s, gs in samples.items()}
    found = diversity(samples["test"], policy, start)
    a_PF, b_PF = mean_features(start.lm, sae, pairs), mean_features(policy.lm, sae, pairs)
    moved = np.linalg.norm(b_PF - a_PF, axis=1) / np.linalg.norm(a_PF, axis=1)
    return {
        "accuracy": [float(a > b) for a, b in ratio_P2], "margin": [a - b for a, b in ratio_P2],
        "reward": reward["test"], "validation": reward.get("validation", []), "entropy": found.entropy.tolist(),
        "kl": found.kl.tolist(), "distinct_2": found.distinct_2.tolist(), "self_bleu": found.self_bleu.tolist(),
        "features_moved": moved.tolist(), "mean_gap_F": (b_PF - a_PF).mean(0).tolist(),
        "texts": [g.completions[0].text for g in samples["test"][:2]],
    }  # fmt: skip


def draw(setup: Setup, lm: LM, prompts: list[Any]) -> list[Group]:
    """Two samples a prompt of a model that is in memory, by the sampler's own loop."""
    sampler, plain = hf.HF(lm.name, batch=128, dtype="float32"), hf._load
    hf._load = lambda *_: lm
    try:
        return sampler(prompts, 2, SamplingParams(temperature=1.0, top_p=1.0, max_tokens=setup.tokens, seed=7))
    finally:
        hf._load = plain


MEASURES = ("accuracy", "margin", "reward", "entropy", "kl", "distinct_2", "self_bleu", "features_moved")


def interval(a: list[float], b: list[float] | None = None) -> list[float]:
    x = paired_bootstrap(a, b, draws=4000)
    return [round(v, 4) for v in (x.mean, x.lower, x.upper)]


def summary(results: dict[str, Any], held: dict[str, list[int]]) -> dict[str, Any]:
    table = {}
    for name, r in results.items():
        row: dict[str, Any] = {k: interval(r[k]) for k in MEASURES}
        row["validation"] = round(float(np.mean(r["validation"])), 4) if r["validation"] else None
        row["held_moved"] = {
            k: round(float(np.abs(np.array(r["mean_gap_F"])[ids]).mean()), 4) for k, ids in held.items()
        }
        if name != "start":
            row["against_start"] = {k: interval(r[k], results["start"][k]) for k in ("reward", "entropy", "distinct_2")}
            row["train"] = r["train"]
        rate = name.split(" rate ")[1] if " rate " in name else ""
        rival = "ln_dpo" + (f" rate {rate}" if rate else "")
        if name != rival and name != "start" and rival in results:
            row["against_ln_dpo"] = {
                k: interval(r[k], results[rival][k]) for k in ("accuracy", "reward", "entropy", "kl", "features_moved")
            }
        table[name] = row
    return table


PAIRED = (
    ("fpo", "tdpo2"), ("fpo", "tdpo1"), ("fpo", "dpo"), ("fpo", "simpo"), ("fpo alpha 20", "tdpo2"),
    ("fpo hidden state", "fpo"), ("fpo random dictionary", "fpo"), ("fpo alpha 20 hidden state", "fpo alpha 20"),
    ("fpo hold target", "fpo hold control"),
)  # fmt: skip


def paired(results: dict[str, Any]) -> dict[str, Any]:
    """Differences between the runs that the results page compares."""
    keys = ("accuracy", "reward", "entropy", "kl", "distinct_2")
    return {
        f"{a} - {b}": {k: interval(results[a][k], results[b][k]) for k in keys}
        for a, b in PAIRED
        if a in results and b in results
    }


def chosen(table: dict[str, Any]) -> dict[str, str]:
    """Each core method's run with the best validation reward."""
    out = {}
    for run in CORE:
        mine = [n for n in table if n == run.name or n.startswith(f"{run.name} rate ")]
        if mine and all(table[n]["validation"] is not None for n in mine):
            out[run.name] = max(mine, key=lambda n: table[n]["validation"])
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("stories", "smollm2"), default="stories")
    parser.add_argument("--minutes", type=float, default=60.0, help="processor time of this call")
    args = parser.parse_args()
    setup = STORIES if args.model == "stories" else SMOLLM2
    folder, begun = args.folder / setup.name, time.process_time()
    folder.mkdir(parents=True, exist_ok=True)
    model = str(convert(folder / "model")) if setup is STORIES else "smollm2-135m"
    groups = sampled(setup, model, folder)
    lm = load_lm(model, "float32")
    saes = {n: _cached(folder / f"sae{n}.json", lambda n=n: make_sae(setup, n, folder, lm, groups["train"]))
            for n in (setup.layer, *setup.others)}  # fmt: skip
    held = _cached(folder / "held.json", lambda: held_features(setup, folder, lm, groups["train"]))
    start, sae = Policy(lm), load_sae(folder / f"sae{setup.layer}")
    results = {"start": _cached(folder / "start.json", lambda: measure(setup, start, start, groups, sae))}
    tuned = [replace(r, rate=i) for i in range(1, len(setup.rates)) for r in CORE]
    layers = [fpo(f"alpha 20 layer {n}", alpha=20.0, layer=n) for n in setup.others]
    missing: list[str] = []
    for run in [*CORE[:6], *SWEEPS[:2], *CORE[6:], *SWEEPS[2:], *layers, *tuned]:
        file = folder / f"run {run.key}.json"
        if not file.is_file() and time.process_time() - begun > 60 * args.minutes:
            missing.append(run.key)
            continue

        def do(run: Run = run) -> dict[str, Any]:
            policy, facts = train(setup, run, lm, folder, groups["train"])
            return {**measure(setup, policy, start, groups, sae), "train": facts}

        results[run.key] = _cached(file, do)
        r = results[run.key]
        line = {k: round(float(np.mean(r[k])), 3) for k in ("accuracy", "reward", "entropy", "kl", "features_moved")}
        print(run.key, line, r["train"]["cpu_s"], r["train"]["late"], flush=True)
    table = summary(results, held)
    pairs = len(best_vs_worst(groups["train"]))
    found = {
        "command": f"python benchmarks/repro/fpo/run.py FOLDER --model {setup.name}", "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, 1 thread", "setup": repr(setup), "pairs": pairs, "saes": saes, "held": held,
        "runs": table, "paired": paired(results), "chosen_rate": chosen(table), "not_run": missing,
        "texts": {k: r["texts"] for k, r in results.items()},
    }  # fmt: skip
    (RESULTS / f"fpo_{setup.name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _cached(file: Path, make: Any) -> Any:
    if file.is_file():
        return json.loads(file.read_text())
    found = make()
    file.write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
