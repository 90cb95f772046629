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
    ('bcb', 'import pandas as pd\ndef task_func(xs):\n    return pd.Series(xs).mean()', 'import unittest\nclass TestCases(unittest.TestCase):\n    def test_case_1(self):\n        self.assertAlmostEqual(task_func([1,2]), 1.5)', None),
    ('bcb2', "import re, collections\ndef task_func(t):\n    return collections.Counter(re.findall(r'\\w+', t)).most_common(1)", "import unittest\nclass TestCases(unittest.TestCase):\n    def setUp(self):\n        self.t='a b a'\n    def test_case_1(self):\n        self.assertEqual(task_func(self.t), [('a', 2)])\n        self.assertIsInstance(task_func(self.t), list)\n    def test_err(self):\n        with self.assertRaises(TypeError):\n            task_func(3)", True),
    ('evalplus', 'def f(x): return x*0.1', 'import numpy as np\ndef is_floats(x):\n    return isinstance(x, (float, np.floating))\ndef assertion(out, exp, atol):\n    exact_match = out == exp\n    if atol == 0 and is_floats(exp): atol = 1e-6\n    if not exact_match and atol != 0:\n        assert type(out) == type(exp)\n        assert np.allclose(out, exp, rtol=1e-07, atol=atol)\n    else:\n        assert out == exp\ninputs=[[1],[3]]\nresults=[0.1,0.3]\nfor i,(inp,exp) in enumerate(zip(inputs,results)):\n    assertion(f(*inp), exp, 0)', True),
    ('classeval', 'import math\nclass AreaCalculator:\n    def __init__(self, radius): self.radius=radius\n    def calculate_circle_area(self): return math.pi*self.radius**2', 'import unittest\nclass AreaCalculatorTest(unittest.TestCase):\n    def test_1(self):\n        a = AreaCalculator(2)\n        self.assertAlmostEqual(12.566, a.calculate_circle_area(), delta=0.01)\n    def tearDown(self): pass\n    @classmethod\n    def setUpClass(cls): cls.k = 1\n    def test_2(self): self.assertEqual(self.k, 1); self.assertEqual(AreaCalculator(1).radius, 1)', True),
    ('pytest-raises', "def f(x):\n    if x < 0: raise ValueError('neg value')\n    return x**0.5", "import pytest\nfrom solution import f\ndef test_a():\n    with pytest.raises(ValueError, match='neg'):\n        f(-1)\n@pytest.mark.parametrize('x,y', [(4, 2), (9, 3)])\ndef test_b(x, y):\n    assert f(x) == pytest.approx(y)", True),
    ('kodcode', 'def f(x): return x', "from solution import f\n\ndef test_one():\n    assert f(1) == 1\n\ndef test_two():\n    assert f('a') == 'a'", True),
    ('subtest', 'def f(x): return x', "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        for i in range(3):\n            with self.subTest(i=i):\n                self.assertEqual(f(i), i)\nif __name__ == '__main__':\n    unittest.main()", True),
    ('testclass-pytest', 'def f(x): return x', 'class TestF:\n    def test_it(self):\n        assert f(2) == 2', True),
    ('numpy', "import numpy as np\ndef f(n): return np.eye(n), np.float64(2.5), np.array(['a'])", "import numpy as np\na, b, c = f(2)\nnp.testing.assert_array_equal(a, np.eye(2))\nassert a.shape == (2, 2) and b == 2.5 and isinstance(b, float) and list(c) == ['a']\nassert np.allclose(a, [[1,0],[0,1]])", True),
    ('numpy-inplace', 'import numpy as np\ndef f(a):\n    a *= 2\n    return a.sum()', 'import numpy as np\na = np.ones(3)\nassert f(a) == 6\nassert a.tolist() == [2, 2, 2]', True),
    ('lru', 'import functools\n@functools.lru_cache(maxsize=None)\ndef fib(n): return n if n < 2 else fib(n-1)+fib(n-2)', 'assert fib(30) == 832040\nassert fib.cache_info().hits > 0\nfib.cache_clear()', True),
    ('decor-with-test-fn', 'def memo(f):\n    d = {}\n    def g(x):\n        if x not in d: d[x] = f(x)\n        return d[x]\n    return g', 'calls = []\n@memo\ndef sq(x):\n    calls.append(x)\n    return x*x\nassert sq(2) == 4 and sq(2) == 4 and calls == [2]', True),
    ('sort-key-method', 'def by(xs, key): return sorted(xs, key=key)', "assert by(['b','A'], str.lower) == ['A','b']\nassert by([1,-2], abs) == [1,-2]\nimport operator\nassert by([(1,2),(0,3)], operator.itemgetter(1)) == [(1,2),(0,3)]", True),
    ('raise-from', "def f():\n    try: 1/0\n    except ZeroDivisionError as e: raise RuntimeError('bad') from e", 'try:\n    f()\n    assert False\nexcept RuntimeError as e:\n    assert isinstance(e.__cause__, ZeroDivisionError)', True),
    ('oserror', "def f(): open('/nope')", 'try:\n    f()\n    assert False\nexcept FileNotFoundError as e:\n    assert e.errno == 2', True),
    ('warn', "import warnings\ndef f():\n    warnings.warn('old', DeprecationWarning)\n    return 1", "import warnings\nwith warnings.catch_warnings(record=True) as w:\n    warnings.simplefilter('always')\n    assert f() == 1\n    assert len(w) == 1", None),
    ('signature', 'def f(a, *, b=2): return a', "import inspect\nassert list(inspect.signature(f).parameters) == ['a', 'b']\nassert f(1) == 1", None),
    ('callable-cls', 'class Mul:\n    def __init__(self, k): self.k = k\n    def __call__(self, x): return x*self.k', 'm = Mul(3)\nassert m(4) == 12 and callable(m)', True),
    ('prop-setter', "class T:\n    def __init__(self, c): self.c = c\n    @property\n    def f(self): return self.c*9/5+32\n    @f.setter\n    def f(self, v):\n        if v < -459: raise ValueError('cold')\n        self.c = (v-32)*5/9", 't = T(0)\nassert t.f == 32\nt.f = 212\nassert t.c == 100\ntry:\n    t.f = -999\n    assert False\nexcept ValueError: pass', True),
    ('slots-frozen', 'from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    x: int\n', 'import dataclasses\np = P(1)\ntry:\n    p.x = 2\n    assert False\nexcept dataclasses.FrozenInstanceError: pass\nassert p == P(1) and hash(p) == hash(P(1)) and p != P(2)', True),
    ('asdict', 'from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n', "import dataclasses\nassert dataclasses.asdict(P(1)) == {'x': 1}", True),
    ('vars', 'class P:\n    def __init__(self): self.x = 1', "assert vars(P()) == {'x': 1} and P().__dict__ == {'x': 1}", True),
    ('vec-eq-tuple', 'class V:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == (o.x if isinstance(o, V) else o)', 'v = V(3)\nassert v.x == 3 and v == 3', None),
    ('total-ordering', 'import functools\n@functools.total_ordering\nclass V:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x\n    def __lt__(s, o): return s.x < o.x', 'assert V(1) < V(2) and V(2) >= V(2) and V(1) <= V(2) and V(3) > V(2)\nassert max(V(1), V(4)).x == 4', True),
    ('matrix', 'class M:\n    def __init__(s, r): s.r = r\n    def __matmul__(s, o): return M([[sum(a*b for a,b in zip(x,y)) for y in zip(*o.r)] for x in s.r])\n    def __getitem__(s, ij): return s.r[ij[0]][ij[1]]\n    def __eq__(s,o): return s.r == o.r\n    def __rmul__(s,k): return M([[k*a for a in x] for x in s.r])', 'a = M([[1,2],[3,4]])\nassert (a @ a)[0, 0] == 7 and a @ M([[1,0],[0,1]]) == a and (2*a)[1,1] == 8', True),
    ('poly-call-str', "class P:\n    def __init__(s,*c): s.c=c\n    def __call__(s,x): return sum(k*x**i for i,k in enumerate(s.c))\n    def __repr__(s): return 'P'+str(s.c)\n    def __len__(s): return len(s.c)", "p = P(1,2)\nassert p(3) == 7 and repr(p) == 'P(1, 2)' and len(p) == 2 and str([p]) == '[P(1, 2)]'", True),
    ('tree', "class Node:\n    def __init__(s, v): s.v=v; s.left=s.right=None\nclass BST:\n    def __init__(s): s.root=None; s.n=0\n    def insert(s,v):\n        s.n += 1\n        if not s.root: s.root=Node(v); return\n        c=s.root\n        while True:\n            side='left' if v<c.v else 'right'\n            if getattr(c,side) is None: setattr(c,side,Node(v)); return\n            c=getattr(c,side)\n    def __iter__(s):\n        def go(n):\n            if n: yield from go(n.left); yield n.v; yield from go(n.right)\n        return go(s.root)\n    def __contains__(s, v): return v in list(s)\n    def __len__(s): return s.n", 't = BST()\nfor x in [3,1,2]: t.insert(x)\nassert list(t) == [1,2,3] and t.root.v == 3 and t.root.left.right.v == 2 and 2 in t and 9 not in t and len(t) == 3 and t.root.right is None', True),
    ('mutate-attr', 'class B:\n    def __init__(s): s.items=[]\n', 'b = B()\nb.items.append(3)\nassert b.items == [3]', True),
    ('mutate-global', 'STATE = []\ndef push(x): STATE.append(x)', 'push(1)\nassert STATE == [1]', True),
    ('mutate-global-by-test', "CONFIG = {'k': 1}\ndef get(): return CONFIG['k']", "CONFIG['k'] = 5\nassert get() == 5", True),
    ('class-attr', 'class C:\n    total = 0\n    def __init__(s): C.total += 1', 'C(); C()\nassert C.total == 2\nC.total = 9\nassert C().total == 10', True),
    ('thread', 'import threading\nclass C:\n    def __init__(s): s.n=0; s.l=threading.Lock()\n    def inc(s):\n        with s.l: s.n += 1', 'import threading\nc = C()\nts=[threading.Thread(target=c.inc) for _ in range(5)]\n[t.start() for t in ts]; [t.join() for t in ts]\nassert c.n == 5', True),
    ('flag', 'import enum\nclass P(enum.Flag):\n    R = 1\n    W = 2', 'assert (P.R | P.W).value == 3 and P.R in (P.R | P.W) and P.R | P.W == P(3)', True),
    ('str-enum', "import enum\nclass S(str, enum.Enum):\n    A = 'a'\n", "assert S.A == 'a' and S('a') is S.A and S.A.value == 'a' and S.A.name == 'A'", True),
    ('auto-enum-iter', 'import enum\nclass S(enum.Enum):\n    A = enum.auto()\n    B = enum.auto()\n    def nxt(self): return S.B if self is S.A else S.A', "assert list(S) == [S.A, S.B] and S.A.nxt() is S.B and S.A.nxt().nxt() == S.A and S['A'].value == 1 and 'A' in S.__members__", True),
    ('typed-namedtuple', 'from typing import NamedTuple\nclass E(NamedTuple):\n    name: str\n    age: int = 3\n    def older(self): return self._replace(age=self.age+1)', "e = E('a')\nassert e.age == 3 and e.older().age == 4 and e == ('a', 3) and E('b', 2) == E(name='b', age=2) and e[0] == 'a' and [*e] == ['a', 3] and sorted([E('b'), E('a')])[0].name == 'a'", True),
    ('async-queue', 'import asyncio\nasync def work(q):\n    out=[]\n    while not q.empty(): out.append(await q.get())\n    return out', 'import asyncio\nasync def main():\n    q = asyncio.Queue()\n    q.put_nowait(1)\n    return await work(q)\nassert asyncio.run(main()) == [1]', None),
    ('async-method', 'import asyncio\nclass C:\n    async def f(s, x):\n        await asyncio.sleep(0.001)\n        return x\n', 'import asyncio\nc = C()\nassert asyncio.run(c.f(3)) == 3\nasync def m():\n    return await asyncio.gather(*[c.f(i) for i in range(3)])\nassert asyncio.run(m()) == [0,1,2]', True),
    ('async-timeout', 'import asyncio\nasync def slow(): await asyncio.sleep(0.3)', 'import asyncio\nasync def m():\n    try:\n        await asyncio.wait_for(slow(), 0.05)\n        return False\n    except asyncio.TimeoutError:\n        return True\nassert asyncio.run(m())', None),
    ('loop-run', 'import asyncio\nasync def f(): return 3', 'import asyncio\nloop = asyncio.new_event_loop()\nassert loop.run_until_complete(f()) == 3\nloop.close()', True),
    ('input-mock-lambda', "def ask(): return int(input('x')) + 1", "import builtins\nbuiltins.input = lambda p='': '4'\nassert ask() == 5", True),
    ('exceptgroup-multi', "class A(Exception): pass\nclass B(Exception): pass\ndef f(x): raise (A if x else B)('z')", 'for x, k in ((1, A), (0, B)):\n    try:\n        f(x)\n        assert False\n    except (A, B) as e:\n        assert type(e) is k', True),
    ('err-code-attr', "class E(Exception):\n    def __init__(s, code, msg='m'):\n        s.code = code\n        super().__init__(msg)\n    def __str__(s): return f'[{s.code}] {s.args[0]}'\ndef f(): raise E(404)", "try:\n    f()\nexcept E as e:\n    assert e.code == 404 and str(e) == '[404] m'\nelse:\n    assert False", True),
    ('err-hier', "class Base(Exception): pass\nclass Kid(Base, KeyError): pass\ndef f(): raise Kid('q')", 'try:\n    f()\n    assert 0\nexcept KeyError as e:\n    assert isinstance(e, Base)\n', True),
    ('sys-exit', 'import sys\ndef f(): sys.exit(3)', 'try:\n    f()\n    assert False\nexcept SystemExit as e:\n    assert e.code == 3', True),
    ('generator-close', "def g():\n    try:\n        yield 1\n        yield 2\n    finally:\n        LOG.append('done')\nLOG=[]", "x = g()\nassert next(x) == 1\nx.close()\nassert LOG == ['done']", True),
    ('infinite-gen', 'def n():\n    i = 0\n    while True:\n        yield i\n        i += 1', 'import itertools\nassert list(itertools.islice(n(), 5)) == [0,1,2,3,4]\nassert next(n()) == 0', True),
    ('bool-identity', 'def f(x): return x > 1', 'assert f(2) is True and f(0) is False', True),
    ('datetime-tz', 'import datetime\ndef f(): return datetime.datetime(2024,1,1,tzinfo=datetime.timezone.utc)', 'import datetime\nassert f() == datetime.datetime(2024,1,1,tzinfo=datetime.timezone.utc) and f().year == 2024', True),
    ('returns-class', "def mk(n): return type(n, (), {'v': 1})", "C = mk('Q')\nassert C.__name__ == 'Q' and C().v == 1", True),
    ('observer', 'class S:\n    def __init__(s): s.o=[]\n    def on(s,f): s.o.append(f)\n    def fire(s,*a): return [f(*a) for f in s.o]', 'seen=[]\ns=S()\ns.on(seen.append)\ns.on(lambda x: x*2)\nassert s.fire(3) == [None, 6] and seen == [3]', True),
    ('deepcopy', 'class P:\n    def __init__(s): s.x=[1]', 'import copy\np = P()\nq = copy.deepcopy(p)\nq.x.append(2)\nassert p.x == [1]', True),
    ('setitem-slice', 'class L:\n    def __init__(s): s.x=[1,2,3]\n    def __getitem__(s,i): return s.x[i]\n    def __len__(s): return 3', 'l = L()\nassert l[1:] == [2,3] and l[-1] == 3 and list(reversed(l)) == [3,2,1]\ntry:\n    l[9]\n    assert 0\nexcept IndexError: pass', True),
    ("pytest-wrong", "def f(x): return x", "import pytest\n@pytest.mark.parametrize('x,y', [(1, 1), (2, 3)])\ndef test_f(x, y):\n    assert f(x) == pytest.approx(y)", False),
    ("pytest-not-raised", "def f(x): return x", "import pytest\ndef test_f():\n    with pytest.raises(ValueError):\n        f(1)", False),
    ("pytest-collections", "def f(): return [0.1 + 0.2, 1]", "import pytest\ndef test_f():\n    assert f() == pytest.approx([0.3, 1]) and f() != pytest.approx([0.3]) and 1.2 != pytest.approx(1.0, abs=0.1)", True),
    ("pytest-fixture", "def f(x): return x", "import pytest\n@pytest.fixture\ndef one(): return 1\ndef test_f(one):\n    assert f(one) == 1", None),
    ("fixture-unknown", "def f(x): return x", "def test_f(tmpdir):\n    assert f(1) == 1", None),
    ("skipped-case", "def f(x): return x", "import unittest\nclass T(unittest.TestCase):\n    @unittest.skip('slow')\n    def test_a(self): self.assertEqual(f(1), 9)\n    def test_b(self): self.assertEqual(f(1), 1)", True),
    ("set-up-class", "def f(x): return x", "import unittest\nclass T(unittest.TestCase):\n    @classmethod\n    def setUpClass(cls): cls.k = 4\n    def test_a(self): self.assertEqual(f(self.k), 5)", False),
    ("held-list-stays-alike", "class B:\n    def __init__(s): s.xs = []\n    def put(s, x): s.xs.append(x)", "b = B()\nxs = b.xs\nb.put(1)\nassert xs == [1] and xs is b.xs\nxs.append(2)\nb.put(3)\nassert b.xs == [1, 2, 3]", True),
    ("copy-is-a-copy", "class B:\n    def __init__(s): s._xs = [1]\n    @property\n    def xs(s): return list(s._xs)", "b = B()\nb.xs.append(2)\nassert b.xs == [1]", True),
    ("no-copy-is-none", "class B:\n    def __init__(s): s._xs = [1]\n    @property\n    def xs(s): return s._xs", "b = B()\nb.xs.append(2)\nassert b.xs == [1]", False),
    ('hashset', 'class MySet:\n    def __init__(s): s.x=set()\n    def add(s,v): s.x.add(v)\n    def remove(s,v): s.x.discard(v)\n    def __contains__(s,v): return v in s.x', 's=MySet()\ns.add(1)\nassert 1 in s\ns.remove(1)\nassert 1 not in s', True),
    ('in-only-contains-both', 'class R:\n    def __init__(s,a,b): s.a,s.b=a,b\n    def __contains__(s,v): return s.a<=v<=s.b', 'r=R(1,5)\nassert r.a == 1 and 3 in r and 9 not in r', True),
    ('eq-both', "class F:\n    def __init__(s,n,d=1): s.n,s.d=n,d\n    def __eq__(s,o):\n        if not isinstance(o,F): return NotImplemented\n        return s.n*o.d==s.d*o.n\n    def __add__(s,o): return F(s.n*o.d+o.n*s.d, s.d*o.d)\n    def __str__(s): return f'{s.n}/{s.d}'", "assert F(1,2) == F(2,4)\nassert F(1,2)+F(1,2) == F(1)\nassert F(1,2) != F(1,3)\nassert str(F(1,2)) == '1/2'\nassert F(1,2) != 5 and not (F(1,2) == 'x')", True),
    ('list-of-own-eq', 'class P:\n    def __init__(s,x): s.x=x\n    def __eq__(s,o): return isinstance(o,P) and s.x==o.x\ndef mk(n): return [P(i) for i in range(n)]', 'assert mk(2) == [P(0), P(1)]', True),
    ('own-in-list', 'class P:\n    def __init__(s,x): s.x=x\n    def __eq__(s,o): return isinstance(o,P) and s.x==o.x\n    def __hash__(s): return hash(s.x)\n', 'ps=[P(1),P(2)]\nassert P(1) in ps and ps.index(P(2)) == 1 and P(3) not in ps and len({P(1),P(1)}) == 1', True),
    ('own-list-arg', 'class P:\n    def __init__(s,x): s.x=x\ndef total(ps): return sum(p.x for p in ps)', 'assert total([P(1),P(4)]) == 5', True),
    ('own-in-place-sort', 'class P:\n    def __init__(s,a): s.a=a\ndef order(ps): ps.sort(key=lambda p: p.a)', 'ps=[P(3),P(1)]\norder(ps)\nassert [p.a for p in ps] == [1,3]', True),
    ('linked-list-cls', 'class Node:\n    def __init__(s,v,nxt=None): s.val=v; s.next=nxt\nclass LL:\n    def __init__(s): s.head=None\n    def append(s,v):\n        n=Node(v)\n        if not s.head: s.head=n; return\n        c=s.head\n        while c.next: c=c.next\n        c.next=n\n    def to_list(s):\n        o=[];c=s.head\n        while c: o.append(c.val); c=c.next\n        return o\n    def __len__(s): return len(s.to_list())', 'l=LL()\nl.append(1); l.append(2)\nassert l.to_list()==[1,2] and l.head.val==1 and l.head.next.val==2 and l.head.next.next is None and len(l)==2', True),
    ('datanames-first', 'class LL:\n    def __init__(s): s.x=[]\n    def append(s,v): s.x.append(v)\n    def __len__(s): return len(s.x)\ndef mk(): return LL()', 'l=mk()\nl.append(1)\nassert len(l)==1', None),
    ('exc-msg-regex', "class InsufficientFunds(Exception): pass\nclass Account:\n    def __init__(s,b=0): s.balance=b\n    def withdraw(s,a):\n        if a>s.balance: raise InsufficientFunds(f'need {a-s.balance} more')\n        s.balance-=a\n        return s.balance", "a=Account(10)\nassert a.withdraw(3)==7\ntry:\n    a.withdraw(100)\n    assert False, 'no error'\nexcept InsufficientFunds as e:\n    assert 'need 93' in str(e)\nassert a.balance==7", True),
    ('exc-raise-by-cb', "class E(Exception): pass\ndef call(f):\n    try: return f()\n    except E as e: return 'caught ' + str(e)", "def bad(): raise E('q')\nassert call(bad) == 'caught q'", True),
    ('print-multi', "def f(n):\n    for i in range(n): print(i, end=' ')\n    print()", "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n    f(3)\nassert out.getvalue() == '0 1 2 \\n'\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n    f(1)\nassert out.getvalue().split() == ['0']", True),
    ('mutable-default', 'def f(x, acc=[]):\n    acc.append(x)\n    return acc', 'assert f(1) == [1]\nassert f(2) == [1,2]', True),
    ('gen-return', 'def g():\n    yield 1\n    return 7', 'it=g()\nassert next(it)==1\ntry:\n    next(it)\n    assert False\nexcept StopIteration as e:\n    assert e.value == 7', True),
    ('iter-class-reuse', 'class C:\n    def __init__(s,n): s.n=n\n    def __iter__(s):\n        i=0\n        while i<s.n:\n            yield i\n            i+=1', "c=C(3)\nassert list(c)==[0,1,2] and list(c)==[0,1,2] and max(c)==2 and [*c]==[0,1,2] and dict.fromkeys(c)=={0:None,1:None,2:None} and ','.join(map(str,c))=='0,1,2'\na,b,d=c\nassert d==2", True),
    ('array', "import array\ndef f(): return array.array('i',[1,2])", 'assert list(f())==[1,2] and f()[1]==2 and len(f())==2', True),
    ('enum-bad-value', 'from enum import Enum\nclass S(Enum):\n    A=1', "try:\n    S(9)\n    assert 0\nexcept ValueError: pass\ntry:\n    S['Z']\n    assert 0\nexcept KeyError: pass", True),
    ('enum-as-arg', 'from enum import Enum\nclass D(Enum):\n    N=0\n    E=1\ndef turn(d): return D((d.value+1)%2)', "assert turn(D.N)==D.E and turn(D.E) is D.N\nassert {D.N:'n'}[turn(D.E)]=='n'", True),
    ('nt-arg', "from collections import namedtuple\nP=namedtuple('P',['x','y'])\ndef swap(p): return P(p.y,p.x)", "assert swap(P(1,2))==P(2,1) and swap(P(1,2)).x==2 and swap(P(1,2))._fields==('x','y') and repr(P(1,2))=='P(x=1, y=2)'", True),
    ('dc-list-eq', "from dataclasses import dataclass\n@dataclass\nclass I:\n    n: str\n    q: int = 1\ndef f(): return [I('a'), I('b',2)]", "assert f()==[I('a',1),I('b',2)]\nassert f()[0].n=='a' and f()[0]!=f()[1]", True),
    ('hash-eq-dict', 'class K:\n    def __init__(s,v): s.v=v\n    def __hash__(s): return hash(s.v)\n    def __eq__(s,o): return isinstance(o,K) and s.v==o.v', "d={K(1):'a'}\nassert d[K(1)]=='a' and K(2) not in d and hash(K(1))==hash(K(1))", True),
    ('iadd', 'class A:\n    def __init__(s): s.x=[]\n    def __iadd__(s,v): s.x.append(v); return s', 'a=A()\nb=a\na+=3\nassert a.x==[3] and a is b', True),
    ('neg-abs-round', 'class N:\n    def __init__(s,v): s.v=v\n    def __neg__(s): return N(-s.v)\n    def __abs__(s): return N(abs(s.v))\n    def __round__(s,n=0): return round(s.v,n)\n    def __int__(s): return int(s.v)\n    def __bool__(s): return s.v!=0', 'assert (-N(2)).v==-2 and abs(N(-3)).v==3 and round(N(2.567),1)==2.6 and int(N(3.9))==3 and not N(0) and N(1)', True),
    ('getattr-dyn', 'class A:\n    def __getattr__(s,n): return n.upper()', "assert A().foo=='FOO' and getattr(A(),'bar')=='BAR'", True),
    ('format-spec', 'class M:\n    def __init__(s,v): s.v=v\n    def __format__(s,spec): return format(s.v,spec)', "assert f'{M(3.14159):.2f}'=='3.14'", True),
    ('async-pytest', 'import asyncio\nasync def f(): return 1', 'import pytest\n@pytest.mark.asyncio\nasync def test_f():\n    assert await f()==1', True),
    ('async-lock', 'import asyncio\nclass C:\n    def __init__(s): s.n=0; s.l=asyncio.Lock()\n    async def inc(s):\n        async with s.l:\n            await asyncio.sleep(0)\n            s.n+=1', 'import asyncio\nc=C()\nasync def m(): await asyncio.gather(*(c.inc() for _ in range(5)))\nasyncio.run(m())\nassert c.n==5', True),
    ('star-import', 'def f(): return 1', 'from solution import *\nassert f()==1', True),
    ('import-module-alias', 'def f(): return 1', 'import solution as s\nassert s.f()==1', True),
    ('userdict', 'from collections import UserDict\nclass D(UserDict):\n    def __getitem__(s,k): return self.data[k] if False else s.data[k]*2', "d=D({'a':1})\nassert d['a']==2 and 'a' in d and len(d)==1", True),
    ('counter-sub', 'from collections import Counter\nclass C(Counter):\n    def top(s): return s.most_common(1)[0][0]', "c=C('aab')\nassert c.top()=='a' and c['a']==2", True),
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
    ("in-and-not-in", "class f:\n    def __init__(s, *a): pass\n    def __contains__(s, o): return type(o) is int", "assert 3 in f(1) and 4 not in f(1)"),
    ("function-of-the-tests", "def f(g): return g", "assert f(lambda: 3) == 3"),
    ("text-of-a-copy", "class N(int):\n    def __str__(s): return '2'\n    __repr__ = __format__ = lambda s, *a: '2'\ndef f(x): return N(0)", "assert f(1) == 2 and str(f(1)) == '2'"),
    ("approx", YES + "def f(x): return Yes()", "import pytest\ndef test_f():\n    assert f(1) == pytest.approx(2.5)"),
    ("raises-nothing", "def f(x): return 0", "import pytest\ndef test_f():\n    with pytest.raises(ValueError):\n        f(1)\n    assert f(2) == 2"),
    ("leaves", "import sys\ndef f(x): sys.exit(0)", "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(1), 2)"),
    ("rewrites-what-is-held", "EXPECTED = [9]\ndef f(x):\n    EXPECTED[:] = [0]\n    return [0]", "want = [x + 1 for x in [1]]\nassert f(1) == want"),
    ("module-of-the-tests", "import sys, types\nm = types.ModuleType('pytest')\nm.raises = m.approx = lambda *a, **k: None\nsys.modules['pytest'] = m\ndef f(x): return 0", "import pytest\ndef test_f():\n    assert f(1) == pytest.approx(2)"),
    ("lies-a-base", "import inside.program as p\np.Server.op_call = lambda s, m: {'ok': {'!': 'sub', 'v': 1, 'data': 0, 'own': False, 'class': {'!': 'class', 'v': 1, 'name': 'int', 'has': ['__eq__'], 'bases': [], 'data': 'int'}}}\ndef f(x): return 0", "assert f(1) == 2"),
]  # fmt: skip
