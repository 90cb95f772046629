"""Q-Probe's Table 2: answers from one model, vectors from another, as when the sampler is behind an API.

The run's completions are the API's; they are read by its own model's states (what an API does not give), by another
language model (SmolLM2-135M) and by a sentence encoder (all-MiniLM-L6-v2). The vectors are kept in the run, beside its
own. Probes are fitted on its training prompts and judged on its test prompts. The reranker has the API's log-probs too.
`demo` is a finished `trimtab demo`.
"""

from typing import Any

import numpy as np

from benchmarks.repro.qprobe.reading import View, nulls, table, taken
from benchmarks.repro.qprobe.reranker_tasks import read_run, split
from benchmarks.run import Run
from trimtab.embeddings import Encoder, HiddenStates, Stored
from trimtab.learners import fit_probe, fit_reranker
from trimtab.rewards import extractor
from trimtab.store import Store

SETTINGS = {"demo": "runs/demo"}
SMALL = {}
OTHERS: dict[str, Any] = {
    "minilm": lambda: Encoder("all-minilm-l6-v2"),
    "smollm2": lambda: HiddenStates("smollm2-135m", layers=(20,), pooling="mean"),
}


def main(run: Run) -> None:
    """Embeds with the other models, fits, prints the table."""
    demo = run.need(run.settings.demo, "`make demo` makes it")
    name, groups, views, greedy = read_run(demo)
    train, test, greedy_P = split(groups, greedy)
    rerankers = {"its own states (layer 20)": views["layer20.text"]}
    for key, make in OTHERS.items():
        vectors, embedder, store = {}, make(), Store(demo)
        for part, chosen in (("train", train), ("test", test)):
            print(f"{key}: {part}", flush=True)
            for g, x in zip(chosen, Stored(embedder, store, part, suffix=key)(chosen), strict=True):
                vectors[g.prompt.id] = np.asarray(x, np.float32)
        rerankers[key] = View(key, vectors)
    rewards = {"greedy": greedy_P, **nulls(test, extractor("last_number"))}
    oracle = rewards.pop("oracle")
    for who, view in rerankers.items():
        for loss in ("mse", "ce", "pg"):
            probe = fit_probe(train, view, loss=loss, l2=(1.0, 0.1))
            rewards[f"probe {loss}, {who}"] = taken([[r.value for r in row] for row in probe(test)], test)
        reranker = fit_reranker(train, view, same=extractor("last_number"))
        rewards[f"reranker, {who}"] = taken([[r.value for r in row] for row in reranker(test)], test)
    text, rows = table(rewards | {"oracle": oracle}, ["greedy", "mean log-prob"], len(test))
    print(text)
    run.write({"task": name, "train": len(train), "test": len(test)}, rows)
