"""Files that Inspect and lm-eval wrote themselves (make_result_files.py), read and compared by prompt id."""

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.data.results import load_results
from trimtab.errors import InputError
from trimtab.jobs.stats import stats

HERE = Path(__file__).parent / "result_files"


def test_inspect_logs():
    a, b = (load_results(HERE / f, value="match")[0] for f in ("inspect_a.eval", "inspect_b.json"))
    assert a.values == {"sum-0": (1, 1), "sum-1": (0, 0), "sum-2": (1, 1)}
    assert b.values == {"sum-0": (1, 0), "sum-1": (1, 0), "sum-2": (1, 1)}
    assert a.notes == b.notes == () and a.texts == b.texts == {f"sum-{i}": f"{i} + {i} =" for i in range(3)}
    with pytest.raises(InputError, match=r"several scorers \(match, brief\); name one: --value match"):
        load_results(HERE / "inspect_a.eval")
    found = stats([f"a={HERE / 'inspect_a.eval'}", f"b={HERE / 'inspect_b.json'}"], value="match")
    assert found["a", "b"].mean == pytest.approx((0.5 - 0.5 + 0) / 3)
    assert "up to 2 samples a prompt: averaged, a prompt counts once" in found.notes


def test_damage_in_a_log_is_found(tmp_path):
    data = bytearray((HERE / "inspect_a.eval").read_bytes())
    at = data.index(b"summaries.json", data.rindex(b"samples/sum-2_epoch_2.json", 0, data.index(b"header.json"))) + 40
    data[at] ^= 0xFF
    (tmp_path / "a.eval").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        load_results(tmp_path / "a.eval", value="match")


def test_lm_eval_samples():
    files = [f"{n}={HERE / f'samples_sums_{n}.jsonl'}" for n in "ab"]
    with pytest.raises(InputError, match=r"several filters \(strict, digit\); name one: --filter strict"):
        stats(files)
    strict, digit = (stats(files, filter=f) for f in ("strict", "digit"))
    assert strict["a", "b"].mean == 1  # b says "it is 4"
    assert digit["a", "b"].mean == pytest.approx(1 / 4)  # wrong for 3 + 3 only, in whatever order they came
    assert strict.means["a"].n == 4 and "value: exact_match, strict" in strict.notes


def test_the_verb_runs_without_torch(tmp_path):
    code = "import sys; sys.modules['torch'] = sys.modules['plotly'] = None; from trimtab.cli import main; main()"
    files = [f"{n}={HERE / f'samples_sums_{n}.jsonl'}" for n in "ab"]
    plot = str(tmp_path / "p.svg")
    argv = [sys.executable, "-c", code, "stats", *files, "--filter", "digit", "--plot", plot]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "No pair can be told apart." in done.stdout and Path(plot).read_text().startswith("<svg")


def test_the_same_ids_with_other_prompts_are_refused(tmp_path):
    for name, text in (("a", "one"), ("b", "two")):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"id": 1, "score": 1, "prompt": "{text}"}}\n')
    with pytest.raises(InputError, match="prompt '1' is another text in a.jsonl than in b.jsonl"):
        stats([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    with pytest.raises(InputError, match="two systems are called 'a.jsonl'"):
        stats([str(tmp_path / "a.jsonl")] * 2)
