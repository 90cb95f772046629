"""Code stays small enough to read: lines of a file and a function, parameters of a function."""

import ast
from collections.abc import Iterator
from pathlib import Path

import trimtab

SRC = Path(trimtab.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
FILE_LINES, FUNCTION_LINES, PARAMETERS = 500, 80, 15


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(SRC)}:{node.name}", node


def is_verb(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command of typer, whose parameters are the flags of the command line."""
    return any(isinstance(d, ast.Call) and getattr(d.func, "attr", "") == "command" for d in node.decorator_list)


def test_no_file_is_too_long():
    lengths = {str(f.relative_to(SRC)): len(f.read_text().splitlines()) for f in FILES}
    assert {f: n for f, n in lengths.items() if n > FILE_LINES} == {}


def test_no_function_is_too_long():
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    assert {f: n for f, n in lengths.items() if n > FUNCTION_LINES} == {}


def test_no_function_has_too_many_parameters():
    given = {
        name: len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        for name, node in functions()
        if not (name.startswith("cli/") and is_verb(node))
    }
    assert {f: n for f, n in given.items() if n > PARAMETERS} == {}
