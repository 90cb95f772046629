"""`trimtab score`: completions to rewards."""

from trimtab.cli.options import Config, Json, Out, Reward, Sets, Where, emit, one_source


def score(
    where: Where = None,
    config: Config = None,
    reward: Reward = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Score every stored completion; what could not be scored is NaN with a note, and counted."""
    from trimtab.cli import stages
    from trimtab.cli.config import load_task
    from trimtab.cli.prompts import reward_of, run_store
    from trimtab.jobs import checks

    task = load_task(one_source(where, config), {"out": out, "reward.name": reward}, sets or ())
    checks.columns(reward_of(task)[1], run_store(task).prompts())
    facts = stages.score(task)
    emit(facts, stages.facts_text("scored", facts), json)
