"""One run of one benchmark: its settings, the processes it may start, and the result it leaves.

A benchmark is a module with `SETTINGS` (every setting's default; its type is the setting's), `SMALL` (what --small
changes) and `main(run)`; `worker(run, ...)` is what a process of its own does, where sides are measured apart.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import results
from benchmarks.data import Skipped

ROOT = results.ROOT
ALIKE = {"true": True, "1": True, "false": False, "0": False}


class WrongSetting(ValueError):
    """A `name=value` that the benchmark does not have."""


@dataclass
class Run:
    """What a benchmark's `main` is given. `out` is the folder of its result; None: it is only printed."""

    name: str
    settings: SimpleNamespace
    small: bool = False
    given: tuple[str, ...] = ()
    """The words that changed settings, as they were typed."""
    out: Path | None = None
    load: float = 0.0

    @property
    def command(self) -> str:
        """What starts it again; settings that have their default are left out."""
        return " ".join(["python -m benchmarks", self.name, *self.given])

    @property
    def device(self) -> str:
        return getattr(self.settings, "device", "cpu")

    def write(
        self, figures: Mapping[str, Any], rows: Iterable[Mapping[str, Any]] = (), *, name: str = "",
        keep: Sequence[str] = (), **facts: Any,
    ) -> None:  # fmt: skip
        """Keeps the result and prints its figures as the last line, a JSON object.

        `name` is the file's where it is not the benchmark's; `keep`, see results.write; `facts` go beside the settings.
        """
        asked = {**vars(self.settings), **facts, "small": self.small}
        found = results.record(
            name or self.name, self.command, figures, rows, asked, load=self.load, device=self.device
        )
        if self.out:
            results.write(found, self.out, keep)
        about = {k: found[k] for k in ("name", "date", "commit", "machine", "settings")}
        print(json.dumps({**found["figures"], "small": self.small, **about}, ensure_ascii=False), flush=True)

    def worker(self, *what: str, python: str | Path = sys.executable) -> dict[str, Any]:
        """What the module's `worker` finds in a process of its own, with the same settings."""
        command = [str(python), "-m", "benchmarks", self.name, *["--small"] * self.small]
        command += [f"{k}={_text(v)}" for k, v in vars(self.settings).items()]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [*command, "--worker", *what], env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = f"{' '.join(what)} failed with status {done.returncode} (-9: no memory left):\n{done.stderr[-3000:]}"
            raise SystemExit(said)
        return json.loads(done.stdout.splitlines()[-1])

    def need(self, path: str | Path, how: str) -> Path:
        """The path, or Skipped with `how` to make it."""
        if not Path(path).exists():
            raise Skipped(f"{path} is not here: {how}")
        return Path(path)


def settings_of(module: Any, small: bool, words: Iterable[str]) -> SimpleNamespace:
    """A module's settings with what `name=value` words change; WrongSetting for a name or a value it cannot have."""
    known: dict[str, Any] = {**module.SETTINGS, **(module.SMALL if small else {})}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise WrongSetting(f"{word!r}: write name=value; the settings are {', '.join(known) or 'none'}")
        try:
            known[name] = _read(value, module.SETTINGS[name])
        except (ValueError, KeyError) as e:
            raise WrongSetting(f"{word!r}: {name} is {type(module.SETTINGS[name]).__name__}") from e
    return SimpleNamespace(**known)


def _read(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return ALIKE[text.lower()]
    return tuple(text.split()) if isinstance(default, tuple) else type(default)(text)


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
