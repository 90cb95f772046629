"""Values to JSON and back between the untrusted program and the tester: data only, rebuilt from scratch on arrival.

Whatever the sender claims, what arrives is a genuine builtin value (or a number, date or array of the standard
kinds), so an `__eq__` that says yes, a subclass or a lazy trick cannot travel. Objects of other types travel as an
`Opaque` or, where the receiver may use them, as a numbered handle. Identity and aliasing between values are not
preserved; subclasses of builtin types arrive as the builtin, or as what `wrap` makes of it. NumPy arrays keep dtype
and shape, NumPy scalars become Python's.
"""

# few imports inside, and running programs is the point:
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false

import base64
import collections
import datetime
import decimal
import fractions
import json
import struct
import sys

PLAIN = {int, str, bool, float, type(None)}
SMALL = 1 << 62  # larger integers travel in hexadecimal: decimal conversion is quadratic and limited by Python
LENGTH = struct.Struct("<I")
BUILTIN_TYPES = {
    t.__name__: t
    for t in (int, str, bool, float, type(None), list, tuple, dict, set, frozenset, bytes, bytearray, complex, range)
}
DATES = {t.__name__: t for t in (datetime.datetime, datetime.date, datetime.time)}
NUMPY_KINDS = "biufc"
# fmt: off
_BINARY = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and", "or",
    "xor",
)
_OTHERS = (
    "eq", "ne", "lt", "le", "gt", "ge", "hash", "len", "bool", "int", "float", "complex", "index", "abs", "neg", "pos",
    "invert", "round", "trunc", "floor", "ceil", "str", "repr", "format", "bytes", "getitem", "setitem", "delitem",
    "contains", "iter", "next", "reversed", "call", "enter", "exit", "await", "aiter", "anext", "aenter", "aexit",
)
# fmt: on
ARITHMETIC = {f"__{side}{n}__" for n in _BINARY for side in ("", "r", "i")}
SPECIAL = ARITHMETIC | {f"__{n}__" for n in _OTHERS}
"""Special methods that a stand-in for an object of the program may have."""


class Malformed(Exception):
    """The other side sent what this format does not allow."""


def pack(message):
    """A message as length-prefixed JSON bytes."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


def unpack(body):
    """JSON bytes to a message; Malformed when they are not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError, MemoryError) as e:
        raise Malformed(f"not JSON ({type(e).__name__})") from None


def encode(x, handle, wrap=None):
    """`x` as JSON; `handle(object)` names a thing that cannot travel as data (a dict with the key "!").

    `wrap(x, json)` may say more of an instance of a subclass than the builtin value that it holds.
    """
    kind = type(x)
    if kind is int:
        return x if -SMALL < x < SMALL else {"!": "int", "v": hex(x)}
    if kind in PLAIN:
        return x
    if kind is list or kind is tuple:
        kinds = set(map(type, x))
        plain = kinds <= PLAIN and (int not in kinds or _all_small(x))
        values = list(x) if plain else [encode(v, handle, wrap) for v in x]
        return values if kind is list else {"!": "tuple", "v": values}
    if kind is dict:
        return {"!": "dict", "v": [[encode(k, handle, wrap), encode(v, handle, wrap)] for k, v in x.items()]}
    if kind is set or kind is frozenset:
        return {"!": kind.__name__, "v": [encode(v, handle, wrap) for v in x]}
    return _encode_rare(x, kind, handle, wrap)


def _all_small(values):
    numbers = [v for v in values if type(v) is int]
    return min(numbers) > -SMALL and max(numbers) < SMALL


def _encode_rare(x, kind, handle, wrap):
    if kind is bytes or kind is bytearray:
        return {"!": kind.__name__, "v": base64.b64encode(x).decode()}
    if kind is complex:
        return {"!": "complex", "v": [x.real, x.imag]}
    if kind is range or kind is slice:
        return {"!": kind.__name__, "v": [encode(v, handle, wrap) for v in (x.start, x.stop, x.step)]}
    if x is ...:
        return {"!": "ellipsis"}
    if kind is decimal.Decimal:
        return {"!": "Decimal", "v": str(x)}
    if kind is fractions.Fraction:
        return {"!": "Fraction", "v": [encode(x.numerator, handle, wrap), encode(x.denominator, handle, wrap)]}
    if kind is collections.deque:
        return {"!": "deque", "v": [encode(v, handle, wrap) for v in x]}
    if kind is collections.defaultdict and (x.default_factory is None or x.default_factory in BUILTIN_TYPES.values()):
        factory = None if x.default_factory is None else x.default_factory.__name__
        items = [[encode(k, handle, wrap), encode(v, handle, wrap)] for k, v in x.items()]
        return {"!": "defaultdict", "v": items, "factory": factory}
    if kind is collections.Counter or kind is collections.OrderedDict:
        return {"!": kind.__name__, "v": [[encode(k, handle, wrap), encode(v, handle, wrap)] for k, v in x.items()]}
    if kind in DATES.values():
        return {"!": kind.__name__, "v": x.isoformat()}
    if kind is datetime.timedelta:
        return {"!": "timedelta", "v": [x.days, x.seconds, x.microseconds]}
    if kind is type and BUILTIN_TYPES.get(x.__name__) is x:
        return {"!": "type", "v": x.__name__}
    if kind in (type({}.keys()), type({}.values()), type({}.items())):
        return {"!": kind.__name__, "v": [encode(v, handle, wrap) for v in x]}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(x, numpy.generic | numpy.ndarray):
        return _encode_numpy(x, handle, wrap)
    encoded = _encode_base(x, handle, wrap)  # a subclass travels as its base, by the base's own method
    if encoded is None:
        return handle(x)
    return wrap(x, encoded) if wrap else encoded


def _encode_base(x, handle, wrap):
    for base in (bool, int, float, complex, str, bytes, bytearray):
        if isinstance(x, base):
            return encode(str.__str__(x) if base is str else base.__new__(base, base.__add__(x, base())), handle, wrap)
    for base in (dict, list, tuple, set, frozenset):
        if isinstance(x, base):
            items = dict.items if base is dict else base.__iter__
            return encode(base(items(x)), handle, wrap)
    return None


def _encode_numpy(x, handle, wrap):
    if x.dtype.kind not in NUMPY_KINDS:
        return encode(x.tolist(), handle, wrap) if x.dtype.kind in "OSU" else handle(x)
    if x.ndim == 0:
        return encode(x.item(), handle, wrap) if type(x.item()) in (*PLAIN, complex) else encode(float(x), handle, wrap)
    return {"!": "ndarray", "v": [x.dtype.str, list(x.shape), base64.b64encode(x.tobytes()).decode()]}


def decode(j, handle):
    """JSON to a fresh value; `handle(dict)` makes what stands for a handle. Malformed when the format is broken."""
    kind = type(j)
    if kind is list:
        return [decode(v, handle) if type(v) in (list, dict) else v for v in j]
    if kind is not dict:
        return j
    try:
        return _decode_tagged(j["!"], j.get("v"), j, handle)
    except Malformed:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, IndexError) as e:
        raise Malformed(f"a broken value ({type(e).__name__})") from None


def _decode_tagged(tag, v, whole, handle):
    if tag in ("tuple", "set", "frozenset"):
        return BUILTIN_TYPES[tag](decode(v, handle))
    if tag in ("dict", "Counter", "OrderedDict"):
        make = {"dict": dict, "Counter": collections.Counter, "OrderedDict": collections.OrderedDict}[tag]
        return make({decode(k, handle): decode(x, handle) for k, x in v})
    if tag == "defaultdict":
        factory = None if whole.get("factory") is None else BUILTIN_TYPES[whole["factory"]]
        return collections.defaultdict(factory, {decode(k, handle): decode(x, handle) for k, x in v})
    if tag == "int":
        return int(v, 16)
    if tag in ("bytes", "bytearray"):
        return BUILTIN_TYPES[tag](base64.b64decode(v, validate=True))
    if tag == "complex":
        return complex(float(v[0]), float(v[1]))
    if tag == "range" or tag == "slice":
        return (range if tag == "range" else slice)(*decode(v, handle))
    if tag == "ellipsis":
        return ...
    if tag == "Decimal":
        return decimal.Decimal(v)
    if tag == "Fraction":
        return fractions.Fraction(*decode(v, handle))
    if tag == "deque":
        return collections.deque(decode(v, handle))
    if tag in DATES:
        return DATES[tag].fromisoformat(v)
    if tag == "timedelta":
        return datetime.timedelta(*v)
    if tag == "type":
        return BUILTIN_TYPES[v]
    if tag == "dict_keys":
        return dict.fromkeys(decode(v, handle)).keys()
    if tag == "dict_values":
        return dict(enumerate(decode(v, handle))).values()
    if tag == "dict_items":
        return dict(decode(v, handle)).items()
    if tag == "ndarray":
        return _decode_numpy(*v)
    return handle(whole)


def _decode_numpy(dtype, shape, data):
    import numpy

    kind = numpy.dtype(str(dtype))
    if kind.kind not in NUMPY_KINDS:
        raise Malformed(f"an array of dtype {dtype}")
    return numpy.frombuffer(base64.b64decode(data, validate=True), kind).reshape([int(n) for n in shape]).copy()


def bare(j):
    """JSON without what is said of an object beside its number: for comparing what both sides have sent."""
    if type(j) is list:
        return [bare(v) if type(v) in (list, dict) else v for v in j]
    if type(j) is dict:
        if j.get("!") in ("object", "sub", "class"):
            return {"!": "object", "v": j["v"]}
        return {k: bare(v) if type(v) in (list, dict) else v for k, v in j.items()}
    return j


def overwrite(old, new):
    """Makes `old` what `new` is, in place, inner lists and dicts too where they stand in the same place."""
    if type(old) is not type(new):
        return
    if isinstance(old, list):
        for i, (a, b) in enumerate(zip(old, new, strict=False)):
            if isinstance(a, list | dict | set) and type(a) is type(b):
                overwrite(a, b)
                new[i] = a
        old[:] = new
    elif isinstance(old, dict):
        for k in old.keys() & new.keys():
            if isinstance(old[k], list | dict | set) and type(old[k]) is type(new[k]):
                overwrite(old[k], new[k])
                new[k] = old[k]
        old.clear()
        old.update(new)
    elif isinstance(old, set | collections.deque):
        old.clear()
        old.update(new) if isinstance(old, set) else old.extend(new)
    elif isinstance(old, bytearray):
        old[:] = new
    elif type(old).__name__ == "ndarray" and old.shape == new.shape:
        old[...] = new
