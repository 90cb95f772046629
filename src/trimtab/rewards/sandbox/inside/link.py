"""The tester's end of the connection to a program, and the stand-ins for what stays in the program's process.

A test's call of a stand-in becomes a message; the answer is rebuilt from data (wire.py), so the tests compare genuine
values. What is not data stays with the program as a numbered object: an object of the program's own class that a
function returns compares equal to nothing; it may be called or iterated, and its attributes read unless they are
names that data types have (`startswith`, `count`, ...), because a test that uses those expects data. An object that
the test itself makes by calling the program's class keeps all its attributes. No operator is ever forwarded.
"""

# few imports inside, and running programs is the point:
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false
import builtins
import os
import select
import time

from . import wire

MAX_MESSAGE = 64 << 20
DATA_ATTRIBUTES = {n for t in (str, list, dict, set, tuple, int, float, complex, bytes) for n in dir(t)}
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
        self.data_used = self.only_builtins = False
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
        error = None
        try:
            if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError):
                error = kind(text)
        except TypeError:  # ExceptionGroup and its like want more than a text
            pass
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
    """A class of the program; what the test makes with it is the test's to use."""

    def __call__(self, *args, **kwargs):
        return self._call(args, kwargs, True)


class Iterable(Remote):
    """An object of the program that can be iterated."""

    def __iter__(self):
        return self._link.decode(self._link.ask({"op": "iter", "id": self._id}).get("ok"))


class Iterator(Remote):
    """An iterator of the program, read ahead in growing batches."""

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
