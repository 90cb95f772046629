"""`trimtab router`: a response matrix to a router, its table, and one prompt's decision with the reasons.

trimtab fit router matrix.jsonl --out runs/router
trimtab router eval matrix.jsonl --router runs/router      (or --seeds 5: fit and test on random splits)
trimtab route "prompt" --router runs/router
"""

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import Json, emit
from trimtab.cli.router_parts import (
    best_single,
    encoder_of,
    given_prices,
    known_prices,
    method_settings,
    money,
    ranks,
    tagged,
    unseen,
)
from trimtab.jobs import checks
from trimtab.jobs.make import NGRAMS, encoder

router = typer.Typer(help="Fit, judge and ask a router among models.", no_args_is_help=True, rich_markup_mode=None)

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


@router.command()
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
    from trimtab.data.matrix.files import load_matrix
    from trimtab.data.matrix.rows import balanced, without_overlap
    from trimtab.learners.model.router import fit_router

    checks.writable(out)
    table = load_matrix(matrix, format)
    table = table.pool(pool) if pool else table
    embed = encoder(encoder_name or NGRAMS)
    table = tagged(table, tagger, embed, seed, Path(out)) if tagger else table
    table = balanced(table, balance, seed) if balance else table
    table, dropped = without_overlap(table, [load_matrix(f) for f in away_from]) if away_from else (table, 0)
    fitted = fit_router(
        table, embed, method=method, guard=guard, guard_by=guard_by, seed=seed, **method_settings(settings)
    )
    fitted.save(out)
    guard_says = fitted.card.get("guard", "not asked")
    facts = {
        "router": out,
        "head": fitted.head,
        "constant": fitted.constant,
        "guard": guard_says,
        "dropped_overlap": dropped,
        **fitted.card["data"],
    }
    missing = f", {table.missing} cells missing" if table.missing else ""
    if table.missing:
        missing += f" ({int(table.whole_P.sum())} prompts have all)"
    missing += f", {dropped} more dropped for sharing 6 words with a test table" if dropped else ""
    note = f"\ntable: {table.note}" if table.note else ""
    text = (
        f"{len(table)} prompts x {len(table.models)} models{missing}{note}\nguard: {guard_says}\n"
        f"saved {fitted.head} in {out}"
    )
    emit(facts, text, json)


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
    import numpy as np

    from trimtab.data.matrix.files import load_matrix
    from trimtab.data.matrix.matrix import split_matrix
    from trimtab.data.matrix.rows import join_matrices
    from trimtab.evaluation.pages.routing import write_routing_report
    from trimtab.evaluation.routing.measures import confusion, per_tag, route, routing_table
    from trimtab.intervals import figure
    from trimtab.learners.model.router import check_pool, fit_router, load_router

    if out:
        checks.writable_file(out)
        checks.need("plotly")
    table = load_matrix(matrix, format)
    table = table.pool(pool) if pool else table
    chosen, left_out = None, 0
    if folder:
        chosen = load_router(folder, encoder(encoder_of(folder, encoder_name)))
        check_pool(chosen, table.models)
        table, left_out = unseen(table, chosen, matrix) if not keep_seen else (table, 0)
        splits = [(table, table, 0)]
    else:
        splits = [split_matrix(table, 0.2, seed) for seed in range(seeds)]
    moved = sum(m for *_, m in splits)
    values, singles, chosen_set = [], [], method_settings(settings)
    for seed, (train, test, _) in enumerate(splits):
        fitted = chosen or fit_router(
            train, encoder(encoder_name or NGRAMS), method=method, guard=False, seed=seed, **chosen_set
        )
        rows = fitted(test.prompts)
        values.append([[row[m] for m in table.models] for row in rows])
        singles += [chosen.card["best_single"] if chosen else best_single(train)] * len(test)
    joined = join_matrices([test for _, test, _ in splits])
    tested, whole = joined.common(), joined.whole_P
    value, reward, tags = np.concatenate(values)[whole], tested.reward_PM, tested.tags
    best = np.array([table.models.index(m) for m in singles])[whole]
    named = ", ".join(sorted(set(singles)))
    prices = known_prices(table.common(), price)
    rows = routing_table({"router": value}, tested, best=best, price_M=prices, exchange=exchange)
    by_tag = per_tag(route(value, reward), reward, tags, best)
    facts = {
        "rows": rows.plain(rewards=False)["rows"], "best_single": named,
        "tags": [{**r, "gain": list(r["gain"][:3])} for r in by_tag],
        "confusion": confusion(value, reward).tolist(), "models": list(table.models), "moved_duplicates": moved,
        "left_out_seen": left_out, "prompts": len(joined), "compared": len(tested), "table": table.note,
        **money(value, reward, prices),
        **ranks(value, reward, tags, table.models),
    }  # fmt: skip
    if out:
        name = f"router ({folder})" if folder else f"{method}, {encoder_name or NGRAMS}"
        said = {"table": matrix, "splits": "none" if folder else seeds, "duplicates moved to train": moved}
        facts["html"] = str(write_routing_report(out, {name: value}, tested, best=best, price_M=prices, meta=said))
    lines = [f"{'':14} reward                  gain over best single      gap"]
    lines += [
        f"{r.name:14} {r.reward}   {r.difference or ''!s:22}   {figure(r.more['gap'].mean, '6.1f')}" for r in rows.rows
    ]
    lines += [f"best single: {named}; duplicates moved to train: {moved}"]
    lines += [f"table: {table.note}"] if table.note else []
    if len(tested) < len(joined):
        lines += [f"compared on {len(tested)} of {len(joined)} prompts: those that every model was measured on"]
    lines += (
        [f"{left_out} prompts left out: the router was fitted on them (--keep-seen keeps them)"] if left_out else []
    )
    lines += [
        f"  {r['tag']:24} n {r['n']:5}  {figure(r['reward'])}  gain {r['gain']}  oracle {figure(r['oracle'])}"
        for r in by_tag
    ]
    lines += [f"{k}: {figure(facts[k], '.4g')}" for k in ("aiq", "arena_score", "apgr") if k in facts]
    if "mtr" in facts:
        first = min(table.models, key=facts["mtr"].__getitem__)
        mtr = f"router {facts['mtr']['router']:.2f}, best model {first} {facts['mtr'][first]:.2f}"
        lines += [f"MTR over {facts['subsets']} tags (ties averaged, router alone against the models): {mtr}"]
    lines += [f"wrote {out}"] if out else []
    emit(facts, "\n".join(lines), json)


def route(
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    folder: Folder,
    encoder_name: Encode = None,
    price: Price = None,
    exchange: Exchange = 0.0,
    json: Json = False,
) -> None:
    """The model a prompt goes to, every model's expected reward, and why: the tags whose prompts are nearest."""
    import numpy as np

    from trimtab.decoders.model import choose, utility
    from trimtab.learners.model.router import load_router
    from trimtab.types import Prompt

    fitted = load_router(folder, encoder(encoder_of(folder, encoder_name)))
    asked = [Prompt("prompt", ({"role": "user", "content": prompt},))]
    (row,) = fitted(asked)
    known = given_prices(price)
    prices = [known.get(m, float("nan") if exchange else 0.0) for m in row]
    names = list(row)
    model = names[int(choose(utility(np.array([list(row.values())]), prices, exchange))[0])]
    near = fitted.why(fitted.embed.embed_prompts(asked)[0]) if fitted.embed is not None else []
    facts = {"model": model, "rewards": row, "why": dict(near), "guard": fitted.card.get("guard", "")}
    lines = [model, *(f"  {r:+.4f}  {m}" for m, r in sorted(row.items(), key=lambda x: -x[1]))]
    lines += ["nearest tags: " + ", ".join(f"{t} ({s:.2f})" for t, s in near)] if near else []
    emit(facts, "\n".join([*lines, f"guard: {facts['guard']}"]), json)
