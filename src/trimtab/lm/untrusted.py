"""Files that others made, looked at before anything else reads or runs them: GGUF headers and chat templates.

A header may promise 2^60 entries and a template may loop for ever or build a terabyte. Both are bounded here, so that
the libraries that read them afterwards take time and memory in proportion to the file. It loads no model.
"""

import json
import struct
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from trimtab.errors import ModelError

_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""GGUF's value types of fixed size, in bytes; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9
TEMPLATE_S, TEMPLATE_MB = 5, 512


def check_gguf(file: Path) -> None:
    """ModelError unless every count, length and offset of a GGUF header lies inside the file."""
    size = file.stat().st_size
    try:
        with file.open("rb") as f:
            _Header(f.read(min(size, 256 << 20)), size).check()
    except (ValueError, struct.error) as e:
        raise ModelError(f"{file} is not a readable GGUF file ({e})") from e


class _Header:
    """A cursor over the bytes of a GGUF header (version 2 or 3, little endian)."""

    def __init__(self, data: bytes, size: int):
        self.data, self.at, self.size = data, 0, size

    def check(self) -> None:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self.at = 4
        if (version := self.number("<I")) not in (2, 3):
            raise ValueError(f"version {version}; 2 and 3 are read")
        tensors, keys = self.number("<Q"), self.number("<Q")
        self.count(tensors, 24, "tensors")
        self.count(keys, 12, "keys")
        for _ in range(keys):
            self.string()
            self.value(self.number("<I"))
        for _ in range(tensors):
            self.tensor()

    def number(self, form: str) -> int:
        (found,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def count(self, found: int, bytes_each: int, what: str) -> None:
        if found * bytes_each > len(self.data) - self.at:
            raise ValueError(f"{found} {what} do not fit a file of {self.size} bytes")

    def string(self) -> bytes:
        length = self.number("<Q")
        self.count(length, 1, "bytes of text")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, kind: int, depth: int = 0) -> None:
        if kind in _SCALARS:
            self.count(1, _SCALARS[kind], "values")
            self.at += _SCALARS[kind]
        elif kind == _STRING:
            self.string()
        elif kind == _ARRAY and depth < 2:
            inner, found = self.number("<I"), self.number("<Q")
            self.count(found, _SCALARS.get(inner, 8), "values")
            if inner in _SCALARS:
                self.at += found * _SCALARS[inner]
            else:
                for _ in range(found):
                    self.value(inner, depth + 1)
        else:
            raise ValueError(f"a value of the unknown type {kind}")

    def tensor(self) -> None:
        name, axes = self.string(), self.number("<I")
        if axes > 8:
            raise ValueError(f"tensor {name[:60]!r} has {axes} axes")
        elements = 1
        for _ in range(axes):
            elements *= self.number("<Q")
        self.number("<I")
        offset = self.number("<Q")
        if offset > self.size or elements > 16 * self.size:  # at least half a bit an element
            raise ValueError(f"tensor {name[:60]!r} lies outside the file")


def check_template(template: str, name: str) -> None:
    """ModelError when the chat template does not end within TEMPLATE_S seconds and TEMPLATE_MB megabytes.

    It is run once a process on a dialogue of three turns, in a process of its own that can be killed. What else is
    wrong with a template is said when a prompt is rendered with it.
    """
    if fault := _fault(template):
        raise ModelError(f"the chat template of {name} {fault}: it is broken or hostile; use another copy of the model")


@lru_cache(maxsize=64)
def _fault(template: str) -> str:
    command = [sys.executable, "-I", "-c", _RENDER, str(TEMPLATE_S), str(TEMPLATE_MB)]
    try:
        done = subprocess.run(  # noqa: S603 - our own program; the template is its standard input
            command, input=json.dumps(template), capture_output=True, text=True, timeout=TEMPLATE_S * 4, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {TEMPLATE_S} s"
    if done.returncode == 0:
        return ""
    if "MemoryError" in done.stderr:
        return f"needs more than {TEMPLATE_MB} MB"
    return f"did not end within {TEMPLATE_S} s" if done.returncode < 0 else ""


# The environment is transformers' own (sandboxed, no attribute is set); a tag or filter of its that is not known here
# is an error here, and no fault of the template's.
_RENDER = """
import json, resource, sys
seconds, megabytes = int(sys.argv[1]), int(sys.argv[2])
from jinja2.sandbox import ImmutableSandboxedEnvironment
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
text = json.loads(sys.stdin.read())
options = {"trim_blocks": True, "lstrip_blocks": True, "extensions": ["jinja2.ext.loopcontrols"]}
environment = ImmutableSandboxedEnvironment(**options)
environment.filters["tojson"] = lambda x, **_: json.dumps(x)
def refuse(message):
    raise ValueError(message)
environment.globals.update(raise_exception=refuse, strftime_now=lambda form: form)
turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "?"}]
try:
    environment.from_string(text).render(messages=turns, add_generation_prompt=True, bos_token="", eos_token="")
except MemoryError:
    raise
except Exception:
    pass
"""
