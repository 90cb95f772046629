"""Writes the generated pages: the annotated tree in README.md, the CLI reference, the benchmarks' index. `make docs`.

The tree is made of the modules' own first lines, so it cannot drift; tests fail when either part is stale.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "trimtab"
ROOMS = [
    "types",
    "endpoints",
    "lm",
    "sandbox",
    "data",
    "samplers",
    "embeddings",
    "rewards",
    "learners",
    "decoders",
    "evaluation",
    "jobs",
    "cli",
    "server",
]


def tree() -> str:
    """The annotated tree of src/trimtab: rooms in the order of the data flow, one line a file."""
    lines = ["src/trimtab/"]
    lines += [_line(f, 1) for f in sorted(SRC.glob("*.py")) if f.name != "__init__.py"]
    for room in ROOMS:
        lines += _folder(SRC / room, 1)
    return "\n".join(lines)


def rooms() -> str:
    """The folders of src/trimtab alone, one line each."""
    return "\n".join(["src/trimtab/", *(_line(SRC / r / "__init__.py", 1, f"{r}/") for r in ROOMS)])


def _folder(folder: Path, depth: int) -> Iterator[str]:
    yield _line(folder / "__init__.py", depth, f"{folder.name}/")
    for path in sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            yield from _folder(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield _line(path, depth + 1)


def _line(path: Path, depth: int, name: str = "") -> str:
    doc = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].rstrip(".")
    return f"{'  ' * depth + (name or path.name):<28} {doc}"


def _with_tree(page: str, lines: str) -> str:
    return re.sub(r"(<!-- tree -->\n```text\n).*?(```)", lambda m: f"{m[1]}{lines}\n{m[2]}", page, flags=re.DOTALL)


def readme() -> str:
    """README.md with today's folders."""
    return _with_tree((ROOT / "README.md").read_text(), rooms())


def design() -> str:
    """docs/design.md with today's files."""
    return _with_tree((ROOT / "docs" / "design.md").read_text(), tree())


EXITS = """Exit codes: 0 done, 1 an error of yours or ours (one line says what to do), 2 a wrong flag or argument, 130
interrupted, 143 terminated, 141 the reader of the output went away. What was finished before is stored, and the same
command continues. Under `--json` a verb that fails prints `{"error": ..., "kind": ...}`. What others wrote (notes,
names, folders) is shown with its control characters escaped as `\\uXXXX`.
"""


def cli() -> str:
    """docs/reference/cli.md: the help of every verb."""
    os.environ["COLUMNS"] = "100"
    import typer.main

    from trimtab.cli.app import app

    parts = ["# Command line\n\nWhat `trimtab VERB --help` prints; `make docs` refreshes this page.\n", EXITS]

    def walk(command, path: list[str], parent=None) -> None:
        context = command.make_context(path[-1], [], parent=parent, resilient_parsing=True)
        parts.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context).strip()}\n```\n")
        for name, child in getattr(command, "commands", {}).items():
            walk(child, [*path, name], context)

    walk(typer.main.get_command(app), ["trimtab"])
    return "\n".join(re.sub(r"[ \t]+$", "", p, flags=re.MULTILINE) for p in parts)


def benchmarks() -> str:
    """benchmarks/README.md: every benchmark with its figures, floors and peers."""
    sys.path.insert(0, str(ROOT))
    from benchmarks import index

    return index.page()


GENERATED = {
    ROOT / "README.md": readme,
    ROOT / "docs" / "design.md": design,
    ROOT / "docs" / "reference" / "cli.md": cli,
    ROOT / "benchmarks" / "README.md": benchmarks,
}

if __name__ == "__main__":
    for path, make in GENERATED.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(make())
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
