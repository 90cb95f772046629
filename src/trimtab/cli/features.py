"""`trimtab features`: SAEs checked, trained, and used to say what a training changed.

trimtab features check SAE --model smollm2-135m --data pairs.jsonl
trimtab features train texts.jsonl --model smollm2-135m --layer 24 --out runs/sae
trimtab features diff smollm2-135m runs/fpo --sae runs/sae --data pairs.jsonl --out features.html
trimtab features diversity runs/samples --policy runs/fpo --reference smollm2-135m
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from trimtab.cli.options import Chat, Device, Dtype, Json, emit
from trimtab.cli.pairs import Split, completions, load_texts, open_run
from trimtab.jobs import checks

features = typer.Typer(
    help="Sparse autoencoders and drift: check, train, and see what changed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[str, typer.Option("--data", help="Pairs, rows with `text`, a .txt of lines, or a run directory.")]
Layer = Annotated[int | None, typer.Option("--layer", help="L = output of block L, before the final norm.")]
Model = Annotated[str, typer.Option("--model", help="Model name or folder (see `trimtab models`).")]
Limit = Annotated[int, typer.Option("--limit", help="The first so many rows.")]


@features.command()
def check(
    sae: Annotated[str, typer.Argument(help="SAE folder or file (SAELens, Gemma Scope, sparsify).")],
    model: Model,
    data: Data,
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
    from trimtab.learners.feature.check import check_sae
    from trimtab.learners.feature.sae import load_sae
    from trimtab.lm.load import load_lm

    rows = load_texts(data, split, chat)[:limit]
    found = check_sae(load_sae(sae), load_lm(model, dtype, device), rows, layer=layer, max_fvu=max_fvu)
    emit(found.plain(), str(found), json)
    if found.problems:
        raise typer.Exit(1)


@features.command()
def train(
    data: Annotated[str, typer.Argument(help="Pairs, rows with `text`, a .txt of lines, or a run directory.")],
    model: Model,
    layer: Annotated[int, typer.Option("--layer", help="L = output of block L, before the final norm.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the SAE (SAELens's layout).")],
    width: Annotated[int | None, typer.Option("--width", help="Features; 4 times the hidden size by default.")] = None,
    k: Annotated[int, typer.Option("--k", help="Active features a token (TopK).")] = 32,
    samples: Annotated[int | None, typer.Option("--samples", help="States trained on, repeats included.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="States an optimiser step.")] = 1024,
    learning_rate: Annotated[float, typer.Option("--lr")] = 5e-4,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    split: Split = "",
    chat: Chat = False,
    dtype: Dtype = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Train a TopK SAE on a layer's hidden states (needs sae-lens), and check it on texts held out."""
    checks.need("sae_lens")
    checks.writable(out)
    checks.device_and_dtype(device, dtype)
    from trimtab.learners.feature.train import check_of, read_card, train_sae
    from trimtab.lm.load import load_lm

    train_sae(
        load_texts(data, split, chat), load_lm(model, dtype, device), layer=layer, out=out, width=width, k=k,
        samples=samples, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
    )  # fmt: skip
    card = read_card(out)
    found = check_of(out)
    emit({"out": out, **card}, f"trained {out} on {card['states']:,} states; held-out texts:\n{found}", json)


@features.command()
def diff(
    a: Annotated[str, typer.Argument(help="Model name, folder, or what `trimtab train` wrote.")],
    b: Annotated[str, typer.Argument(help="The same, compared with A.")],
    sae: Annotated[str, typer.Option("--sae", help="SAE folder or file (SAELens, Gemma Scope, sparsify).")],
    data: Data,
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
    from trimtab.evaluation.pages.features import feature_changes, features_html
    from trimtab.learners.feature.sae import load_sae
    from trimtab.publish import publish_text

    checks.device_and_dtype(device, dtype)
    if out:
        checks.writable_file(out)
    rows = load_texts(data, split, chat)[:limit]
    first, second = (_model(name, dtype, device) for name in (a, b))
    found = feature_changes(first, second, load_sae(sae, layer=layer), rows, top=top, names=(a, b))
    if out:
        Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
        publish_text(Path(out), features_html(found))
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
    from trimtab.errors import InputError
    from trimtab.evaluation.diversity import diversity as measure
    from trimtab.evaluation.metrics import mean_interval
    from trimtab.learners.token.policy import Policy

    if reference and not policy:
        raise InputError("--reference needs --policy: KL is between the two")
    store = open_run(run)
    groups = store.groups(completions(store, split, prefer="test"), None)
    ours, theirs = (Policy(_model(n, dtype, device)) if n else None for n in (policy, reference))
    found = {k: mean_interval(v) for k, v in vars(measure(groups, ours, theirs, top=top)).items()}
    known = {k: v for k, v in found.items() if v.n}
    text = "\n".join([f"{len(groups)} prompts", *(f"{k:<12}{v}" for k, v in known.items())])
    emit({"prompts": len(groups), **{k: v._asdict() for k, v in known.items()}}, text, json)


def _model(name: str, dtype: str | None, device: str | None) -> Any:
    from trimtab.lm.load import load_lm

    return load_lm(name, dtype, device)
