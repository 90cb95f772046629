"""The options that the verbs share, and how a verb prints its result."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

Where = Annotated[
    str | None, typer.Argument(metavar="[TASK|RUN]", help="Task file (TOML) or run directory; or --config, --out.")
]
Config = Annotated[str | None, typer.Option("--config", "-c", help="Task file (TOML); flags lie over it.")]
Out = Annotated[str | None, typer.Option("--out", "-o", help="Run directory (the store).")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Any key of the task file: --set embed.layers=[16,20]. Repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Prompts = Annotated[
    str | None, typer.Option("--prompts", help="Prompts: a file with a `prompt` column, or a named task.")
]
ModelName = Annotated[str | None, typer.Option("--model", help="Model name, folder or hub id (see `trimtab models`).")]
Engine = Annotated[str | None, typer.Option("--engine", help="openvino, hf, openai or package.module:name.")]
Reward = Annotated[str | None, typer.Option("--reward", help="Built-in reward or package.module:function.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; the best there is if absent.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, ...; by the device if absent.")]
Chat = Annotated[bool, typer.Option("--chat", help="Prompts that are text become user messages.")]
Layers = Annotated[list[int] | None, typer.Option("--layer", help="Layer to read; repeatable. L = output of block L.")]
Losses = Annotated[list[str] | None, typer.Option("--loss", help="Probe loss: mse, ce, pg, ... Repeatable.")]


def emit(result: Any, text: str, as_json: bool) -> None:
    """Prints `text` for people, or `result` (JSON text, a mapping or a dataclass) as one JSON line for machines."""
    import json

    from trimtab.types import canonical_json

    value = json.loads(result if isinstance(result, str) else canonical_json(result))
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)


def progress(as_json: bool) -> Callable[[str], None]:
    """Where a long verb says what it has done: standard output for people, standard error beside `--json`."""
    return lambda line: typer.echo(line, err=as_json)


def one_source(where: str | None, config: str | None) -> str | None:
    """The task file or run directory of a verb, named by itself or with --config; both is an InputError."""
    from trimtab.errors import InputError

    if where and config:
        raise InputError(f"{where} and --config {config}: give one of them")
    return where or config


Pairs = Annotated[str, typer.Argument(metavar="PAIRS|RUN", help="Pairs (file or hub data set) or a run directory.")]
RewardName = Annotated[str, typer.Option("--reward", help="Run directory: the reward, if it has several.")]
Split = Annotated[str, typer.Option("--split", help="Run directory: which completions; train if it has them.")]
Make = Annotated[
    str,
    typer.Option("--make", help="Run directory, how pairs are made: best_vs_worst, right_vs_wrong, all_pairs"),
]
Texts = Annotated[str, typer.Option("--data", help="Pairs, rows with `text`, a .txt of lines, or a run directory.")]
LanguageModel = Annotated[str, typer.Option("--model", help="Model name or folder (see `trimtab models`).")]
Layer = Annotated[int | None, typer.Option("--layer", help="L = output of block L, before the final norm.")]
Limit = Annotated[int, typer.Option("--limit", help="The first so many rows.")]
RewardFolder = Annotated[str, typer.Option("--model", help="Reward model: a folder with a head of one label.")]
Rendering = Annotated[str, typer.Option("--rendering", help="tokens or template; from the model's card if absent.")]
Seed = Annotated[int, typer.Option("--seed")]
Epochs = Annotated[float, typer.Option("--epochs")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Pairs an optimiser step.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Prompt and answer together.")]
Overlong = Annotated[str, typer.Option("--overlong", help="refuse or drop what exceeds --max-tokens.")]
