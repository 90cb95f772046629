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
    from trimtab.cli import task as of
    from trimtab.cli.config import load_task
    from trimtab.jobs import checks, main_job, make, prompts

    task = load_task(one_source(where, config), {"out": out, "reward.name": reward}, sets or ())
    r, store = task.reward, prompts.sampled(task.out)
    main_job.reward_name(**of.rewarded(task))
    checks.columns(make.reward(r.name, **r.options), store.prompts())
    facts = main_job.score(of.sampled(task), **of.rewarded(task), workers=r.workers, timeout_s=r.timeout_s)
    emit(facts, main_job.told("scored", facts), json)
