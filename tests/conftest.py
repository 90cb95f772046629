"""For all tests: Hypothesis has no deadline, for a busy machine makes a test slow and not wrong; a soak tries more.

Files that run a language model, also a tiny one, are marked `torch`; `make quick` leaves them out.
"""

import os
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = 2000 if os.environ.get("TRIMTAB_SOAK") else 100
settings.register_profile("trimtab", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trimtab")

RUNS_A_MODEL = re.compile(r"tiny_lm|^ *(import torch|from torch)\b", re.MULTILINE)


@cache
def runs_a_model(file: Path) -> bool:
    """Whether a file of tests builds or runs a language model, by its text: importing it would load torch."""
    return RUNS_A_MODEL.search(file.read_text(encoding="utf-8")) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if runs_a_model(item.path):
            item.add_marker("torch")
