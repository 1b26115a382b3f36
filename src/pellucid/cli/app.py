"""The command tree: which verbs there are."""

from typing import Annotated, Any

import typer
from typer.main import get_command

from pellucid.cli import (
    convert,
    demo,
    evaluate,
    intervene,
    introspect,
    patch,
    plan,
    probe,
    safety,
    specimen,
    steer,
    sweep,
    trace,
    train,
    verify,
)
from pellucid.cli.run import verb


def _show_version(wanted: bool) -> None:
    if wanted:
        from pellucid import __version__

        typer.echo(f"pellucid {__version__}")
        raise typer.Exit()


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """See-through language models: transcoders, replacement models, checked attribution graphs."""


def build() -> Any:
    """The command, callable with arguments."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    app.command("demo")(verb(demo.demo))
    app.command("plan")(verb(plan.plan))
    app.command("train")(verb(train.train))
    app.command("sweep")(verb(sweep.sweep))
    app.command("eval")(verb(evaluate.evaluate))
    app.command("convert")(verb(convert.convert))
    app.command("trace")(verb(trace.trace))
    app.command("intervene")(verb(intervene.intervene))
    app.command("steer")(verb(steer.steer))
    app.command("patch")(verb(patch.patch))
    app.command("probe")(verb(probe.probe))
    guarding = typer.Typer(no_args_is_help=True)
    guarding.callback()(safety.group)
    for stage in (safety.discover, safety.validate, safety.calibrate, safety.guard, safety.audit):
        guarding.command(stage.__name__)(verb(stage))
    app.add_typer(guarding, name="safety")
    verifying = typer.Typer(no_args_is_help=True)
    verifying.callback()(verify.group)
    for step in (verify.collect, verify.fit, verify.experiment, verify.watch, verify.repair):
        verifying.command(step.__name__)(verb(step))
    app.add_typer(verifying, name="verify")
    app.command("introspect")(verb(introspect.introspect))
    group = typer.Typer(no_args_is_help=True)
    group.callback()(specimen.group)
    group.command("train")(verb(specimen.train))
    group.command("sample")(verb(specimen.sample))
    group.command("labels")(verb(specimen.labels))
    group.command("plant")(verb(specimen.plant))
    app.add_typer(group, name="specimen")
    return get_command(app)
