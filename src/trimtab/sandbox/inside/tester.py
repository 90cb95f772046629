"""The trusted side: runs the tests in its own process, where no line of the program ever runs.

The program's functions, classes and iterators appear here as stand-ins that ask the program's process and rebuild its
answers from data. The tests compare genuine values, and only this process can write the verdict. What a program can
do is answer.
"""

# few imports inside, and running programs is the point:
# ruff: noqa: PTH109, S102
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false

import builtins
import functools
import os
import re
import select
import socket
import sys
import threading
import time
import types

from . import pytests, source, wire
from .link import NOTE, Link, OutOfTime, ProgramEnded, ProgramError
from .standins import Mirror, Remote, Unrepresented

JOBS_A_TESTER = 500


class Verdict(BaseException):
    """Ends the judging with passed (True, False or None for unscored) and a note."""

    def __init__(self, passed, note):
        self.passed, self.note = passed, note


def judge(job, link):
    """Runs the job's tests against the program behind `link`; returns (passed, note)."""
    code = None
    try:
        if "pytest" in job["tests"]:
            pytests.install()
        code, space = _prepare(job, link)
        before = link.uses
        exec(code, space)
        _run_collected(space, link, job["tests"])
        if link.uses == before and not link.data_used:
            return None, "the tests never used the program; they prove nothing about it"
        return _passed(link)
    except Verdict as v:
        return v.passed, v.note
    except OutOfTime:
        if "wait_for" in job["tests"]:
            return None, "the tests cut a coroutine short, which cannot be done from another process"
        return False, f"took longer than {job['wall_s']:g} s"
    except ProgramEnded:
        return False, "the program ended before it had answered"
    except wire.Malformed as e:
        return False, f"the program answered with {e}"
    except Unrepresented as e:
        return None, str(e)[:NOTE]
    except MemoryError:
        return False, "the program's answer needs more memory than the tests may use"
    except BaseException as e:
        return _explain(e, code, link, job)


def _passed(link):
    """The verdict on tests that hold, unless it was the program alone that decided."""
    if link.poisoned:
        return None, link.poisoned
    for name, answers in link.held.items():
        if True in answers and False not in answers:
            return None, f"the tests are decided by the program's own {name}.__contains__, which never says no"
    for number, name in link.relied.items():
        if number not in link.evidence:
            return None, f"the tests use {name} of an object of the program where they may mean data"
    return True, ""


def _prepare(job, link):
    """Compiles the tests, loads the program, and makes the names that the tests use; (code, namespace)."""
    space = {"__name__": "tests"}
    try:
        if job["prelude"]:
            exec(_compiled(job["prelude"], "<prelude>"), space)
        code = _compiled(job["tests"], "<tests>")
        names = source.free_names(job["tests"])
        link.read_ahead = not re.search(r"\.(send|throw|close)\(", job["tests"])
        link.star_calls = "(*" in job["tests"]
        link.changes_beside_results = source.compares_with_literals(job["tests"])
        if "asyncio" in job["tests"] or "Async" in job["tests"]:
            from . import loop

            loop.use()
    except (OutOfTime, ProgramEnded):
        raise
    except BaseException as e:
        line = f" (line {e.lineno})" if isinstance(e, SyntaxError) else ""
        raise Verdict(None, f"the tests are broken: {type(e).__name__}: {getattr(e, 'msg', e)}{line}"[:NOTE]) from None
    entry = job["entry_point"]
    given = {n for n in space if n != entry}
    wanted = {n for n in names if n not in given and not hasattr(builtins, n)} - {"__file__"}
    aliases = frozenset(a for a in job["aliases"] if a not in sys.modules and a in job["tests"])
    wanted |= source.imported(job["tests"], aliases) if aliases else set()
    if entry and (entry in names or not wanted):
        wanted.add(entry)
    if (
        not wanted
    ):  # `assert sum(10, 15) == 6`: a task may give its function a builtin's name; else builtins stay genuine
        wanted = {n for n in names if n not in given}
        link.only_builtins = bool(wanted)
    try:
        asks = "stdin" in job["tests"] or "input" in job["tests"]
        message = {"op": "load", "code": job["program"], "names": sorted(wanted), "asks_input": asks}
        found = link.ask(message).get("ok")
    except (OutOfTime, ProgramEnded, wire.Malformed):
        raise
    except Exception as e:
        text = str(e) if isinstance(e, ProgramError) else f"{type(e).__name__}: {e}"
        if isinstance(e, ModuleNotFoundError) and _is_known(e):
            raise Verdict(None, f"the sandbox does not have what the program imports: {text}"[:NOTE]) from None
        raise Verdict(False, f"the program does not load: {text}"[:NOTE]) from None
    things = {n: _thing(link, d) for n, d in (found if type(found) is dict else {}).items() if n in wanted}
    space.update(things)
    space["__builtins__"] = builtins
    for alias in aliases:
        module = types.ModuleType(alias)
        module.__dict__.update(things)
        sys.modules[alias] = module
    forgotten = {n: m for n in wanted - things.keys() if (m := _forgotten(n, job["tests"]))}
    space.update(forgotten)
    link.missing = wanted - things.keys() - forgotten.keys() - set(aliases)
    return code, space


def _forgotten(name, tests):
    """A module that the tests use (math.isclose) and neither they nor the program import; None for other names."""
    known = name in sys.stdlib_module_names or name in ("np", "numpy", "pytest")
    if not known or not re.search(rf"(?<![\w.]){name}\.\w", tests) or re.search(rf"(?<![\w.]){name}\s*\(", tests):
        return None
    import importlib

    try:
        return importlib.import_module("numpy" if name == "np" else name)
    except ImportError:
        return None


def _is_known(error):
    """Whether the module that a program misses is a package that data sets take for granted."""
    found = re.search(r"No module named '(\w+)", str(error))
    return bool(found) and found[1] in source.WELL_KNOWN


def _thing(link, described):
    if "module" in described:  # the tests get the genuine module, never the program's view of it
        name = str(described["module"])
        root = name.split(".")[0]
        if root in sys.stdlib_module_names or root == "numpy":
            import importlib

            link.data_used = True  # the program chose it
            return importlib.import_module(name)
        raise Verdict(False, f"the program binds a test's name to the module {name[:80]!r}")
    value = link.hold(described.get("shared"), link.decode(described.get("value")), described.get("value"))
    link.data_used = link.data_used or not isinstance(value, Remote | Mirror)
    return value


@functools.lru_cache(maxsize=4)  # the completions of one prompt come one after the other
def _compiled(text, name):
    return compile(text, name, "exec", dont_inherit=True)


def _run_collected(space, link, text):
    """unittest classes and pytest's functions and classes, if the tests only define them."""
    unittest = sys.modules.get("unittest")
    if callable(space.get("setUpModule")):
        space["setUpModule"]()
    for name, thing in list(space.items()):
        if unittest and isinstance(thing, type) and issubclass(thing, unittest.TestCase):
            _run_case(thing, unittest)
        elif isinstance(thing, types.FunctionType) and name.startswith("test"):
            called = re.search(rf"^{name}\s*\(", text, re.MULTILINE)
            None if called else pytests.run(thing)
        elif isinstance(thing, type) and not isinstance(thing, Mirror) and name.startswith("Test"):
            pytests.run_class(thing)


def _run_case(case, unittest):
    case.setUpClass()
    try:
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
            try:
                test.debug()  # raises the first failure instead of collecting it
            except unittest.SkipTest:  # the tests' own: a program's never arrives as one
                continue
    finally:
        case.tearDownClass()
        case.doClassCleanups()


def _explain(e, code, link, job):
    """A failed test is the program's fault, unless it failed before the program was ever used."""
    where = _where(e, job["tests"])
    if isinstance(e, NameError | ImportError) and getattr(e, "name", None) in link.missing:
        return False, f"the program does not define {e.name!r}"
    if isinstance(e, ImportError) and link.missing and any(repr(n) in str(e) for n in link.missing):
        return False, f"the program does not define {sorted(link.missing)[0]!r}"
    text = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
    if e is link.error:
        text = "the program raised " + (str(e) if isinstance(e, ProgramError) else text)
    elif link.only_builtins and link.uses <= 1:
        return False, f"the program does not define {' or '.join(sorted(link.missing))!r}"[:NOTE]
    elif link.uses <= 1 and not link.data_used:  # one request loaded it
        return None, f"the tests are broken: {text}{where}"[:NOTE]
    if why := _cannot_say(e, link, job, text):
        return None, f"{why}: {text}{where}"[:NOTE]
    return False, f"{text}{where}"[:NOTE]


def _cannot_say(e, link, job, text):
    """Why a failure may be ours and not the program's; "" when it is the program's."""
    if isinstance(e, ModuleNotFoundError) and _is_known(e):
        return "the sandbox does not have what the program imports"
    if found := source.UNSHARED.search(job["tests"]):
        return f"the tests may share something with the program by {found[0]!r}, which works in one process only"
    if link.changed_unseen:
        return "the program changed an argument and returned a value, and the tests may look at either"
    if link.redirected and link.cut:
        return "the program printed more than is kept"
    names = [c.__name__ for n, c in link.classes.items() if n in link.evidence or n in link.called]
    if isinstance(e, TypeError | AttributeError) and e is not link.error and any(repr(n) in text for n in names):
        return "the tests do what an object of the program cannot do here"
    return ""


def _where(e, text):
    trace, line = e.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    lines = text.splitlines()
    return f" at line {line} of the tests: {lines[line - 1].strip()[:120]}" if 0 < line <= len(lines) else ""


def value_of(job, link):
    """Calls `entry_point()` of the program; (encoded value or None, note)."""
    try:
        name = job["entry_point"]
        found = link.ask({"op": "load", "code": job["program"], "names": [name]}).get("ok") or {}
        if name not in found:
            return None, f"the program does not define {name!r}"
        thing = _thing(link, found[name])
        value = thing() if callable(thing) else thing
        return {"value": wire.encode(value, lambda x: {"!": "opaque", "v": repr(x)[:80]})}, ""
    except OutOfTime:
        return None, f"took longer than {job['wall_s']:g} s"
    except ProgramEnded:
        return None, "the program ended before it had answered"
    except Verdict as v:
        return None, v.note
    except BaseException as e:
        return None, f"{type(e).__name__}: {e}"[:NOTE]


def serve(job_fd, desk, home):
    """Judges job after job; `desk` brings the connections to each new program and takes the word that a job is over.

    "D" is done, "W" done but the program's own end is awaited, "R" done and this process wants a successor (it has
    served long, or a test has left something behind in it).
    """
    import random

    os.chdir(home)
    before, modules, threads = _state(), set(sys.modules), threading.active_count()
    for count in range(1, JOBS_A_TESTER + 1):
        message, fds, _, _ = socket.recv_fds(desk, 1, 4)
        if not message:
            os._exit(0)
        random.seed(0)
        sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        os.chdir(home)  # where the program is: what it writes, the tests find
        word = _serve_one(job_fd, *fds)
        for alias in [m for m in sys.modules if m not in modules and not getattr(sys.modules[m], "__spec__", None)]:
            del sys.modules[alias]
        same = _state() == before and threading.active_count() == threads
        desk.send(word if word == b"W" or (same and count < JOBS_A_TESTER) else b"R")


def _state():
    """What a test could change for the tests of the next job; programs cannot reach it."""
    return (
        dict(builtins.__dict__),
        list(sys.path),
        dict(os.environ),
        sys.getrecursionlimit(),
        sys.gettrace(),
        os.getcwd(),
    )


def _serve_one(job_fd, link_fd, out_fd, err_fd, in_fd):
    job = _read_job(job_fd)
    deadline = time.monotonic() + job["wall_s"]
    link = Link(link_fd, (out_fd, err_fd), deadline, job["output_bytes"])
    report, word = {"passed": None, "note": ""}, b"D"
    if job["mode"] in ("tests", "value"):
        _end_input(in_fd)
    if job["mode"] == "tests":
        report["passed"], report["note"] = judge(job, link)
    elif job["mode"] == "value":
        report["value"], report["note"] = value_of(job, link)
        report["passed"] = report["value"] is not None
    else:
        report["note"], word = _watch(job, link, in_fd), b"W"
    link.drain_rest()
    report["stdout"], report["stderr"] = (
        bytes(link.captured[fd]).decode("utf-8", "replace") for fd in (out_fd, err_fd)
    )
    report["cut"] = link.cut
    data = memoryview(wire.pack(report))
    while data:
        data = data[os.write(job_fd, data) :]
    for fd in (link_fd, out_fd, err_fd, in_fd):
        os.close(fd)
    return word


def _watch(job, link, in_fd):
    """Feeds a script its input and drains its output until it closes both streams."""
    op = (
        {"op": "argv", "argv": job["argv"], "env": job["env"]}
        if job["mode"] == "argv"
        else {"op": "script", "code": job["program"]}
    )
    waiting = memoryview(job["stdin"].encode("utf-8", "surrogateescape"))
    os.set_blocking(in_fd, False)
    try:
        link.send(op)
        link.poll.unregister(link.fd)
        if waiting:
            link.poll.register(in_fd, select.POLLOUT)
        else:
            in_fd = _end_input(in_fd)
        while link.open_outputs:
            left = link.deadline - time.monotonic()
            if left <= 0:
                raise OutOfTime
            for fd, _ in link.poll.poll(left * 1000 + 1):
                if fd != in_fd:
                    link.drain(fd)
                    continue
                try:
                    waiting = waiting[os.write(in_fd, waiting[: 1 << 16]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    waiting = waiting[:0]
                if not waiting:
                    link.poll.unregister(in_fd)
                    in_fd = _end_input(in_fd)
        return ""
    except OutOfTime:
        return f"took longer than {job['wall_s']:g} s"
    except ProgramEnded:
        return "the program ended before it had started"


def _end_input(fd):
    """End of file for the program's stdin; the number stays taken until the job is over."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)
    return fd


def _read_job(fd):
    def exactly(size):
        parts = []
        while size:
            part = os.read(fd, min(size, 1 << 20))
            if not part:
                os._exit(0)  # the owner has gone
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    return wire.unpack(exactly(wire.LENGTH.unpack(exactly(wire.LENGTH.size))[0]))
