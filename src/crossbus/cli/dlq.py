"""`crossbus dlq`: its commands, their options and their help. What they do stands in `dlq_look` and `dlq_mend`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossbus.cli.options import Config, Debug, Output, ProfileName, Subscription, Subscriptions, Url
from crossbus.cli.registering import QuickGroup, examples, registers

__all__ = ["app"]

app = typer.Typer(
    name="dlq",
    cls=QuickGroup,
    help="Look into dead letters, put events back, or throw them away.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "crossbus dlq summary orders/billing",
        "crossbus dlq show orders/billing",
        "crossbus dlq redrive orders/billing --reason failed --rate 50",
    ),
)

_WHICH = "Which dead letters"
_command = registers(app)


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    """Look into dead letters, put events back, or throw them away."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


Type = Annotated[
    str | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="Only events of this type; * stands for any text.",
        rich_help_panel=_WHICH,
        show_default=False,
    ),
]
Why = Annotated[
    str | None,
    typer.Option(
        "--reason",
        metavar="REASON",
        help="Only those given up for this reason; * stands for any text.",
        rich_help_panel=_WHICH,
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only those given up since then: 2026-11-26T03:00Z, or how long ago: 30m, 2h, 1d.",
        rich_help_panel=_WHICH,
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=1, help="At most so many.", rich_help_panel=_WHICH, show_default=False
    ),
]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Of dead letters, or of their events.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what it would be done to, and do nothing.")]


@_command(
    examples(
        "crossbus dlq summary orders/billing",
        "crossbus dlq summary orders/billing --since 2h -o json",
        "crossbus dlq summary --url local+http://127.0.0.1:8787",
    ),
)
def summary(
    where: Subscriptions = None,
    type: Type = None,
    reason: Why = None,
    since: Since = None,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Count dead letters by reason, event type and handler, with the first and the last time of each.

    Of several subscriptions, each line begins with its own; one without dead letters has none.
    """
    from crossbus.cli.dlq_look import Which
    from crossbus.cli.dlq_summary import show_summary

    which = Which(type=type, reason=reason, since=since)
    raise typer.Exit(show_summary(where or [], which, output, url=url, profile=profile, config=config))


@_command(
    examples(
        "crossbus dlq list orders/billing --reason 'no customer*' --limit 20",
        "crossbus dlq list orders/billing -o json | jq -r .event.id",
    ),
)
def list(
    where: Subscription,
    type: Type = None,
    reason: Why = None,
    since: Since = None,
    limit: Limit = 100,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """List dead letters, a line each: id, when it was given up, reason, attempts, event type, event id, error."""
    from crossbus.cli.dlq_look import Which, list_letters

    which = Which(type=type, reason=reason, since=since, limit=limit)
    raise typer.Exit(list_letters(where, which, output, url=url, profile=profile, config=config))


@_command(examples("crossbus dlq show orders/billing", "crossbus dlq show orders/billing e-17"))
def show(
    where: Subscription,
    ids: Ids = None,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show dead letters whole: why, the error, attempts, trace id, and the event. Without an id: one of them."""
    from crossbus.cli.dlq_look import Which, show_letters

    raise typer.Exit(show_letters(where, Which(ids=ids), output, url=url, profile=profile, config=config))


@_command(
    examples(
        "crossbus dlq export orders/billing dead.jsonl",
        "crossbus dlq export orders/billing - | jq -c .event | crossbus publish orders-again",
    ),
)
def export(
    where: Subscription,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A new file; - for standard output.", show_default=False),
    ],
    ids: Ids = None,
    type: Type = None,
    reason: Why = None,
    since: Since = None,
    limit: Limit = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Write dead letters into a file, an object of JSON a line, and leave them where they are."""
    from crossbus.cli.dlq_look import Which, export_letters

    which = Which(ids=ids, type=type, reason=reason, since=since, limit=limit)
    raise typer.Exit(export_letters(where, file, which, url=url, profile=profile, config=config))


@_command(
    examples(
        "crossbus dlq redrive orders/billing --dry-run",
        "crossbus dlq redrive orders/billing --type 'com.acme.order.*' --rate 50",
        "crossbus dlq redrive orders/billing e-17 e-18",
    ),
)
def redrive(
    where: Subscription,
    ids: Ids = None,
    type: Type = None,
    reason: Why = None,
    since: Since = None,
    limit: Limit = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="N",
            min=0.001,
            help="At most so many a second. Default: as fast as it goes.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Put events back into their subscription, and into no other, and remove their records.

    An event keeps its id. Ctrl-C finishes the step under way; what is left is left, and the same command goes on with
    it. What comes into the dead letter meanwhile, perhaps because it failed again, is not put back once more.
    """
    from crossbus.cli.dlq_look import Which
    from crossbus.cli.dlq_mend import redrive_letters

    which = Which(ids=ids, type=type, reason=reason, since=since, limit=limit)
    raise typer.Exit(
        redrive_letters(
            where, which, output, rate=rate, dry_run=dry_run, url=url, profile=profile, config=config
        )
    )


@_command(
    examples(
        "crossbus dlq purge orders/billing --reason 'test *' --dry-run",
        "crossbus dlq purge orders/billing --since 1h --export purged.jsonl --yes",
    ),
)
def purge(
    where: Subscription,
    ids: Ids = None,
    type: Type = None,
    reason: Why = None,
    since: Since = None,
    limit: Limit = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="The new file in which they are kept. Default: TOPIC--NAME--dead-TIME.jsonl here.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Remove dead letters for good. It asks before, and each is written into a file before it is removed."""
    from crossbus.cli.dlq_look import Which
    from crossbus.cli.dlq_mend import purge_letters

    which = Which(ids=ids, type=type, reason=reason, since=since, limit=limit)
    raise typer.Exit(
        purge_letters(
            where,
            which,
            output,
            file=export,
            yes=yes,
            dry_run=dry_run,
            url=url,
            profile=profile,
            config=config,
        )
    )
