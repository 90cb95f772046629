"""The finetuned reward model, the trained ranker of Q-Probe's table 1, on a store that holds scored completions.

The model that sampled gets a reward head and a LoRA, and learns right above wrong from at most `each` pairs a training
prompt; it then takes one of the test prompts' completions (the paper's row "Finetune RM"). Beside it: greedy, what
needs no fit, and the probes on the same prompts. 95 % paired bootstrap over the test prompts. `demo` is a
finished `trimtab demo`. About 40 minutes on one core.
"""

import time
from itertools import islice

from benchmarks.repro.qprobe.reading import nulls, table, taken
from benchmarks.repro.qprobe.reranker_tasks import read_run, split
from benchmarks.run import Run
from trimtab.data.pairs import right_vs_wrong
from trimtab.learners import Lora, fit_probe, train_reward_model
from trimtab.learners.run import Compute, Optim
from trimtab.rewards import RewardModel, extractor, score
from trimtab.store import Store
from trimtab.types import Group

SETTINGS = {"demo": "runs/demo", "each": 8, "epochs": 1, "learning_rate": 1e-4, "lora_rank": 16, "test": 100}
SMALL = {"each": 1, "test": 4}


def main(run: Run) -> None:
    """Trains, ranks, prints the table."""
    s = run.settings
    demo = run.need(s.demo, "`make demo` makes it")
    name, groups, views, greedy = read_run(demo)
    train, test, greedy_P = split(groups, greedy)
    test, greedy_P = test[: s.test], greedy_P[: s.test]
    model = Store(demo).settings("completions/train")["model"].partition("@")[0]
    pairs = [pair for g in train for pair in islice(right_vs_wrong([g]), s.each)]
    print(f"{len(pairs)} pairs of {len({p.prompt.id for p in pairs})} prompts", flush=True)
    begun = time.time()
    folder = train_reward_model(
        pairs, model=model, out=f"{s.demo}_reward_model", lora=Lora(s.lora_rank),
        optim=Optim(s.learning_rate, s.epochs, batch_size=16), compute=Compute("float32"),
    ).path  # fmt: skip
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
    figures = {
        "task": name, "model": model, "pairs": len(pairs), "train": len(train), "test": len(test),
        "train_s": round(trained_s), "score_s": round(scored_s),
    }  # fmt: skip
    run.write(figures, rows)
