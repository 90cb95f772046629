"""What stays in the program's process, as the tests see it: objects, and mirrors of the program's classes.

A mirror is a real class of this process, so that `isinstance`, `type`, `except` and inheritance work by Python's own
rules; its methods ask the program. Three laws keep an answer an answer, and never a verdict:

- **Data is compared here.** An instance of a subclass of int, str, tuple, ... that a function returns is a copy with
  the *builtin's* operators; the program's own `__eq__` is not asked.
- **Nothing that could be data is asked to compare itself.** An object whose class the tests do not use as one (they
  neither call it nor read a name of it that data lacks) equals nothing, orders with nothing, adds to nothing.
- **Who decides alone proves nothing.** Where the program has seen plain data and says that its object equals, precedes
  or holds it, or computes data from it, tests that pass are unscored. An `__eq__` that is true of everything is false.
"""

# few imports inside, and running programs is the point:
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false
import builtins
import dataclasses
import sys

from . import wire

NOTE = 300
DATA_NAMES = {n for t in (str, list, dict, set, tuple, int, float, complex, bytes) for n in dir(t)}
CONTAINER_NAMES = {n for t in (list, dict, set) for n in dir(t)} - set(dir(str))
ASKED_NAMES = {
    "__name__", "__qualname__", "__doc__", "__dict__", "__annotations__", "__wrapped__", "__defaults__", "__module__",
    "__members__",
}  # fmt: skip
CONTAINS_AT_MOST = 1000
ORDERS = {"__lt__", "__le__", "__gt__", "__ge__"}
COMPARISONS = {"__eq__", "__ne__", *ORDERS}
IMMUTABLE = (int, float, complex, str, bytes, tuple, frozenset)
MUTABLE = (list, dict, set, bytearray)


class Unrepresented(BaseException):
    """The tests do what cannot be carried over to the program: they are unscored, and the text says why."""


class Mirror(type):
    """The class of the mirrors of the program's classes."""

    _t_number, _t_home = None, None
    _t_making = False

    def __new__(cls, name, bases, space, **more):
        if not Mirror._t_making:
            raise Unrepresented(f"the tests derive the class {name} from a class of the program")
        return super().__new__(cls, name, bases, space)

    def __call__(cls, *args, **kwargs):
        cls._t_home.called.add(cls._t_number)
        return cls._t_home.call(cls._t_number, args, kwargs, made=True)

    def __getattr__(cls, name):
        if name.startswith("__") and name not in ASKED_NAMES:
            raise AttributeError(f"the program's class {cls.__name__} has no {name!r} here")
        if name not in DATA_NAMES:
            cls._t_home.evidence.add(cls._t_number)
        return cls._t_home.get(cls._t_number, name)

    def __setattr__(cls, name, value):
        cls._t_home.set(cls._t_number, name, value)

    def __instancecheck__(cls, x):
        return cls.__subclasscheck__(type(x))

    def __subclasscheck__(cls, other):
        return any(isinstance(c, Mirror) and c._t_number == cls._t_number for c in other.__mro__)

    def __bool__(cls):
        return True

    def __len__(cls):
        return cls._t_home.special(cls._t_number, "__len__", ())

    def __iter__(cls):
        return cls._t_home.special(cls._t_number, "__iter__", ())

    def __getitem__(cls, key):
        return cls._t_home.special(cls._t_number, "__getitem__", (key,))

    def __contains__(cls, x):
        return any(x is v or x == v for v in cls)


class Remote:
    """A thing of the program. Its state has names that no program uses; it has no public name of its own."""

    __slots__ = ()

    def __getattr__(self, name):
        if name.startswith("_t_"):
            raise AttributeError(name)
        link, number = self._t_link, type(self)._t_number
        if name.startswith("__") and name not in ASKED_NAMES:
            raise AttributeError(_lacks(self, name))
        if name not in DATA_NAMES:
            link.evidence.add(number)
        elif not (number in link.evidence or (number in link.called and type(self).__name__[:1].isupper())):
            if number not in link.called and name not in CONTAINER_NAMES:
                raise AttributeError(_lacks(self, name))
            link.relied[number] = f"{type(self).__name__}.{name}"
        return link.get(self._t_id, name)

    def __setattr__(self, name, value):
        if name.startswith("__") and isinstance(self, BaseException):  # __traceback__, __context__: Python's own
            BaseException.__setattr__(self, name, value)
            return
        self._t_link.set(self._t_id, name, value)

    def __delattr__(self, name):
        self._t_link.ask({"op": "del", "id": self._t_id, "name": name})

    def __copy__(self):
        return self._t_link.decode(self._t_link.ask({"op": "copy", "id": self._t_id, "deep": False}).get("ok"))

    def __deepcopy__(self, memo):
        return self._t_link.decode(self._t_link.ask({"op": "copy", "id": self._t_id, "deep": True}).get("ok"))

    def __reduce_ex__(self, protocol):
        raise Unrepresented(f"the tests pickle a {type(self).__name__} of the program")

    def __repr__(self):
        return f"<{type(self).__name__} of the program>"


class Thing(Remote):
    """An object that is not data."""

    __slots__ = ("_t_id", "_t_link")


class Error(Remote):
    """An exception of a class of the program's own."""

    def __str__(self):
        return self._t_text


def _lacks(x, name):
    return f"the program returned an object of its own ({type(x).__name__}), which has no {name!r} here"


def known(link, x):
    """Whether the tests use the object's class as a class: they made an instance, or read a name that data lacks."""
    number = type(x)._t_number
    return number in link.called or number in link.evidence


def compare(x, name, other):
    """A comparison by the program's own method, where the tests may ask it; see the laws above."""
    link = x._t_link
    both = isinstance(other, Remote)
    if not known(link, x) or (both and not known(link, other)):
        return NotImplemented
    answer = link.special(x._t_id, name, (other,))
    if answer is NotImplemented or answer is False:
        return answer
    says = f"{type(x).__name__}.{name}"
    if answer is not True or not both:
        link.poison(f"the tests are decided by the program's own {says}, which has seen the value expected")
    if name == "__eq__":
        always = link.ask({"op": "control", "id": x._t_id}).get("ok")
        if type(always) is not list or always[0]:
            return False
        if always[1]:
            link.poison(f"the program's {says} is true of every {type(x).__name__}")
    elif name == "__ne__" and link.special(x._t_id, name, (x,)) is not False:
        link.poison(f"the program's {says} is true of an object and itself")
    elif name in ("__lt__", "__gt__") and both and link.special(other._t_id, name, (x,)) is True:
        link.poison(f"the program's {says} does not order")
    return answer


def arithmetic(x, name, *others):
    """An operator by the program's own method; data made of data and the program's object is the program's word."""
    link, other = x._t_link, others[0]
    both = isinstance(other, Remote)
    if not known(link, x) or (both and not known(link, other)):
        return NotImplemented
    answer = link.special(x._t_id, name, others)
    if isinstance(answer, Remote):
        link.evidence.add(type(answer)._t_number)
    elif answer is not NotImplemented and not both:
        link.poison(
            f"the tests are decided by the program's own {type(x).__name__}.{name}, which has seen other values"
        )
    return answer


def contains(x, other):
    """`in`: found here among the object's own values, else by the program's word."""
    link = x._t_link
    values = link.ask({"op": "values", "id": x._t_id, "count": CONTAINS_AT_MOST}).get("ok")
    if type(values) is list and any(v is other or v == other for v in map(link.decode, values)):
        return True
    if type(values) is list and not known(link, x):
        return False
    if not known(link, x):
        raise TypeError(f"argument of type {type(x).__name__!r} is not iterable")
    answer = link.special(x._t_id, "__contains__", (other,))
    if not isinstance(other, Remote):  # a word that was yes and no is told apart by something: the tests may ask it
        link.held.setdefault(type(x).__name__, set()).add(answer)
    return answer


def iterator_next(self):
    """The next value of an iterator; those of generators are read ahead in growing batches."""
    link = self._t_link
    state = link.reading.setdefault(self._t_id, {})
    while not state.get("ready"):
        if state.get("end"):
            value = state.pop("value", None)
            raise StopIteration(*[link.decode(value)] * (value is not None))
        if state.get("error"):
            raise link.exception(state.pop("error"))
        # one by one at first: a test may look at the program between two values
        count = min(state.get("count", 1) * 2, 1024) if link.read_ahead and type(self)._t_ahead else 2
        answer = link.ask({"op": "next", "id": self._t_id, "count": count // 2})
        values = answer.get("ok")
        if type(values) is not list:
            raise wire.Malformed("not a list of values")
        state.update(
            count=count,
            ready=values[::-1],
            end=bool(answer.get("end")),
            error=answer.get("raise_after"),
            value=answer.get("value"),
        )
    return link.decode(state["ready"].pop())


def _asks(name):
    def method(self, *args):
        return self._t_link.special(self._t_id, name, args)

    return method


def _exit(self, kind, error, trace):
    described = None if error is None else [kind.__name__, str(error)[:NOTE]]
    return self._t_link.ask({"op": "exit", "id": self._t_id, "error": described}).get("ok")


def _await(self):
    yield from ()
    return self._t_link.decode(self._t_link.ask({"op": "await", "id": self._t_id}).get("ok"))


async def coroutine(link, number):
    """A coroutine of the program, as the genuine one that `asyncio.run` wants."""
    return link.decode(link.ask({"op": "await", "id": number}).get("ok"))


def _awaits(name):
    async def method(self, *args):
        if name == "__aexit__":
            args = (None, None, None)
        answer = self._t_link.ask({"op": "await", "id": self._t_id, "name": name, "args": self._t_link.encoded(args)})
        return self._t_link.decode(answer.get("ok"))

    return method


def method_for(name):
    """The stand-in's method for a special method that the program's class has."""
    if name in COMPARISONS:
        return lambda self, other: compare(self, name, other)
    if name in wire.ARITHMETIC:
        return lambda self, *others: arithmetic(self, name, *others)
    if name in ("__anext__", "__aenter__", "__aexit__"):
        return _awaits(name)
    fixed = {
        "__contains__": contains, "__next__": iterator_next, "__exit__": _exit, "__await__": _await,
        "__aiter__": lambda self: self, "__call__": lambda self, *a, **k: self._t_link.call(self._t_id, a, k),
        "__str__": lambda self: str(_text(self, "__str__")), "__repr__": lambda self: str(_text(self, "__repr__")),
    }  # fmt: skip
    return fixed.get(name) or _asks(name)


def _text(self, name):
    text = self._t_link.special(self._t_id, name, ())
    if type(text) is not str:
        raise TypeError(f"{name} returned non-string")
    return text


def mirror(link, described):
    """The mirror of a class of the program from what the program says of it."""
    name, number = str(described.get("name"))[:80] or "object", described["v"]
    bases = [b for b in map(link.base, described.get("bases") or ()) if b is not None]
    errors = [b for b in bases if issubclass(b, BaseException)]
    data = next((t for t in (*IMMUTABLE, *MUTABLE) if t.__name__ == described.get("data")), None)
    space = {"_t_number": number, "_t_home": link, "_t_ahead": bool(described.get("ahead")), "_t_copy": None}
    space["__doc__"] = property(lambda self: link.get(self._t_id, "__doc__"))
    names = [n for n in described.get("has") or () if n in wire.SPECIAL]
    if errors:
        bases = errors if any(issubclass(b, Error) for b in errors) else [Error, *errors]
        names = [n for n in names if n not in COMPARISONS]
    else:
        space["__slots__"] = ()
        bases = [b for b in bases if not issubclass(b, BaseException)] or [Thing]
    space.update({n: method_for(n) for n in names})
    if fields := [f for f in described.get("fields") or () if type(f) is str and f.isidentifier()]:
        space["__dataclass_fields__"] = dataclasses.make_dataclass("Fields", fields).__dataclass_fields__
    if "__eq__" in names and "__hash__" not in names:
        space["__hash__"] = None
    cls = _make(name, bases, space, Error if errors else Thing)
    if data is not None:
        rest = {k: v for k, v in space.items() if k.startswith("_t_")}
        for n in (n for n in described.get("texts") or () if n in ("__repr__", "__str__", "__format__")):
            rest[n] = _asks_copy(n)
        type.__setattr__(cls, "_t_copy", _make(name, [Copy, data], rest, data))
    return cls


def _make(name, bases, space, root):
    Mirror._t_making = True
    try:
        return Mirror(name, tuple(bases), space)
    except TypeError:  # an order of bases that only the program's own metaclass allows
        return Mirror(name, (root,), space)
    finally:
        Mirror._t_making = False


def _asks_copy(name):
    def method(self, *args):
        link, number = self.__dict__["_t_state"]
        return str(link.special(number, name, args))

    return method


class Copy:
    """What subclasses of builtin types are here: the builtin's value and operators, other names by the program."""

    def __getattr__(self, name):
        state = self.__dict__.get("_t_state")
        if state is None or (name.startswith("__") and name not in ASKED_NAMES):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        link, number = state
        if isinstance(self, MUTABLE):
            raise Unrepresented(f"the tests read {name!r} of a {type(self).__name__}, of which they have a copy")
        return link.get(number, name)


def copy_of(mirrored, value, link, number):
    """`value` as an instance of the mirror's data form."""
    cls = mirrored._t_copy
    base = next(t for t in cls.__mro__ if t in IMMUTABLE or t in MUTABLE)
    if base in IMMUTABLE:
        new = base.__new__(cls, value.real, value.imag) if base is complex else base.__new__(cls, value)
    else:
        new = base.__new__(cls)
        base.__init__(new, value)
    new.__dict__["_t_state"] = (link, number)
    return new


def genuine_error(module, name):
    """An exception class of the standard library that the tests' own process has loaded; None for any other."""
    root = str(module).partition(".")[0]
    if root not in sys.stdlib_module_names and root != "numpy":
        return None
    found = vars(builtins).get(name) if root == "builtins" else vars(sys.modules.get(module, builtins)).get(name)
    # SkipTest would end a test; SystemExit is caught by tests, and fails them where it is not
    fine = isinstance(found, type) and issubclass(found, (Exception, SystemExit)) and root != "unittest"
    return found if fine else None
