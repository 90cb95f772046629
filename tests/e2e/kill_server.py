"""Runs verbs in forks of one process that has imported everything, and kills them (-9) as they publish or by the clock.

    python kill_server.py < requests > answers        one JSON object a line each

A request: {"argv", "cwd", "env", "die_at": the publishing step to die at or null, "die_after_s": seconds or null}.
An answer: {"status": exit code or -9, "steps": publishing steps seen, "seconds", "output"}. Importing torch and
transformers takes seconds and a verb on a tiny model does not, so a fork a run makes many kills cheap.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import time


def imports():
    """Everything heavy, once; not at the top, or each worker process that a verb spawns would import it too."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401

    from trimtab.learners.token import trainer  # noqa: F401

    transformers.utils.logging.disable_progress_bar()


def child(request, steps_file, log) -> int:
    import torch

    from trimtab import cli, publish

    os.chdir(request["cwd"])
    os.environ |= request.get("env", {})
    sys.path.insert(0, request["cwd"])
    os.dup2(log, 1)
    os.dup2(log, 2)
    seen = 0

    def at(name, path):
        nonlocal seen
        seen += 1
        os.pwrite(steps_file, f"{seen:8d}".encode(), 0)
        if seen == request.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    publish.at = at
    torch.set_num_threads(1)
    sys.argv = ["trimtab", *request["argv"]]
    try:
        return cli._run()
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70


def serve(request) -> dict:
    with tempfile.TemporaryFile() as steps, tempfile.TemporaryFile() as log:
        os.pwrite(steps.fileno(), b"       0", 0)
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            code = child(request, steps.fileno(), log.fileno())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if request.get("die_after_s") and time.monotonic() - begun > request["die_after_s"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        seconds = time.monotonic() - begun
        log.seek(0)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "steps": int(os.pread(steps.fileno(), 8, 0)),
            "seconds": seconds,
            "output": log.read().decode("utf-8", "replace")[-3000:],
        }


if __name__ == "__main__":
    imports()
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
