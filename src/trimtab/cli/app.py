"""The typer app: every verb, in pipeline order."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from trimtab.cli import (
    calibrate,
    credit,
    demo,
    embed,
    eval,
    export,
    features,
    fit,
    models,
    pool,
    reward,
    router,
    run,
    sample,
    sandbox,
    score,
    stats,
    store,
    train,
    versus,
    west_of_n,
)
from trimtab.cli.limits import check_flag
from trimtab.version import __version__


class Verb(TyperCommand):
    """A verb whose numbers are looked at before anything is done; see `limits`."""

    def invoke(self, ctx: Any) -> Any:
        verb = " ".join(ctx.command_path.split()[1:])
        for p in self.params:
            check_flag(verb, next(iter(p.opts), ""), ctx.params.get(str(p.name)))
        return super().invoke(ctx)


app = typer.Typer(
    name="trimtab",
    help="Steer large language models by reward with the smallest lever that does the job.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        typer.echo(f"trimtab {__version__}")
        raise typer.Exit


for verb in (demo.demo, run.run):
    app.command()(verb)
app.add_typer(models.models, name="models")
for verb in (sample.sample, score.score, embed.embed):
    app.command()(verb)
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(fit.fit, name="fit")
app.command()(calibrate.calibrate)
app.add_typer(features.features, name="features")
app.add_typer(reward.reward, name="reward")
app.command()(west_of_n.west_of_n)
for verb in (train.train, export.export, credit.credit, eval.eval, eval.report, versus.versus, stats.stats):
    app.command()(verb)
app.command()(pool.pool)
app.add_typer(router.router, name="router")
fit.fit.command("router")(router.fit)
app.command()(router.route)
app.add_typer(store.store, name="store")


def _checked(group: typer.Typer) -> None:
    for command in group.registered_commands:
        command.cls = Verb
    for below in group.registered_groups:
        if below.typer_instance:
            _checked(below.typer_instance)


_checked(app)
