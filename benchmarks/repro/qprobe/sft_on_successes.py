"""LoRA SFT on the model's own successes, the trained baseline of Q-Probe's table 1, from a store that holds them.

Takes at most two different successes a training prompt, trains one LoRA epoch on them, and answers the store's test
prompts greedily with the tuned model and with the untuned one (both float32 by transformers). Beside them stand the
choices among the store's 32 samples of the *untuned* model: highest mean log-prob, pass@1, oracle. 95 % paired
bootstrap over the test prompts. `demo` is a finished `trimtab demo`. About 15 minutes on one slow core. --small: 8
successes, 4 test prompts.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.run import Run
from trimtab.evaluation.metrics import mean_interval, paired_bootstrap
from trimtab.learners.run import Compute, Lora, Optim
from trimtab.learners.token.trainer import train_policy
from trimtab.lm.export import write_folder
from trimtab.rewards import resolve, score
from trimtab.samplers.cached import Cached
from trimtab.samplers.hf import HF
from trimtab.store import Store
from trimtab.types import Group, SamplingParams

SETTINGS = {
    "demo": "runs/demo", "folder": "runs/sft_on_successes", "each": 2, "epochs": 1, "learning_rate": 2e-4,
    "lora_rank": 16, "prompts": 10**9, "test": 10**9,
}  # fmt: skip
SMALL = {"folder": "runs/sft_small", "prompts": 4, "test": 4}


def successes(groups: list[Group], each: int) -> list[Group]:
    """The first `each` different texts with a reward above 0.5 of every group that has one."""
    found = []
    for g in groups:
        texts: dict[str, int] = {}
        for i, (c, r) in enumerate(zip(g.completions, g.reward_N, strict=True)):
            if r > 0.5 and c.finish == "stop":
                texts.setdefault(c.text, i)
        kept = list(texts.values())[:each]
        if kept:
            found.append(
                replace(g, completions=tuple(g.completions[i] for i in kept), rewards=tuple(g.rewards[i] for i in kept))
            )
    return found


def main(run: Run) -> None:
    s, work = run.settings, Path(run.settings.folder)
    store = Store(run.need(s.demo, "`make demo` makes it"))
    table = next(t for t in store.tables("rewards") if t.startswith("rewards/train/"))
    name = table.removeprefix("rewards/train/")
    model = store.settings("completions/train")["model"].partition("@")[0]
    reward = resolve("reasoning_gym/chain_sum", binary=True)
    begin, kept = time.time(), successes(store.groups("train", name), s.each)[: s.prompts]
    adapter = train_policy(
        kept, model=model, out=work / "lora", loss="sft", lora=Lora(s.lora_rank),
        optim=Optim(s.learning_rate, s.epochs, batch_size=8), compute=Compute("float32"),
    ).path  # fmt: skip
    trained_s = time.time() - begin
    tuned = work / "merged"
    if not (tuned / "config.json").is_file():
        write_folder(str(adapter), tuned)
    test = store.groups("test", name)[: s.test]
    prompts, greedy = [g.prompt for g in test], SamplingParams(temperature=0.0, max_tokens=32)
    rows = {}
    for label, which in (("greedy", model), ("greedy after LoRA SFT on successes", str(tuned))):
        sampler = Cached(HF(which, dtype="float32"), Store(work / "samples"), label.replace(" ", "_"), batch=20)
        scored = score(sampler(prompts, 1, greedy), reward)
        rows[label] = np.array([g.reward_N[0] for g in scored])
    mean = [[np.mean(c.logprobs) if c.logprobs else -np.inf for c in g.completions] for g in test]
    rows["pass@1"] = np.array([np.nanmean(g.reward_N) for g in test])
    rows["mean log-prob of 32"] = np.array([g.reward_N[int(np.argmax(m))] for g, m in zip(test, mean, strict=True)])
    rows["oracle of 32"] = np.array([np.nanmax(g.reward_N) for g in test])
    table_ = [
        {
            "name": k,
            "reward": list(mean_interval(v)[:3]),
            "minus greedy": list(paired_bootstrap(v, rows["greedy"])[:3]),
        }
        for k, v in rows.items()
    ]
    for r in table_:
        print(f"{r['name']:36} {{:.3f}} [{{:.3f}}, {{:.3f}}]".format(*r["reward"]),
              "minus greedy {:+.3f} [{:+.3f}, {:+.3f}]".format(*r["minus greedy"]))  # fmt: skip
    figures = {
        "examples": sum(len(g.completions) for g in kept), "prompts": len(kept), "train_s": trained_s, "model": model,
        "test prompts": len(test),
    }  # fmt: skip
    run.write(figures, table_)
