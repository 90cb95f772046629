"""The user's own things by name: "package.module:name" to the object it names.

Looked up among the installed packages, then in the folder of the task file, then in the current folder.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from trimtab.errors import InputError, unknown


def search(folder: str | Path) -> None:
    """Makes the modules of `folder` importable, after everything installed. Worker processes inherit it."""
    if (text := str(Path(folder).resolve())) not in sys.path:
        sys.path.append(text)  # last, so that a file there shadows no installed package


def load_named(spec: str, kind: str) -> Any:
    """The object that "package.module:name" names; `kind` ("reward", "engine") says in errors what it should be.

    InputError when the module or the name is missing, with the nearest name that the module has.
    """
    module_name, _, name = spec.partition(":")
    search(Path.cwd())
    if not (module_name and name):
        raise InputError(f"{kind} {spec!r}: write package.module:name")
    try:
        module = importlib.import_module(module_name)
    except Exception as e:  # whatever the user's module does when it is imported
        why = str(e) if isinstance(e, ImportError) else f"{type(e).__name__}: {e}"
        raise InputError(
            f"{kind} {spec!r} cannot be imported: {why}; write package.module:name, for a file in the current folder, "
            "beside the task file, or in an installed package"
        ) from e
    if name not in vars(module) and not _has(module, name):
        near = unknown("name", name, [n for n in vars(module) if not n.startswith("_")])
        raise InputError(f"{kind} {spec!r} cannot be imported: {module_name} has no {name!r}: {near}")
    return getattr(module, name)


def _has(module: Any, name: str) -> bool:
    """Names that a module makes when they are asked for (its `__getattr__`)."""
    try:
        getattr(module, name)
    except AttributeError:
        return False
    return True
