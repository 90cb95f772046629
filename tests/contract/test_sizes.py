"""Code stays small enough to read: lines of a file and a function, parameters of a function."""

import ast
from collections.abc import Iterator
from pathlib import Path

import typer

import trimtab
from trimtab.cli.app import app

SRC = Path(trimtab.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
FILE_LINES, FUNCTION_LINES, PARAMETERS = 500, 80, 15


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(SRC)}:{node.name}", node


def verbs(group: typer.Typer) -> Iterator[str]:
    """The functions that are commands of typer: their parameters are the flags of the command line."""
    yield from (c.callback.__name__ for c in group.registered_commands if c.callback)
    for inner in group.registered_groups:
        if inner.typer_instance:
            yield from verbs(inner.typer_instance)


def test_no_file_is_too_long():
    lengths = {str(f.relative_to(SRC)): len(f.read_text().splitlines()) for f in FILES}
    assert {f: n for f, n in lengths.items() if n > FILE_LINES} == {}


def test_no_function_is_too_long():
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    assert {f: n for f, n in lengths.items() if n > FUNCTION_LINES} == {}


def test_no_function_has_too_many_parameters():
    excepted = set(verbs(app))
    given = {
        name: len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        for name, node in functions()
        if not (name.startswith("cli/") and node.name in excepted)
    }
    assert {f: n for f, n in given.items() if n > PARAMETERS} == {}
