"""Which ways of isolation this machine can test."""

import shutil

import pytest

WAYS = ["syscalls", "bubblewrap"]


@pytest.fixture(scope="session", params=WAYS)
def way(request) -> str:
    """Each way of isolation; skipped where the machine does not have it."""
    from trimtab.errors import EngineError
    from trimtab.sandbox import Sandbox

    if request.param == "bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    try:
        Sandbox(1, way=request.param).close()
    except EngineError as e:
        pytest.skip(f"no isolation by {request.param} here: {e}")
    return request.param
