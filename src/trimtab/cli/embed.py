"""`trimtab embed`: completions to vectors."""

from trimtab.cli.options import Config, Json, Layers, ModelName, Out, Sets, emit


def embed(
    config: Config = None,
    model: ModelName = None,
    layer: Layers = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Store the hidden states of every completion at the chosen layers (or an encoder's vectors)."""
    from trimtab.cli import stages
    from trimtab.cli.config import load_task

    flags = {"out": out, "embed.model": model, "embed.layers": layer or None}
    facts = stages.embed(load_task(config, flags, sets or ()))
    emit(facts, stages.facts_text("embedded", facts), json)
