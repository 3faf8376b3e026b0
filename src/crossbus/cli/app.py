"""The commands, their options and their help. What a command does stands in the module of its name."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from crossbus.cli import dlq, operating, topology, watching
from crossbus.cli.options import Config, Debug, ProfileName, Url
from crossbus.cli.registering import QuickGroup, examples, registers

__all__ = ["app"]


app = typer.Typer(
    name="crossbus",
    cls=QuickGroup,
    help="One CloudEvents publish/subscribe interface for EventBridge, Pub/Sub, Event Grid and a local broker.",
    epilog=examples(
        "crossbus demo",
        "crossbus publish orders events.jsonl --url local+http://127.0.0.1:8787",
        "crossbus run shop:bus --profile production",
        "",
        "Exit codes: 0 all done; 1 part of it failed; 2 usage, configuration,",
        "or the provider refused; 3 a mistake in crossbus; 130 interrupted.",
    ),
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_command = registers(app)


class InputFormat(str, Enum):
    """The formats that `publish` reads."""

    AUTO = "auto"
    LINES = "lines"
    JSON = "json"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"crossbus {version('crossbus')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    debug: Debug = False,
) -> None:
    """One CloudEvents publish/subscribe interface for EventBridge, Pub/Sub, Event Grid and a local broker."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@_command(
    examples(
        "crossbus demo",
        "crossbus demo --events my-events.jsonl",
        "crossbus demo --code > shop.py && CROSSBUS_URL=local: python shop.py",
    )
)
def demo(
    events: Annotated[
        Path | None,
        typer.Option(
            "--events",
            metavar="FILE",
            help="Play with the CloudEvents of this file (JSON lines, a JSON event or a JSON batch) "
            "instead of the shop's.",
            show_default=False,
        ),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="No pauses for reading.")] = False,
    code: Annotated[
        bool, typer.Option("--code", help="Print the shop as a program of your own to start from, and exit.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Watch events being published, filtered, retried and dead-lettered: on the local broker, in under ten seconds.

    It needs no account and no server, and leaves nothing behind.
    """
    from crossbus import demo as shop

    raise typer.Exit(shop.print_program() if code else shop.play(events, fast=fast))


@_command(
    examples(
        "crossbus publish orders events.jsonl",
        "cat events.json | crossbus publish orders --source /shop --profile production",
        "jq -c '.[]' batch.json | crossbus publish orders",
        """crossbus publish orders --type com.acme.order.placed --data '{"order": "o-1"}'""",
        "crossbus publish orders --template com.acme.order.placed --set total=99",
    )
)
def publish(
    topic: Annotated[str, typer.Argument(help="The topic to publish to.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A file of CloudEvents in JSON; standard input if it is left out, or -.", show_default=False
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", help="The source of events that have none.", show_default=False),
    ] = None,
    type: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="The type: publishes one event, made of these options.",
            rich_help_panel="One event",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            metavar="TYPE",
            help="The type whose template it is made of: events/TYPE.json beside the configuration file. Or a file. It "
            "gets an id and a time of its own.",
            rich_help_panel="One event",
            show_default=False,
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Of a template: what is to stand at a place in its data: total=12.5, customer.name=Ann, items.0.id=x. "
            "May be given several times.",
            rich_help_panel="One event",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="JSON", help="Its data.", rich_help_panel="One event")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Its subject.", rich_help_panel="One event")
    ] = None,
    id: Annotated[
        str | None,
        typer.Option("--id", help="Its id. Default: a new unique one.", rich_help_panel="One event"),
    ] = None,
    extension: Annotated[
        list[str] | None,
        typer.Option(
            "--extension",
            metavar="NAME=VALUE",
            help="An extension of it. May be given several times.",
            rich_help_panel="One event",
        ),
    ] = None,
    format: Annotated[
        InputFormat,
        typer.Option(
            "--format",
            help="lines: an event a line. json: one event, several, or a batch (an array), over as many lines as "
            "they like. auto: by how the input begins.",
        ),
    ] = InputFormat.AUTO,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Publish events from a file or from standard input, or one that is made of options.

    A bad event is named on standard error with its line, and the others go on; the exit code is 1 then. The input is
    read as it comes, so it may be larger than the memory, or a pipe that never ends. Ctrl-C finishes what is under
    way, and says how far it came.
    """
    if template is not None and (type is not None or data is not None):
        raise typer.BadParameter(
            "a template has a type and data: leave --type out, and change the data with --set"
        )
    if set and template is None:
        raise typer.BadParameter("--set changes the data of a template: give its --template")
    if type is not None or template is not None:
        if file is not None:
            raise typer.BadParameter(
                f"{'--type' if template is None else '--template'} makes one event, and FILE holds others: give one of "
                "the two"
            )
        from crossbus.cli.publish_one import publish_one

        raise typer.Exit(
            publish_one(
                topic,
                type=type,
                template=template,
                changes=set or [],
                data=data,
                subject=subject,
                id=id,
                extensions=extension or [],
                source=source,
                url=url,
                profile=profile,
                config=config,
            )
        )
    if data is not None or subject is not None or id is not None or extension:
        raise typer.BadParameter(
            "--data, --subject, --id and --extension are of one event: give its --type, or --template"
        )
    from crossbus.cli.publish import publish_file

    raise typer.Exit(
        publish_file(topic, file, format=format.value, source=source, url=url, profile=profile, config=config)
    )


@_command(
    examples(
        "crossbus run shop:bus",
        "CROSSBUS_URL=local: crossbus run shop --reload --trace",
        "crossbus run acme.shop:make_bus --workers 4 --health 0.0.0.0:8080",
    )
)
def run(
    program: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:BUS",
            help="A module and its Bus (or a function that makes one); MODULE alone means its only Bus.",
            show_default=False,
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            max=1000,
            help="Run it in N processes, and start one anew that dies. Without it: in this process.",
            show_default=False,
        ),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            "--health",
            metavar="HOST:PORT",
            help="Answer /livez and /readyz there. Without a host only to this machine; 0.0.0.0:PORT to all, which is "
            "safe: the answers hold no data.",
            show_default=False,
        ),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="For development: start anew when a Python or TOML file changes.")
    ] = False,
    url: Url = None,
    profile: ProfileName = None,
    config: Config = None,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace", help="Print each trace as a tree, when it is complete. Needs crossbus[otel]."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Import a program and handle the events of its subscriptions until Ctrl-C or SIGTERM; then drain.

    The current directory is searched for the module first. --url, --profile and --config reach a Bus that the
    program makes without naming one itself: Bus().

    Traces and metrics are exported as OpenTelemetry's variables (OTEL_...) say, if crossbus[otel] is installed and the
    program sets up nothing itself.
    """
    from crossbus.cli.run import run_program

    raise typer.Exit(
        run_program(
            program,
            url=url,
            profile=profile,
            config=config,
            workers=workers,
            health=health,
            reload=reload,
            trace=trace,
        )
    )


@_command(
    examples(
        "crossbus serve",
        "crossbus serve --port 0 --strict",
        "CROSSBUS_SERVER_KEY=... crossbus serve --host 0.0.0.0",
    )
)
def serve(
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen. One that others can reach needs a key."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port; 0 for any that is free.")] = 8787,
    path: Annotated[
        str | None,
        typer.Option(
            "--path",
            metavar="FILE",
            help="Keep everything in this SQLite file, instead of in memory.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict",
            help="Refuse topics and subscriptions that are not there, instead of making them on first use. "
            "Default: strict, unless only this machine can reach the server.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            envvar="CROSSBUS_SERVER_KEY",
            help="What clients must send. The variable is better: others can see an option in the list of processes.",
            show_default=False,
        ),
    ] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log each request to standard error.")
    ] = False,
    shortest_lock: Annotated[
        float,
        typer.Option(
            "--shortest-lock",
            metavar="SECONDS",
            help="The shortest lock of Event Grid subscriptions, and that of those made on first use. Azure's is 60.",
            rich_help_panel="For tests",
        ),
    ] = 60.0,
    shortest_wait: Annotated[
        float,
        typer.Option(
            "--shortest-wait",
            metavar="SECONDS",
            help="The shortest wait of an Event Grid receive. Azure's is 10.",
            rich_help_panel="For tests",
        ),
    ] = 10.0,
    debug: Debug = False,
) -> None:
    """Run a broker for several processes, until Ctrl-C or SIGTERM.

    crossbus programs use it as local+http://HOST:PORT. Programs in any language use it with Azure's SDK, for it speaks
    the protocol of Event Grid namespaces. Events are in memory, and gone when it ends, unless --path names a file.
    """
    from crossbus.cli.serve import run_server

    raise typer.Exit(
        run_server(
            host=host,
            port=port,
            path=path,
            strict=strict,
            key=key,
            access_log=access_log,
            shortest_lock=shortest_lock,
            shortest_wait=shortest_wait,
        )
    )


@_command(
    examples(
        "crossbus emulator pubsub",
        "crossbus emulator pubsub --port 0",
        "PUBSUB_EMULATOR_HOST=127.0.0.1:8085 CROSSBUS_URL=pubsub:my-project crossbus run shop",
    )
)
def emulator(
    provider: Annotated[
        str, typer.Argument(metavar="PROVIDER", help="Whose emulator: pubsub.", show_default=False)
    ],
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            help="The port; 0 for any that is free. Default: the provider's own.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Run a cloud's own emulator, if it is installed, until Ctrl-C or SIGTERM, and say what to set.

    It is the cloud's, not crossbus's: what it lacks of the service stands on the provider's page of the documentation.
    """
    from crossbus.cli.emulator import run_emulator

    raise typer.Exit(run_emulator(provider, host=host, port=port))


@_command(
    examples(
        "crossbus conformance local:",
        "crossbus conformance local: --select order --select 'retry/*'",
        "crossbus conformance pubsub:my-project --scale 0.1 --json > report.json",
    )
)
def conformance(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The account or broker to check.", show_default=False)
    ],
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select",
            metavar="CASES",
            help="Only these cases: a group, a name, or a pattern such as retry/*. May be given several times.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        float,
        typer.Option("--scale", min=0.001, max=10.0, help="How large the large cases are: 1 is full size."),
    ] = 1.0,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before touching a real account.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The report as JSON on standard output.")] = False,
    debug: Debug = False,
) -> None:
    """Check that an adapter does all that crossbus promises, on a real account or broker.

    It asks before it touches anything that is not local. It works on topics and subscriptions of its own, whose names
    begin with kit-, and removes them at the end. The exit code is 1 if a case failed.
    """
    from crossbus.cli.conformance import check

    raise typer.Exit(check(url, select=select or (), scale=scale, yes=yes, as_json=json))


operating.add_to(app)
app.add_typer(dlq.app)
topology.add_to(app)
watching.register(app)
