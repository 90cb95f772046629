"""Fitted folders: what is loaded is what was saved together, or an error that names the folder."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from trimtab.errors import InputError, StoreError
from trimtab.fitted import SUM, load_fitted, save_fitted

pytestmark = pytest.mark.slow  # all together: `make quick` leaves them out

FILE, CARD = "toy.safetensors", "toy.json"
WEIGHTS = {"w_D": np.arange(8, dtype=np.float32)}


def save(folder, scale=1.0):
    return save_fitted(folder, {"w_D": WEIGHTS["w_D"] * scale}, {"kind": "toy", "scale": scale}, FILE, CARD)


def load(folder):
    card, tensors = load_fitted(folder, FILE, CARD, what="toy", kind="toy", needs={"scale": float})
    return card["scale"], tensors["w_D"]


def test_it_comes_back_without_the_hash_in_the_card(tmp_path):
    card, tensors = load_fitted(save(tmp_path / "a"), FILE, CARD, what="toy")
    assert card == {"kind": "toy", "scale": 1.0}
    np.testing.assert_array_equal(tensors["w_D"], WEIGHTS["w_D"])


def test_weights_of_another_fit_are_refused(tmp_path):
    save(tmp_path / "a"), save(tmp_path / "b", 2.0)
    shutil.copy(tmp_path / "b" / FILE, tmp_path / "a" / FILE)
    with pytest.raises(InputError, match="a holds no readable toy.*not the one.*fit it again"):
        load(tmp_path / "a")


def test_a_card_without_a_hash_is_an_older_one(tmp_path):
    save_file(WEIGHTS, tmp_path / FILE)
    (tmp_path / CARD).write_text(json.dumps({"kind": "toy", "scale": 1.0}))
    assert load(tmp_path)[0] == 1.0


@pytest.mark.parametrize(
    "card", ["", "[]", "null", '"x"', "{", '{"kind": "probe", "scale": 1}', '{"kind": "toy"}', "[" * 100_000]
)
def test_a_card_of_another_kind_or_none_is_refused(tmp_path, card):
    save(tmp_path / "a")
    (tmp_path / "a" / CARD).write_text(card)
    with pytest.raises(InputError, match="a holds no readable toy"):
        load(tmp_path / "a")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_cuts_and_flips_of_the_tensors_are_refused(tmp_path_factory, data):
    folder = save(tmp_path_factory.mktemp("hurt") / "a")
    raw = bytearray((folder / FILE).read_bytes())
    if data.draw(st.booleans(), "cut"):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1), "length")]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1), "byte")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    (folder / FILE).write_bytes(raw)
    with pytest.raises(InputError, match="a holds no readable toy"):
        load(folder)


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from trimtab import fitted, publish
left = int(sys.argv[2])
def at(name, path):
    global left
    left -= 1
    left < 0 and os.kill(os.getpid(), 9)
publish.at = at
tensors, card = {"w_D": np.arange(8, dtype=np.float32) * 2}, {"kind": "toy", "scale": 2.0}
fitted.save_fitted(Path(sys.argv[1]), tensors, card, "toy.safetensors", "toy.json")
"""


@pytest.mark.parametrize("others", [False, True])
def test_killed_at_any_step_the_old_or_the_new_pair_is_loaded_or_none(tmp_path, others):
    """In a folder of its own always a whole pair; beside other files a mixed pair is refused, never loaded."""
    seen = []
    for step in range(12):
        folder = save(tmp_path / f"a{step}")
        if others:
            (folder / "notes.txt").write_text("mine")
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(step)], capture_output=True, text=True)
        assert done.returncode in (-9, 0), done.stderr
        try:
            scale, w_D = load(folder)
            np.testing.assert_array_equal(w_D, WEIGHTS["w_D"] * scale)
            seen.append(scale)
        except InputError as e:
            assert others and "not the one" in str(e)
        save(folder, 3.0)
        assert load(folder)[0] == 3.0 and (not others or (folder / "notes.txt").read_text() == "mine")
        assert not [*tmp_path.glob(".*"), *folder.glob(".*")]
        if done.returncode == 0:
            break
    assert done.returncode == 0 and seen[0] == 1.0 and seen[-1] == 2.0


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_place_that_cannot_be_written_is_our_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="check the path"):
        save(tmp_path / "file" / "probe")


def test_the_hash_is_of_the_file(tmp_path):
    import hashlib

    folder = save(tmp_path / "a")
    assert json.loads((folder / CARD).read_text())[SUM] == hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
