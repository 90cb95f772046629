"""`trimtab models`: which models have names, and which are cached."""

from typing import Annotated

import typer

from trimtab.cli.options import Json, emit

models = typer.Typer(help="Named models, their licences, and the cache.", rich_markup_mode=None)


@models.callback(invoke_without_command=True)
def listing(context: typer.Context, json: Json = False) -> None:
    """List the named models: parameters, licence, source, and which forms are cached."""
    if context.invoked_subcommand is None:
        from trimtab.models import catalog

        rows = [
            {"name": e.name, "licence": e.licence, "about": e.about, "cached": catalog.cached(e.name)}
            for e in catalog.CATALOG.values()
        ]
        width = max(len(r["name"]) for r in rows)
        lines = [
            f"{r['name']:<{width}}  {', '.join(r['cached']) or 'not cached':<18}  {r['licence']}: {r['about']}"
            for r in rows
        ]
        emit(
            {"models": rows, "cache": str(catalog.cache_dir())},
            "\n".join([*lines, f"cache: {catalog.cache_dir()}"]),
            json,
        )


@models.command()
def pull(
    name: Annotated[str, typer.Argument(help="A name from the list.")],
    form: Annotated[str, typer.Option(help="torch, openvino, gguf or encoder.")] = "torch",
    json: Json = False,
) -> None:
    """Fetch, check (sha256) and convert a model into the cache."""
    from trimtab.models import catalog

    path = catalog.pull(name, form)
    emit({"path": str(path)}, str(path), json)
