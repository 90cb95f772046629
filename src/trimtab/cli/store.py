"""`trimtab store`: look after a run directory."""

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import Json

store = typer.Typer(help="Look after run directories.", rich_markup_mode=None, no_args_is_help=True)


@store.callback()
def _root() -> None:
    """Keeps `verify` a verb of its own while it is the only one."""


@store.command()
def verify(run: Annotated[Path, typer.Argument(help="Run directory.")], json: Json = False) -> None:
    """Check every file of RUN: checksums, names, ids and joins. Exit code 1 when something is wrong."""
    from trimtab.cli.options import emit
    from trimtab.errors import InputError
    from trimtab.store import MANIFEST, Store
    from trimtab.verify import verify as verify_store

    if not (run / MANIFEST).is_file():
        raise InputError(f"{run} has no {MANIFEST}: give a run directory")
    seen = verify_store(Store(run))
    lines = [*seen.faults, f"{seen.tables} tables, {seen.shards} shards, {seen.rows} rows: "]
    lines[-1] += f"{len(seen.faults)} faults" if seen.faults else "all as it was written"
    if seen.unchecked:
        lines[-1] += f" ({seen.unchecked} shards are older than the checksums and could not be compared)"
    emit(vars(seen), "\n".join(lines), json)
    raise typer.Exit(1 if seen.faults else 0)
