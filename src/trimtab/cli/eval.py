"""`trimtab eval` and `trimtab report`: what every strategy buys, in one table, and as one offline page."""

from typing import TYPE_CHECKING

from trimtab.cli.options import Config, Json, Losses, Out, Reward, Sets, Where, emit, one_source

if TYPE_CHECKING:
    from trimtab.cli.task import Task
    from trimtab.jobs.main_job import Evaluated


def eval(
    where: Where = None,
    config: Config = None,
    loss: Losses = None,
    reward: Reward = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Compare every strategy on the test prompts, with intervals, beside its nulls."""
    table = _evaluated(where, config, loss, reward, out, sets)[1].table
    emit(table.to_json(), str(table), json)


def report(
    where: Where = None,
    config: Config = None,
    loss: Losses = None,
    reward: Reward = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Write report.html into the run directory."""
    from trimtab.cli import task as of
    from trimtab.jobs import checks, main_job

    checks.need("plotly")
    task, found = _evaluated(where, config, loss, reward, out, sets)
    path = main_job.report(found, keys=of.keys(task))
    emit({"report": str(path)}, f"wrote {path}", json)


def _evaluated(
    where: Where, config: Config, loss: Losses, reward: Reward, out: Out, sets: Sets
) -> "tuple[Task, Evaluated]":
    """The task, and what `main_job.evaluate` finds of it."""
    from trimtab.cli import task as of
    from trimtab.cli.config import load_task
    from trimtab.jobs import main_job

    flags = {"out": out, "probe.losses": loss or None, "reward.name": reward}
    task = load_task(one_source(where, config), flags, sets or ())
    return task, main_job.evaluate(
        task.out, **of.rewarded(task), losses=task.probe.losses, strict=bool(loss), **vars(task.eval)
    )
