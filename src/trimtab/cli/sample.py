"""`trimtab sample`: prompts to completions."""

from typing import Annotated

import typer

from trimtab.cli.options import Config, Engine, Json, ModelName, Out, Prompts, Sets, emit


def sample(
    config: Config = None,
    prompts: Prompts = None,
    model: ModelName = None,
    engine: Engine = None,
    n: Annotated[int | None, typer.Option(help="Completions a prompt, for training and test prompts alike.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest completion, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Sample n completions for every prompt into the store, and one greedy completion for every test prompt."""
    from trimtab.cli import stages
    from trimtab.cli.config import load_task

    flags = {
        "out": out, "data.prompts": prompts, "model.name": model, "model.engine": engine, "sample.train_n": n,
        "sample.test_n": n, "sample.temperature": temperature, "sample.max_tokens": max_tokens, "sample.seed": seed,
    }  # fmt: skip
    facts = stages.sample(load_task(config, flags, sets or ()))
    emit(facts, stages.facts_text("sampled", facts), json)
