"""FPO's section 5.3 at the smallest size: features on the leash by choice, one target that moves as asked, one control.

    python -m benchmarks fpo_control [folder=runs/fpo]          takes the model and the SAE of fpo_claims there

Preference pairs for positive words (task.py) raise the oracle's reward. Features are found by contrast on the start's
own training samples: `target` between those with more positive and more negative words, `control` between those with
and without direct speech, as many of each and none in both. Arms: no leash (LN-DPO), the target's features held, the
control's held, at three alphas, three seeds, one rate. Asked for: with the target held, the reward rises less than with
the control held; speech stays where it was in every arm. Measured on samples for the test prompts, 95 % paired
bootstrap over prompts of the mean over seeds. Prints the page's table. --small: one alpha, one seed.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.repro.fpo.claims import Bench, cached, rewards_of
from benchmarks.repro.fpo.methods import STORIES, Training
from benchmarks.repro.fpo.tables import cell, interval
from benchmarks.repro.fpo.task import value
from benchmarks.results import markdown, stacked
from benchmarks.run import Run
from trimtab.learners.feature.changes import contrast, mean_features
from trimtab.types import Group

SETTINGS = {"folder": "runs/fpo", "alphas": ("5", "20", "100"), "seeds": 3}
SMALL = {"folder": "runs/fpo_small", "alphas": ("20",), "seeds": 1}
COUNT = 12
BASE = Training("ln_dpo", "ln_dpo", {"beta": 2.0})


def speaks(text: str) -> bool:
    return '"' in text


def features(bench: Bench) -> dict[str, list[int]]:
    """As many features of each contrast, strongest first, those of both left out."""
    texts = [(g.prompt, c) for g in bench.groups["train"] for c in g.completions]

    def side(wanted: Any) -> list[Group]:
        return [Group(p, (c,)) for p, c in texts if wanted(c.text)]

    target = contrast(bench.lm, bench.sae, side(lambda t: value(t) > 0), side(lambda t: value(t) < 0), count=40)
    target += contrast(bench.lm, bench.sae, side(lambda t: value(t) < 0), side(lambda t: value(t) > 0), count=40)
    control = contrast(bench.lm, bench.sae, side(speaks), side(lambda t: not speaks(t)), count=40)
    control += contrast(bench.lm, bench.sae, side(lambda t: not speaks(t)), side(speaks), count=40)
    both = set(target) & set(control)
    found = {"target": [f for f in target if f not in both], "control": [f for f in control if f not in both]}
    count = min(COUNT, *map(len, found.values()))
    return {k: v[:count] for k, v in found.items()}


def measured(bench: Bench, policy: Any, seed: int, held: dict[str, list[int]]) -> dict[str, Any]:
    samples = bench.draw(policy.lm, "test", seed)
    start_PF = mean_features(bench.lm, bench.sae, bench.held_out)
    change_PF = mean_features(policy.lm, bench.sae, bench.held_out) - start_PF
    moved = {
        f"{k} features moved": np.linalg.norm(change_PF[:, f], axis=1) / np.linalg.norm(start_PF[:, f], axis=1).mean()
        for k, f in held.items()
    }
    return {
        "reward": rewards_of(samples), "speech": [np.mean([speaks(c.text) for c in g.completions]) for g in samples],
        **{k: v.tolist() for k, v in moved.items()},
    }  # fmt: skip


def main(run: Run) -> None:
    folder, alphas = Path(run.settings.folder) / STORIES.name, [float(a) for a in run.settings.alphas]
    bench = Bench(STORIES, folder)
    held = cached(folder / "held.json", lambda: features(bench))
    arms: dict[str, Training | None] = {"start": None, "no leash": BASE}
    for name, ids in held.items():
        arms |= {
            f"{name} held, alpha {a:g}": Training("fpo", "fpo", {"beta": 2.0}, "sae", alpha=a, hold=tuple(ids))
            for a in alphas
        }
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, arm in arms.items():
        rows = []
        for seed in range(run.settings.seeds):

            def one(arm: Training | None = arm, seed: int = seed) -> dict[str, Any]:
                policy = bench.start if arm is None else bench.train(replace(arm, seed=seed))[0]
                return measured(bench, policy, seed, held)

            rows.append(cached(folder / f"control {name} {seed}.json", one))
        found[name] = {k: np.mean([r[k] for r in rows], axis=0) for k in rows[0]}
        print(name, {k: round(float(v.mean()), 3) for k, v in found[name].items()}, flush=True)
    keys = list(found["start"])
    rows = {n: {k: interval(v[k]) for k in keys} for n, v in found.items()}
    gaps = {
        f"target - control held, alpha {a:g}": {
            k: interval(found[f"target held, alpha {a:g}"][k], found[f"control held, alpha {a:g}"][k]) for k in keys
        }
        for a in alphas
    } | {f"{n} - start": {k: interval(found[n][k], found["start"][k]) for k in keys} for n in list(found)[1:]}
    tables = {"arms": rows, "differences": gaps}
    print(markdown(["arm", *keys], [[n, *(cell(r[k]) for k in keys)] for n, r in rows.items()]))
    print(markdown(["difference", *keys], [[n, *(cell(r[k], "+") for k in keys)] for n, r in gaps.items()]))
    run.write({"held": held}, stacked(tables))
