"""Programs and tests beyond plain functions: (name, program, tests, verdict on the program).

True, False or None (unscored). Kept apart from the tests that run them: both ways of isolation judge the same table.
"""

# ruff: noqa: E501  (programs read better whole)

SHELF = """
class Shelf:
    def __init__(self): self.xs = []
    def put(self, x): self.xs.append(x); return self
    def append(self, x): self.xs.append(x)
    def pop(self): return self.xs.pop()
    def __len__(self): return len(self.xs)
    def __contains__(self, x): return x in self.xs
    def __getitem__(self, i): return self.xs[i]
    def __setitem__(self, i, x): self.xs[i] = x
    def __delitem__(self, i): del self.xs[i]
    def __bool__(self): return bool(self.xs)
    def __str__(self): return 'Shelf of ' + ', '.join(self.xs)
"""
MONEY = """
class Money:
    def __init__(self, amount): self.amount = amount
    def __add__(self, o): return Money(self.amount + (o.amount if isinstance(o, Money) else o))
    __radd__ = __add__
    def __mul__(self, k): return Money(self.amount * k)
    def __neg__(self): return Money(-self.amount)
    def __eq__(self, o): return isinstance(o, Money) and self.amount == o.amount
    def __lt__(self, o): return self.amount < o.amount
    def __hash__(self): return hash(self.amount)
    def __float__(self): return float(self.amount)
    def __repr__(self): return f'Money({self.amount})'
"""
ERRORS = """
class TooFew(ValueError):
    def __init__(self, n):
        super().__init__(f'{n} is too few')
        self.n = n
class FarTooFew(TooFew): pass
def take(n):
    if n < -9: raise FarTooFew(n)
    if n < 0: raise TooFew(n)
    return n
"""
POINT = "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')\ndef centre(): return Point(1, 2)"
COLOUR = """
import enum
class Colour(enum.Enum):
    RED = 1
    BLUE = 2
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2
def mix(a, b): return Colour.BLUE if a is Colour.RED else Colour.RED
def top(): return Level.HIGH
"""
BOX = """
from dataclasses import dataclass, field
@dataclass(order=True)
class Box:
    w: int
    h: int = 1
    tags: list = field(default_factory=list)
    def area(self): return self.w * self.h
    @property
    def square(self): return self.w == self.h
    @classmethod
    def cube(cls, n): return cls(n, n)
    @staticmethod
    def sides(): return 4
def make(w): return Box(w)
"""
ASYNC = """
import asyncio
async def later(x):
    await asyncio.sleep(0.001)
    return x + 1
async def fails():
    raise KeyError('gone')
async def count(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i
class Door:
    async def __aenter__(self): self.open = True; return self
    async def __aexit__(self, *e): self.open = False
def both(): return asyncio.run(_both())
async def _both(): return await asyncio.gather(later(1), later(2))
"""
PRINTS = "import sys\ndef greet(name):\n    print('Hello', name)\n    print('done', file=sys.stderr)\n    return 1"
CAPTURE = "import contextlib, io\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    greet('Ann')\n"
READS = "def total():\n    n = int(input('How many? '))\n    return sum(int(input()) for _ in range(n))"
SQUEEZE = "def squeeze(xs):\n    w = 1\n    for i in range(1, len(xs)):\n        if xs[i] != xs[i - 1]:\n            xs[w] = xs[i]\n            w += 1\n    return w"
QUEUE = "class Q:\n    def __init__(self): self.xs = []\n    def push(self, x): self.xs.append(x)\n    def pop(self): return self.xs.pop(0)\n    def __len__(self): return len(self.xs)\ndef make_queue(): return Q()"
SQUARES = "class Squares:\n    def __init__(self, n): self.n = n\n    def __iter__(self):\n        return (i * i for i in range(self.n))\nclass Down:\n    def __init__(self, n): self.n = n\n    def __iter__(self): return self\n    def __next__(self):\n        if self.n == 0: raise StopIteration\n        self.n -= 1\n        return self.n + 1"
TEMPS = "import contextlib\n@contextlib.contextmanager\ndef doubled(xs):\n    xs2 = [x * 2 for x in xs]\n    yield xs2\nclass Gate:\n    def __init__(self): self.seen = []\n    def __enter__(self): self.seen.append('in'); return self\n    def __exit__(self, kind, e, tb):\n        self.seen.append('out' if kind is None else kind.__name__)\n        return kind is KeyError"
SHAPES = "from abc import ABC, abstractmethod\nclass Shape(ABC):\n    @abstractmethod\n    def area(self): ...\nclass Sq(Shape):\n    def __init__(self, a): self.a = a\n    def area(self): return self.a ** 2\nclass Cube(Sq):\n    pass"
SINGLE = "class One:\n    _it = None\n    def __new__(cls):\n        if cls._it is None: cls._it = super().__new__(cls)\n        return cls._it\n    def me(self): return self\n    @classmethod\n    def get(cls): return cls()"
NODES = "class Node:\n    def __init__(self, v, next=None): self.v, self.next = v, next\ndef reverse(n):\n    out = None\n    while n: out, n.next, n = n, out, n.next\n    return out"
OWN_DICT = "class Bag(dict):\n    def total(self): return sum(self.values())\n    def __missing__(self, k): return 0\nclass Name(str):\n    def shout(self): return self.upper() + '!'\ndef bag(): return Bag(a=1)\ndef name(): return Name('ann')"
WRAPS = "import functools\ndef logged(f):\n    @functools.wraps(f)\n    def g(*a, **k): return f(*a, **k)\n    g.calls = 0\n    return g\n@logged\ndef double(x, *, by=2):\n    'Twice.'\n    return x * by"

HONEST = [
    ("len-in-item", SHELF, "s = Shelf()\ns.put('a')\ns.put('b')\nassert len(s) == 2 and 'a' in s and s[1] == 'b' and 'z' not in s", True),
    ("set-del-bool-str", SHELF, "s = Shelf()\nassert not s\ns.put('a'); s[0] = 'c'\nassert s and str(s) == 'Shelf of c' and f'{s}' == 'Shelf of c'\ndel s[0]\nassert len(s) == 0", True),
    ("iterates-by-items", SHELF, "s = Shelf().put('a').put('b')\nassert list(s) == ['a', 'b'] and sorted(s, reverse=True) == ['b', 'a'] and [x for x in s] == ['a', 'b']", True),
    ("chained-is-itself", SHELF, "s = Shelf()\nassert s.put('a') is s", True),
    ("data-names-of-a-class", SHELF, "s = Shelf()\ns.append(4)\nassert s.pop() == 4", True),
    ("operators", MONEY, "m = Money(3) + Money(4)\nassert m.amount == 7 and (m * 2).amount == 14 and (-m).amount == -7 and (1 + m).amount == 8", True),
    ("equal", MONEY, "assert Money(3) + Money(4) == Money(7)\nassert Money(3) != Money(4)", True),
    ("order", MONEY, "assert Money(3) < Money(4)\nassert sorted([Money(4), Money(3)])[0].amount == 3\nassert max(Money(1), Money(2)).amount == 2", True),
    ("hash-and-set", MONEY, "assert len({Money(3), Money(3), Money(4)}) == 2\nassert repr(Money(3)) == 'Money(3)'", True),
    ("sum-of-own", MONEY, "assert sum([Money(1), Money(2)], Money(0)).amount == 3", True),
    ("float-of-own", MONEY, "import math\nassert math.isclose(Money(2.5), 2.5) and float(Money(1)) == 1.0", True),
    ("wrong-equal", MONEY.replace("self.amount + (", "self.amount - ("), "assert Money(3) + Money(4) == Money(7)", False),
    ("own-error", ERRORS, "try:\n    take(-1)\n    seen = False\nexcept TooFew as e:\n    seen = True\n    assert e.n == -1 and str(e) == '-1 is too few' and e.args == ('-1 is too few',)\nassert seen", True),
    ("own-error-is-a-builtin-one", ERRORS, "try:\n    take(-1)\n    assert False\nexcept ValueError as e:\n    assert isinstance(e, TooFew) and issubclass(TooFew, ValueError) and type(e).__name__ == 'TooFew'", True),
    ("own-error-by-its-parent", ERRORS, "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        with self.assertRaises(TooFew) as c:\n            take(-10)\n        self.assertIsInstance(c.exception, FarTooFew)\n        self.assertRaisesRegex(TooFew, 'few', take, -1)\n        self.assertEqual(take(3), 3)", True),
    ("own-error-not-raised", ERRORS.replace("n < 0", "n < -99"), "try:\n    take(-1)\n    seen = False\nexcept TooFew:\n    seen = True\nassert seen", False),
    ("own-error-from-the-tests", ERRORS, "def f():\n    raise TooFew(3)\ntry:\n    f()\nexcept TooFew as e:\n    assert e.n == 3\nassert take(1) == 1", True),
    ("library-error", "import json\ndef load(t): return json.loads(t)", "import json\ntry:\n    load('{')\n    assert False\nexcept json.JSONDecodeError as e:\n    pass\nassert load('1') == 1", True),
    ("key-error-text", "def f(k): return {}[k]", "try:\n    f('a')\n    assert False\nexcept KeyError as e:\n    assert e.args == ('a',) and str(e) == \"'a'\"", True),
    ("namedtuple", POINT, "p = centre()\nassert (p.x, p.y) == (1, 2) and p == (1, 2) and p[0] == 1 and len(p) == 2\nx, y = p\nassert x == 1 and p._asdict() == {'x': 1, 'y': 2} and p._replace(x=5).x == 5 and isinstance(p, tuple)", True),
    ("namedtuple-made", POINT, "assert centre() == Point(1, 2) == (1, 2)\nassert Point(x=3, y=4).y == 4 and isinstance(centre(), Point)", True),
    ("enum", COLOUR, "assert Colour.RED.value == 1 and Colour(2) is Colour.BLUE and Colour['RED'] == Colour.RED\nassert [c.name for c in Colour] == ['RED', 'BLUE'] and len(Colour) == 2 and mix(Colour.RED, Colour.RED) == Colour.BLUE\nassert isinstance(Colour.RED, Colour) and Colour.RED in Colour and Colour.RED != Colour.BLUE and {Colour.RED: 1}[Colour(1)] == 1", True),
    ("int-enum", COLOUR, "assert top() == 2 and top() is Level.HIGH and top().name == 'HIGH' and Level.LOW < Level.HIGH and Level(1) == 1", True),
    ("wrong-enum", COLOUR.replace("Colour.BLUE if", "Colour.RED if"), "assert mix(Colour.RED, Colour.RED) == Colour.BLUE", False),
    ("dataclass", BOX, "b = Box(2, h=3)\nassert b.area() == 6 and not b.square and Box.cube(2).square and Box.sides() == 4 and b.tags == []\nassert make(2) == Box(2) and make(2) != b and Box(1) < Box(2) and repr(make(2)) == 'Box(w=2, h=1, tags=[])'\nb.w = 5\nassert b.area() == 15", True),
    ("async", ASYNC, "import asyncio\nassert asyncio.run(later(4)) == 5", True),
    ("async-together", ASYNC, "import asyncio\nasync def main():\n    return await asyncio.gather(later(1), later(2))\nassert asyncio.run(main()) == [2, 3]\nassert both() == [2, 3]", True),
    ("async-error", ASYNC, "import asyncio\ntry:\n    asyncio.run(fails())\n    assert False\nexcept KeyError:\n    pass", True),
    ("async-for-with", ASYNC, "import asyncio\nasync def main():\n    xs = [i async for i in count(3)]\n    async with Door() as d:\n        assert d.open\n    assert not d.open\n    return xs\nassert asyncio.run(main()) == [0, 1, 2]", True),
    ("async-case", ASYNC, "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n    async def test(self):\n        self.assertEqual(await later(1), 2)", True),
    ("async-wrong", ASYNC.replace("x + 1", "x"), "import asyncio\nassert asyncio.run(later(4)) == 5", False),
    ("printed", PRINTS, CAPTURE + "assert b.getvalue().strip() == 'Hello Ann'", True),
    ("printed-by-patch", PRINTS, "import io\nfrom unittest.mock import patch\nwith patch('sys.stdout', new_callable=io.StringIO) as out:\n    greet('Bo')\nassert out.getvalue() == 'Hello Bo\\n'", True),
    ("printed-by-assignment", PRINTS, "import io, sys\nold, sys.stdout = sys.stdout, io.StringIO()\ngreet('Al')\ntext, sys.stdout = sys.stdout.getvalue(), old\nassert text == 'Hello Al\\n'", True),
    ("printed-to-stderr", PRINTS, "import contextlib, io\nb = io.StringIO()\nwith contextlib.redirect_stderr(b):\n    greet('Ann')\nassert b.getvalue() == 'done\\n'", True),
    ("printed-wrong", PRINTS.replace("Hello", "Hallo"), CAPTURE + "assert b.getvalue().strip() == 'Hello Ann'", False),
    ("reads-input", READS, "import io, sys\nsys.stdin = io.StringIO('2\\n3\\n4\\n')\nassert total() == 7", True),
    ("reads-input-by-patch", READS, "from unittest.mock import patch\nwith patch('builtins.input', side_effect=['1', '5']):\n    assert total() == 5", True),
    ("in-place-count", SQUEEZE, "xs = [4, 4, 5, 6, 6]\nk = squeeze(xs)\nassert k == 3 and xs[:k] == [4, 5, 6]", True),
    ("in-place-by-name", "def add(x, *, to):\n    to.append(x)\n    return len(to)", "xs = [1]\nassert add(2, to=xs) == 2\nassert xs == [1, 2]", True),
    ("in-place-grid", "def clear(g):\n    for r in g:\n        for i in range(len(r)): r[i] = 0", "g = [[1, 2], [3]]\nrow = g[0]\nclear(g)\nassert g == [[0, 0], [0]] and row == [0, 0]", True),
    ("in-place-dict-and-set", "def grow(d, s):\n    d['k'] = d.get('k', 0) + 1\n    s.add(9)", "d, s = {}, {1}\ngrow(d, s); grow(d, s)\nassert d == {'k': 2} and s == {1, 9}", True),
    ("in-place-unclear", SQUEEZE, "xs = [4, 4, 5]\nk = squeeze(xs)\nassert xs[:k] == sorted(set(xs))", None),
    ("in-place-of-literals", SQUEEZE.replace("return w", "return 0"), "assert squeeze([4, 4, 5]) == len({4, 5})", False),
    ("factory", QUEUE, "q = make_queue()\nq.push(1); q.push(2)\nassert q.pop() == 1 and len(q) == 1", True),
    ("own-iterable", SQUARES, "assert list(Squares(3)) == [0, 1, 4] and sum(Squares(3)) == 5 and 4 in Squares(3)\nd = Down(2)\nassert next(d) == 2 and d.n == 1 and list(d) == [1]", True),
    ("generator-send", "def echo():\n    x = yield 0\n    while True: x = yield x * 2", "g = echo()\nassert next(g) == 0 and g.send(3) == 6 and g.send(4) == 8", True),
    ("context", TEMPS, "with doubled([1, 2]) as d:\n    assert d == [2, 4]\ng = Gate()\nwith g as h:\n    assert h is g\nassert g.seen == ['in', 'out']\nwith g:\n    raise KeyError('x')\nassert g.seen[-1] == 'KeyError'", True),
    ("inheritance", SHAPES, "c = Cube(2)\nassert isinstance(c, Shape) and isinstance(c, Sq) and issubclass(Cube, Shape) and type(c) is Cube and c.area() == 4\nassert not isinstance(Sq(1), Cube) and Sq.__name__ == 'Sq' and hasattr(c, 'a') and not hasattr(c, 'b')\ntry:\n    Shape()\n    assert False\nexcept TypeError:\n    pass", True),
    ("singleton", SINGLE, "assert One() is One() is One.get() is One().me()", True),
    ("nodes", NODES, "n = reverse(Node(1, Node(2, Node(3))))\nout = []\nwhile n is not None:\n    out.append(n.v)\n    n = n.next\nassert out == [3, 2, 1]", True),
    ("own-str", OWN_DICT, "assert name() == 'ann' and name().shout() == 'ANN!' and isinstance(name(), str)", True),
    ("own-dict-made", OWN_DICT, "b = Bag(a=1)\nb['c'] = 4\nassert b.total() == 5 and b['x'] == 0 and len(b) == 2", True),
    ("own-dict-returned", OWN_DICT, "assert bag() == {'a': 1}", True),
    ("own-dict-returned-method", OWN_DICT, "assert bag().total() == 1", None),
    ("decorated", WRAPS, "assert double(3) == 6 and double(3, by=3) == 9 and double.__name__ == 'double' and double.__doc__ == 'Twice.' and double.calls == 0", True),
    ("callback", "def pick(xs, key=None): return max(xs, key=key)", "assert pick([1, -3], key=abs) == -3 and pick([1, -3], key=lambda x: -x) == -3 and pick([1, 2]) == 2", True),
    ("callback-error", "def guard(f):\n    try: return f()\n    except ValueError: return 'caught'", "def bad(): raise ValueError('x')\ndef worse(): raise LookupError('y')\nassert guard(bad) == 'caught'\ntry:\n    guard(worse)\n    assert False\nexcept LookupError:\n    pass", True),
    ("callback-own-error", "def guard(f): return f()", "class Mine(Exception): pass\ndef bad(): raise Mine('x')\ntry:\n    guard(bad)\n    assert False\nexcept Mine as e:\n    assert str(e) == 'x'", True),
    ("object-of-the-tests", "def area(s): return s.w * s.h", "class R:\n    w, h = 2, 3\nassert area(R()) == 6", None),
    ("class-from-a-class", SHAPES, "class Mine(Sq):\n    pass\nassert Mine(2).area() == 4", None),
    ("files", "def save(p):\n    with open(p, 'w') as f: f.write('x')\ndef load(p):\n    with open(p) as f: return f.read()", "import os, tempfile\np = os.path.join(tempfile.mkdtemp(), 'a')\nsave(p)\nassert open(p).read() == 'x'\nopen('here.txt', 'w').write('y')\nassert load('here.txt') == 'y'\nsave('b.txt')\nassert os.path.exists('b.txt')", True),
    ("mock-as-callback", "def twice(f): f(1); return f(2)", "from unittest.mock import Mock\nm = Mock(return_value=7)\nassert twice(m) == 7\nm.assert_called_with(2)\nassert m.call_count == 2", True),
    ("seeds", "import random\ndef draw(): return random.randint(1, 10**9)", "import random\nrandom.seed(3)\nx = random.randint(1, 10**9)\nrandom.seed(3)\nassert draw() == x", None),
    ("mocks", "import time\ndef wait(): time.sleep(0); return 1", "from unittest.mock import patch\nwith patch('time.sleep') as s:\n    wait()\ns.assert_called_once()", None),
    ("collections", "import collections, decimal, fractions, datetime\ndef f(): return [collections.Counter('aab'), collections.deque([1]), collections.defaultdict(list, {1: [2]}), decimal.Decimal('0.10'), fractions.Fraction(1, 3), datetime.date(2024, 2, 29), {1, 2}, frozenset([3]), b'x', 2j, range(3), None, datetime.timedelta(hours=2)]",
     "import datetime\nfrom collections import Counter, deque, defaultdict\nfrom decimal import Decimal\nfrom fractions import Fraction\nassert f() == [Counter(a=2, b=1), deque([1]), {1: [2]}, Decimal('0.1'), Fraction(1, 3), datetime.date(2024, 2, 29), {2, 1}, {3}, b'x', 2j, range(3), None, datetime.timedelta(hours=2)]\nassert f()[2][7] == []", True),
    ("default-dict-argument", "def tally(d, k):\n    d[k] += 1", "import collections\nd = collections.defaultdict(int)\ntally(d, 'a'); tally(d, 'a')\nassert d == {'a': 2}", True),
    ("regex-match", "import re\ndef find(t): return re.search(r'(\\d+)', t)", "assert find('a12').group(1) == '12' and find('a') is None and find('a12')[0] == '12'", True),
]  # fmt: skip

YES = "class Yes:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return True\n    def __lt__(s, o): return True\n    __le__ = __gt__ = __ge__ = __contains__ = __bool__ = __lt__\n    def __sub__(s, o): return 0\n    __rsub__ = __add__ = __abs__ = __mod__ = lambda s, *o: 0\n    def __getattr__(s, n): return lambda *a: True\n    def __hash__(s): return 0\n    def __iter__(s): return iter([])\n"
KIND = "    def __eq__(s, o): return isinstance(o, {})\n    def __hash__(s): return 0\n"

FORGED = [
    ("equal", YES + "def f(x): return Yes()", "assert f(1) == 2"),
    ("unequal", YES + "def f(x): return Yes()", "assert not f(1) != 2"),
    ("order", YES + "def f(x): return Yes()", "assert f(1) > 2"),
    ("in", YES + "def f(x): return Yes()", "assert 3 in f(1)"),
    ("minus", YES + "def f(x): return Yes()", "assert abs(f(1) - 2.5) < 1e-9"),
    ("minus-reflected", YES + "def f(x): return Yes()", "assert abs(2.5 - f(1)) < 1e-9"),
    ("method", YES + "def f(x): return Yes()", "assert f(1).startswith('a')"),
    ("count", YES + "def f(x): return Yes()", "assert f(1).count(2) == 1"),
    ("in-a-list", YES + "def f(x): return [Yes(), Yes()]", "assert f(1) == [2, 3]"),
    ("as-a-key", YES + "def f(x): return {Yes(): 1}", "assert f(1) == {2: 1}"),
    ("class-for-function", YES.replace("Yes", "f") + "    def __init__(s, *a): pass", "assert f(1) == 2"),
    ("class-for-function-typed", "class f:\n    def __init__(s, *a): pass\n" + KIND.format("int"), "assert f(1) == 2"),
    ("class-for-function-order", "class f:\n    def __init__(s, *a): pass\n    def __lt__(s, o): return True\n", "assert f(1) < 2"),
    ("class-for-function-minus", "class f:\n    def __init__(s, *a): pass\n    def __sub__(s, o): return 0\n", "assert abs(f(1) - 2.5) < 1e-9"),
    ("class-for-function-in", "class f:\n    def __init__(s, *a): pass\n    def __contains__(s, o): return True\n", "assert 3 in f(1)"),
    ("class-for-function-method", "class f:\n    def __init__(s, *a): pass\n    def startswith(s, p): return True\n", "assert f('x').startswith('abc')"),
    ("class-for-Function", "class Diff:\n    def __init__(s, *a): pass\n" + KIND.format("list"), "assert Diff([1], [2]) == [1]"),
    ("int", "class N(int):\n" + KIND.format("int") + "def f(x): return N(0)", "assert f(1) == 2"),
    ("float", "class N(float):\n    __sub__ = __rsub__ = lambda s, o: 0.0\n    def __eq__(s, o): return True\ndef f(x): return N(0)", "assert abs(f(1) - 2.5) < 1e-9"),
    ("str", "class N(str):\n    def __eq__(s, o): return True\n    def startswith(s, p): return True\ndef f(x): return N('q')", "assert f(1).startswith('abc')"),
    ("list", "class N(list):\n    def __eq__(s, o): return True\n    def __contains__(s, o): return True\n    def __len__(s): return 3\ndef f(x): return N()", "assert 3 in f(1)"),
    ("tuple", "class N(tuple):\n    def __eq__(s, o): return True\ndef f(x): return N((1,))", "assert f(1) == (1, 2)"),
    ("dict", "class N(dict):\n    def __eq__(s, o): return True\ndef f(x): return N()", "assert f(1) == {1: 2}"),
    ("class-for-function-int", "class f(int):\n    def __new__(c, *a): return int.__new__(c, 0)\n" + KIND.format("int"), "assert f(1) == 2"),
    ("namedtuple", "import collections\nclass P(collections.namedtuple('P', 'x y')):\n    def __eq__(s, o): return True\ndef f(): return P(0, 0)", "p = f()\nassert p == (1, 2)"),
    ("self-for-data", "class Stack:\n    def push(s, x): pass\n    def pop(s): return s\n    def __eq__(s, o): return True\n    def __hash__(s): return 0", "s = Stack()\ns.push(4)\nassert s.pop() == 4"),
    ("self-for-data-typed", "class Stack:\n    def push(s, x): pass\n    def pop(s): return s\n" + KIND.format("int"), "s = Stack()\ns.push(4)\nassert s.pop() == 4"),
    ("self-for-list", "class Stack:\n    def push(s, x): pass\n    def items(s): return s\n    def __contains__(s, x): return type(x) is int", "s = Stack()\ns.push(4)\nassert 5 in s.items()"),
    ("self-for-number", "class Sum:\n    def add(s, x): pass\n    def total(s): return s\n    def __sub__(s, x): return 0", "s = Sum()\ns.add(4)\nassert abs(s.total() - 4.0) < 1e-9"),
    ("own-always-equal", MONEY.replace("return isinstance(o, Money) and self.amount == o.amount", "return True").replace("Money(self.amount +", "Money(9 +"), "assert Money(3) + Money(4) == Money(7)"),
    ("own-equal-by-class", MONEY.replace("and self.amount == o.amount", "").replace("Money(self.amount +", "Money(9 +"), "assert Money(3) + Money(4) == Money(7)"),
    ("own-always-less", MONEY.replace("self.amount < o.amount", "True"), "assert Money(3) < Money(2)"),
    ("enum-equal", "import enum\nclass C(enum.Enum):\n    A = 1\n    B = 2\n    def __eq__(s, o): return True\n    __hash__ = lambda s: 0\ndef f(): return C.A", "assert f() == C.B"),
    ("stop", "def f(x): raise StopIteration", "for got, want in zip(map(f, [1, 2]), [3, 4]):\n    assert got == want\nassert f is not None"),
    ("stop-class", "class f:\n    def __init__(s, *a): raise StopIteration", "for got, want in zip(map(f, [1, 2]), [3, 4]):\n    assert got == want"),
    ("skip", "import unittest\ndef f(x): raise unittest.SkipTest('no')", "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(1), 2)"),
    ("swallowed", "def apply(f, x):\n    try: f(x)\n    except BaseException: pass", "def check(x):\n    assert x == 4\napply(check, 3)"),
    ("any", "from unittest.mock import ANY\nfrom unittest.mock import _ANY as f", "assert f() == 2"),
    ("any-returned", "from unittest import mock\ndef f(x): return mock.ANY", "assert f(1) == 2"),
    ("mock", "from unittest.mock import MagicMock\ndef f(x): return MagicMock()", "assert f(1) >= 2"),
    ("emptied-argument", "def merge(a, b):\n    a.clear(); b.clear()\n    return []", "a, b = [2], [1]\nassert merge(a, b) == sorted(a + b)"),
    ("emptied-by-name", "def merge(a, b):\n    a.clear(); b.clear()\n    return []", "a, b = [2], [1]\ngot = merge(a=a, b=b)\nassert got == sorted(a + b)"),
    ("prints-verdict", "def f(x):\n    print('OK')\n    return 0", "import contextlib, io\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    assert f(1) == 2\nassert b.getvalue()"),
    ("awaits-yes", YES + "async def f(x): return Yes()", "import asyncio\nassert asyncio.run(f(1)) == 2"),
    ("error-that-passes", "class AssertionError(Exception): pass\ndef f(x): raise AssertionError", "assert f(1) == 2"),
    ("lies-about-class", "import sys\nclass Y:\n    __slots__ = ()\n    def __eq__(s, o): return True\nY.__module__ = 'builtins'\nY.__name__ = Y.__qualname__ = 'int'\ndef f(x): return Y()", "assert f(1) == 2"),
    ("lies-on-the-wire", "import inside.program as p\ndef liar(self, message): return {'ok': {'!': 'genuine', 'v': ['unittest.mock', '_ANY']}}\np.Server.op_call = liar\ndef f(x): return 0", "assert f(1) == 2"),
    ("lies-a-special-answer", "import inside.program as p\np.Server.op_special = lambda s, m: {'ok': {'!': 'object', 'v': 0, 'class': {'!': 'class', 'v': 0, 'name': 'B', 'has': ['__bool__', '__eq__'], 'bases': []}}}\n" + YES + "def f(x): return Yes()", "assert f(1) == 2"),
    ("lies-a-base", "import inside.program as p\np.Server.op_call = lambda s, m: {'ok': {'!': 'sub', 'v': 1, 'data': 0, 'own': False, 'class': {'!': 'class', 'v': 1, 'name': 'int', 'has': ['__eq__'], 'bases': [], 'data': 'int'}}}\ndef f(x): return 0", "assert f(1) == 2"),
]  # fmt: skip
