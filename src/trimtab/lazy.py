"""Public names to the modules they live in, imported on first use: importing a room imports no torch.

Beside every table stand the same imports under TYPE_CHECKING, so that editors and type checkers see the real types;
tests hold the two together.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names live in other modules.

    `homes`: name -> module, relative to `package`; "" is a submodule of that name. AttributeError for other names.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = importlib.import_module(f"{package}.{home or name}")
        return getattr(module, name) if home else module

    return load, lambda: sorted({*vars(sys.modules[package]), *homes})
