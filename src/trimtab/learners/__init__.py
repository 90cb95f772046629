"""REWARDS to an object that gives value to tokens, features, completions or models."""

import importlib
from typing import Any

_NAMES = {
    "LinearFit": "completion.linear",
    "PROBE_LOSSES": "completion.probe_losses",
    "Probe": "completion.probe",
    "fit_linear": "completion.linear",
    "fit_probe": "completion.probe",
    "fit_probe_pairs": "completion.probe",
    "select_probe": "completion.probe",
}

__all__ = [*_NAMES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Names load on first use: `import trimtab.learners` imports no torch."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"trimtab.learners.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'trimtab.learners' has no attribute {name!r}")
