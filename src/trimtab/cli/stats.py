"""`trimtab stats`: result files of any tool compared by prompt id: which systems can be told apart?

trimtab stats a.jsonl b.jsonl --plot ranked.svg
trimtab stats base=logs/a.eval dpo=logs/b.eval --value match      Inspect; also lm-eval's samples_*.jsonl, CSV, runs
"""

from typing import Annotated

import typer

from trimtab.cli.options import Json, Seed, emit


def stats(
    files: Annotated[list[str], typer.Argument(help="Result files or run directories; NAME=FILE gives a name.")],
    value: Annotated[str, typer.Option("--value", help="Column, scorer, metric, reward or row of a table.")] = "",
    id: Annotated[str, typer.Option("--id", help="Column of prompt ids; prompt_id or id if absent.")] = "",
    filter: Annotated[str, typer.Option("--filter", help="lm-eval: whose extracted answers.")] = "",
    split: Annotated[str, typer.Option("--split", help="Run directories: which completions.")] = "test",
    each: Annotated[bool, typer.Option("--each", help="Intervals that hold one by one, not for all pairs.")] = False,
    anytime: Annotated[bool, typer.Option("--anytime", help="Intervals that hold however often you look.")] = False,
    planned: Annotated[int, typer.Option("--planned", help="--anytime: prompts at which they are narrowest.")] = 100,
    plot: Annotated[str, typer.Option("--plot", help="Writes the ranked intervals, an SVG.")] = "",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compare result files (ours, Inspect, lm-eval, CSV, JSONL) by prompt id, with intervals for all pairs at once."""
    from trimtab.errors import InputError
    from trimtab.jobs import stats as job

    if each and anytime:
        raise InputError("give --each or --anytime, not both")
    kind = "each" if each else "anytime" if anytime else "simultaneous"
    found = job.stats(
        files, value=value, id=id, filter=filter, split=split, kind=kind, planned=planned, plot=plot, seed=seed
    )
    emit(found.plain(), str(found), json)
