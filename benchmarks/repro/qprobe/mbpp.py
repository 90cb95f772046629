"""What chooses best among a small model's programs: the reranker against log-prob, greedy, agreement, the plain probe.

300 MBPP prompts x 16 completions of Qwen2.5-Coder-0.5B, judged by all three tests in the sandbox; five-fold
cross-validation over prompts, three seeds of folds. One forward pass over all completions (states.py) comes first and
is kept in `folder`: about 80 CPU-minutes. It can be cut short with minutes=30 or left out with minutes=0; what is
missing is said, and the table is made of the prompts that have their first `completions` (8 or 16, in an order of their
own). `views` names the states the reranker may take. dtype=bfloat16 takes three fifths of the time on a CPU that has
it: mean log-probs to 0.004, states to 2 %. --small: 12 prompts x 4, no states.
Figures: reranker_minus_logprob and `lower`, its interval's lower end; reranker_minus_greedy (null without greedy
answers).
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Skipped, find
from benchmarks.repro.qprobe.reading import Known, View, cross_validated, learners, nulls, table, taken
from benchmarks.repro.qprobe.states import load_samples, shuffled
from benchmarks.results import stacked
from benchmarks.run import Run
from trimtab.rewards import ExecutionAgreement, UnitTests
from trimtab.types import Completion, Group, Prompt, Reward, SamplingParams

SETTINGS = {
    "completions": 16, "minutes": 240.0, "seeds": 3, "views": ("layer16.mean", "layer20.last"), "dtype": "float32",
    "greedy": True, "visible": True, "states": True, "folder": str(Path.home() / ".cache/trimtab/bench/qprobe_mbpp"),
}  # fmt: skip
SMALL = {"completions": 4, "seeds": 1, "greedy": False, "visible": False, "states": False}
MODEL = "qwen2.5-coder-0.5b@q8"
PROBES = {"mse": "layer20.last", "pg": "layer20.last"}


def samples() -> list[dict[str, Any]]:
    return load_samples(str(find("mbpp_samples")))


def states_folder(s: Any, prefix: str = "") -> Path:
    """The states' place, by their precision."""
    return Path(s.folder) / (prefix + ("states" if s.dtype == "float32" else f"states-{s.dtype}"))


def prompt_of(row: dict[str, Any]) -> Prompt:
    """The stored prompt as raw text, with its tests."""
    target = {"tests": row["tests"], "setup": row["setup"]}
    return Prompt(f"mbpp/{row['task_id']}", ({"role": "text", "content": row["prompt"]},), target, "mbpp")


def scored(rows: list[dict[str, Any]], folder: Path) -> dict[int, list[Reward]]:
    """Rewards of all completions by task id; kept in `folder`, for they are the sandbox's and cost a minute."""
    file = folder / "rewards.json"
    if file.exists():
        return {int(k): [Reward(*r) for r in v] for k, v in json.loads(file.read_text()).items()}
    groups = [
        Group(prompt_of(r), tuple(Completion(c, "q", 0, i) for i, c in enumerate(r["completions"]))) for r in rows
    ]
    rewards = UnitTests()(groups)
    found = {r["task_id"]: row for r, row in zip(rows, rewards, strict=True)}
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({k: [[r.value, r.note] for r in v] for k, v in found.items()}))
    return found


def compute_states(samples_file: Path, out: Path, s: Any, completions: int, minutes: float) -> None:
    """Runs the forward passes that `out` lacks, for at most so many minutes."""
    if minutes <= 0:
        return
    command = [sys.executable, "-m", "benchmarks.repro.qprobe.states", "--samples", str(samples_file)]
    command += ["--out", str(out), "--dtype", s.dtype, "--completions", str(completions)]
    try:
        subprocess.run(command, check=True, timeout=minutes * 60)
    except subprocess.TimeoutExpired:
        print(f"stopped after {minutes:g} minutes; a second start goes on")


def read_states(
    rows: list[dict[str, Any]],
    rewards: dict[int, list[Reward]],
    completions: int,
    folder: Path,
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


def greedy_rewards(groups: list[Group], s: Any) -> np.ndarray:
    """Rewards of the greedy answers, which the samples lack: sampled once by OpenVINO and kept in the cache."""
    file = Path(s.folder) / "greedy.json"
    kept: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    missing = [g.prompt for g in groups if g.prompt.id not in kept]
    if missing and s.greedy:
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


def few(rows: list[dict[str, Any]], s: Any) -> list[Group]:
    """Twelve prompts with lengths for log-probs: that every part runs, in seconds."""
    groups = []
    for row in rows[:12]:
        texts = [row["completions"][i] for i in shuffled(row)[: s.completions]]
        made = tuple(Completion(t, "q", 0, i, logprobs=(-float(len(t)),)) for i, t in enumerate(texts))
        groups.append(Group(prompt_of(row), made))
    return [Group(g.prompt, g.completions, tuple(r)) for g, r in zip(groups, UnitTests()(groups), strict=True)]


def report(run: Run, groups: list[Group], chosen: dict[str, np.ndarray], fits: dict[str, Any]) -> None:
    """Prints the table and keeps the result."""
    s = run.settings
    fitted, forms = cross_validated(
        groups, fits, seeds=s.seeds, folds=min(5, len(groups)), say=lambda x: print(x, flush=True)
    )
    oracle = chosen.pop("oracle")
    chosen |= fitted
    if s.visible:
        for name, told in {"visible test": visible_test(groups), "visible call": agreement(groups, "shown")}.items():
            chosen[f"{name}, then log-prob (told more)"] = taken(then_logprob(told, groups), groups)
    chosen["oracle"] = oracle
    against = ["mean log-prob", *(x for x in ("greedy", "majority of equal texts") if x in chosen)]
    text, rows = table(chosen, against, len(groups))
    by_name = {r["name"]: r for r in rows}
    gap, versus = by_name["reranker"]["minus_mean log-prob"], by_name["reranker"].get("minus_greedy")
    figures = {
        "reranker_minus_logprob": gap["mean"], "lower": gap["lower"], "upper": gap["upper"],
        "reranker_minus_greedy": versus["mean"] if versus else None,
        "greedy_lower": versus["lower"] if versus else None, "prompts": len(groups),
    }  # fmt: skip
    print(f"\n{text}\n")
    chosen_forms = [{"name": k, "forms": v} for k, v in forms.items()]
    run.write(figures, stacked({"ways": rows, "forms": chosen_forms}))


def main(run: Run) -> None:
    """Scores, embeds, fits and reports."""
    s, rows, folder = run.settings, samples(), Path(run.settings.folder)
    if not s.states:
        groups = few(rows, s)
        report(run, groups, nulls(groups, None), {"reranker": learners({}, None, {})["reranker: cues alone"]})
        return
    rewards, states = scored(rows, folder), states_folder(s)
    compute_states(find("mbpp_samples"), states, s, s.completions, s.minutes)
    groups, views, asked = read_states(rows, rewards, s.completions, states)
    print(f"{len(groups)} of {len(rows)} prompts have the states of {s.completions} completions", flush=True)
    if len(groups) < 20:
        raise Skipped(f"{len(groups)} prompts have their states, too few: give it more minutes")
    chosen, greedy = nulls(groups, None), greedy_rewards(groups, s)
    chosen["prompt RM"] = taken([asked[g.prompt.id] for g in groups], groups)
    if np.isfinite(greedy).any():
        chosen = {"greedy": greedy, **chosen}
    made = {name: View(name, views[name]) for name in {*s.views, *PROBES.values()}}
    alike = agreement(groups, "generic")
    chosen["execution agreement, then log-prob"] = taken(then_logprob(alike, groups), groups)
    signals = {
        "execution agreement": Known(
            "execution agreement", {g.prompt.id: v for g, v in zip(groups, alike, strict=True)}
        ),
        "prompt RM": Known("prompt RM", asked),
    }
    fits = learners({n: made[n] for n in s.views}, None, {loss: made[n] for loss, n in PROBES.items()}, signals)
    report(run, groups, chosen, fits)
