"""The untrusted side: runs the program, then answers the tester's requests (call this, read that attribute).

Everything here may be overwritten by the program, and that is fine: this side knows no test, holds no verdict, and
what it sends is only ever data. It forks from the zygote, which has never seen a test or another program either.
"""

# few imports inside, and running programs is the point:
# ruff: noqa: S102, S606, SIM105
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false

import builtins
import os
import sys
import types

from . import wire

NOTE = 500  # characters of an error message


class Server:
    """Serves one program over the descriptor `fd` until the other side closes it."""

    def __init__(self, fd, handle_limit=10_000):
        self.fd = fd
        self.objects = []
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

    def handle(self, x):
        """A number under which the tester may use an object that is not data."""
        if len(self.objects) >= self.limit:
            raise MemoryError("too many objects were handed to the tests")
        self.objects.append(x)
        kind = type(x)
        shape = (
            "class" if isinstance(x, type) else "iterator" if hasattr(kind, "__next__")
            else "callable" if callable(x) else "iterable" if hasattr(kind, "__iter__") else "object"
        )  # fmt: skip
        return {"!": "object", "v": len(self.objects) - 1, "shape": shape, "type": kind.__name__[:80]}

    def encode(self, x):
        return wire.encode(x, self.handle)

    def decode(self, j):
        return wire.decode(j, self.resolve)

    def resolve(self, tagged):
        if tagged["!"] == "object":
            return self.objects[tagged["v"]]
        return Callback(self, tagged["v"])

    def serve(self, message):
        try:
            answer = getattr(self, "op_" + message["op"])(message)
        except BaseException as e:
            answer = {"raise": [_class_name(e), _text(e)]}
        for stream in (sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()
            except BaseException:  # noqa: S110  a program may close or break its own streams
                pass
        try:
            self.send(answer)
        except (ValueError, RecursionError, MemoryError) as e:
            self.send({"raise": [_class_name(e), _text(e)]})

    def op_load(self, message):
        """Runs the program's text; then says what each wanted name is."""
        space = self.module.__dict__
        sys.modules["program"] = self.module
        exec(compile(message["code"], "<program>", "exec", dont_inherit=True), space)
        return {"ok": {name: self.describe(space[name]) for name in message["names"] if name in space}}

    def describe(self, x):
        if isinstance(x, types.ModuleType):
            return {"module": x.__name__}
        return {"value": self.encode(x)}

    def op_call(self, message):
        args = [self.decode(a) for a in message["args"]]
        kwargs = {k: self.decode(v) for k, v in message["kwargs"].items()}
        result = self.objects[message["id"]](*args, **kwargs)
        answer = {"ok": self.encode(result)}
        if result is None:  # a function that works in place returns None; only then do its arguments travel back
            after = [[i, self.encode(a)] for i, a in enumerate(args) if type(message["args"][i]) in (list, dict)]
            answer["changed"] = [[i, j] for i, j in after if j != message["args"][i] and not _has_handle(j)]
        return answer

    def op_get(self, message):
        return {"ok": self.encode(getattr(self.objects[message["id"]], message["name"]))}

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
            except StopIteration:
                return {"ok": values, "end": True}
            except BaseException as e:
                if not values:
                    raise
                return {"ok": values, "raise_after": [_class_name(e), _text(e)]}
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
            name, text = answer["raise"]
            kind = getattr(builtins, name, RuntimeError)
            raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError)(text)
        return server.decode(answer["ok"])


def _has_handle(j):
    if isinstance(j, dict):
        return j.get("!") == "object" or _has_handle(j.get("v"))
    return isinstance(j, list) and any(_has_handle(v) for v in j if type(v) in (list, dict))


def _class_name(e):
    return type(e).__name__[:80]


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
    except BaseException:
        import traceback

        traceback.print_exc()
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except BaseException:  # noqa: S110  a program may close or break its own streams
            pass
    os._exit(status & 0xFF)
