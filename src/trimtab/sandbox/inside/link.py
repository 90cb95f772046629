"""The tester's end of the connection to a program: requests, answers, output, and the way back of changed arguments.

A test's call of a stand-in (standins.py) becomes a message; the answer is rebuilt from data (wire.py), so the tests
compare genuine values. What is not data stays with the program as a numbered object.
"""

# few imports inside, and running programs is the point:
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false
import builtins
import collections
import os
import select
import sys
import threading
import time

from . import wire
from .standins import IMMUTABLE, NOTE, Copy, Mirror, Remote, Unrepresented, copy_of, coroutine, genuine_error, mirror

MAX_MESSAGE = 64 << 20
ALONE = 4  # references to a positional argument that no name of the tests holds, as `Link.call` counts them
INPUT = builtins.input
SHARED, SHARED_AT_MOST = (list, dict, set, bytearray, collections.deque, collections.Counter), 8


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
        self.data_used = self.only_builtins = False
        self.missing = set()
        self.error = None
        self.classes, self.objects, self.copies, self.reading = {}, {}, {}, {}
        self.raised = []
        self.lock = threading.RLock()
        self.shared = {}
        self.called, self.evidence, self.relied, self.held = set(), set(), {}, {}
        self.poisoned = ""
        self.read_ahead, self.star_calls = True, False
        self.changes_beside_results = self.changed_unseen = self.redirected = False
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
        with self.lock:  # the tests may have threads
            return self._ask(message)

    def _ask(self, message):
        if self.shared and message["op"] != "write":
            self.write_back()
        self.uses += 1
        echoing = sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__
        shown = {fd: self.drained(fd) for fd in self.captured} if echoing else {}
        self.send(message)
        while True:
            answer = self.receive()
            if echoing:
                self.echo(shown)
            if "callback" not in answer:
                break
            self.send(self.call_back(answer))
        for number, now in answer.get("shared") or ():
            if number in self.shared:
                wire.overwrite(self.shared[number][0], self.decode(now))
                self.shared[number][1] = wire.bare(now)
        if "raise" in answer:
            error = self.exception(answer["raise"])
            if isinstance(error, StopIteration | StopAsyncIteration) and message.get("name") != "__anext__":
                self.poison(f"the program raised {type(error).__name__}, which ends loops of the tests")
            raise error
        return answer

    def hold(self, number, value, encoded):
        """Keeps a copy of a mutable value of the program like the program's own, both ways."""
        if type(number) is int and type(value) in SHARED:
            if number in self.shared and type(self.shared[number][0]) is type(value):
                held = self.shared[number][0]  # the same list again: `b.items is b.items`
                wire.overwrite(held, value)
                self.shared[number][1] = wire.bare(encoded)
                return held
            self.shared[number] = [value, wire.bare(encoded)]
            while len(self.shared) > SHARED_AT_MOST:
                del self.shared[next(iter(self.shared))]
        return value

    def write_back(self):
        for number, (value, before) in list(self.shared.items()):
            now = self.encode(value)
            if wire.bare(now) != before:
                self.shared[number][1] = wire.bare(now)
                self.ask({"op": "write", "id": number, "value": now})

    def echo(self, shown):
        """What the program has printed meanwhile, where the tests put another stream in the place of stdout."""
        self.redirected = True
        own = (sys.__stdout__, sys.__stderr__)
        for fd, stream, usual in zip(self.captured, (sys.stdout, sys.stderr), own, strict=True):
            begin, shown[fd] = shown[fd], self.drained(fd)
            if stream is not usual and begin < shown[fd]:
                stream.write(bytes(self.captured[fd][begin : shown[fd]]).decode("utf-8", "replace"))

    def drained(self, fd):
        """How many characters of a stream are here, once all that waits has been read."""
        for _ in range(256):
            if fd not in self.open_outputs or not self.drain(fd):
                break
        return len(self.captured[fd])

    def poison(self, why):
        """Tests that pass from here on are unscored, for this reason."""
        self.poisoned = self.poisoned or why[:NOTE]

    def exception(self, described, depth=0):
        """What the program raised, as an exception of this process."""
        described = described if type(described) is dict else {}
        name, text = str(described.get("name"))[:80], str(described.get("text", ""))[:NOTE]
        number = described.get("test")
        if type(number) is int and 0 <= number < len(self.raised):  # the tests' own, on its way back
            self.error = self.raised[number]
            return self.error
        kind, shown = None, described.get("class")
        if type(shown) is dict:
            kind = self.base(shown)
        error = None
        if isinstance(kind, Mirror):
            error = self.decode(described.get("object"))
            error = error if isinstance(error, BaseException) else None
        elif kind is not None:
            error = _built(kind, described.get("args"), text, self)
        error = error if error is not None else ProgramError(f"{name}: {text}")
        if type(described.get("cause")) is dict and depth < 3:
            error.__cause__ = self.exception(described["cause"], depth + 1)
        self.error = error
        return error

    def call_back(self, message):
        try:
            if message["callback"] == "readline":
                return {"ok": self.next_line()}
            function = self.functions[message["callback"]]
            args = [self.decode(a) for a in message["args"]]
            return {"ok": self.encode(function(*args, **{k: self.decode(v) for k, v in message["kwargs"].items()}))}
        except Exception as e:
            if isinstance(e, AssertionError):
                self.poison("an assertion failed inside a function that the tests pass, and the program went on")
            self.raised.append(e)
            own = {"object": e._t_id} if isinstance(e, Remote) else {}
            return {"raise": [type(e).__name__, str(e)[:NOTE]], "test": len(self.raised) - 1, **own}

    def next_line(self):
        """A line for the program's `input()`, from what the tests put in its place; "" is the end of file."""
        if builtins.input is not INPUT:
            return f"{builtins.input()}\n"
        return sys.stdin.readline() if sys.stdin is not sys.__stdin__ else ""

    def call(self, number, args, kwargs, made=False):
        """Calls a thing of the program; changes that it makes in the arguments come back."""
        answer = self.ask({"op": "call", "id": number, "args": self.encoded(args),
                           "kwargs": {k: self.encode(v) for k, v in kwargs.items()}})  # fmt: skip
        result = self.decode(answer.get("ok"), made)
        for key, after in answer.get("changed") or ():
            held = args if type(key) is int else kwargs
            if result is None or self.changes_beside_results:
                wire.overwrite(held[key], self.decode(after))
            elif self.star_calls or sys.getrefcount(held[key]) > ALONE + (type(key) is str):
                self.changed_unseen = True
        return result

    def special(self, number, name, args):
        """Asks for a special method of an object."""
        answer = self.ask({"op": "special", "id": number, "name": name, "args": self.encoded(args)}).get("ok")
        return NotImplemented if answer == {"!": "NotImplemented"} else self.decode(answer)

    def get(self, number, name):
        answer = self.ask({"op": "get", "id": number, "name": name})
        return self.hold(answer.get("held"), self.decode(answer.get("ok")), answer.get("ok"))

    def set(self, number, name, value):
        self.ask({"op": "set", "id": number, "name": name, "value": self.encode(value)})

    def encode(self, x):
        return wire.encode(x, self.handle, self.subclass)

    def encoded(self, values):
        return [self.encode(v) for v in values]

    def subclass(self, x, encoded):
        """A subclass of a builtin type: the program's own object again, where this is a copy that cannot differ."""
        if isinstance(x, Copy) and isinstance(x, IMMUTABLE):
            return {"!": "object", "v": x.__dict__["_t_state"][1]}
        return encoded

    def handle(self, x):
        if isinstance(x, Mirror):
            return {"!": "object", "v": x._t_number}
        if isinstance(x, Remote):
            return {"!": "object", "v": x._t_id}
        if callable(x) and not isinstance(x, type):
            self.functions.append(x)
            return {"!": "function", "v": len(self.functions) - 1}
        if isinstance(x, type) and issubclass(x, Exception) and vars(builtins).get(x.__name__) is x:
            return {"!": "builtin", "v": x.__name__}
        shown = x.__name__ if isinstance(x, type) else type(x).__name__
        raise Unrepresented(f"a test passes a {shown[:80]}, which cannot be sent to the program")

    def decode(self, j, made_by_test=False):
        return wire.decode(j, lambda tagged: self.stand_in(tagged, made_by_test))

    def stand_in(self, tagged, made):
        tag, number = tagged["!"], tagged.get("v")
        if tag in ("class", "genuine") and (found := self.base(tagged)):
            return found
        if tag == "function" and type(number) is int and 0 <= number < len(self.functions):
            return self.functions[number]  # the tests' own, on its way back
        if tag not in ("object", "sub") or type(number) is not int:
            raise wire.Malformed("an unknown kind of value")
        cls = self.base(tagged.get("class"))
        if not isinstance(cls, Mirror):
            raise wire.Malformed("an object without a class")
        if (
            tag == "sub"
            and cls._t_copy
            and not (made and (tagged.get("own") or not issubclass(cls._t_copy, IMMUTABLE)))
        ):
            known = self.copies.get(number)
            value = self.decode(tagged.get("data"))
            if known is None or known != value:
                known = self.copies[number] = copy_of(cls, value, self, number)
            return known
        if number not in self.objects and tagged.get("coroutine"):
            self.objects[number] = coroutine(self, number)
        if number not in self.objects:
            self.objects[number] = _instance(cls, self, number, tagged)
        return self.objects[number]

    def base(self, described):
        """A class that the program names: a mirror of its own one, or a genuine exception class; None for others."""
        if type(described) is not dict:
            return None
        if described.get("!") == "genuine":
            module, name = described.get("v") or (None, None)
            return genuine_error(str(module), str(name))
        number = described.get("v")
        if type(number) is not int:
            raise wire.Malformed("an unknown kind of class")
        if number not in self.classes:
            self.classes[number] = mirror(self, described)
        return self.classes[number]


def _instance(cls, link, number, tagged):
    new = cls.__new__(cls)
    state = {"_t_id": number, "_t_link": link}
    if isinstance(new, BaseException):
        state["_t_text"] = str(tagged.get("text", ""))[:NOTE]
        new.__dict__.update(state)
        BaseException.__setattr__(new, "args", (state["_t_text"],) if state["_t_text"] else ())
    else:
        for name, value in state.items():
            object.__setattr__(new, name, value)
    return new


def _built(kind, encoded, text, link):
    """A genuine exception with the program's arguments, or at least its text."""
    for args in (encoded, [text] if text else []):
        try:
            return kind(*[link.decode(a) for a in args])
        except Exception:  # noqa: S110  some classes want other arguments than they show
            pass
    error = kind.__new__(kind)
    error.args = (text,)
    return error
