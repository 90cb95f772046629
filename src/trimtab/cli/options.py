"""The options that the verbs share, and how a verb prints its result."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

Config = Annotated[str | None, typer.Option("--config", "-c", help="Task file (TOML); flags lie over it.")]
Out = Annotated[str | None, typer.Option("--out", "-o", help="Run directory (the store).")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Any key of the task file: --set embed.layers=[16,20]. Repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line, for machines.")]
Prompts = Annotated[str | None, typer.Option("--prompts", help="JSONL or Parquet file with a `prompt` column.")]
ModelName = Annotated[str | None, typer.Option("--model", help="Model name, folder or hub id (see `trimtab models`).")]
Engine = Annotated[str | None, typer.Option("--engine", help="openvino, hf, openai or package.module:name.")]
Reward = Annotated[str | None, typer.Option("--reward", help="Built-in reward or package.module:function.")]
Layers = Annotated[list[int] | None, typer.Option("--layer", help="Layer to read; repeatable. L = output of block L.")]
Losses = Annotated[list[str] | None, typer.Option("--loss", help="Probe loss: mse, ce, pg. Repeatable.")]


def emit(result: dict[str, Any] | str, text: str, as_json: bool) -> None:
    """Prints `text` for people, or `result` (JSON text or a dict) as one JSON line for machines."""
    import json

    from trimtab.types import canonical_json

    value = json.loads(result if isinstance(result, str) else canonical_json(result))
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)


def progress(as_json: bool) -> Callable[[str], None]:
    """Where a long verb says what it has done: standard output for people, standard error beside `--json`."""
    return lambda line: typer.echo(line, err=as_json)
