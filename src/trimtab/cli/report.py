"""`trimtab report`: the table, the curves and every group in one offline HTML file."""

from trimtab.cli.options import Config, Json, Losses, Out, Reward, Sets, Where, emit, one_source


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
    from trimtab.cli import stages
    from trimtab.cli.config import load_task
    from trimtab.jobs import checks

    checks.need("plotly")
    flags = {"out": out, "probe.losses": loss or None, "reward.name": reward}
    path = stages.report(load_task(one_source(where, config), flags, sets or ()), strict=bool(loss))
    emit({"report": str(path)}, f"wrote {path}", json)
