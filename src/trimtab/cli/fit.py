"""`trimtab fit`: stored rewards and vectors to a learned object."""

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
    from trimtab.cli import stages
    from trimtab.cli.config import load_task
    from trimtab.cli.plan import plan

    flags = {"out": out, "probe.losses": loss or None, "reward.name": reward}
    task = load_task(one_source(where, config), flags, sets or ())
    plan(task, ("fit",))
    facts = stages.fit(task)
    emit(facts, stages.facts_text("fitted", facts), json)


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
    from trimtab.cli import reranker, stages
    from trimtab.cli.config import load_task

    task = load_task(one_source(where, config), {"out": out, "reward.name": reward}, sets or ())
    groups, store = stages.scored_groups(task, "train")
    facts = reranker.fit(
        store, groups, stages.answer_of(task, groups), states=states, folds=task.probe.folds, seed=task.probe.seed
    )
    emit(facts, stages.facts_text("fitted", facts), json)
