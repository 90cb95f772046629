"""`trimtab embed`: completions to vectors."""

from trimtab.cli.options import Config, Device, Json, Layers, ModelName, Out, Sets, Where, emit, one_source


def embed(
    where: Where = None,
    config: Config = None,
    model: ModelName = None,
    layer: Layers = None,
    device: Device = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Store the hidden states of every completion at the chosen layers (or an encoder's vectors)."""
    from trimtab.cli import task as of
    from trimtab.cli.config import load_task
    from trimtab.cli.plan import plan
    from trimtab.jobs import main_job

    flags = {"out": out, "embed.model": model, "embed.layers": layer or None, "model.device": device}
    task = load_task(one_source(where, config), flags, sets or ())
    plan(task, ("embed",))
    facts = main_job.embed(of.sampled(task), of.embedder(task))
    emit(facts, main_job.told("embedded", facts), json)
