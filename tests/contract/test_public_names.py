"""The face of the package: every public name loads, is typed for those who import it, and is few."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trimtab

SRC = Path(trimtab.__file__).parent
ROOMS = ["", "data", "decoders", "embeddings", "evaluation", "jobs", "learners", "rewards", "samplers", "sandbox"]


def package(room: str):
    return importlib.import_module(f"trimtab.{room}".rstrip("."))


def typed_imports(room: str) -> dict[str, str]:
    """Name to module of the imports that stand under TYPE_CHECKING in a room's __init__."""
    found = {}
    for node in ast.parse((SRC / room / "__init__.py").read_text()).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for imported in node.body:
                assert isinstance(imported, ast.ImportFrom) and imported.module
                found |= {a.name: imported.module for a in imported.names}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_loads_and_is_listed(room):
    names = package(room).__all__
    assert sorted(names) == sorted(set(names))
    assert [n for n in names if getattr(package(room), n) is None] == []
    assert set(names) <= set(dir(package(room)))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        package(room).nonsense  # noqa: B018


@pytest.mark.parametrize("room", [r for r in ROOMS if "_HOMES" in vars(package(r))])
def test_a_lazy_table_and_the_types_beside_it_say_the_same(room):
    name = package(room).__name__
    table = {n: f"{name}.{home}" if home else name for n, home in package(room)._HOMES.items()}
    assert typed_imports(room) == table


def test_learning_has_few_names_and_one_import_depth():
    assert len(trimtab.learners.__all__) <= 30
    assert all(n in trimtab.learners.__all__ for n in ("fit_probe", "train_policy", "fit_router", "west_of_n"))


def test_no_torch_before_it_is_needed():
    rooms = [r for r in ROOMS if r]
    jobs = "from trimtab.jobs import main_job, pool, routing"  # verbs refuse what is wrong before torch is imported
    code = f"import sys, trimtab; [getattr(trimtab, r) for r in {rooms}]; {jobs}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_type_checker_sees_no_any(tmp_path):
    """What pyright reveals of every public name, as a project that installed trimtab sees it."""
    lines = ["import trimtab"]
    for room in ROOMS:
        lines += [f"reveal_type(trimtab.{room + '.' if room else ''}{n})" for n in package(room).__all__]
    (tmp_path / "user.py").write_text("\n".join(lines))
    pyright = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "user.py"]
    said = json.loads(subprocess.run(pyright, cwd=tmp_path, capture_output=True, text=True, check=False).stdout)
    revealed = [d["message"] for d in said["generalDiagnostics"] if d["severity"] == "information"]
    assert [d["message"] for d in said["generalDiagnostics"] if d["severity"] == "error"] == []
    assert len(revealed) == len(lines) - 1
    unknown = [m for m in revealed if re.search(r'is "(Any|Unknown)"|-> (Any|Unknown)"', m)]
    assert unknown == []
