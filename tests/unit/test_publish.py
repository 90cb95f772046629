"""Publishing: a file or folder is the old one or the new one at every step, and leftovers of the dead go."""

import os
import subprocess
import sys

import pytest

from trimtab import publish as publishing
from trimtab.errors import StoreError
from trimtab.publish import publish, publish_folder, publish_text, recover


def test_publish_is_all_or_nothing(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def broken(tmp):
        tmp.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(target, broken)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_what_the_system_refuses_names_the_path(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere/file: No such file.*check the path"):
        publish_text(tmp_path / "nowhere" / "file", "x")


KILLED = """
import os, sys
from pathlib import Path
from trimtab import publish as p
step, target = sys.argv[1], Path(sys.argv[2])
p.at = lambda name, path: name == step and os.kill(os.getpid(), 9)
def folder(tmp):
    (tmp / "a").write_text("new")
    (tmp / "b").write_text("new")
p.publish_folder(target, folder) if sys.argv[3] == "folder" else p.publish_text(target, "new")
"""


def killed(step, target, kind):
    done = subprocess.run([sys.executable, "-c", KILLED, step, str(target), kind], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize("step", ["write", "rename", "between", "renamed"])
def test_a_folder_killed_at_any_step_is_the_old_or_the_new_one(tmp_path, step):
    target = tmp_path / "probe"
    publish_folder(target, lambda tmp: [(tmp / f).write_text("old") for f in "ab"])
    killed(step, target, "folder")
    recover(target)
    assert [(target / f).read_text() for f in "ab"] == (["new"] * 2 if step == "renamed" else ["old"] * 2)
    publish_folder(target, lambda tmp: [(tmp / f).write_text("newer") for f in "ab"])
    assert (target / "a").read_text() == "newer" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("step", ["write", "rename", "renamed"])
def test_a_file_killed_at_any_step_is_the_old_or_the_new_one(tmp_path, step):
    target = tmp_path / "card.json"
    publish_text(target, "old")
    killed(step, target, "file")
    assert target.read_text() == ("new" if step == "renamed" else "old")
    publish_text(target, "newer")
    assert target.read_text() == "newer" and list(tmp_path.iterdir()) == [target]


def test_leftovers_of_the_living_and_of_other_names_stay(tmp_path):
    names = [f".tmp-{os.getpid()}-{publishing._RUN}-7-card", ".tmp-999999999-0badcafe-0-other", ".tmp-mine", ".old-x"]
    for name in names:
        (tmp_path / name).write_text("x")
    (tmp_path / ".tmp-999999999-0badcafe-0-card").write_text("x")
    (tmp_path / f".tmp-{os.getpid()}-0badcafe-0-card").write_text("x")  # a dead container's process of our number
    publish_text(tmp_path / "card", "new")
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted([*names, "card"])
