"""`trimtab sample`: prompts to completions."""

from typing import Annotated, Any

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
    from trimtab.cli import stages
    from trimtab.cli.config import load_task
    from trimtab.cli.plan import plan

    flags = {
        "out": out, "data.prompts": prompts, "model.name": model, "model.engine": engine, "sample.train_n": n,
        "sample.test_n": n, "sample.temperature": temperature, "sample.max_tokens": max_tokens, "sample.seed": seed,
        "model.device": device,
    }  # fmt: skip
    task = load_task(one_source(where, config), flags, sets or ())
    if check_gold:
        _check_gold(task, json)
        return
    plan(task, ("sample",))
    facts = stages.sample(task)
    emit(facts, stages.facts_text("sampled", facts), json)


def _check_gold(task: Any, json: bool) -> None:
    from trimtab.cli.prompts import open_store
    from trimtab.rewards.unit_tests import GOLD, check_gold

    store = open_store(task)
    prompts = [p for split in ("train", "test") for p in store.prompts(split)]
    having = sum(any(p.columns.get(g) is not None for g in GOLD) for p in prompts)
    failed = dict(check_gold(prompts))
    lines = [f"{name}: {note}" for name, note in failed.items()]
    lines.append(f"{having} of {len(prompts)} prompts have a solution of their own; {len(failed)} of these fail")
    emit({"prompts": len(prompts), "with_gold": having, "failed": failed}, "\n".join(lines), json)
    if failed:
        raise typer.Exit(1)
