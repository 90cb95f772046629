"""A full disk is one line that says so, in every verb, and the same command continues when there is room."""

import shutil
import subprocess

import pytest

from .test_kills import VERBS, leftovers, run, seen, stages  # noqa: F401 - fixtures


@pytest.fixture
def small(tmp_path):
    """A file system of two megabytes, which root alone can mount."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("cannot mount a small file system here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_said_and_survived(run, stages, small, tmp_path, verb):  # noqa: F811
    """The run's folder fills up at three sizes; what is left is continued once there is room."""
    if verb == "features train":
        pytest.importorskip("sae_lens")
    stage, argv, out = VERBS[verb]
    folder = tmp_path / "work"
    shutil.copytree(stages[stage], folder)
    if (folder / out).exists():
        shutil.copytree(folder / out, small / out)
        shutil.rmtree(folder / out)
    (small / out).mkdir(exist_ok=True)
    (folder / out).symlink_to(small / out)
    filler = small / "filler"
    free = shutil.disk_usage(small).free
    filler.write_bytes(bytes(max(0, free - 20_000)))
    done = run(argv, folder)
    assert "Traceback" not in done["output"], done["output"]
    if done["status"]:
        assert done["status"] == 1 and "disk is full" in done["output"], done["output"]
    filler.unlink()
    again = run(argv, folder)
    assert "Traceback" not in again["output"], again["output"]
    assert again["status"] == 0 or "disk is full" in again["output"], again["output"]
