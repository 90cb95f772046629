"""`trimtab versus`: two or more models or runs on the same prompts, in one table of paired differences.

trimtab versus smollm2-135m runs/dpo --prompts test.jsonl --reward math_answer --out runs/versus
trimtab versus runs/samples-base runs/samples-dpo        runs that `trimtab sample` and `score` wrote
"""

from typing import Annotated

import typer

from trimtab.cli.options import Device, Json, Reward, emit, progress


def versus(
    names: Annotated[list[str], typer.Argument(help="Models (trained folders, too) or run directories.")],
    prompts: Annotated[str, typer.Option("--prompts", help="File of prompts for the models; else the run's.")] = "",
    reward: Reward = None,
    split: Annotated[str, typer.Option("--split", help="Run directories: which completions.")] = "test",
    engine: Annotated[str, typer.Option("--engine", help="openvino, hf or package.module:name.")] = "hf",
    n: Annotated[int, typer.Option("--n", help="Models: completions a prompt.")] = 4,
    temperature: Annotated[float, typer.Option("--temperature", help="Models: 0 is greedy.")] = 0.8,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Models: longest completion, in tokens.")] = 256,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    device: Device = None,
    raw: Annotated[bool, typer.Option("--raw", help="Models: text prompts without the chat template.")] = False,
    out: Annotated[str, typer.Option("--out", "-o", help="Keeps what the models sample, a run directory each.")] = "",
    json: Json = False,
) -> None:
    """Compare models or runs with the first on the same prompts; mean rewards and paired intervals."""
    from trimtab.jobs import paired

    found, notes = paired.versus(
        names, prompts=prompts, reward=reward or "", split=split, out=out, engine=engine, device=device or "", n=n,
        temperature=temperature, max_tokens=max_tokens, seed=seed, raw=raw, say=progress(True),
    )  # fmt: skip
    emit(
        {**found.plain(rewards=False), "settings": notes}, "\n".join([str(found), *(f"Note: {x}" for x in notes)]), json
    )
