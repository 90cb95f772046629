"""`trimtab sandbox`: run unread programs against their tests, and see which isolation this machine gives."""

from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.options import Json, emit
from trimtab.errors import EngineError, InputError

app = typer.Typer(
    help="Run untrusted programs against tests, in isolation.", rich_markup_mode=None, no_args_is_help=True
)

Unsafe = Annotated[
    bool, typer.Option("--unsafe-execution", help="Run without isolation: the program can then do all that you can.")
]
EXIT = {True: 0, False: 1, None: 2}


@app.command()
def run(
    program: Annotated[Path, typer.Argument(help="Python file to judge.")],
    tests: Annotated[Path, typer.Option("--tests", help="Python file whose asserts call the program's functions.")],
    timeout: Annotated[float, typer.Option("--timeout", help="Wall-clock seconds.")] = 3.0,
    entry_point: Annotated[str, typer.Option(help="The function under test, if the tests do not tell.")] = "",
    json: Json = False,
    unsafe_execution: Unsafe = False,
) -> None:
    """Judge PROGRAM by TESTS. The last line is {"passed": true|false|null, "note": ...}; null is unscored.

    Exit code 0: passed; 1: not passed; 2: unscored. The program's own output comes before, escaped and bounded.
    """
    from trimtab.sandbox import Job, Limits, Outcome, Sandbox
    from trimtab.sandbox.launch import LOST

    if timeout <= 0:
        raise InputError(f"--timeout {timeout:g}: give seconds above 0")
    aliases = ("solution", "program", program.stem) if program.stem.isidentifier() else ("solution", "program")
    job = Job(_read(program), _read(tests), entry_point, aliases=aliases)
    if unsafe_execution:
        typer.echo(f"--unsafe-execution: {LOST}", err=True)
    try:
        with Sandbox(1, Limits(wall_s=timeout), unsafe=unsafe_execution) as sandbox:
            (outcome,) = sandbox.run([job])
    except EngineError as e:
        outcome = Outcome(None, str(e))
    _show(outcome, json)
    raise typer.Exit(EXIT[outcome.passed])


@app.command()
def check(json: Json = False) -> None:
    """Say which isolation this machine gives, by trying each way. Exit code 1 where there is none."""
    from trimtab.sandbox import Job, Sandbox, launch

    ways: dict[str, str] = {}
    for way in launch.WAYS[:2]:
        if way not in launch.worth_trying():
            ways[way] = "not installed" if way == "bubblewrap" else "not on this system"
            continue
        try:
            with Sandbox(1, way=way) as sandbox:
                (outcome,) = sandbox.run([Job("def f(x):\n    return x + 1", "assert f(1) == 2")])
            ways[way] = "works" if outcome.passed else f"does not work: {outcome.note}"
        except EngineError as e:
            ways[way] = f"does not work: {e}"
    used = next((way for way in launch.worth_trying() if ways[way] == "works"), None)
    lines = [f"{way:<11} {state}" for way, state in ways.items()]
    lines.append(
        f"programs run isolated by {used}" if used else "programs are refused here; see docs/guides/sandbox.md"
    )
    emit({"used": used, "ways": ways, "root": launch.is_real_root()}, "\n".join(lines), json)
    raise typer.Exit(0 if used else 1)


def _show(outcome: Any, as_json: bool) -> None:
    import json

    from trimtab.sandbox import escape

    note = escape(outcome.note, 1000).replace("\n", "\\n")
    verdict = {"passed": outcome.passed, "note": note}
    streams = {"stdout": escape(outcome.stdout), "stderr": escape(outcome.stderr)}
    if as_json:
        verdict |= {**streams, "seconds": round(outcome.seconds, 3)}
    else:
        for name, text in streams.items():
            for line in text.splitlines():
                typer.echo(f"{name} | {line}")
    typer.echo(json.dumps(verdict))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as e:
        raise InputError(f"{path}: {e.strerror}") from e
