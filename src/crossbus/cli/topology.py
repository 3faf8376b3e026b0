"""`crossbus topology`: its commands, their options and their help. What they do stands in modules of their names."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from crossbus.cli.options import Config, Debug, Output, ProfileName, Url
from crossbus.cli.registering import QuickGroup, examples, registers

__all__ = ["add_to", "app"]

app = typer.Typer(
    name="topology",
    cls=QuickGroup,
    help="Write down what a program declares, for terraform and for people, and tell what differs.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "crossbus topology export shop:bus --profile production",
        "crossbus topology export shop:bus --profile production --check",
        "crossbus topology diff crossbus.auto.tfvars.json shop:bus --profile production",
    ),
)
_command = registers(app)


def add_to(application: typer.Typer) -> None:
    """Add the group, and `provision` beside it, to the application."""
    application.add_typer(app)
    registers(application)(
        examples(
            "crossbus provision shop:bus --profile production --dry-run",
            "crossbus provision shop:bus --profile production",
            "crossbus provision shop:bus --profile production --prune --yes -o json",
        )
    )(provision)


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    """Write down what a program declares, for terraform and for people, and tell what differs."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


Program = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:BUS",
        help="A module and its Bus (or a function that makes one). It is imported, and not opened.",
        show_default=False,
    ),
]


class Form(str, Enum):
    """The forms of a topology document."""

    TFVARS = "tfvars"
    YAML = "yaml"
    MERMAID = "mermaid"


@_command(
    examples(
        "crossbus topology export shop:bus --profile production",
        "crossbus topology export shop:bus --profile production --check",
        "crossbus topology export shop:bus --profile production --format mermaid -o -",
    )
)
def export(
    program: Program,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-o",
            metavar="FILE",
            help="Where to; - is standard output. Default: crossbus.auto.tfvars.json, which terraform reads by itself; "
            "for yaml and mermaid standard output.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="tfvars: JSON. yaml: the same. mermaid: a graph.")
    ] = Form.TFVARS,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Write nothing. Say what the profile's provider cannot hold; the exit code is 1 then.",
        ),
    ] = False,
    of: Annotated[
        str | None,
        typer.Option(
            "--of",
            metavar="NAME",
            help="What lives in this profile, where topics of the program name another than the one taken.",
            show_default=False,
        ),
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option(
            "--previous",
            metavar="FILE",
            help="The document of before, whose older generations are kept. Default: the file that is overwritten.",
            rich_help_panel="Filters that changed (Pub/Sub)",
            show_default=False,
        ),
    ] = None,
    prune_generations: Annotated[
        bool,
        typer.Option(
            "--prune-generations",
            help="Leave out older generations of subscriptions: terraform deletes them, with what waits in them.",
            rich_help_panel="Filters that changed (Pub/Sub)",
        ),
    ] = False,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Write what a program declares, as each cloud has to hold it: names, filters, retries, dead letters, times.

    Nothing is connected, and no credential is needed. What is external is left out. What a provider cannot hold is
    written down with the sentence that the program would end with.
    """
    from crossbus.cli.topology_export import export_topology

    raise typer.Exit(
        export_topology(
            program,
            file=file,
            form=form.value,
            check=check,
            of=of,
            previous=previous,
            prune=prune_generations,
            url=url,
            profile=profile,
            config=config,
        )
    )


@_command(
    examples(
        "crossbus topology diff crossbus.auto.tfvars.json shop:bus --profile production",
        "crossbus topology diff before.json after.json -o json",
        "crossbus topology diff shop:bus --profile production --cloud",
        "",
        "Exit codes: 0 no difference; 1 differences, or something could not be seen;",
        "2 it could not be compared.",
    )
)
def diff(
    first: Annotated[
        str,
        typer.Argument(
            metavar="FIRST",
            help="The document of before, a file; with --cloud, the program, as MODULE:BUS.",
            show_default=False,
        ),
    ],
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECOND]",
            help="The document of now, a file, or the program that would be exported, as MODULE:BUS.",
            show_default=False,
        ),
    ] = None,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="Compare the program with what its provider has. Changes nothing.")
    ] = False,
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="NAME", help="As of export.", show_default=False),
    ] = None,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Tell in what two topology documents differ, a document and a program, or a program and its provider.

    A line for each difference: + is there only in the second, - only in the first, ~ is another, ? cannot be seen.
    """
    from crossbus.cli.topology_diff import diff

    raise typer.Exit(diff(first, second, output, cloud=cloud, of=of, url=url, profile=profile, config=config))


@_command(examples("crossbus topology schema > topology.schema.json"))
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of the topology document."""
    from crossbus.exporting.files import schema

    typer.echo(schema(), nl=False)


def provision(
    program: Program,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Also delete what crossbus made and nobody declares any more, with what waits in it.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Create and change at the provider what a program declares: shows the plan, asks, and carries it out.

    What is there already is left as it is, so that it can be run again, also after it was interrupted. What is external
    is never touched. Nothing is deleted without --prune. The program is imported, and not opened.
    """
    from crossbus.cli.provision import provision

    raise typer.Exit(
        provision(
            program, output, yes=yes, prune=prune, dry_run=dry_run, url=url, profile=profile, config=config
        )
    )
