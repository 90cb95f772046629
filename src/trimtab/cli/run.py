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
    from trimtab.cli import task as of
    from trimtab.cli.config import load_task
    from trimtab.cli.plan import plan as planned
    from trimtab.jobs import main_job

    t = load_task(task, {"out": out, "model.device": device}, sets or ())
    facts = planned(t)
    if plan:
        emit(facts, main_job.told("planned", facts), json)
        return
    table = main_job.run(
        out=of.opened(t), model=of.sampler(t), embedder=of.embedder(t) if t.probe.losses else "", **of.rewarded(t),
        sampling=vars(t.sample), scoring={"workers": t.reward.workers, "timeout_s": t.reward.timeout_s},
        fitting=vars(t.probe), comparing=vars(t.eval), say=progress(json),
    )  # fmt: skip
    if json:
        emit(table.to_json(), "", json)
