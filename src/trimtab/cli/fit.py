"""`trimtab fit`: what the store holds, or a response matrix, to a learned object."""

from typing import Annotated

import typer

from trimtab.cli.options import Config, Json, Losses, Out, Reward, Sets, Where, emit, one_source

fit = typer.Typer(help="Fit a learned object from what the store holds.", no_args_is_help=True, rich_markup_mode=None)


@fit.command()
def probe(
    where: Where = None,
    config: Config = None,
    loss: Losses = None,
    reward: Reward = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Fit a Q-probe for each loss; layer and L2 are chosen by cross-validation over the training prompts."""
    from trimtab.cli import task as of
    from trimtab.cli.config import load_task
    from trimtab.cli.plan import plan
    from trimtab.jobs import main_job

    flags = {"out": out, "probe.losses": loss or None, "reward.name": reward}
    task = load_task(one_source(where, config), flags, sets or ())
    plan(task, ("fit",))
    facts = main_job.fit(of.sampled(task), **of.rewarded(task), keys=of.keys(task), **vars(task.probe))
    emit(facts, main_job.told("fitted", facts), json)


@fit.command()
def reranker(
    where: Where = None,
    config: Config = None,
    states: Annotated[bool, typer.Option(help="Also read the stored vectors; without, cues alone.")] = True,
    reward: Reward = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Fit a reranker: log-prob, length, agreement and states within a group, its form chosen over training prompts."""
    from trimtab.cli import task as of
    from trimtab.cli.config import load_task
    from trimtab.jobs import main_job

    task = load_task(one_source(where, config), {"out": out, "reward.name": reward}, sets or ())
    facts = main_job.fit_reranker(
        task.out, **of.rewarded(task), extract=task.eval.extract, states=states, folds=task.probe.folds,
        seed=task.probe.seed,
    )  # fmt: skip
    emit(facts, main_job.told("fitted", facts), json)
