"""What chooses best among a small model's programs: reranker, log-prob, greedy, agreement or the plain probe.

    make bench NAME=qprobe_mbpp        needs TRIMTAB_DATA (or ../shared/data) with mbpp/samples_qwen05.jsonl.gz

300 MBPP prompts x 16 completions of Qwen2.5-Coder-0.5B, judged by all three tests in the sandbox; five-fold
cross-validation over prompts, three seeds of folds. One forward pass over all completions (repro/qprobe/states.py)
comes first and is kept in CACHE (default ~/.cache/trimtab/bench/qprobe_mbpp): about 80 CPU-minutes. It can be cut short
with MINUTES=30 or left out with MINUTES=0; what is missing is said, and the table is made of the prompts that have
their first COMPLETIONS=8 (or 16, in an order of their own). SEEDS=3. VIEWS names the states the reranker may take.
DTYPE=bfloat16 takes three fifths of the time on a CPU that has it: mean log-probs to 0.004, states to 2 %.
SMALL=1: 12 prompts x 4, no states. The last line is JSON:
reranker_minus_logprob and `lower`, its interval's lower end; reranker_minus_greedy (null without greedy answers).
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "repro" / "qprobe"))

from reading import Known, View, cross_validated, learners, nulls, table, taken  # noqa: E402
from states import load_samples, shuffled  # noqa: E402

from trimtab.rewards import ExecutionAgreement, UnitTests  # noqa: E402
from trimtab.types import Completion, Group, Prompt, Reward, SamplingParams  # noqa: E402

DATA = Path(os.environ.get("TRIMTAB_DATA") or HERE.parents[1] / "shared" / "data")
SAMPLES = DATA / "mbpp" / "samples_qwen05.jsonl.gz"
CACHE = Path(os.environ.get("CACHE") or Path.home() / ".cache/trimtab/bench/qprobe_mbpp")
SMALL = bool(os.environ.get("SMALL"))
DTYPE = os.environ.get("DTYPE", "float32")
STATES = CACHE / ("states" if DTYPE == "float32" else f"states-{DTYPE}")
VIEWS = tuple(os.environ.get("VIEWS", "layer16.mean layer20.last").split())
MODEL = "qwen2.5-coder-0.5b@q8"
PROBES = {"mse": "layer20.last", "pg": "layer20.last"}


def prompt_of(row: dict[str, Any]) -> Prompt:
    """The stored prompt as raw text, with its tests."""
    target = {"tests": row["tests"], "setup": row["setup"]}
    return Prompt(f"mbpp/{row['task_id']}", ({"role": "text", "content": row["prompt"]},), target, "mbpp")


def scored(rows: list[dict[str, Any]]) -> dict[int, list[Reward]]:
    """Rewards of all completions by task id; kept in the cache, for they are the sandbox's and cost a minute."""
    file = CACHE / "rewards.json"
    if file.exists():
        return {int(k): [Reward(*r) for r in v] for k, v in json.loads(file.read_text()).items()}
    groups = [
        Group(prompt_of(r), tuple(Completion(c, "q", 0, i) for i, c in enumerate(r["completions"]))) for r in rows
    ]
    rewards = UnitTests()(groups)
    found = {r["task_id"]: row for r, row in zip(rows, rewards, strict=True)}
    CACHE.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({k: [[r.value, r.note] for r in v] for k, v in found.items()}))
    return found


def compute_states(completions: int, minutes: float) -> None:
    """Runs the forward passes that the cache lacks, for at most so many minutes."""
    if minutes <= 0:
        return
    command = [
        sys.executable,
        str(HERE / "repro/qprobe/states.py"),
        "--samples",
        str(SAMPLES),
        "--out",
        str(STATES),
        "--dtype",
        DTYPE,
    ]
    try:
        subprocess.run([*command, "--completions", str(completions)], check=True, timeout=minutes * 60)
    except subprocess.TimeoutExpired:
        print(f"stopped after {minutes:g} minutes; a second start goes on")


def read_states(
    rows: list[dict[str, Any]],
    rewards: dict[int, list[Reward]],
    completions: int,
    folder: Path = STATES,
    prompt: Callable[[dict[str, Any]], Prompt] = prompt_of,
) -> tuple[list[Group], dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Groups of the prompts whose states are there, their completions with log-probs; every view, and the prompt RM's
    log-odds, by prompt id. A completion that the sampler cut has `finish` "length"."""
    groups, views, asked = [], {}, {}
    for row in rows:
        parts = [folder / f"{row['task_id']}-{a:02d}.npz" for a in range(0, completions, 8)]
        if not all(p.exists() for p in parts):
            continue
        loaded = [np.load(p) for p in parts]
        made, p = [], prompt(row)
        for z in loaded:
            logprobs = np.split(z["logprob"], np.cumsum(z["lengths"])[:-1])
            for i, lp, ended in zip(map(int, z["index"]), logprobs, z["ended"], strict=True):
                finish, lps = "stop" if ended else "length", tuple(map(float, lp))
                made.append((i, Completion(row["completions"][i], MODEL, 0, i, finish, logprobs=lps)))
        names = [k for k in loaded[0].files if k.startswith("layer") and not k.endswith("asked")]
        for name in names:
            views.setdefault(name, {})[p.id] = np.concatenate([z[name] for z in loaded]).astype(np.float32)
        asked[p.id] = np.concatenate([z["yes"] for z in loaded])
        groups.append(Group(p, tuple(c for _, c in made), tuple(rewards[row["task_id"]][i] for i, _ in made)))
    return groups, views, asked


def greedy_rewards(groups: list[Group]) -> np.ndarray:
    """Rewards of the greedy answers, which the samples lack: sampled once by OpenVINO and kept in the cache."""
    file = CACHE / "greedy.json"
    kept: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    missing = [g.prompt for g in groups if g.prompt.id not in kept]
    if missing and os.environ.get("GREEDY", "1") != "0" and not SMALL:
        from trimtab.samplers import OpenVINO

        params = SamplingParams(temperature=0.0, top_p=1.0, max_tokens=200, stop=("\n```",))
        for a in range(0, len(missing), 32):
            for g in OpenVINO("qwen2.5-coder-0.5b")(missing[a : a + 32], 1, params):
                kept[g.prompt.id] = g.completions[0].text
            file.write_text(json.dumps(kept))
    having = [g for g in groups if g.prompt.id in kept]
    rewards = UnitTests()([Group(g.prompt, (Completion(kept[g.prompt.id], "q", 0, 0),)) for g in having])
    by_id = {g.prompt.id: row[0].value for g, row in zip(having, rewards, strict=True)}
    return np.array([by_id.get(g.prompt.id, np.nan) for g in groups])


def visible_test(groups: list[Group]) -> list[np.ndarray]:
    """1 where a program passes the one test that its prompt shows: more than any reranker here is told."""
    shown = [
        Group(Prompt(g.prompt.id, (), {**g.prompt.columns, "tests": g.prompt.columns["tests"][:1]}), g.completions)
        for g in groups
    ]
    return [np.array([r.value for r in row]) for row in UnitTests()(shown)]


def agreement(groups: list[Group], inputs: str) -> list[np.ndarray]:
    """How far each program answers as the others of its group do; NaN (no call is shown) says nothing."""
    return [np.nan_to_num([r.value for r in row]) for row in ExecutionAgreement(inputs=inputs)(groups)]


def then_logprob(values: list[np.ndarray], groups: list[Group]) -> list[np.ndarray]:
    """`values`, ties broken by mean log-prob."""
    order = [np.argsort(np.argsort([np.mean(c.logprobs or (0.0,)) for c in g.completions])) for g in groups]
    return [v + 1e-6 * o for v, o in zip(values, order, strict=True)]


def small() -> None:
    """Cues alone on twelve prompts x four, with lengths for log-probs: that every part runs, in seconds."""
    rows = load_samples(str(SAMPLES))[:12]
    groups = []
    for row in rows:
        texts = [row["completions"][i] for i in shuffled(row)[:4]]
        made = tuple(Completion(t, "q", 0, i, logprobs=(-float(len(t)),)) for i, t in enumerate(texts))
        groups.append(Group(prompt_of(row), made))
    groups = [Group(g.prompt, g.completions, tuple(r)) for g, r in zip(groups, UnitTests()(groups), strict=True)]
    fits = {"reranker": learners({}, None, {})["reranker: cues alone"]}
    report(groups, nulls(groups, None), fits, seeds=1, completions=4)


def report(
    groups: list[Group], chosen: dict[str, np.ndarray], fits: dict[str, Any], *, seeds: int, completions: int
) -> None:
    """Prints the table and the JSON line; the full run is also kept in benchmarks/results."""
    fitted, forms = cross_validated(
        groups, fits, seeds=seeds, folds=min(5, len(groups)), say=lambda s: print(s, flush=True)
    )
    oracle = chosen.pop("oracle")
    chosen |= fitted
    if not SMALL:
        for name, told in {"visible test": visible_test(groups), "visible call": agreement(groups, "shown")}.items():
            chosen[f"{name}, then log-prob (told more)"] = taken(then_logprob(told, groups), groups)
    chosen["oracle"] = oracle
    against = ["mean log-prob", *(x for x in ("greedy", "majority of equal texts") if x in chosen)]
    text, rows = table(chosen, against, len(groups))
    by_name = {r["name"]: r for r in rows}
    gap, versus = by_name["reranker"]["minus_mean log-prob"], by_name["reranker"].get("minus_greedy")
    facts = {
        "reranker_minus_logprob": gap["mean"], "lower": gap["lower"], "upper": gap["upper"],
        "reranker_minus_greedy": versus["mean"] if versus else None,
        "greedy_lower": versus["lower"] if versus else None,
        "dtype": DTYPE, "prompts": len(groups), "completions": completions, "seeds": seeds, "views": list(VIEWS),
        "rows": rows, "forms": forms,
        "machine": platform.processor() or platform.machine(), "cpus": os.cpu_count(),
        "date": datetime.date.today().isoformat(), "small": SMALL,
    }  # fmt: skip
    print(f"\n{text}\n")
    if not SMALL:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results/qprobe_mbpp.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps({k: v for k, v in facts.items() if k not in ("rows", "forms")}))


def main() -> None:
    """Scores, embeds, fits and reports."""
    if not SAMPLES.exists():
        sys.exit("mbpp/samples_qwen05.jsonl.gz is not here; TRIMTAB_DATA names the folder that holds mbpp/")
    if SMALL:
        small()
        return
    completions = int(os.environ.get("COMPLETIONS", "16"))
    rows = load_samples(str(SAMPLES))
    rewards = scored(rows)
    compute_states(completions, float(os.environ.get("MINUTES", "240")))
    groups, views, asked = read_states(rows, rewards, completions)
    print(f"{len(groups)} of {len(rows)} prompts have the states of {completions} completions", flush=True)
    if len(groups) < 20:
        sys.exit("too few: give it more MINUTES")
    chosen, greedy = nulls(groups, None), greedy_rewards(groups)
    chosen["prompt RM"] = taken([asked[g.prompt.id] for g in groups], groups)
    if np.isfinite(greedy).any():
        chosen = {"greedy": greedy, **chosen}
    made = {name: View(name, views[name]) for name in {*VIEWS, *PROBES.values()}}
    alike = agreement(groups, "generic")
    chosen["execution agreement, then log-prob"] = taken(then_logprob(alike, groups), groups)
    signals = {
        "execution agreement": Known(
            "execution agreement", {g.prompt.id: v for g, v in zip(groups, alike, strict=True)}
        ),
        "prompt RM": Known("prompt RM", asked),
    }
    fits = learners({n: made[n] for n in VIEWS}, None, {loss: made[n] for loss, n in PROBES.items()}, signals)
    report(groups, chosen, fits, seeds=int(os.environ.get("SEEDS", "3")), completions=completions)


if __name__ == "__main__":
    main()
