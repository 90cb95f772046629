"""The untrusted side: runs the program, then answers the tester's requests (call this, read that attribute).

Everything here may be overwritten by the program, and that is fine: this side knows no test, holds no verdict, and
what it sends is only ever data. It forks from the zygote, which has never seen a test or another program either.
"""

# few imports inside, and running programs is the point:
# ruff: noqa: S102, S606, SIM105
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false

import builtins
import collections
import io
import itertools
import os
import sys
import types

from . import wire
from .wire import overwrite

NOTE = 500  # characters of an error message
DATA = (int, float, complex, str, bytes, bytearray, dict, list, tuple, set, frozenset)
TEXTS = {"__str__", "__repr__", "__format__", "__hash__"}
NOT_OF_OTHERS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__repr__", "__bool__"}
SHARED, SHARED_LENGTH, SHARED_AT_MOST = (list, dict, set, bytearray, collections.deque, collections.Counter), 64, 8
# fmt: off
FIXED = {
    "slice", "ellipsis", "tuple", "frozenset", "int", "bytes", "complex", "range", "Decimal", "Fraction", "type",
    "timedelta", "datetime", "date", "time", "object", "function", "builtin",
}
# fmt: on


class Server:
    """Serves one program over the descriptor `fd` until the other side closes it."""

    def __init__(self, fd, handle_limit=10_000):
        self.fd = fd
        self.objects, self.numbers, self.told, self.shared = [], {}, set(), {}
        self.limit = handle_limit
        self.module = types.ModuleType("program")

    def send(self, message):
        data = memoryview(wire.pack(message))
        while data:
            data = data[os.write(self.fd, data) :]

    def receive(self):
        size = wire.LENGTH.unpack(self.exactly(wire.LENGTH.size))[0]
        return wire.unpack(self.exactly(size))

    def exactly(self, size):
        parts = []
        while size:
            part = os.read(self.fd, min(size, 1 << 20))
            if not part:
                os._exit(0)  # the tester has finished
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def request(self, message):
        """Asks the tester (a function that a test passed in) and serves it meanwhile."""
        self.send(message)
        while True:
            answer = self.receive()
            if "op" not in answer:
                return answer
            self.serve(answer)

    def number(self, x):
        """The number of an object, the same each time."""
        found = self.numbers.get(id(x))
        if found is not None:
            return found
        if len(self.objects) >= self.limit:
            raise MemoryError("too many objects were handed to the tests")
        self.objects.append(x)
        self.numbers[id(x)] = len(self.objects) - 1
        return len(self.objects) - 1

    def handle(self, x):
        """What the tester needs to use an object that is not data."""
        if isinstance(x, Callback):
            return {"!": "function", "v": x._number}
        if isinstance(x, type):
            return self.described(x)
        new = {"!": "object", "v": self.number(x), "class": self.described(type(x), genuine=False)}
        if isinstance(x, types.CoroutineType):
            new["coroutine"] = True
        return {**new, "text": _text(x)} if isinstance(x, BaseException) else new

    def described(self, cls, genuine=True):
        """A class: its number and, the first time, its name, bases and special methods."""
        own = cls.__module__ == "program"
        if genuine and not own and issubclass(cls, BaseException):
            return {"!": "genuine", "v": [cls.__module__, cls.__name__]}
        number = self.number(cls)
        if number in self.told:
            return {"!": "class", "v": number}
        self.told.add(number)
        parents = [b for b in cls.__bases__ if b.__module__ == "program" or issubclass(b, Exception)]
        if not own and issubclass(cls, Exception):
            parents = [cls]
        return {
            "!": "class", "v": number, "name": cls.__name__[:80], "has": _special_methods(cls, own),
            "bases": [self.described(b) for b in parents], "ahead": cls.__module__ in ("builtins", "itertools"),
            "data": next((t.__name__ for t in DATA if issubclass(cls, t)), None),
            "texts": _own_texts(cls), "fields": list(getattr(cls, "__dataclass_fields__", ())),
        }  # fmt: skip

    def wrap(self, x, encoded):
        """An instance of the program's own subclass of a builtin type: the value, and the object behind it."""
        cls = type(x)
        if cls.__module__ != "program" and not isinstance(x, tuple):  # fields of a namedtuple of the library have names
            return encoded
        base = next(t for t in DATA if isinstance(x, t))
        own = [
            n for n in _special_methods(cls, True) if getattr(cls, n) is not getattr(base, n, None) and n not in TEXTS
        ]
        return {"!": "sub", "v": self.number(x), "class": self.described(cls), "data": encoded, "own": bool(own)}

    def encode(self, x):
        return wire.encode(x, self.handle, self.wrap)

    def decode(self, j):
        return wire.decode(j, self.resolve)

    def resolve(self, tagged):
        if tagged["!"] == "object":
            return self.objects[tagged["v"]]
        if tagged["!"] == "builtin":
            return getattr(builtins, tagged["v"])
        return Callback(self, tagged["v"])

    def serve(self, message):
        try:
            answer = getattr(self, "op_" + message["op"])(message)
        except BaseException as e:
            answer = {"raise": self.raised(e)}
        if self.shared:
            answer["shared"] = self.changes()
        for stream in (sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()
            except BaseException:  # noqa: S110  a program may close or break its own streams
                pass
        try:
            self.send(answer)
        except (ValueError, RecursionError, MemoryError) as e:
            self.send({"raise": self.raised(e)})

    def raised(self, e, depth=0):
        """An exception as the tester can build it again."""
        out = {"name": type(e).__name__[:80], "text": _text(e)}
        try:
            if e.__cause__ is not None and depth < 3:
                out["cause"] = self.raised(e.__cause__, depth + 1)
            out["class"] = self.described(type(e))
            if type(e).__module__ == "program":
                out["object"] = self.handle(e)
            else:
                out["args"] = [_text(e)] if isinstance(e, SyntaxError) else [wire.encode(a, _refuse) for a in e.args]
            if type(number := getattr(e, "_t_test", None)) is int:
                out["test"] = number
        except BaseException:  # noqa: S110  the program may have made anything of it
            pass
        return out

    def share(self, x, encoded):
        """A mutable value of the program that the tests now hold a copy of: both are kept alike. null for others."""
        if type(x) not in SHARED or len(x) > SHARED_LENGTH:
            return None
        number = self.number(x)
        self.shared.pop(number, None)
        self.shared[number] = wire.bare(encoded)
        while len(self.shared) > SHARED_AT_MOST:
            del self.shared[next(iter(self.shared))]
        return number

    def changes(self):
        """What the program has changed in shared values since they were sent."""
        out = []
        for number, before in list(self.shared.items()):
            try:
                now = self.encode(self.objects[number])
            except BaseException:  # noqa: S112  it may have become anything
                continue
            if wire.bare(now) != before:
                self.shared[number] = wire.bare(now)
                out.append([number, now])
        return out

    def op_write(self, message):
        """What the tests have changed in their copy of a shared value."""
        x, new = self.objects[message["id"]], self.decode(message["value"])
        overwrite(x, new)
        self.shared[message["id"]] = wire.bare(self.encode(x))
        return {"ok": None}

    def op_copy(self, message):
        import copy

        x = self.objects[message["id"]]
        return {"ok": self.handle(copy.deepcopy(x) if message["deep"] else copy.copy(x))}

    def op_load(self, message):
        """Runs the program's text; then says what each wanted name is."""
        space = self.module.__dict__
        sys.modules["program"] = self.module
        if message.get("asks_input"):
            sys.stdin = Lines(self)
        if "asyncio" in message["code"]:
            from . import loop

            loop.use()
        exec(compile(message["code"], "<program>", "exec", dont_inherit=True), space)
        return {"ok": {name: self.describe(space[name]) for name in message["names"] if name in space}}

    def describe(self, x):
        if isinstance(x, types.ModuleType):
            return {"module": x.__name__}
        encoded = self.encode(x)
        return {"value": encoded, "shared": self.share(x, encoded)}

    def op_call(self, message):
        args = [self.decode(a) for a in message["args"]]
        kwargs = {k: self.decode(v) for k, v in message["kwargs"].items()}
        result = self.objects[message["id"]](*args, **kwargs)
        answer = {"ok": self.encode(result)}
        sent = [*enumerate(message["args"]), *message["kwargs"].items()]
        open_to_change = [(k, j) for k, j in sent if type(j) is list or (type(j) is dict and j["!"] not in FIXED)]
        after = [[k, j, self.encode((args if type(k) is int else kwargs)[k])] for k, j in open_to_change]
        answer["changed"] = [[k, now] for k, j, now in after if wire.bare(now) != j]
        return answer

    def op_special(self, message):
        """A special method, looked up as Python does: on the type."""
        x = self.objects[message["id"]]
        result = getattr(type(x), message["name"])(x, *[self.decode(a) for a in message["args"]])
        if result is NotImplemented:
            return {"ok": {"!": "NotImplemented"}}
        return {"ok": self.handle(result) if message["name"] == "__iter__" else self.encode(result)}

    def op_control(self, message):
        """Whether an object says that it equals what nothing equals, and an instance of its class without state."""
        x = self.objects[message["id"]]
        try:
            opaque = bool(x == object())
        except Exception:
            opaque = False
        try:
            blank = bool(x == type(x).__new__(type(x)))
        except Exception:
            blank = False
        return {"ok": [opaque, blank]}

    def op_values(self, message):
        """The first values of an object that can be iterated; null for others."""
        x = self.objects[message["id"]]
        if not (hasattr(type(x), "__iter__") or hasattr(type(x), "__getitem__")):
            return {"ok": None}
        try:
            return {"ok": [self.encode(v) for v in itertools.islice(iter(x), message["count"])]}
        except Exception:
            return {"ok": None}

    def op_exit(self, message):
        """`__exit__` with the exception that left a test's `with`, as far as it can be made here."""
        x, error = self.objects[message["id"]], None
        if message["error"]:
            name, text = message["error"]
            error = _builtin_error(name)(text)
        result = type(x).__exit__(x, type(error) if error else None, error, None)
        return {"ok": bool(result)}

    def op_await(self, message):
        """Runs an awaitable to its end."""
        x = self.objects[message["id"]]
        if name := message.get("name"):
            x = getattr(type(x), name)(x, *[self.decode(a) for a in message["args"]])
        from . import loop  # 0.1 s of imports, for those that await

        return {"ok": self.encode(loop.run(x))}

    def op_del(self, message):
        delattr(self.objects[message["id"]], message["name"])
        return {"ok": None}

    def op_get(self, message):
        x = getattr(self.objects[message["id"]], message["name"])
        encoded = self.encode(x)
        return {"ok": encoded, "held": self.share(x, encoded)}

    def op_set(self, message):
        setattr(self.objects[message["id"]], message["name"], self.decode(message["value"]))
        return {"ok": None}

    def op_iter(self, message):
        return {"ok": self.handle(iter(self.objects[message["id"]]))}

    def op_next(self, message):
        """Up to `count` further values of an iterator, so that a long one does not cost a message each."""
        values, iterator = [], self.objects[message["id"]]
        for _ in range(message["count"]):
            try:
                values.append(self.encode(next(iterator)))
            except StopIteration as e:
                return {"ok": values, "end": True, "value": self.encode(e.value)}
            except BaseException as e:
                if not values:
                    raise
                return {"ok": values, "raise_after": self.raised(e)}
        return {"ok": values, "end": False}


class Callback:
    """A function of the tests, callable from the program."""

    def __init__(self, server, number):
        self._server, self._number = server, number

    def __call__(self, *args, **kwargs):
        server = self._server
        answer = server.request(
            {"callback": self._number, "args": [server.encode(a) for a in args],
             "kwargs": {k: server.encode(v) for k, v in kwargs.items()}}
        )  # fmt: skip
        if "raise" in answer:
            if type(number := answer.get("object")) is int:  # an exception of the program's own
                raise server.objects[number]
            name, text = answer["raise"]
            error = _builtin_error(name)(text)
            error._t_test = answer.get("test")  # or the tests would not know their own exception again
            raise error
        return server.decode(answer["ok"])


class Lines(io.TextIOBase):
    """stdin, read line by line from what the tests put in its place."""

    def __init__(self, server):
        self._server = server

    def readline(self, size=-1):
        answer = self._server.request({"callback": "readline", "args": [], "kwargs": {}})
        if "raise" in answer:
            raise _builtin_error(answer["raise"][0])(answer["raise"][1])
        return str(answer["ok"])

    def read(self, size: "int | None" = -1):
        return "".join(iter(self.readline, ""))

    def readable(self):
        return True


def _refuse(x):
    raise TypeError(f"a {type(x).__name__} is no data")


def _builtin_error(name):
    kind = getattr(builtins, name, RuntimeError)
    fine = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
    return kind if fine else RuntimeError


def _own_texts(cls):
    """Which texts of it a subclass of a builtin type writes in its own way."""
    base = next((t for t in DATA if issubclass(cls, t)), object)
    return [n for n in ("__repr__", "__str__", "__format__") if getattr(cls, n) is not getattr(base, n)]


def _special_methods(cls, own):
    """The names of its special methods; of classes that are not the program's, without those that compare."""
    names = []
    for name in wire.SPECIAL:
        holder = next((c for c in cls.__mro__ if name in vars(c)), object)
        if holder is not object and vars(holder)[name] is not None and (own or name not in NOT_OF_OTHERS):
            names.append(name)
    return sorted(names)


def _text(e):
    try:
        if isinstance(e, SyntaxError):
            return f"{e.msg} (line {e.lineno})"[:NOTE]
        return str(e)[:NOTE]
    except BaseException:
        return ""


def serve(fd):
    """Does what the first message on `fd` says: serve a tester, run a script, or become a command; never returns."""
    server = Server(fd)
    message = server.receive()
    if message["op"] == "argv":
        _execute(message)
    if message["op"] == "script":
        os.close(fd)
        _script(message["code"])
    while True:
        server.serve(message)
        message = server.receive()


def _execute(message):
    os.set_inheritable(3, False)
    try:
        os.execvpe(message["argv"][0], message["argv"], message["env"])
    except OSError as e:
        os.write(2, f"{message['argv'][0]}: {e.strerror}\n".encode())
        os._exit(127)


def _script(code):
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["program"]
    status = 1
    try:
        exec(compile(code, "<program>", "exec", dont_inherit=True), module.__dict__)
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        if status == 1 and not isinstance(e.code, int):
            sys.stderr.write(f"{e.code}\n")
    except BaseException:
        import traceback

        traceback.print_exc()
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except BaseException:  # noqa: S110  a program may close or break its own streams
            pass
    os._exit(status & 0xFF)
