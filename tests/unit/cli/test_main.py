"""The entry point keeps its word: exit codes, one line or one JSON object, signals, and readers that go away."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # all together: `make quick` leaves them out

TRIMTAB = [sys.executable, "-m", "trimtab.cli"]
ENDLESS = "def f():\n    while True: pass\n"


def run(*arguments, **options):
    return subprocess.run([*TRIMTAB, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["store", "verify", "no/such/run"], 1, "no/such/run has no manifest.json"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["store", "verify"], 2, "Missing argument"),
        (["store", "verify", "x", "--wrong"], 2, "No such option"),
        (["--version"], 0, ""),
    ],
)
def test_exit_codes_and_one_line(arguments, code, says):
    done = run(*arguments)
    assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["store", "verify", "no/such/run"], ["store", "verify", "x", "--wrong"]])
def test_json_answers_with_an_object_also_when_it_fails(arguments):
    done = run(*arguments, "--json")
    answer = json.loads(done.stdout)
    assert done.returncode > 0 and answer["error"] and answer["kind"].endswith(("Error", "Option"))


def test_names_of_others_cannot_steer_the_terminal():
    done = run("store", "verify", "run\x1b]0;owned\x07\u202e")
    assert "\x1b" not in done.stderr and r"run\u001b]0;owned\u0007\u202e has no manifest" in done.stderr


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_ascii_terminals_get_escapes_not_tracebacks(env):
    done = run("store", "verify", "läufe/π", env={**os.environ, **env})
    assert done.returncode == 1 and "has no manifest" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_goes_away_and_a_closed_output_are_no_errors():
    shell = f"{sys.executable} -m trimtab.cli models | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 141) and done.stderr == "" and done.stdout.count("\n") == 1
    shut = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m trimtab.cli models >&-"], capture_output=True, check=False
    )
    assert shut.returncode == 0 and shut.stderr == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_say_that_the_same_command_continues(tmp_path, number, code):
    (tmp_path / "p.py").write_text(ENDLESS)
    (tmp_path / "t.py").write_text("assert f() == 1\n")
    command = ["sandbox", "run", "p.py", "--tests", "t.py", "--timeout", "50", "--unsafe-execution"]
    process = subprocess.Popen([*TRIMTAB, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(2.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code and "run the same command to continue" in said and "Traceback" not in said


FORKS = """
import subprocess, sys
def forks(prompt, completion):
    sleep = "[sys.executable, '-c', 'import time; time.sleep(77.25)'], start_new_session=True"
    child = f"import subprocess, sys; subprocess.Popen({sleep})"
    subprocess.Popen([sys.executable, "-c", child]).wait()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(77.25)"])
    return 1.0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no subreapers")
@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_reward_forks_does_not_outlive_the_command(tmp_path, workers):
    from trimtab.store import Store
    from trimtab.testing import FakeSampler, prompt
    from trimtab.types import SamplingParams

    (tmp_path / "mine.py").write_text(FORKS)
    store = Store(tmp_path / "run")
    store.add_prompts([prompt("a")], "train")
    with store.writer("completions/train", {"n": 1}) as w:
        w.append_groups(FakeSampler(lambda p, rng: "x")(store.prompts(), 1, SamplingParams()))
    settings = ["--set", "reward.name=mine:forks", "--set", f"reward.workers={workers}"]
    done = run("score", "-o", "run", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert _sleepers() == []


def _sleepers():
    lines = [f.read_bytes() for f in Path("/proc").glob("[0-9]*/cmdline") if f.exists()]
    return [line for line in lines if b"time.sleep(77.25)" in line and b"subprocess" not in line]
