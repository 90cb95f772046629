"""The finetuned reward model, the trained ranker of Q-Probe's table 1, on a store that holds scored completions.

    python benchmarks/repro/qprobe/finetuned_rm.py [RUN]      RUN: a finished `trimtab demo` (default runs/demo)

The model that sampled gets a reward head and a LoRA, and learns right above wrong from at most 8 pairs a training
prompt; it then takes one of the test prompts' completions (the paper's row "Finetune RM"). Beside it: greedy, what
needs no fit, and the probes on the same prompts. 95 % paired bootstrap over the test prompts. Writes
benchmarks/results/finetuned_rm.json. EACH in the environment changes the pairs a prompt. About 40 minutes on one core.
"""

import datetime
import json
import os
import sys
import time
from itertools import islice
from pathlib import Path

from reading import nulls, table, taken
from reranker_tasks import read_run, split

from trimtab.data.pairs import right_vs_wrong
from trimtab.learners import Lora, fit_probe, train_reward_model
from trimtab.rewards import RewardModel, extractor, score
from trimtab.store import Store
from trimtab.types import Group

RESULTS = Path(__file__).resolve().parents[2] / "results" / "finetuned_rm.json"
EACH, EPOCHS, RATE, RANK = int(os.environ.get("EACH") or 8), 1, 1e-4, 16


def main() -> None:
    """Trains, ranks, prints the table."""
    run = sys.argv[1] if len(sys.argv) > 1 else "runs/demo"
    name, groups, views, greedy = read_run(run)
    train, test, greedy_P = split(groups, greedy)
    model = Store(run).settings("completions/train")["model"].partition("@")[0]
    pairs = [pair for g in train for pair in islice(right_vs_wrong([g]), EACH)]
    print(f"{len(pairs)} pairs of {len({p.prompt.id for p in pairs})} prompts", flush=True)
    begun = time.time()
    folder = train_reward_model(
        pairs, model=model, out=f"{run}_reward_model", lora=Lora(RANK), epochs=EPOCHS, learning_rate=RATE,
        batch_size=16, dtype="float32",
    )  # fmt: skip
    trained_s, begun = time.time() - begun, time.time()
    bare = [Group(g.prompt, g.completions) for g in test]
    ranked = score(bare, RewardModel(str(folder), dtype="float32"))
    scored_s = time.time() - begun
    rewards = {"greedy": greedy_P, **nulls(test, extractor("last_number"))}
    oracle = rewards.pop("oracle")
    for loss in ("mse", "ce", "pg"):
        probe = fit_probe(train, views["layer20.text"], loss=loss, l2=(1.0, 0.1))
        rewards[f"probe {loss}"] = taken([[r.value for r in row] for row in probe(test)], test)
    rewards["finetuned reward model (LoRA)"] = taken([g.reward_N for g in ranked], test)
    text, rows = table(rewards | {"oracle": oracle}, ["greedy", "mean log-prob", "probe pg"], len(test))
    print(text)
    facts = {
        "task": name, "model": model, "pairs": len(pairs), "train": len(train), "test": len(test), "lora_rank": RANK,
        "learning_rate": RATE, "train_s": round(trained_s), "score_s": round(scored_s), "rows": rows,
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps({r["name"]: r["reward"]["mean"] for r in rows}))


if __name__ == "__main__":
    main()
