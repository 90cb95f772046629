"""Runs a stage in a process of its own and kills it (-9) at random moments, until it ends by itself.

The script prints one line when its work begins, so that kills fall on the work and not on Python's imports.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np


def run_until_done_with_kills(
    argv: Sequence[str],
    rng: np.random.Generator,
    kills: int = 20,
    *,
    window_s: float = 0.3,
    env: Mapping[str, str] | None = None,
    limit_s: float = 120,
) -> int:
    """Starts `argv` again and again; kills each of the first `kills` runs at a moment drawn uniformly from the
    `window_s` seconds after its first line, then lets it end. Returns how many kills fell before the run had ended.

    AssertionError with the run's stderr when a run that was not killed fails. A run may end before its kill: make the
    work long enough (about kills * window_s / 2) and assert on the number returned.
    """
    killed = 0
    for n in range(kills + 1):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(timeout=rng.uniform(0, window_s) if n < kills else limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
        _, stderr = process.communicate()
        if process.returncode == -9:
            killed += 1
        else:
            assert process.returncode == 0, f"the run failed:\n{stderr}"
            if n < kills:
                break  # done early: a further run would find nothing to do
    assert process.returncode == 0, f"the last run failed or took longer than {limit_s} s:\n{stderr}"
    return killed


def python(script: str, *arguments: object) -> list[str]:
    """argv that runs a Python script given as text; print a line when the work begins."""
    return [sys.executable, "-c", script, *map(str, arguments)]
