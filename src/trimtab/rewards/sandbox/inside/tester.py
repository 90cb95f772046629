"""The trusted side: runs the tests in its own process, where no line of the program ever runs.

The program's functions, classes and iterators appear here as stand-ins that ask the program's process and rebuild its answers
from data. The tests compare genuine values, and only this process can write the verdict. What a program can do is answer.

Not data, hence no luck: an object of the program's own class that a function returns compares equal to nothing. It may be
called or iterated, and its attributes read unless they are names that data types have (`startswith`, `count`, ...), because a
test that uses those expects data. An object that the test itself makes by calling the program's class keeps all attributes.
"""

import ast
import builtins
import functools
import os
import re
import select
import socket
import symtable
import sys
import threading
import time
import types

from . import wire

MAX_MESSAGE = 64 << 20
DATA_ATTRIBUTES = {n for t in (str, list, dict, set, tuple, int, float, complex, bytes) for n in dir(t)}
JOBS_A_TESTER = 500
NOTE = 300


class ProgramError(Exception):
    """The program raised something that is not a builtin exception, or ended, or sent nonsense."""


class ProgramEnded(BaseException):
    """No answer will come. Not an Exception, so that a test's `except Exception` cannot swallow it."""


class OutOfTime(BaseException):
    """The wall-clock limit has passed."""


class Link:
    """Requests to the program, with a deadline; collects what the program prints meanwhile."""

    def __init__(self, fd, outputs, deadline, output_bytes):
        self.fd, self.deadline, self.limit = fd, deadline, output_bytes
        self.captured = {o: bytearray() for o in outputs}
        self.open_outputs = list(outputs)
        self.cut = False
        self.functions = []
        self.uses = 0
        self.data_used = False
        self.missing = set()
        self.error = None
        self.poll = select.poll()
        for o in (fd, *outputs):
            os.set_blocking(o, False)
            self.poll.register(o, select.POLLIN)

    def send(self, message):
        data = memoryview(wire.pack(message))
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except BlockingIOError:
                self.poll.modify(self.fd, select.POLLIN | select.POLLOUT)
                self.wait()
                self.poll.modify(self.fd, select.POLLIN)
            except OSError:
                raise ProgramEnded from None

    def wait(self):
        """Blocks until the link is ready; drains the program's output; True when the link has data or ended."""
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise OutOfTime
            for fd, event in self.poll.poll(left * 1000 + 1):
                if fd == self.fd:
                    return
                if event:
                    self.drain(fd)

    def drain(self, fd):
        try:
            part = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        if not part:
            if fd in self.open_outputs:
                self.open_outputs.remove(fd)
                self.poll.unregister(fd)
            return False
        kept = self.captured[fd]
        self.cut = self.cut or len(kept) + len(part) > self.limit
        kept += part[: max(0, self.limit - len(kept))]
        return True

    def drain_rest(self, bytes_at_most=1 << 22):
        for fd in list(self.open_outputs):
            for _ in range(bytes_at_most >> 16):
                if not self.drain(fd):
                    break

    def exactly(self, size):
        parts = []
        while size:
            try:
                part = os.read(self.fd, min(size, 1 << 20))
            except BlockingIOError:
                self.wait()
                continue
            except OSError:
                part = b""
            if not part:
                raise ProgramEnded
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def receive(self):
        size = wire.LENGTH.unpack(self.exactly(wire.LENGTH.size))[0]
        if size > MAX_MESSAGE:
            raise wire.Malformed(f"an answer of {size} bytes; at most {MAX_MESSAGE} are taken")
        message = wire.unpack(self.exactly(size))
        if type(message) is not dict:
            raise wire.Malformed("not an answer")
        return message

    def ask(self, message):
        """The program's answer; raises here what it raised there."""
        self.uses += 1
        self.send(message)
        while True:
            answer = self.receive()
            if "callback" not in answer:
                break
            self.send(self.call_back(answer))
        if "raise" in answer:
            raise self.exception(answer["raise"])
        return answer

    def exception(self, described):
        name, text = described if type(described) is list and len(described) == 2 else ("Exception", "")
        kind = getattr(builtins, name, None) if type(name) is str else None
        text = str(text)[:NOTE]
        known = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
        try:
            error = kind(text) if known else None
        except TypeError:  # ExceptionGroup and its like want more than a text
            error = None
        error = error or ProgramError(f"{str(name)[:80]}: {text}")
        self.error = error
        return error

    def call_back(self, message):
        try:
            function = self.functions[message["callback"]]
            args = [self.decode(a) for a in message["args"]]
            return {"ok": self.encode(function(*args, **{k: self.decode(v) for k, v in message["kwargs"].items()}))}
        except Exception as e:
            return {"raise": [type(e).__name__, str(e)[:NOTE]]}

    def encode(self, x):
        return wire.encode(x, self.handle)

    def handle(self, x):
        if isinstance(x, Remote):
            return {"!": "object", "v": object.__getattribute__(x, "_id")}
        if callable(x):
            self.functions.append(x)
            return {"!": "function", "v": len(self.functions) - 1}
        raise TypeError(f"a test passes a {type(x).__name__}, which cannot be sent to the program")

    def decode(self, j, made_by_test=False):
        def stand_in(tagged):
            if tagged["!"] != "object" or type(tagged.get("v")) is not int:
                raise wire.Malformed("an unknown kind of value")
            kind = SHAPES.get(tagged.get("shape"), Remote)
            return kind(self, tagged["v"], made_by_test, str(tagged.get("type"))[:80])

        return wire.decode(j, stand_in)


class Remote:
    """An object that stays in the program's process."""

    def __init__(self, link, number, made_by_test, kind):
        for name, value in (("_link", link), ("_id", number), ("_whole", made_by_test), ("_kind", kind)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name):
        if name.startswith("__") or (name in DATA_ATTRIBUTES and not self._whole):
            raise AttributeError(
                f"the program returned an object of its own ({self._kind}), which has no {name!r} here"
            )
        answer = self._link.ask({"op": "get", "id": self._id, "name": name})
        return self._link.decode(answer.get("ok"))

    def __setattr__(self, name, value):
        self._link.ask({"op": "set", "id": self._id, "name": name, "value": self._link.encode(value)})

    def __repr__(self):
        return f"<{self._kind} of the program>"


class Callable(Remote):
    """A function (or class) of the program."""

    def __call__(self, *args, **kwargs):
        return self._call(args, kwargs, False)

    def _call(self, args, kwargs, made_by_test):
        link = self._link
        answer = link.ask(
            {"op": "call", "id": self._id, "args": [link.encode(a) for a in args],
             "kwargs": {k: link.encode(v) for k, v in kwargs.items()}}
        )  # fmt: skip
        result = link.decode(answer.get("ok"), made_by_test)
        if result is None:
            for i, after in answer.get("changed") or ():
                _overwrite(args[i], link.decode(after))
        return result


class Class(Callable):
    def __call__(self, *args, **kwargs):
        return self._call(args, kwargs, True)


class Iterable(Remote):
    def __iter__(self):
        return self._link.decode(self._link.ask({"op": "iter", "id": self._id}).get("ok"))


class Iterator(Remote):
    def __iter__(self):
        return self

    def __next__(self):
        state = self.__dict__
        if not state.get("_ready"):
            if state.get("_end"):
                raise StopIteration
            if state.get("_error"):
                raise self._link.exception(state.pop("_error"))
            # one by one at first: a test may look at the program between two values
            count = min(state.get("_count", 1) * 2, 1024)
            answer = self._link.ask({"op": "next", "id": self._id, "count": count // 2})
            values = answer.get("ok")
            if type(values) is not list:
                raise wire.Malformed("not a list of values")
            state.update(
                _count=count, _ready=values[::-1], _end=bool(answer.get("end")), _error=answer.get("raise_after")
            )
            return self.__next__()
        return self._link.decode(state["_ready"].pop())


SHAPES = {"callable": Callable, "class": Class, "iterator": Iterator, "iterable": Iterable}


def _overwrite(old, new):
    if type(old) is not type(new):
        return
    if isinstance(old, list | bytearray):
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)
    elif type(old).__name__ == "ndarray" and old.shape == new.shape:
        old[...] = new


class Verdict(BaseException):
    """Ends the judging with passed (True, False or None for unscored) and a note."""

    def __init__(self, passed, note):
        self.passed, self.note = passed, note


def judge(job, link):
    """Runs the job's tests against the program behind `link`; returns (passed, note)."""
    code = None
    try:
        code, space = _prepare(job, link)
        before = link.uses
        exec(code, space)
        _run_collected(space, link, job["tests"])
        if link.uses == before and not link.data_used:
            return None, "the tests never used the program; they prove nothing about it"
        return True, ""
    except Verdict as v:
        return v.passed, v.note
    except OutOfTime:
        return False, f"took longer than {job['wall_s']:g} s"
    except ProgramEnded:
        return False, "the program ended before it had answered"
    except wire.Malformed as e:
        return False, f"the program answered with {e}"
    except MemoryError:
        return False, "the program's answer needs more memory than the tests may use"
    except BaseException as e:
        return _explain(e, code, link, job)


def _prepare(job, link):
    """Compiles the tests, loads the program, and makes the names that the tests use; (code, namespace)."""
    space = {"__name__": "tests"}
    try:
        if job["prelude"]:
            exec(_compiled(job["prelude"], "<prelude>"), space)
        code = _compiled(job["tests"], "<tests>")
        names = free_names(job["tests"])
    except (OutOfTime, ProgramEnded):
        raise
    except BaseException as e:
        line = f" (line {e.lineno})" if isinstance(e, SyntaxError) else ""
        raise Verdict(None, f"the tests are broken: {type(e).__name__}: {getattr(e, 'msg', e)}{line}"[:NOTE]) from None
    entry = job["entry_point"]
    given = {n for n in space if n != entry}
    wanted = {n for n in names if n not in given and not hasattr(builtins, n)} - {"__file__"}
    aliases = frozenset(a for a in job["aliases"] if a not in sys.modules and a in job["tests"])
    wanted |= _imported(job["tests"], aliases) if aliases else set()
    if entry and (entry in names or not wanted):
        wanted.add(entry)
    if (
        not wanted
    ):  # `assert sum(10, 15) == 6`: a task may give its function a builtin's name; else builtins stay genuine
        wanted = {n for n in names if n not in given}
    try:
        found = link.ask({"op": "load", "code": job["program"], "names": sorted(wanted)}).get("ok")
    except (OutOfTime, ProgramEnded, wire.Malformed):
        raise
    except Exception as e:
        text = str(e) if isinstance(e, ProgramError) else f"{type(e).__name__}: {e}"
        raise Verdict(False, f"the program does not load: {text}"[:NOTE]) from None
    things = {n: _thing(link, d) for n, d in (found if type(found) is dict else {}).items() if n in wanted}
    space.update(things)
    space["__builtins__"] = builtins
    for alias in aliases:
        module = types.ModuleType(alias)
        module.__dict__.update(things)
        sys.modules[alias] = module
    link.missing = wanted - things.keys() - set(aliases)
    return code, space


def _thing(link, described):
    if "module" in described:  # the tests get the genuine module, never the program's view of it
        name = str(described["module"])
        root = name.split(".")[0]
        if root in sys.stdlib_module_names or root == "numpy":
            import importlib

            link.data_used = True  # the program chose it
            return importlib.import_module(name)
        raise Verdict(False, f"the program binds a test's name to the module {name[:80]!r}")
    value = link.decode(described.get("value"))
    link.data_used = link.data_used or not isinstance(value, Remote)
    return value


@functools.lru_cache(maxsize=4)  # the completions of one prompt come one after the other
def _compiled(source, name):
    return compile(source, name, "exec", dont_inherit=True)


@functools.lru_cache(maxsize=4)
def free_names(source):
    """Names that `source` reads globally and does not itself bind at its top level."""
    table = symtable.symtable(source, "<tests>", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    names, queue = set(), [table]
    while queue:
        t = queue.pop()
        queue += t.get_children()
        top = t is table
        names |= {
            s.get_name() for s in t.get_symbols() if s.is_referenced() and (s.get_name() not in bound)
            and (top or s.is_global())
        }  # fmt: skip
    return names


def _imported(source, aliases):
    """Names that the tests import from the program under one of its aliases."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in aliases:
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            names.add(node.attr)
    return names - {"*"}


def _run_collected(space, link, source):
    """unittest classes and pytest-style functions, if the tests only define them."""
    unittest = sys.modules.get("unittest")
    for name, thing in list(space.items()):
        if unittest and isinstance(thing, type) and issubclass(thing, unittest.TestCase):
            suite = unittest.defaultTestLoader.loadTestsFromTestCase(thing)
            for case in suite:
                case.debug()  # raises the first failure instead of collecting it
        elif isinstance(thing, types.FunctionType) and name.startswith("test") and thing.__code__.co_argcount == 0:
            if not re.search(rf"^{name}\s*\(", source, re.MULTILINE):
                thing()


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
    elif link.uses <= 1 and not link.data_used:  # one request loaded it
        return None, f"the tests are broken: {text}{where}"[:NOTE]
    return False, f"{text}{where}"[:NOTE]


def _where(e, source):
    trace, line = e.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    lines = source.splitlines()
    return f" at line {line} of the tests: {lines[line - 1].strip()[:120]}" if 0 < line <= len(lines) else ""


def value_of(job, link):
    """Calls `entry_point()` of the program; (encoded value or None, note)."""
    try:
        name = job["entry_point"]
        found = link.ask({"op": "load", "code": job["program"], "names": [name]}).get("ok") or {}
        if name not in found:
            return None, f"the program does not define {name!r}"
        thing = _thing(link, found[name])
        value = thing() if isinstance(thing, Callable) else thing
        return {"value": wire.encode(value, lambda x: {"!": "opaque", "v": repr(x)[:80]})}, ""
    except OutOfTime:
        return None, f"took longer than {job['wall_s']:g} s"
    except ProgramEnded:
        return None, "the program ended before it had answered"
    except Verdict as v:
        return None, v.note
    except BaseException as e:
        return None, f"{type(e).__name__}: {e}"[:NOTE]


def serve(job_fd, desk):
    """Judges job after job; `desk` brings the connections to each new program and takes the word that a job is over.

    "D" is done, "W" done but the program's own end is awaited, "R" done and this process wants a successor (it has served
    long, or a test has left something behind in it).
    """
    import random

    before, modules, threads = _state(), set(sys.modules), threading.active_count()
    for count in range(1, JOBS_A_TESTER + 1):
        message, fds, _, _ = socket.recv_fds(desk, 1, 4)
        if not message:
            os._exit(0)
        random.seed(0)
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
