"""`trimtab sample`: prompts to completions."""

from typing import Annotated

import typer

from trimtab.cli.options import Config, Device, Engine, Json, ModelName, Out, Prompts, Sets, Where, emit, one_source


def sample(
    where: Where = None,
    config: Config = None,
    prompts: Prompts = None,
    model: ModelName = None,
    engine: Engine = None,
    n: Annotated[int | None, typer.Option(help="Completions a prompt, for training and test prompts alike.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest completion, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    device: Device = None,
    check_gold: Annotated[
        bool,
        typer.Option("--check-gold", help="First run the prompts' own solutions; report those that fail, sample none."),
    ] = False,
    out: Out = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Sample n completions for every prompt into the store, and one greedy completion for every test prompt."""
    from trimtab.cli import task as of
    from trimtab.cli.config import load_task
    from trimtab.cli.plan import plan
    from trimtab.jobs import main_job

    flags = {
        "out": out, "data.prompts": prompts, "model.name": model, "model.engine": engine, "sample.train_n": n,
        "sample.test_n": n, "sample.temperature": temperature, "sample.max_tokens": max_tokens, "sample.seed": seed,
        "model.device": device,
    }  # fmt: skip
    task = load_task(one_source(where, config), flags, sets or ())
    if check_gold:
        facts = main_job.check_gold(of.opened(task))
        lines = [f"{name}: {note}" for name, note in facts["failed"].items()]
        lines.append("{with_gold} of {prompts} prompts have a solution of their own; ".format(**facts))
        emit(facts, "\n".join(lines) + f"{len(facts['failed'])} of these fail", json)
        raise typer.Exit(1 if facts["failed"] else 0)
    plan(task, ("sample",))
    facts = main_job.sample(of.opened(task), of.sampler(task), **vars(task.sample))
    emit(facts, main_job.told("sampled", facts), json)
