"""An own sampler by name: function, object, class or maker; exactly n completions; the nearest name in errors."""

import pytest

from trimtab.errors import InputError
from trimtab.samplers.own import own_sampler
from trimtab.testing import check_sampler, prompt
from trimtab.types import SamplingParams

MODULE = """
from dataclasses import dataclass
from trimtab.testing import FakeSampler
from trimtab.types import Completion, Group

words = FakeSampler(lambda p, rng: " ".join(str(x) for x in rng.integers(0, 99, 4)), model="words@1")

def echo(prompts, n, params):
    return [Group(p, tuple(Completion("hm", "echo", i, i) for i in range(n))) for p in prompts]

def short(prompts, n, params):
    return [Group(p, tuple(Completion("hm", "echo", i, i) for i in range(n - 1))) for p in prompts]

def turned(prompts, n, params):
    return echo(prompts, n, params)[::-1]

@dataclass(frozen=True)
class Named:
    model: str
    def __call__(self, prompts, n, params):
        return echo(prompts, n, params)

class Bare:
    def __call__(self, prompts, n, params):
        return echo(prompts, n, params)

def maker(name):
    return Named(name + "@2")

def nothing():
    return 3

number = 5

class Two:
    def __init__(self, a, b): pass
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samplers_of_mine.py").write_text(MODULE)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("words", "words@1"),
        ("echo", "samplers_of_mine:echo (m)"),
        ("Named", "m"),
        ("Bare", "samplers_of_mine:Bare (m)"),
        ("maker", "m@2"),
    ],
)
def test_shapes(name, model):
    sampler = own_sampler(f"samplers_of_mine:{name}", "m")
    (group,) = sampler([prompt("hi")], 3, SamplingParams())
    assert sampler.model == model and [c.index for c in group.completions] == [0, 1, 2]


def test_it_passes_the_contract():
    check_sampler(own_sampler("samplers_of_mine:words"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("samplers_of_mine:ehco", "has no 'ehco'.*did you mean 'echo'"),
        ("samplers_of_min:echo", "cannot be imported: No module named 'samplers_of_min'"),
        ("samplers_of_mine:", "write package.module:name"),
        ("samplers_of_mine:number", "is no sampler"),
        ("samplers_of_mine:nothing", "is no sampler"),
        ("samplers_of_mine:Two", "cannot be made"),
    ],
)
def test_what_is_no_sampler(spec, message):
    with pytest.raises(InputError, match=message):
        own_sampler(spec, "m")


@pytest.mark.parametrize(
    ("name", "message"), [("short", "gave 2 completions of prompt .*, 3 were asked for"), ("turned", "in the order")]
)
def test_what_it_gives_is_checked(name, message):
    with pytest.raises(InputError, match=message):
        own_sampler(f"samplers_of_mine:{name}")([prompt("a"), prompt("b")], 3, SamplingParams())


def test_a_module_that_raises_is_one_line(tmp_path):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match="ZeroDivisionError: division by zero"):
        own_sampler("broken_module:x")
