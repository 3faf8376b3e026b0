"""`crossbus tail`, `stats` and `replay`: options and help. What they do stands in the modules of their names."""

from __future__ import annotations

from typing import Annotated

import typer

from crossbus.cli.options import Config, Debug, Output, ProfileName, Subscription, Subscriptions, Url
from crossbus.cli.registering import examples, registers

__all__ = ["register"]


def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to watch.", show_default=False)],
    filter: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="JSON",
            help="Only events that this filter matches, in the CloudEvents Subscriptions form: "
            '{"exact": {"type": "com.acme.order.placed"}}.',
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Whole events, an object of JSON a line: as --output json.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Whole events, over several lines, for people.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="End after so many events.", show_default=False),
    ] = None,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean", help="Remove what a tail on this machine left that was killed, and watch nothing."
        ),
    ] = False,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show the events of a topic as they are published, until Ctrl-C.

    It makes a subscription of its own, which is removed at the end, and takes no event from anybody. What was published
    before it began is not shown. On a cloud it needs the permission to make and remove a subscription, and says which.
    """
    from crossbus.cli.tail import clean_up, watch_topic

    if clean:
        raise typer.Exit(clean_up(topic, url=url, profile=profile, config=config))
    raise typer.Exit(
        watch_topic(
            topic,
            filter=filter,
            form="json" if json else "whole" if whole else None if output is None else output.value,
            limit=limit,
            url=url,
            profile=profile,
            config=config,
        )
    )


def stats(
    where: Subscriptions = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.1, help="How often, with --watch.")
    ] = 2.0,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Count what waits in subscriptions, is in hand, and is dead, and how old the oldest waiting event is."""
    from crossbus.cli.stats import show_stats

    raise typer.Exit(
        show_stats(
            where or [], output, every=every if watch else None, url=url, profile=profile, config=config
        )
    )


def replay(
    where: Subscription,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="TIME",
            help="Events published since then: 2026-11-26T03:00Z, or how long ago: 30m, 2h, 1d.",
            show_default=False,
        ),
    ] = None,
    position: Annotated[
        str | None,
        typer.Option(
            "--position",
            metavar="POSITION",
            help="From a position: a message id on the local broker, a snapshot on Pub/Sub.",
            show_default=False,
        ),
    ] = None,
    output: Output = None,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Deliver past events again, to one subscription and to no other.

    Its consumers get them again, with the ids that they had: those that drop duplicates let a replay pass.
    """
    from crossbus.cli.replay import replay_events

    raise typer.Exit(
        replay_events(where, output, time=time, position=position, url=url, profile=profile, config=config)
    )


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for function, lines in (
        (
            tail,
            (
                "crossbus tail orders --profile production",
                """crossbus tail orders --filter '{"prefix": {"type": "com.acme."}}' --json | jq .data""",
            ),
        ),
        (
            stats,
            ("crossbus stats orders/billing orders/audit", "crossbus stats --watch --profile production"),
        ),
        (replay, ("crossbus replay orders/billing --time 2h",)),
    ):
        registers(app)(examples(*lines))(function)
