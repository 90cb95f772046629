"""The corpus of tests/hostile on both ways of isolation: nothing earns a reward, nothing leaves a trace."""

# ruff: noqa: E501  (programs read better whole)

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from trimtab.sandbox import Job, Limits, Sandbox, escape

CORPUS = Path(__file__).parents[2] / "hostile"
TESTS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0"
SECRET = "s3cr3t-" + os.urandom(8).hex()
CATEGORIES = {
    "network", "files", "environment", "processes", "signals", "memory", "cpu", "disk", "proc", "ctypes", "ptrace", "symlinks",
    "devices", "forging", "subclasses", "imports", "pickles", "terminal",
}  # fmt: skip


def programs() -> dict[str, str]:
    out = {}
    for file in sorted(CORPUS.glob("*.txt")):
        for section in re.split(r"^### ", file.read_text(), flags=re.M)[1:]:
            head, _, code = section.partition("\n")
            out[f"{file.stem}/{head.split(':')[0]}"] = code
    return out


def test_the_corpus_is_as_large_and_wide_as_promised():
    found = programs()
    assert len(found) >= 60
    assert {name.split("/")[0] for name in found} == CATEGORIES


class Host:
    """The things of the host that programs reach for, and what happened to them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.secret_file = folder / "secret.txt"
        self.secret_file.write_text(SECRET)
        self.trace = folder / "trace"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(self.listener.getsockname())
        self.unix_name = "trimtab-" + os.urandom(6).hex()
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind("\0" + self.unix_name)
        self.unix.listen()
        for s in (self.listener, self.datagrams, self.unix):
            s.setblocking(False)
        self.bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.before = self.visible()

    def visible(self) -> set[str]:
        """What programs might leave in shared places."""
        shared = [tempfile.gettempdir(), "/dev/shm", "/dev/mqueue", "/var/tmp"]
        return {
            f"{d}/{n}"
            for d in shared
            if Path(d).is_dir()
            for n in [q.name for q in Path(d).iterdir()]
            if re.match("left|trace|big|f0|psm_|d{20}|x$", n)
        }

    def fill_in(self, code: str) -> str:
        values = {
            "PORT": self.listener.getsockname()[1], "UNIX": self.unix_name, "SECRET_FILE": self.secret_file, "SECRET": SECRET,
            "PID": self.bystander.pid, "HOME": Path.home(), "TRACE": self.trace,
        }  # fmt: skip
        return re.sub("@([A-Z_]+)@", lambda m: str(values[m[1]]), code)

    def traces(self) -> list[str]:
        out = [f"wrote {p}" for p in self.visible() - self.before]
        out += ["wrote the trace file"] if self.trace.exists() else []
        out += ["changed the secret file"] if self.secret_file.read_text() != SECRET else []
        out += ["hit the bystander"] if self.bystander.poll() is not None else []
        for name, s in (("listener", self.listener), ("abstract socket", self.unix)):
            try:
                s.accept()
                out.append(f"called the {name}")
            except BlockingIOError:
                pass
        try:
            self.datagrams.recv(10)
            out.append("sent a datagram")
        except BlockingIOError:
            pass
        return out

    def close(self) -> None:
        self.bystander.kill()
        self.bystander.wait()
        for s in (self.listener, self.datagrams, self.unix):
            s.close()


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_TEST_SECRET", SECRET)
    h = Host(tmp_path)
    yield h
    h.close()


def descendants() -> set[int]:
    """Pids below this process."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = set(), [os.getpid()]
    while queue:
        for pid in children.get(queue.pop(), []):
            found.add(pid)
            queue.append(pid)
    return found


@pytest.mark.slow
def test_no_hostile_program_earns_a_reward_or_leaves_a_trace(way, host):
    corpus = programs()
    limits = Limits(wall_s=1.5)
    before = descendants()
    with Sandbox(2, limits, way=way) as sandbox:
        jobs = [Job(host.fill_in(code), TESTS) for code in corpus.values()]
        good = Job("def add(a, b):\n    return a + b", TESTS)
        outcomes = list(sandbox.run([*jobs, good]))
    wrong = []
    for name, o in zip(corpus, outcomes, strict=False):
        if o.passed is not False:
            wrong.append(f"{name}: passed={o.passed} {o.note!r}")
        if SECRET in o.stdout + o.stderr:
            wrong.append(f"{name}: printed the secret")
        if o.seconds > limits.wall_s + 6:
            wrong.append(f"{name}: took {o.seconds:.1f} s")
        if len(o.stdout) > limits.output_bytes or len(o.note) > 400:
            wrong.append(f"{name}: {len(o.stdout)} characters of output, {len(o.note)} of note")
        if re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", escape(o.stdout + o.note)):
            wrong.append(f"{name}: output that paints")
    assert wrong == []
    assert outcomes[-1].passed is True, "an honest program after all of them"
    assert host.traces() == []
    time.sleep(0.2)
    assert descendants() - before - {host.bystander.pid} == set(), "no process outlives the sandbox"


def test_nothing_passes_from_one_program_to_the_next(way):
    code = programs()["environment/previous_program"]
    with Sandbox(1, Limits(wall_s=5), way=way) as sandbox:
        assert [o.passed for o in sandbox.run([Job(code, TESTS)] * 3)] == [False] * 3


BITES = (
    "files/secret_file",
    "network/loopback",
    "processes/shell",
    "subclasses/popen_by_subclasses",
    "files/trace_file",
)


def test_the_corpus_bites_where_nothing_isolates(host):
    """Harmless members succeed without isolation, so their failure inside is the sandbox's doing."""
    corpus = programs()
    with Sandbox(1, Limits(wall_s=10, processes=8), unsafe=True) as sandbox:
        outcomes = list(sandbox.run([Job(host.fill_in(corpus[name]), TESTS) for name in BITES]))
    assert [o.passed for o in outcomes] == [True] * len(BITES), outcomes
    assert host.traces() == ["wrote the trace file", "called the listener"]
