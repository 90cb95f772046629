"""`trimtab run task.toml`: the whole job, sample to report, resuming what is there."""

from typing import Annotated

import typer

from trimtab.cli.options import Json, Out, Sets, emit, progress


def run(
    task: Annotated[str, typer.Argument(help="Task file (TOML).")],
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Sample, score, embed, fit, evaluate and report, from one task file. Run it again to resume."""
    from trimtab.cli import stages
    from trimtab.cli.config import load_task

    table = stages.run_all(load_task(task, {"out": out}, sets or ()), say=progress(json))
    if json:
        emit(table.to_json(), "", json)
