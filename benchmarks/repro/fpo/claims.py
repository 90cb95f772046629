"""FPO's claims repeated at the smallest sizes, where every method and sweep can be run: sentiment by rule.

    python -m benchmarks fpo_claims [folder=runs/fpo] [setup=stories|smollm2] [minutes=60]
    python -m benchmarks.repro.fpo.tables stories          prints the tables of docs/results/fpo.md

stories: the TinyStories Llama of 260,032 parameters (all weights trained); smollm2: SmolLM2-135M-Instruct with LoRA. A
TopK SAE is trained on one layer's states over the model's own samples, and checked on texts held out. Every method
learns one epoch from the same best-of-n against worst-of-n pairs at the same learning rates; the rate is chosen by the
oracle's reward on validation prompts (`stories`) and further seeds are run at it. A seed decides the order of the
pairs, the adapters, the random dictionary and the samples that are judged; pairs and SAE stay. On test prompts:
accuracy on held-out pairs (by the mean log-ratio to the start), the oracle's reward of two samples a prompt at
temperature 1, next-token entropy and KL(policy | start) at those samples, distinct-2, self-BLEU; how far the SAE's
features moved. A prompt's number is its mean over seeds; intervals: 95 % paired bootstrap over prompts. Every finished
run is kept in `folder`, a second start continues; what did not fit into `minutes` of processor time is listed as not
run. The result is fpo_<setup>'s. --small: as many runs as fit into half a minute.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from benchmarks.repro.fpo.methods import MAIN, SMOLLM2, STORIES, Setup, Training, at, leashes, sweeps
from benchmarks.repro.fpo.stories import convert
from benchmarks.repro.fpo.tables import summary
from benchmarks.repro.fpo.task import openings, reviews, sentiment
from benchmarks.run import Run
from trimtab.data.pairs import best_vs_worst
from trimtab.evaluation.diversity import diversity
from trimtab.learners.feature.changes import feature_scale, mean_features
from trimtab.learners.feature.check import check_sae
from trimtab.learners.feature.leash import FeatureLeash
from trimtab.learners.feature.sae import identity_sae, load_sae, random_sae
from trimtab.learners.feature.train import train_sae
from trimtab.learners.run import Compute, Optim
from trimtab.learners.token.policy import Policy, load_policy
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.load import LM, load_lm
from trimtab.samplers import HF
from trimtab.store import Store
from trimtab.types import Group, Reward, SamplingParams


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
    groups = {name: store.groups(name, None) for name in names}
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


SETTINGS = {"setup": "stories", "folder": "runs/fpo", "minutes": 60.0}
SMALL = {"folder": "runs/fpo_small", "minutes": 0.5}


class Clock(TrainerCallback):
    """Processor seconds of each optimiser step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begun = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(time.process_time() - self.begun)


class Bench:
    """One model with its data and SAEs: trains a run and measures it."""

    def __init__(self, setup: Setup, folder: Path):
        self.setup, self.folder = setup, folder
        self.name = str(convert(folder / "model")) if setup is STORIES else "smollm2-135m"
        self.groups = sampled(setup, self.name, folder)
        self.lm = load_lm(self.name, "float32")
        self.start = Policy(self.lm)
        self.pairs = best_vs_worst(self.groups["train"])
        self.held_out = [Group(p.prompt, (p.chosen, p.rejected)) for p in best_vs_worst(self.groups["test"])]
        self.saes = {n: cached(folder / f"sae{n}.json", lambda n=n: self.make_sae(n)) for n in self.layers}
        self.sae = load_sae(folder / f"sae{setup.layer}")

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.setup.layer, *self.setup.others)

    def make_sae(self, layer: int) -> dict[str, Any]:
        return make_sae(self.setup, layer, self.folder, self.lm, self.groups["train"])

    @cache  # noqa: B019
    def dictionary(self, kind: str, layer: int, seed: int, k: int) -> tuple[Any, int, float]:
        """The SAE or what stands for it, its k, and the scale of its features."""
        sae = load_sae(self.folder / f"sae{layer}")
        sae = {"sae": lambda: sae, "random": lambda: random_sae(sae, seed),
               "hidden": lambda: identity_sae(sae.inputs, layer)}[kind]()  # fmt: skip
        k = sae.width if kind == "hidden" else min(k, sae.width)
        return sae, k, feature_scale(self.lm, sae, self.pairs[:60], k=k)

    def leash(self, run: Training) -> FeatureLeash | None:
        if not run.leash:
            return None
        layer = run.layer or self.setup.layer
        sae, k, scale = self.dictionary(run.leash, layer, run.seed if run.leash == "random" else 0, run.k)
        return FeatureLeash(sae, layer, alpha=run.alpha / scale, k=k, stop_gradient=run.stop, hold=run.hold)

    def train(self, run: Training) -> tuple[Policy, dict[str, Any]]:
        out, clock = self.folder / "policy", Clock()
        shutil.rmtree(out, ignore_errors=True)
        data: Any = self.pairs
        if run.loss == "kto":  # the same completions, unpaired; twice the batch, so as many steps
            data = [Group(p.prompt, (p.chosen, p.rejected), (Reward(1.0), Reward(0.0))) for p in self.pairs]
        leash = self.leash(run)
        train_policy(
            data,
            model=self.name,
            out=out,
            loss=run.loss,
            loss_settings=run.settings,
            lora=self.setup.lora,
            optim=Optim(
                learning_rate=self.setup.rates[run.rate], batch_size=self.setup.batch * (2 if run.loss == "kto" else 1)
            ),
            compute=Compute(
                dtype="float32",
                reference_store=self.folder / "reference",
                micro_tokens=1024,
                trainer={"save_strategy": "no"},
                callbacks=[clock],
            ),
            leash=leash,
            seed=run.seed,
        )
        log = [json.loads(x) for x in (out / "log.jsonl").read_text().splitlines()]
        steps = [x for x in log if "loss" in x]
        late = {
            k: float(np.mean([x[k] for x in steps[-5:]]))
            for k in ("loss", "rewards/margins", "feature/penalty", "feature/drift_chosen", "feature/drift_rejected")
            if k in steps[-1]
        }
        facts = {"cpu_s_a_step": float(np.median(clock.seconds)), "steps": len(steps), "late": late}
        facts |= {"alpha": leash.alpha} if leash else {}
        return Policy(load_policy(out, dtype="float32").policy.lm), facts

    @cache  # noqa: B019
    def of_start(self) -> tuple[Any, Any]:
        return self.start.logprobs(self.held_out), mean_features(self.lm, self.sae, self.held_out)

    def measure(self, policy: Policy, seed: int, *, validation: bool) -> dict[str, Any]:
        theirs, a_PF = self.of_start()
        ours, b_PF = policy.logprobs(self.held_out), mean_features(policy.lm, self.sae, self.held_out)
        ratio_P2 = [
            [float((a - b).mean()) for a, b in zip(x, y, strict=True)] for x, y in zip(ours, theirs, strict=True)
        ]
        samples = self.draw(policy.lm, "test", seed)
        found = diversity(samples, policy, self.start)
        moved = np.linalg.norm(b_PF - a_PF, axis=1) / np.linalg.norm(a_PF, axis=1)
        return {
            "accuracy": [float(a > b) for a, b in ratio_P2], "margin": [a - b for a, b in ratio_P2],
            "reward": rewards_of(samples), "entropy": found.entropy.tolist(), "kl": found.kl.tolist(),
            "validation": rewards_of(self.draw(policy.lm, "validation", seed)) if validation else [],
            "distinct_2": found.distinct_2.tolist(), "self_bleu": found.self_bleu.tolist(),
            "features_moved": moved.tolist(), "texts": [g.completions[0].text for g in samples[:2]],
        }  # fmt: skip

    def draw(self, lm: LM, split: str, seed: int) -> list[Group]:
        """Two samples a prompt of a model that is in memory, by the sampler's own loop."""
        params = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=self.setup.tokens, seed=7 + seed)
        return HF(lm, batch=128)([g.prompt for g in self.groups[split]], 2, params)

    def do(self, run: Training, *, validation: bool = False) -> dict[str, Any]:
        policy, facts = self.train(run)
        return {**self.measure(policy, run.seed, validation=validation), "train": facts}


def rewards_of(groups: list[Group]) -> list[float]:
    return [float(np.mean([r.value for r in rs])) for rs in sentiment(groups)]


def best_rates(results: dict[str, Any], setup: Setup) -> dict[str, int]:
    """Each method's learning rate (its place): the one of highest validation reward among those that were run."""
    found = {}
    for run in MAIN:
        known = [i for i in range(len(setup.rates)) if at(run, i).key in results]
        found[run.name] = max(known, key=lambda i: np.mean(results[at(run, i).key]["validation"]), default=0)
    return found


def plan(setup: Setup, results: dict[str, Any]) -> Iterator[tuple[Training, bool]]:
    """Runs in the order of their worth, and whether validation prompts are measured: grid, seeds, sweeps."""
    for i in range(len(setup.rates)):
        yield from ((at(run, i), True) for run in MAIN)
    rates = best_rates(results, setup)
    for seed in range(1, setup.seeds):
        yield from ((at(run, rates[run.name], seed), False) for run in MAIN)
    if setup is STORIES:
        for seed in range(setup.seeds):
            same = [at(r, rates["fpo"], seed) for r in MAIN if r.leash or r.name == "tdpo2"]
            same += [at(r, i, seed) for r in MAIN if r.name == "ln_dpo" for i in range(len(setup.rates))]
            yield from ((run, False) for run in same if run.key not in results)
            yield from ((at(run, rates["fpo"], seed), False) for run in sweeps(setup))
            yield from ((run, False) for run in (at(r, 0, seed) for r in leashes()) if run.key not in results)


def main(run: Run) -> None:
    setup = {"stories": STORIES, "smollm2": SMOLLM2}[run.settings.setup]
    folder, begun = Path(run.settings.folder) / setup.name, time.process_time()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(setup, folder)
    starts = {
        f"start seed {s}": cached(
            folder / f"start {s}.json", lambda s=s: bench.measure(bench.start, s, validation=not s)
        )
        for s in range(setup.seeds)
    }
    results: dict[str, Any] = {}
    missing: list[str] = []
    for one, validation in plan(setup, results):
        file = folder / f"run {one.key}.json"
        if not file.is_file() and time.process_time() - begun > 60 * run.settings.minutes:
            missing.append(one.key)
            continue
        results[one.key] = r = cached(file, lambda one=one, v=validation: bench.do(one, validation=v))
        line = {k: round(float(np.mean(r[k])), 3) for k in ("accuracy", "reward", "entropy", "kl", "features_moved")}
        spent = round(time.process_time() - begun)
        print(f"{spent} s", one.key, line, r["train"]["cpu_s_a_step"], r["train"]["late"], flush=True)
    rates, rows = summary(results | starts, best_rates(results, setup), setup)
    figures = {"pairs": len(bench.pairs), "saes": bench.saes, "learning_rates": rates, "not_run": missing}
    run.write(figures, rows, name=f"fpo_{setup.name}", sizes=repr(setup))


def cached(file: Path, make: Any) -> Any:
    if file.is_file():
        return json.loads(file.read_text())
    found = make()
    file.write_text(json.dumps(found))
    return found
