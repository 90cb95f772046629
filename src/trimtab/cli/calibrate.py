"""`trimtab calibrate`: what a run has fitted, to chances that what it selects is right."""

from typing import Annotated

import typer

from trimtab.cli.options import Config, Json, Out, Reward, Sets, Where, emit, one_source


def calibrate(
    where: Where = None,
    config: Config = None,
    by: Annotated[str, typer.Option("--by", help="probe (the best), probe:LOSS, or reranker.")] = "probe",
    split: Annotated[str, typer.Option("--split", help="Which completions; test, or the only ones, if absent.")] = "",
    reward: Reward = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Calibrate a fitted probe or reranker: P(right) of the answer that it selects, given how many were seen."""
    from trimtab.cli import task as of
    from trimtab.cli.config import load_task
    from trimtab.jobs import calibration, main_job

    task = load_task(one_source(where, config), {"out": out, "reward.name": reward}, sets or ())
    facts = calibration.calibrated(
        task.out, **of.rewarded(task), by=by, split=split, extract=task.eval.extract, folds=task.probe.folds,
        seed=task.probe.seed,
    )  # fmt: skip
    emit(facts, main_job.told("calibrated ", facts), json)
