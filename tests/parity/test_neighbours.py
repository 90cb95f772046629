"""The committed numbers against the packages that they came from, each in an environment of its own."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import neighbours
from benchmarks.data import Skipped

HERE = Path(__file__).parent
CODE = """
import json
import make_values as m
x = m.inputs()
print(json.dumps({name: [m.trl_pairs(name, x, i) for i in range(m.CASES)] for name in m.SETTINGS}))
"""


@pytest.mark.neighbours
def test_trl_still_gives_the_values_that_ours_are_held_against():
    try:
        python = neighbours.python("trl")
    except Skipped as e:
        pytest.skip(str(e))
    done = subprocess.run([python, "-c", CODE], cwd=HERE, capture_output=True, text=True, check=True)
    values = json.loads((HERE / "values.json").read_text())["trl"]
    for name, got in json.loads(done.stdout.splitlines()[-1]).items():
        assert got == pytest.approx(values[name], rel=1e-5), name
