"""`trimtab score`: completions to rewards."""

from trimtab.cli.options import Config, Json, Out, Reward, Sets, emit


def score(config: Config = None, reward: Reward = None, out: Out = None, sets: Sets = None, json: Json = False) -> None:
    """Score every stored completion; what could not be scored is NaN with a note, and counted."""
    from trimtab.cli import stages
    from trimtab.cli.config import load_task

    facts = stages.score(load_task(config, {"out": out, "reward.name": reward}, sets or ()))
    emit(facts, stages.facts_text("scored", facts), json)
