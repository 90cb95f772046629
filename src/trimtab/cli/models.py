"""`trimtab models`: which models have names, and which are cached."""

from typing import Annotated

import typer

from trimtab.cli.options import Json, emit, progress

models = typer.Typer(help="Named models, their licences, and the cache.", rich_markup_mode=None)


@models.callback(invoke_without_command=True)
def listing(context: typer.Context, json: Json = False) -> None:
    """List the named models: parameters, licence, source, and which forms are cached."""
    if context.invoked_subcommand is None:
        from trimtab.lm import catalog

        rows = [
            {"name": e.name, "megabytes": e.megabytes, "licence": e.licence, "about": e.note or e.kind,
             "forms": e.forms, "cached": catalog.cached(e.name)}
            for e in catalog.CATALOG.values()
        ]  # fmt: skip
        cached = [", ".join(r["cached"]) or "not cached" for r in rows]
        widths = max(len(r["name"]) for r in rows), max(map(len, cached))
        lines = [
            f"{r['name']:<{widths[0]}}  {have:<{widths[1]}}  {r['megabytes']:>4} MB  {r['about']}; {r['licence']}"
            for r, have in zip(rows, cached, strict=True)
        ]
        text = "\n".join([*lines, f"cache: {catalog.cache_dir()} (TRIMTAB_CACHE moves it)"])
        emit({"models": rows, "cache": str(catalog.cache_dir())}, text, json)


@models.command()
def pull(
    name: Annotated[str, typer.Argument(help="A name from the list.")],
    form: Annotated[
        str | None, typer.Option(help="torch, openvino, gguf or encoder; all it has when not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Fetch a model, check its sha256 and convert it into the cache."""
    from trimtab.errors import unknown
    from trimtab.lm import catalog

    if name not in catalog.CATALOG:
        raise unknown("model", name, catalog.CATALOG)
    forms = [form] if form else catalog.CATALOG[name].forms
    paths = {f: str(catalog.pull(name, f, progress(json))) for f in forms}  # pyright: ignore[reportArgumentType]
    emit(paths, "\n".join(f"{f}: {path}" for f, path in paths.items()), json)
