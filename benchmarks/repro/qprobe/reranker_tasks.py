"""The reranker on finished runs of `trimtab run` or `trimtab demo`: train and test prompts together, cross-validated.

Greedy answers are only stored for the test prompts, so the difference to greedy is over these. One entry a task and
size is kept: a further run adds to the result.
"""

from typing import Any

import numpy as np

from benchmarks.repro.qprobe.reading import View, cross_validated, learners, nulls, table
from benchmarks.run import Run
from trimtab.embeddings import Stored
from trimtab.rewards import extractor
from trimtab.store import Store

SETTINGS = {
    "runs": ("runs/demo",), "extract": "last_number", "seeds": 3, "views": ("layer20.mean", "layer20.text"),
}  # fmt: skip
SMALL = {"seeds": 1}


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


def main(run: Run) -> None:
    """One table a run; results are added to the file as they come."""
    s = run.settings
    same = extractor(s.extract)
    for folder in s.runs:
        run.need(folder, "a finished `trimtab run` or `trimtab demo`")
        source, groups, views, greedy = read_run(folder)
        wanted = {k: views[k] for k in s.views}
        probe_view = views[s.views[-1]]
        fits = learners(wanted, same, {"mse": probe_view, "pg": probe_view})
        fitted, forms = cross_validated(groups, fits, seeds=s.seeds, say=lambda x: print(x, flush=True))
        chosen = nulls(groups, same)
        oracle = chosen.pop("oracle")
        chosen = {"greedy": greedy, **chosen, **fitted, "oracle": oracle}
        text, rows = table(chosen, ["mean log-prob", "majority vote", "greedy"], len(groups))
        print(f"\n{source}\n{text}\n", flush=True)
        task = f"{source}, {len(groups)} prompts"
        counts = sorted({len(g.completions) for g in groups})
        rows = [{"task": task, **r, "forms": forms.get(r["name"])} for r in rows]
        run.write({task: {"completions": counts, "seeds": s.seeds}}, rows, keep=("task",))
