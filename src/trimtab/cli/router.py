"""`trimtab fit router`, `trimtab router eval` and `trimtab route`: a response matrix to a router and its decisions.

trimtab fit router matrix.jsonl --out runs/router
trimtab router eval matrix.jsonl --router runs/router      (or --seeds 5: fit and test on random splits)
trimtab route "prompt" --router runs/router
"""

from typing import Annotated, Any

import typer

from trimtab.cli.assignments import assignment, numbers
from trimtab.cli.options import Json, emit

router = typer.Typer(
    help="Judge a router among models (`trimtab fit router` fits one).", no_args_is_help=True, rich_markup_mode=None
)

Matrix = Annotated[str, typer.Argument(help="LLMRouter, RouterBench, AlpacaEval, ZeroEval or long-form table.")]
Format = Annotated[str, typer.Option("--format", help="Name of the table's format; found from its columns if absent.")]
Folder = Annotated[str, typer.Option("--router", help="Folder of a fitted router.")]
Method = Annotated[
    str,
    typer.Option(
        "--method", help="tags, zooter, bce, knn, clusters, mf, routerdc; best_single, cheapest, always, random."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A method's setting: beta=0.1, k=50, model=NAME. Repeatable.")
]
Tagger = Annotated[
    str, typer.Option("--tagger", help="Tags for the prompts: clusters:16, keywords:FILE.json or llm:MODEL.")
]
Encode = Annotated[
    str | None,
    typer.Option("--encoder", help="ngrams (default), static, minilm, both, or a sentence encoder's folder."),
]
Pool = Annotated[list[str] | None, typer.Option("--model", help="Only these models of the table. Repeatable.")]
Price = Annotated[list[str] | None, typer.Option("--price", help="model=dollars a call. Repeatable.")]
Exchange = Annotated[float, typer.Option("--exchange", help="Reward that one dollar is worth; 0 ignores prices.")]


@router.callback()
def _root() -> None:
    """Keeps `eval` a verb of its own while it is the only one."""


def fit(
    matrix: Matrix,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the router.")],
    method: Method = "tags",
    encoder_name: Encode = None,
    format: Format = "",
    pool: Pool = None,
    guard: Annotated[bool, typer.Option(help="Save the constant unless routing gains on held-out prompts.")] = True,
    guard_by: Annotated[
        str, typer.Option(help="What the guard holds out: prompts, or tags (kinds of prompts never seen).")
    ] = "prompts",
    settings: Settings = None,
    tagger: Tagger = "",
    balance: Annotated[int, typer.Option(help="At most so many random prompts of each tag; 0: all.")] = 0,
    away_from: Annotated[
        list[str] | None, typer.Option("--away-from", help="Drop prompts that share 6 words in a row with this table.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the held-out prompts and of the method.")] = 0,
    json: Json = False,
) -> None:
    """Fit a router; unless it beats the best single model on held-out prompts, save that model and say so."""
    from trimtab.jobs import routing

    found = routing.fit(
        matrix, out=out, method=method, encoder=encoder_name or "ngrams", format=format, models=pool or (),
        guard=guard, guard_by=guard_by, settings=_settings(settings), tagger=tagger, balance=balance,
        away_from=away_from or (), seed=seed,
    )  # fmt: skip
    emit(found.plain(), str(found), json)


@router.command("eval")
def evaluate(
    matrix: Matrix,
    folder: Folder = "",
    method: Method = "tags",
    encoder_name: Encode = None,
    format: Format = "",
    pool: Pool = None,
    price: Price = None,
    exchange: Exchange = 0.0,
    settings: Settings = None,
    keep_seen: Annotated[bool, typer.Option(help="With --router: judge on prompts it was fitted on, too.")] = False,
    seeds: Annotated[int, typer.Option(help="Without --router: random 80/20 splits, fit on one side.")] = 5,
    out: Annotated[
        str, typer.Option("--out", "-o", "--html", help="Write this page: frontier, tags, confusion; one offline file.")
    ] = "",
    json: Json = False,
) -> None:
    """The router's reward beside random, best single and oracle, with intervals; per tag; against the oracle."""
    from trimtab.jobs import routing

    found = routing.evaluate(
        matrix, router=folder, method=method, encoder=encoder_name or "", format=format, models=pool or (),
        prices=given_prices(price), exchange=exchange, settings=_settings(settings), keep_seen=keep_seen, seeds=seeds,
        out=out,
    )  # fmt: skip
    emit(found.plain(), str(found), json)


def route(
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    folder: Folder,
    encoder_name: Encode = None,
    price: Price = None,
    exchange: Exchange = 0.0,
    json: Json = False,
) -> None:
    """The model a prompt goes to, every model's expected reward, and why: the tags whose prompts are nearest."""
    from trimtab.jobs import routing

    facts = routing.decide(
        prompt, router=folder, encoder=encoder_name or "", prices=given_prices(price), exchange=exchange
    )
    lines = [facts["model"], *(f"  {r:+.4f}  {m}" for m, r in sorted(facts["rewards"].items(), key=lambda x: -x[1]))]
    near = facts["why"].items()
    lines += ["nearest tags: " + ", ".join(f"{t} ({s:.2f})" for t, s in near)] if near else []
    emit(facts, "\n".join([*lines, f"guard: {facts['guard']}"]), json)


def _settings(given: list[str] | None) -> dict[str, Any]:
    """A method's settings; a value that reads as a number or true/false is one."""
    import json

    from trimtab.errors import InputError

    out: dict[str, Any] = {}
    for item in given or ():
        name, value = assignment("--set", item, "name=value, such as beta=0.1")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
        if str(out[name]).lower() in ("nan", "inf", "infinity", "-inf", "-infinity"):
            raise InputError(f"--set {item!r}: {name} must be a finite number")
    return out


def given_prices(given: list[str] | None) -> dict[str, float]:
    """Dollars a call by model, from --price flags."""
    return numbers("--price", given, "model=dollars, such as gpt=0.002", last=True, least=0)
