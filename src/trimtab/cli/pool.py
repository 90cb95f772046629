"""`trimtab pool`: prompts and models to a response matrix.

    trimtab pool pool.toml          or: trimtab pool --prompts a.jsonl --model small --model big --reward math_answer

A pool file (TOML):

    out = "runs/pool"
    prompts = ["sums.jsonl", "code.jsonl"]      # relative to the file; each prompt's tag is its `tags` column,
    n = 1                                       # or else the name of its file without the ending
    temperature = 0.0
    max_tokens = 256
    [[models]]
    name = "smollm2-135m"
    [[models]]
    name = "gpt-oss"
    engine = "openai"
    base_url = "http://localhost:8000/v1"
    price_million = 0.6
    [[rewards]]
    name = "math_answer"
    [[rewards]]
    tag = "code"                                # for the prompts of code.jsonl; the one without a tag is for the rest
    name = "unit_tests"
"""

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import Config, Device, Json, emit, one_source


def pool(
    file: Annotated[
        str | None, typer.Argument(metavar="[POOL]", help="Pool file (TOML); flags lie over it. Or --config.")
    ] = None,
    config: Config = None,
    prompts: Annotated[list[str] | None, typer.Option("--prompts", help="JSONL or Parquet. Repeatable.")] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="Name or folder, hf:NAME, or your own sampler as package.module:name. Repeatable."
        ),
    ] = None,
    reward: Annotated[str | None, typer.Option("--reward", help="Built-in reward or package.module:function.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest completion, in tokens.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Prompts a model at once; 1 measures latency, 0 is fastest.")
    ] = None,
    device: Device = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Run directory (the store and matrix.parquet).")
    ] = None,
    json: Json = False,
) -> None:
    """Let every model of a pool answer every prompt, score all, write the response matrix. Run again to continue."""
    from trimtab.cli.config import read_sections
    from trimtab.cli.sections import PoolTask
    from trimtab.errors import InputError
    from trimtab.jobs import make
    from trimtab.jobs import pool as jobs

    flags = {
        "prompts": prompts, "models": [make.named(m) for m in models] if models else None, "out": out, "batch": batch,
        "rewards": [{"name": reward}] if reward else None, "max_tokens": max_tokens,
    }  # fmt: skip
    config = one_source(file, config)
    task = read_sections(PoolTask, config, flags)
    if not (task.prompts and task.models and task.rewards):
        raise InputError(
            "a pool needs prompts, models and rewards: give a pool file, or --prompts, --model and --reward"
        )
    base = Path(config).parent if config and not prompts else Path()
    how = dict(vars(task))
    members, rewards, files = how.pop("models"), how.pop("rewards"), how.pop("prompts")
    if len({m.key for m in members}) < len(members):
        raise InputError("two models of the pool have the same name; tell them apart with `alias`")
    if len({r.tag for r in rewards}) < len(rewards):
        raise InputError("two rewards are for the same tag; keep one")
    found = jobs.collect(
        [base / p for p in files], {m.key: m.sampler(device or "") for m in members},
        {r.tag: make.reward(r.name, **r.options) for r in rewards}, prices={m.key: m.price() for m in members}, **how,
    )  # fmt: skip
    emit(found.plain(), str(found), json)
