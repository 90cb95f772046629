"""Runs of the repeat to tables: means over seeds, intervals over prompts, rewards at equal drift.

python -m benchmarks.repro.fpo.tables stories          prints the tables of docs/results/fpo.md
"""

import re
import sys
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.repro.fpo.methods import Setup
from trimtab.evaluation.metrics import paired_bootstrap

MEASURES = ("accuracy", "margin", "reward", "entropy", "kl", "distinct_2", "self_bleu", "features_moved")
COMPARED = ("accuracy", "reward", "entropy", "kl", "distinct_2")
PAIRED = [
    *(("fpo", x) for x in ("sft", "dpo", "ln_dpo", "simpo", "tdpo1", "tdpo2", "orpo", "kto", "fpo hidden",
                           "fpo random")),
    ("simpo + leash alpha 0.5", "simpo"), ("simpo + leash alpha 5", "simpo"), ("dpo + leash alpha 0.5", "dpo"),
    ("dpo + leash alpha 5", "dpo"), ("fpo alpha 0.5 no stop", "fpo"), ("fpo alpha 5 no stop", "fpo alpha 5"),
    ("fpo alpha 20 no stop", "fpo alpha 20"), ("fpo alpha 5 k 10", "fpo alpha 5"), ("fpo alpha 5 k 200", "fpo alpha 5"),
    ("fpo alpha 5 layer 2", "fpo alpha 5"), ("fpo beta 0.1", "ln_dpo beta 0.1"), ("fpo beta 5", "ln_dpo beta 5"),
    ("fpo beta 10", "ln_dpo beta 10"),
]  # fmt: skip
FAMILIES = {
    "fpo": ["fpo alpha 0.1", "fpo at", "fpo alpha 5", "fpo alpha 20", "fpo alpha 100"],
    "hidden state": ["fpo hidden alpha 0.1", "fpo hidden at", "fpo hidden alpha 5", "fpo hidden alpha 20"],
    "random dictionary": ["fpo random at", "fpo random alpha 5", "fpo random alpha 20", "fpo random alpha 100",
                          "fpo random alpha 400"],
    "tdpo2": ["tdpo2 alpha 0.1", "tdpo2 alpha 0.25", "tdpo2 at", "tdpo2 alpha 1", "tdpo2 alpha 2"],
    "fpo, low rate": ["fpo rate 0", "fpo alpha 5 rate 0", "fpo alpha 20 rate 0", "fpo alpha 100 rate 0"],
    "hidden state, low rate": ["fpo hidden rate 0", "fpo hidden alpha 5 rate 0", "fpo hidden alpha 20 rate 0"],
    "tdpo2, low rate": ["tdpo2 alpha 0.1 rate 0", "tdpo2 alpha 0.25 rate 0", "tdpo2 rate 0", "tdpo2 alpha 1 rate 0"],
    "ln_dpo, learning rate": ["ln_dpo rate 0", "ln_dpo rate 1", "ln_dpo rate 2"],
}  # fmt: skip
"""Ways to buy less drift, each a row of settings: "at" is the main row at FPO's learning rate, a low rate is 1e-3."""
DRIFTS = (0.25, 0.4, 0.7, 1.7, 2.5, 3.3)
Arrays = dict[str, np.ndarray]


def summary(
    found: dict[str, Any], rates: dict[str, int], setup: Setup
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Learning rates, and the tables. Runs by name: a main method at its chosen rate, `NAME rate i` of the grid, sweeps
    at FPO's rate."""
    groups: dict[str, list[Any]] = {}
    for key, r in found.items():
        groups.setdefault(key.rsplit(" seed ", 1)[0], []).append(r)
    runs = {name: over_seeds(rs) for name, rs in groups.items()}
    sweep = {n.removesuffix(f" rate {rates['fpo']}"): v for n, v in runs.items() if n.endswith(f" rate {rates['fpo']}")}
    mine = {n: runs[f"{n} rate {i}"] for n, i in rates.items() if f"{n} rate {i}" in runs}
    at_fpo = {f"{n} at": sweep[n] for n in mine if n in sweep}
    all_ = {**runs, **sweep, **at_fpo, **mine}
    rows = {n: row(all_[n], groups, n, rates) for n in ["start", *mine, *(n for n in sweep if n not in mine)]}
    drifts = equal_drift({f: [all_[n] for n in ns if n in all_] for f, ns in FAMILIES.items()})
    tables = {
        "grid": {
            n: {"validation": interval(v["validation"]), "kl": interval(v["kl"]), "reward": interval(v["reward"])}
            for n, v in runs.items() if len(v["validation"])
        },
        "runs": rows,
        "paired": {
            f"{a} - {b}": {k: interval(all_[a][k], all_[b][k]) for k in COMPARED}
            for a, b in PAIRED if a in all_ and b in all_
        },
        "equal_drift": [{"kl": kl, "name": n, **r} for kl, at in drifts.items() for n, r in at.items()],
        "texts": {n: {"texts": groups[n][0]["texts"]} for n in groups},
    }  # fmt: skip
    return {n: setup.rates[i] for n, i in rates.items()}, results.stacked(tables)


def over_seeds(runs: list[Any]) -> Arrays:
    """Each prompt's mean over the seeds; `validation` of those that have it."""
    out = {k: np.mean([r[k] for r in runs], axis=0) for k in MEASURES}
    return out | {"validation": np.array(next((r["validation"] for r in runs if r["validation"]), []))}


def row(mean: Arrays, groups: dict[str, list[Any]], name: str, rates: dict[str, int]) -> dict[str, Any]:
    runs = groups.get(name) or groups[f"{name} rate {rates.get(name, rates['fpo'])}"]
    out: dict[str, Any] = {k: interval(mean[k]) for k in MEASURES}
    out |= {"seeds": len(runs), "reward_of_seeds": [round(float(np.mean(r["reward"])), 3) for r in runs]}
    if "train" in runs[0]:
        out |= {"cpu_s_a_step": round(float(np.median([r["train"]["cpu_s_a_step"] for r in runs])), 4),
                "alpha": runs[0]["train"].get("alpha"), "late": runs[0]["train"]["late"]}  # fmt: skip
    return out


def interval(a: Any, b: Any = None) -> list[float]:
    x = paired_bootstrap(a, b, draws=4000)
    return [round(v, 4) for v in (x.mean, x.lower, x.upper)]


def equal_drift(families: dict[str, list[Arrays]], draws: int = 2000) -> dict[str, Any]:
    """Reward where each family's line through its settings crosses a KL, and its difference to FPO's, with intervals.

    Prompts are drawn anew and the line is drawn anew through the resampled means; a KL outside a family's own range is
    left out.
    """
    rng = np.random.default_rng(0)
    size = len(families["fpo"][0]["kl"]) if families["fpo"] else 0
    ours = ("fpo", "fpo, low rate")
    indices = [np.arange(size), *rng.integers(0, size, (draws, size))] if size else []
    curves: dict[tuple[str, float], np.ndarray] = {}
    for name, points in families.items():
        if len(points) < 2:
            continue
        means = [p["kl"].mean() for p in points]
        for drift in DRIFTS:
            if min(means) <= drift <= max(means):
                lines = [sorted((p["kl"][i].mean(), p["reward"][i].mean()) for p in points) for i in indices]
                curves[name, drift] = np.array([np.interp(drift, *zip(*x, strict=True)) for x in lines])
    found: dict[str, Any] = {}
    for drift in DRIFTS:
        fpo = next((curves[n, drift] for n in ours if (n, drift) in curves), None)
        found[f"{drift:g}"] = {
            name: {"reward": bounds(curve), **({"minus_fpo": bounds(curve - fpo)}
                                               if fpo is not None and name not in ours else {})}
            for (name, d), curve in curves.items() if d == drift
        }  # fmt: skip
    return found


def bounds(values: np.ndarray) -> list[float]:
    """The value on all prompts, and the 95 % of the draws behind it."""
    return [round(float(x), 4) for x in (values[0], *np.quantile(values[1:], [0.025, 0.975]))]


def cell(x: list[float], sign: str = "") -> str:
    return re.sub(
        r"-(0\.00)\b", r"\1" if not sign else r"+\1", f"{x[0]:{sign}.2f} [{x[1]:{sign}.2f}, {x[2]:{sign}.2f}]"
    )


def markdown(found: dict[str, Any]) -> str:
    keys = ("accuracy", "reward", "entropy", "kl", "features_moved")
    rates, table = found["figures"]["learning_rates"], results.markdown
    rows = [
        [r["name"], f"{rates[r['name']]:g}" if r["name"] in rates else "", *(cell(r[k]) for k in keys),
         f"{r['distinct_2'][0]:.3f}", f"{r['self_bleu'][0]:.3f}"]
        for r in results.rows_of(found, "runs")
    ]  # fmt: skip
    heads = ["method", "learning rate", "accuracy", "reward", "entropy", "KL to start", "features moved", "distinct-2",
             "self-BLEU"]  # fmt: skip
    shown = [table(heads, rows)]
    rows = [[r["name"], *(cell(r[k], "+") for k in COMPARED)] for r in results.rows_of(found, "paired")]
    shown.append(table(["difference", "accuracy", "reward", "entropy", "KL", "distinct-2"], rows))
    at = {(r["name"], r["kl"]): r for r in results.rows_of(found, "equal_drift")}
    names, drifts = (list(dict.fromkeys(k[i] for k in at)) for i in (0, 1))
    rows = [
        [n, *(cell(r["reward"]) + (f"; {cell(r['minus_fpo'], '+')}" if "minus_fpo" in r else "")
              if (r := at.get((n, d))) else "" for d in drifts)]
        for n in names
    ]  # fmt: skip
    shown.append(table(["reward at KL (; minus fpo)", *drifts], rows))
    return "\n".join(shown)


if __name__ == "__main__":
    print(markdown(results.read(f"fpo_{sys.argv[1]}")))
