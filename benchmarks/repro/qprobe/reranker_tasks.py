"""The reranker on finished runs of `trimtab run` or `trimtab demo`: train and test prompts together, cross-validated.

    python benchmarks/repro/qprobe/reranker_tasks.py RUN [RUN ...] [--extract last_number] [--seeds 3]

Greedy answers are only stored for the test prompts, so the difference to greedy is over these. Writes
benchmarks/results/reranker_tasks.json, one entry a task and size.
"""

import argparse
import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
from reading import View, cross_validated, learners, nulls, table

from trimtab.embeddings import Stored
from trimtab.rewards import extractor
from trimtab.store import Store

RESULTS = Path(__file__).resolve().parents[2] / "results" / "reranker_tasks.json"


def read_run(folder: str) -> tuple[str, list[Any], dict[str, View], np.ndarray]:
    """Source, scored groups of train and test, every stored view, and the greedy reward of each (NaN: none)."""
    store = Store(folder)
    groups, vectors, greedy = [], {}, {}
    for name in ("train", "test", "greedy"):
        (reward,) = (
            t.removeprefix(f"rewards/{name}/") for t in store.tables("rewards") if t.startswith(f"rewards/{name}/")
        )
        found = store.groups(name, reward)
        if name == "greedy":
            greedy = {g.prompt.id: float(g.reward_N[0]) for g in found}
            continue
        for key in store.settings(f"embeddings/{name}")["keys"]:
            for g, x in zip(found, Stored(None, store, name, keys=(key,))(found), strict=True):
                vectors.setdefault(key, {})[g.prompt.id] = x
        groups += found
    views = {key: View(key, v) for key, v in vectors.items()}
    return groups[0].prompt.source, groups, views, np.array([greedy.get(g.prompt.id, np.nan) for g in groups])


def split(groups: list[Any], greedy: np.ndarray) -> tuple[list[Any], list[Any], np.ndarray]:
    """The run's training groups, its test groups (those with a greedy answer), and the greedy rewards of these."""
    test_P = np.isfinite(greedy)
    parts = [[g for g, t in zip(groups, test_P, strict=True) if t == want] for want in (False, True)]
    return parts[0], parts[1], greedy[test_P]


def main() -> None:
    """One table a run; results are added to the file as they come."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--extract", default="last_number")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views", nargs="+", default=["layer20.mean", "layer20.text"])
    args = parser.parse_args()
    same = extractor(args.extract)
    for run in args.runs:
        source, groups, views, greedy = read_run(run)
        wanted = {k: views[k] for k in args.views}
        probe_view = views[args.views[-1]]
        fits = learners(wanted, same, {"mse": probe_view, "pg": probe_view})
        fitted, forms = cross_validated(groups, fits, seeds=args.seeds, say=lambda s: print(s, flush=True))
        chosen = nulls(groups, same)
        oracle = chosen.pop("oracle")
        chosen = {"greedy": greedy, **chosen, **fitted, "oracle": oracle}
        text, rows = table(chosen, ["mean log-prob", "majority vote", "greedy"], len(groups))
        print(f"\n{source}\n{text}\n", flush=True)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[f"{source}, {len(groups)} prompts"] = {
            "prompts": len(groups), "completions": sorted({len(g.completions) for g in groups}), "seeds": args.seeds,
            "rows": rows, "forms": forms, "date": datetime.date.today().isoformat(),
            "machine": platform.machine(), "cpus": os.cpu_count(),
        }  # fmt: skip
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({k: {r["name"]: r["reward"]["mean"] for r in v["rows"]} for k, v in results.items()}))


if __name__ == "__main__":
    main()
