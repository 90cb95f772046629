"""Where there is no terminal, long work writes lines; short work writes none; nested work speaks once."""

import dataclasses
import inspect
import re
import time

import pytest

import trimtab
from trimtab.progress import Work, track, working


def _slow(items, seconds):
    for item in items:
        time.sleep(seconds)
        yield item


def test_lines_from_start_to_end(capsys):
    assert list(track(_slow("abcd", 0.1), 4, "letters", after_s=0.05, every_s=0.1)) == list("abcd")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("letters: 0 of 4") and lines[-1].startswith("letters: 4 of 4") and len(lines) >= 3
    assert any(re.search(r"[123] of 4, 0 s \(\d+\.\d a second, about 0 s left\)", line) for line in lines)


def test_short_work_says_nothing(capsys):
    assert list(track(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    with working("loading"):
        pass
    assert capsys.readouterr().err == ""


def test_only_the_innermost_speaks(capsys):
    with working("outer", after_s=0.02, every_s=0.02), working("inner", after_s=0.02, every_s=0.02):
        time.sleep(0.15)
    assert set(capsys.readouterr().err.split()) == {"inner", "..."}


def test_a_consumer_that_stops_early_ends_the_lines(capsys):
    for _ in track(_slow(range(9), 0.03), 9, "numbers", after_s=0.01, every_s=0.02):
        break
    said = capsys.readouterr().err
    time.sleep(0.1)
    assert said.startswith("numbers: 0 of 9") and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("total", "done", "ago", "line"),
    [
        (300, 30, 60, r"x: 30 of 300, 60 s \(2.0 s each, about 9 min left\)"),
        (300, 0, 60, "x: 0 of 300, 60 s"),
        (300, 300, 7300, "x: 300 of 300, 2.0 h"),
        (0, 0, 200, r"x \.\.\. 3 min"),
    ],
)
def test_what_a_line_says(total, done, ago, line):
    assert re.fullmatch(line, Work("x", total, done, time.monotonic() - ago).line())


def test_no_signature_prefers_the_cpu():
    import importlib
    import pkgutil

    wrong = []
    for module in pkgutil.walk_packages(trimtab.__path__, "trimtab."):
        if ".inside" in module.name or module.name.endswith("__main__"):
            continue
        for name, thing in vars(importlib.import_module(module.name)).items():
            made = inspect.isfunction(thing) or (isinstance(thing, type) and dataclasses.is_dataclass(thing))
            if made and thing.__module__.startswith("trimtab") and thing.__module__ != "trimtab.tensors":
                device = inspect.signature(thing).parameters.get("device")
                wrong += [f"{module.name}.{name}"] if device and device.default == "cpu" else []
    assert wrong == []
