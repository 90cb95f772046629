"""`trimtab eval`: what every strategy buys, in one table."""

from trimtab.cli.options import Config, Json, Losses, Out, Reward, Sets, Where, emit, one_source


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
    from trimtab.cli import stages
    from trimtab.cli.config import load_task

    flags = {"out": out, "probe.losses": loss or None, "reward.name": reward}
    table = stages.evaluate(load_task(one_source(where, config), flags, sets or ()), strict=bool(loss))
    emit(table.to_json(), str(table), json)
