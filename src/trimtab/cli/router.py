"""`trimtab router`: a response matrix to a router, its table, and one prompt's decision with the reasons.

trimtab router fit matrix.jsonl --out runs/router
trimtab router eval matrix.jsonl --router runs/router      (or --seeds 5: fit and test on random splits)
trimtab router route "prompt" --router runs/router
"""

from typing import Annotated, Any

import typer

from trimtab.cli.options import Json, emit

router = typer.Typer(help="Fit, judge and ask a router among models.", no_args_is_help=True, rich_markup_mode=None)

Matrix = Annotated[str, typer.Argument(help="LLMRouter, RouterBench, AlpacaEval, ZeroEval or long-form table.")]
Format = Annotated[str, typer.Option("--format", help="Name of the table's format; found from its columns if absent.")]
Folder = Annotated[str, typer.Option("--router", help="Folder of a fitted router.")]
Method = Annotated[
    str, typer.Option("--method", help="tags, zooter, bce, knn, clusters, mf, routerdc, best_single, cheapest, random.")
]
Encode = Annotated[str, typer.Option("--encoder", help="ngrams (fast), minilm, or both (long texts: head and tail).")]
Pool = Annotated[list[str] | None, typer.Option("--model", help="Only these models of the table. Repeatable.")]
Price = Annotated[list[str] | None, typer.Option("--price", help="model=dollars a call. Repeatable.")]
Exchange = Annotated[float, typer.Option("--exchange", help="Reward that one dollar is worth; 0 ignores prices.")]


def encoder(name: str) -> Any:
    """The encoder called `name`. InputError for an unknown one."""
    from trimtab.errors import unknown
    from trimtab.learners.model.ngrams import Both, HashedNgrams

    if name not in ("ngrams", "minilm", "both"):
        raise unknown("encoder", name, ("ngrams", "minilm", "both"))
    if name == "ngrams":
        return HashedNgrams()
    from trimtab.embeddings import Encoder

    sentence = Encoder(overflow="head+tail")
    return sentence if name == "minilm" else Both(sentence, HashedNgrams())


@router.command()
def fit(
    matrix: Matrix,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the router.")],
    method: Method = "tags",
    encoder_name: Encode = "ngrams",
    format: Format = "",
    pool: Pool = None,
    guard: Annotated[bool, typer.Option(help="Save the constant unless routing gains on held-out prompts.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the held-out prompts and of the method.")] = 0,
    json: Json = False,
) -> None:
    """Fit a router; unless it beats the best single model on held-out prompts, save that model and say so."""
    from trimtab.data.matrix_files import load_matrix
    from trimtab.learners.model.router import fit_router

    table = load_matrix(matrix, format)
    table = table.pool(pool) if pool else table
    fitted = fit_router(table, encoder(encoder_name), method=method, guard=guard, seed=seed)
    fitted.save(out)
    guard_says = fitted.card.get("guard", "not asked")
    facts = {
        "router": out,
        "head": fitted.head,
        "constant": fitted.constant,
        "guard": guard_says,
        **fitted.card["data"],
    }
    missing = f", {table.missing} cells missing" if table.missing else ""
    text = (
        f"{len(table)} prompts x {len(table.models)} models{missing}\nguard: {guard_says}\nsaved {fitted.head} in {out}"
    )
    emit(facts, text, json)


@router.command("eval")
def evaluate(
    matrix: Matrix,
    folder: Folder = "",
    method: Method = "tags",
    encoder_name: Encode = "ngrams",
    format: Format = "",
    pool: Pool = None,
    price: Price = None,
    exchange: Exchange = 0.0,
    seeds: Annotated[int, typer.Option(help="Without --router: random 80/20 splits, fit on one side.")] = 5,
    html: Annotated[str, typer.Option(help="Write the report here: frontier, tags, confusion; one offline file.")] = "",
    json: Json = False,
) -> None:
    """The router's reward beside random, best single and oracle, with intervals; per tag; against the oracle."""
    import numpy as np

    from trimtab.data.matrix import split_matrix
    from trimtab.data.matrix_files import load_matrix
    from trimtab.data.matrix_rows import join_matrices
    from trimtab.evaluation.routing import as_dicts, confusion, per_tag, route, routing_table
    from trimtab.evaluation.routing_report import write_routing_report
    from trimtab.learners.model.router import check_pool, fit_router, load_router

    table = load_matrix(matrix, format)
    table = table.pool(pool) if pool else table
    chosen = None
    if folder:
        chosen = load_router(folder, encoder(_encoder_of(folder, encoder_name)))
        check_pool(chosen, table.models)
        splits = [(table, table, 0)]
    else:
        splits = [split_matrix(table, 0.2, seed) for seed in range(seeds)]
    moved = sum(m for *_, m in splits)
    values, singles = [], []
    for seed, (train, test, _) in enumerate(splits):
        fitted = chosen or fit_router(train, encoder(encoder_name), method=method, guard=False, seed=seed)
        rows = fitted(test.prompts)
        values.append([[row[m] for m in table.models] for row in rows])
        singles += [chosen.card["best_single"] if chosen else _best(train)] * len(test)
    tested = join_matrices([test for _, test, _ in splits])
    value, reward, tags = np.concatenate(values), tested.reward_PM, tested.tags
    best = np.array([table.models.index(m) for m in singles])
    named = ", ".join(sorted(set(singles)))
    prices = _known_prices(table, price)
    rows = routing_table({"router": value}, reward, best=best, price_M=prices, exchange=exchange)
    by_tag = per_tag(route(value, reward), reward, tags, best)
    facts = {
        "rows": as_dicts(rows), "best_single": named, "tags": [{**r, "gain": list(r["gain"][:3])} for r in by_tag],
        "confusion": confusion(value, reward).tolist(), "models": list(table.models), "moved_duplicates": moved,
        **_money(value, reward, prices),
    }  # fmt: skip
    if html:
        name = f"router ({folder})" if folder else f"{method}, {encoder_name}"
        said = {"table": matrix, "splits": "none" if folder else seeds, "duplicates moved to train": moved}
        facts["html"] = str(write_routing_report(html, {name: value}, tested, best=best, price_M=prices, meta=said))
    lines = [f"{'':14} reward                  gain over best single      gap"]
    lines += [f"{r.name:14} {r.reward}   {r.gain}   {r.gap.mean:6.1f}" for r in rows]
    lines += [f"best single: {named}; duplicates moved to train: {moved}"]
    lines += [
        f"  {r['tag']:24} n {r['n']:5}  {r['reward']:.3f}  gain {r['gain']}  oracle {r['oracle']:.3f}" for r in by_tag
    ]
    lines += [f"{k}: {facts[k]:.4g}" for k in ("aiq", "arena_score", "apgr") if k in facts]
    lines += [f"wrote {html}"] if html else []
    emit(facts, "\n".join(lines), json)


@router.command()
def route(
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    folder: Folder,
    encoder_name: Encode = "ngrams",
    price: Price = None,
    exchange: Exchange = 0.0,
    json: Json = False,
) -> None:
    """The model a prompt goes to, every model's expected reward, and why: the tags whose prompts are nearest."""
    import numpy as np

    from trimtab.decoders.model import choose, utility
    from trimtab.learners.model.router import load_router
    from trimtab.types import Prompt

    fitted = load_router(folder, encoder(_encoder_of(folder, encoder_name)))
    asked = [Prompt("prompt", ({"role": "user", "content": prompt},))]
    (row,) = fitted(asked)
    known = _prices(price)
    prices = [known.get(m, float("nan") if exchange else 0.0) for m in row]
    names = list(row)
    model = names[int(choose(utility(np.array([list(row.values())]), prices, exchange))[0])]
    near = fitted.why(fitted.embed.embed_prompts(asked)[0]) if fitted.embed is not None else []
    facts = {"model": model, "rewards": row, "why": dict(near), "guard": fitted.card.get("guard", "")}
    lines = [model, *(f"  {r:+.4f}  {m}" for m, r in sorted(row.items(), key=lambda x: -x[1]))]
    lines += ["nearest tags: " + ", ".join(f"{t} ({s:.2f})" for t, s in near)] if near else []
    emit(facts, "\n".join([*lines, f"guard: {facts['guard']}"]), json)


def _known_prices(matrix: Any, given: list[str] | None) -> list[float]:
    """Dollars a call of each model: as given, or else the mean of its cells in the table; NaN where neither is."""
    import numpy as np

    flags = _prices(given)
    if odd := sorted(set(flags) - set(matrix.models)):
        from trimtab.errors import unknown

        raise unknown("model in --price", odd[0], matrix.models)
    cells = np.asarray(matrix.price_PM)
    known = ~np.isnan(cells)
    mean = np.where(known.any(0), np.where(known, cells, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
    return [flags.get(m, float(mean[i])) for i, m in enumerate(matrix.models)]


def _money(value: Any, reward: Any, prices: list[float]) -> dict[str, Any]:
    """AIQ, RouterArena's score and, for two models, APGR and CPT; nothing where a price is unknown."""
    import numpy as np

    from trimtab.evaluation.routing import aiq, arena_score, frontier, route, two_models
    from trimtab.evaluation.routing_report import exchange_rates

    if np.isnan(prices).any() or not np.max(prices) > 0:
        return {}
    points = frontier(value, reward, prices, exchange_rates(value, prices))
    out: dict[str, Any] = {"aiq": aiq([p["price"] for p in points], [p["reward"] for p in points])}
    if np.nanmin(reward) >= 0 and np.nanmax(reward) <= 1:  # an accuracy
        cost = np.asarray(prices)[np.where(np.isnan(reward), -np.inf, value).argmax(1)].mean()
        out["arena_score"] = arena_score(float(route(value, reward).mean()), 1000 * float(cost))
    if len(prices) == 2 and not np.isnan(reward).any():
        weak, strong = np.argsort(prices, kind="stable")
        found = two_models(value[:, strong] - value[:, weak], reward[:, weak], reward[:, strong])
        out |= {"apgr": found.apgr, "cpt": {str(k): v for k, v in found.cpt.items()}}
    return out


def _best(matrix: Any) -> str:
    import numpy as np

    return matrix.models[int(np.nanmean(matrix.reward_PM, axis=0).argmax())]


def _encoder_of(folder: str, fallback: str) -> str:
    """The --encoder that a saved router's card asks for."""
    import json
    from pathlib import Path

    from trimtab.errors import ModelError

    try:
        card = json.loads((Path(folder) / "router.json").read_text())
    except (OSError, ValueError) as e:
        raise ModelError(f"{folder} holds no router ({e}); fit one with `trimtab router fit`") from e
    kinds = {"hashed n-grams": "ngrams", "encoder": "minilm", "both": "both"}
    return kinds.get((card.get("encoder") or {}).get("kind", ""), fallback)


def _prices(given: list[str] | None) -> dict[str, float]:
    from trimtab.errors import InputError

    out = {}
    for item in given or ():
        name, _, value = item.rpartition("=")
        try:
            out[name] = float(value)
        except ValueError:
            raise InputError(f"--price {item!r} must be model=dollars, such as gpt=0.002") from None
    return out
