"""The commands of who deploys and operates a program: their options and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossbus.cli.options import Config, Debug, Output, OutputChoice, ProfileName, Subscription, Url
from crossbus.cli.registering import examples, registers

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    config_app = typer.Typer(help="What is configured.", rich_markup_mode="rich", add_completion=False)
    config_app.callback(invoke_without_command=True)(_help)
    app.add_typer(config_app, name="config")
    registers(config_app)(
        examples(
            "crossbus config show",
            "crossbus config show shop:bus --profile production",
            "crossbus config show --output json | jq -r '.[].key'",
        ),
        "show",
    )(config_show)
    command = registers(app)
    command(
        examples(
            "crossbus doctor shop:bus --profile production",
            "crossbus doctor shop:bus --profile production --strict && ./deploy",
            "crossbus doctor --profile production -o json | jq 'select(.state == \"wrong\")'",
            "",
            "Exit codes: 0 nothing is wrong; 1 something is, or with --strict not",
            "everything is well; 2 there is no such program.",
        )
    )(doctor)
    command(examples("crossbus init shop && cd shop && pytest"))(init)
    command(
        examples(
            "crossbus pause orders/billing --url local+http://127.0.0.1:8787",
            "crossbus pause orders/billing --profile production",
        )
    )(pause)
    command(examples("crossbus resume orders/billing --profile production"))(resume)


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[DIR]",
            help="Where to; it is made if it is not there. Default: the current directory.",
            show_default=False,
        ),
    ] = Path("."),
    debug: Debug = False,
) -> None:
    """Make a small project: a program, its configuration, and a test that passes.

    Nothing is overwritten: if one of its files is there, nothing is made.
    """
    from crossbus.cli.init import init as make

    raise typer.Exit(make(folder))


def _help(context: typer.Context) -> None:
    """What is configured."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


def doctor(
    program: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:BUS]",
            help="The program that declares the topics and subscriptions. It is imported, and not opened. Default: "
            "what crossbus.toml says of them.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 1 for a warning too, and for what could not be looked at."),
    ] = False,
    output: Annotated[
        OutputChoice | None,
        typer.Option(
            "--output",
            "-o",
            help="table: a report for people, and the default. lines: columns between tabs, a line for each check. "
            "json: an object a line.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Check everything that a program needs where it is to run: say what is wrong, why it matters, and what mends it.

    Configuration, packages, credentials, permissions, and every topic, subscription, filter, policy, dead letter and
    limit. It asks only: nothing is created, changed, published or received.
    """
    from crossbus.cli.doctor import run_doctor

    raise typer.Exit(
        run_doctor(program, url=url, profile=profile, config=config, strict=strict, output=output)
    )


def config_show(
    program: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:BUS]",
            help="Also what this program declares, with its defaults. It is imported, and not opened.",
            show_default=False,
        ),
    ] = None,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show what is in force, and where each value came from.

    Nothing is connected. What may be a credential is hidden, wherever it stands.
    """
    from crossbus.cli.config_show import show

    raise typer.Exit(show(program, url=url, profile=profile, config=config, output=output))


def pause(
    subscription: Subscription,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Stop handing out the events of a subscription, until it is resumed. They wait.

    On local+http: for all its consumers: the server holds it. Elsewhere no provider can, and it is paused in the
    processes of each crossbus run of yours on this machine that consumes it. It says which.
    """
    from crossbus.cli.pause import change

    raise typer.Exit(change("pause", subscription, url=url, profile=profile, config=config, output=output))


def resume(
    subscription: Subscription,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Go on with a subscription that was paused, by hand or by its breaker.

    On local+http: for all its consumers, and for those of each crossbus run of yours on this machine that its breaker
    paused. Elsewhere for the latter. It says which, and why it was paused.
    """
    from crossbus.cli.pause import change

    raise typer.Exit(change("resume", subscription, url=url, profile=profile, config=config, output=output))
