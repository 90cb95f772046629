"""`trimtab features`: SAEs checked, trained, and used to say what a training changed.

trimtab features check SAE --model smollm2-135m --data pairs.jsonl
trimtab features train texts.jsonl --model smollm2-135m --layer 24 --out runs/sae
trimtab features diff smollm2-135m runs/fpo --sae runs/sae --data pairs.jsonl --out features.html
trimtab features diversity runs/samples --policy runs/fpo --reference smollm2-135m
"""

from typing import Annotated

import typer

from trimtab.cli.options import Chat, Device, Dtype, Json, LanguageModel, Layer, Limit, Seed, Split, Texts, emit

features = typer.Typer(
    help="Sparse autoencoders and drift: check, train, and see what changed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@features.command()
def check(
    sae: Annotated[str, typer.Argument(help="SAE folder or file (SAELens, Gemma Scope, sparsify).")],
    model: LanguageModel,
    data: Texts,
    layer: Layer = None,
    max_fvu: Annotated[float, typer.Option("--max-fvu", help="More variance unexplained than this is refused.")] = 0.5,
    limit: Limit = 200,
    split: Split = "",
    chat: Chat = False,
    dtype: Dtype = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Measure an SAE on your texts at its layer and at every other; exit 1 when it must not be used."""
    from trimtab.jobs import features as job
    from trimtab.jobs.inputs import Source

    source = Source(data, split, chat=chat)
    found = job.check(sae, source, model=model, layer=layer, max_fvu=max_fvu, limit=limit, dtype=dtype, device=device)
    emit(found.plain(), str(found), json)
    if found.problems:
        raise typer.Exit(1)


@features.command()
def train(
    data: Annotated[str, typer.Argument(help="Pairs, rows with `text`, a .txt of lines, or a run directory.")],
    model: LanguageModel,
    layer: Annotated[int, typer.Option("--layer", help="L = output of block L, before the final norm.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the SAE (SAELens's layout).")],
    width: Annotated[int | None, typer.Option("--width", help="Features; 4 times the hidden size by default.")] = None,
    k: Annotated[int, typer.Option("--k", help="Active features a token (TopK).")] = 32,
    samples: Annotated[int | None, typer.Option("--samples", help="States trained on, repeats included.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="States an optimiser step.")] = 1024,
    learning_rate: Annotated[float, typer.Option("--lr")] = 5e-4,
    seed: Seed = 0,
    split: Split = "",
    chat: Chat = False,
    dtype: Dtype = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Train a TopK SAE on a layer's hidden states (needs sae-lens), and check it on texts held out."""
    from trimtab.jobs import features as job
    from trimtab.jobs.inputs import Source

    done = job.train(
        Source(data, split, chat=chat), model=model, layer=layer, out=out, width=width, k=k, samples=samples,
        batch_size=batch_size, learning_rate=learning_rate, seed=seed, dtype=dtype, device=device,
    )  # fmt: skip
    text = f"trained {out} on {done.card['states']:,} states; held-out texts:\n{done.check}"
    emit({"out": out, **done.card}, text, json)


@features.command()
def diff(
    a: Annotated[str, typer.Argument(help="Model name, folder, or what `trimtab train` wrote.")],
    b: Annotated[str, typer.Argument(help="The same, compared with A.")],
    sae: Annotated[str, typer.Option("--sae", help="SAE folder or file (SAELens, Gemma Scope, sparsify).")],
    data: Texts,
    out: Annotated[str, typer.Option("--out", "-o", help="Write this HTML page, too.")] = "",
    layer: Layer = None,
    top: Annotated[int, typer.Option("--top", help="So many features.")] = 20,
    limit: Limit = 200,
    split: Split = "",
    chat: Chat = False,
    dtype: Dtype = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Show the SAE features whose mean activation moved most from A to B on the same texts."""
    from trimtab.jobs import features as job
    from trimtab.jobs.inputs import Source

    found = job.diff(
        a, b, Source(data, split, chat=chat), sae=sae, out=out, layer=layer, top=top, limit=limit, dtype=dtype,
        device=device,
    )  # fmt: skip
    emit({**found.plain(), **({"out": out} if out else {})}, f"{found}\n{f'wrote {out}' if out else ''}".strip(), json)


@features.command()
def diversity(
    run: Annotated[str, typer.Argument(help="Run directory whose completions are a policy's own samples.")],
    split: Annotated[str, typer.Option("--split", help="Which completions; test if it has them.")] = "",
    policy: Annotated[str, typer.Option("--policy", help="Who sampled them: adds the next token's entropy.")] = "",
    reference: Annotated[str, typer.Option("--reference", help="Adds KL(policy || reference).")] = "",
    top: Annotated[int, typer.Option("--top", help="Entropy of so many likeliest tokens; 0 = all.")] = 0,
    dtype: Dtype = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Say how various a policy's samples are, and how far it is from its reference; means with 95 % intervals."""
    from trimtab.jobs import features as job
    from trimtab.jobs.inputs import Source

    prompts, known = job.diversity(
        Source(run, split), policy=policy, reference=reference, top=top, dtype=dtype, device=device
    )
    text = "\n".join([f"{prompts} prompts", *(f"{k:<12}{v}" for k, v in known.items())])
    emit({"prompts": prompts, **{k: v._asdict() for k, v in known.items()}}, text, json)
