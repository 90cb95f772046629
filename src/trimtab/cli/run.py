"""`trimtab run task.toml`: the whole job, sample to report, resuming what is there."""

from typing import Annotated

import typer

from trimtab.cli.options import Device, Json, Out, Sets, emit, progress


def run(
    task: Annotated[str, typer.Argument(help="Task file (TOML), or the directory of a run to continue.")],
    device: Device = None,
    plan: Annotated[bool, typer.Option("--plan", help="Check everything, say what would be done, and stop.")] = False,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Sample, score, embed, fit, evaluate and report, from one task file. Run it again to resume."""
    from trimtab.cli import stages
    from trimtab.cli.config import load_task
    from trimtab.cli.plan import plan as planned

    resolved = load_task(task, {"out": out, "model.device": device}, sets or ())
    facts = planned(resolved)
    if plan:
        emit(facts, stages.facts_text("planned", facts), json)
        return
    table = stages.run_all(resolved, say=progress(json))
    if json:
        emit(table.to_json(), "", json)
