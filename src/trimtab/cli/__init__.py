"""The command line: one verb a file, in pipeline order. Nothing heavy is imported before a verb runs.

Every verb reads the same task file (`--config task.toml`), and flags lie over it. Verbs talk through the store: each
can be run alone, again, or replaced by a foreign tool.
"""

import os
import signal
import sys
from typing import Any, NoReturn

from trimtab.cli.children import adopt_orphans, end_children

OK, FAILED, USAGE, PIPE, INTERRUPTED, TERMINATED = 0, 1, 2, 141, 130, 143
"""Exit codes. Some verbs have their own meaning for 1 and 2, which their help says."""


def main() -> NoReturn:
    """Entry point: errors of ours are one line, and one JSON object under `--json`; Ctrl-C and SIGTERM say that the
    same command continues."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        raise KeyboardInterrupt  # so that writers flush and locks go, as after Ctrl-C

    code = FAILED
    try:
        signal.signal(signal.SIGTERM, stop)
        adopt_orphans()
        code = _run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = PIPE
    except Exception as e:  # a fault of ours: the traceback is for who mends it
        _fail(e)
        import traceback

        traceback.print_exc()
    if code == INTERRUPTED:
        code = TERMINATED if stopped else INTERRUPTED
        _say("\ntrimtab: interrupted; what was finished is stored, run the same command to continue")
    _leave(code)


def _run() -> int:
    from trimtab.progress import quiet_libraries, working
    from trimtab.terminal import guard_streams

    guard_streams()
    quiet_libraries()
    from typer import Abort, BadParameter

    from trimtab.cli.app import app
    from trimtab.errors import TrimtabError

    usage_error: Any = BadParameter.__bases__[0]  # typer does not export its own name

    try:
        with working(
            " ".join(["trimtab", *sys.argv[1:2]]), after_s=5
        ):  # also while torch is imported, and where no stage counts
            code = app(standalone_mode=False)  # an int where a verb ended by Exit; Ctrl-C is Exit(130)
        return code if isinstance(code, int) else OK
    except TrimtabError as e:
        _fail(e)
        _say(f"trimtab: {e}")
        return FAILED
    except usage_error as e:
        _fail(e)
        e.show()
        return USAGE
    except Abort:
        return FAILED
    except BrokenPipeError:
        raise
    except Exception as e:
        if not (known := _outside(e)):
            raise
        _fail(known)
        _say(f"trimtab: {known}")
        return FAILED


def _outside(error: Exception) -> Exception | None:
    """What the machine refused, as an error that says what to do: a file, or a package that an extra brings."""
    from trimtab.errors import InputError, StoreError
    from trimtab.publish import refusal

    if isinstance(error, ModuleNotFoundError):
        from trimtab.jobs.checks import EXTRAS

        name = (error.name or "").split(".")[0]
        return InputError(f"{name} is not installed: pip install 'trimtab[{EXTRAS[name]}]'") if name in EXTRAS else None
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # "~" where nobody knows whose
        return InputError(f"{str(error).rstrip('.')}: write the whole path instead of ~, or set HOME")
    if isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8":
        what = error.object[error.start : error.end]
        return InputError(f"no file can be named {what!r} in this locale ({error.encoding}): set LC_ALL=C.UTF-8")
    if not (said := refusal(error)):
        return None
    return StoreError(f"{error.filename}: {said}" if isinstance(error, OSError) and error.filename else said)


def _fail(error: Exception) -> None:
    """Under `--json` the answer of a verb that fails is an object too."""
    if "--json" in sys.argv[1:]:
        import json

        text = str(error) or getattr(error, "message", "")
        print(json.dumps({"error": text, "kind": type(error).__name__}, ensure_ascii=False), flush=True)


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None


def _leave(code: int) -> NoReturn:
    """Ends with what was printed on its way; a reader that went away (`| head`) is no error of ours."""
    end_children()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or PIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes once more at its end
    sys.exit(code)
