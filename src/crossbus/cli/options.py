"""The options that several commands share, each said once."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from crossbus.cli.exits import set_debug
from crossbus.errors import ConfigurationError

__all__ = [
    "Config",
    "Debug",
    "Output",
    "OutputChoice",
    "ProfileName",
    "Subscription",
    "Subscriptions",
    "Url",
    "one_place",
]


class OutputChoice(str, Enum):
    """The forms of what a command prints."""

    TABLE = "table"
    JSON = "json"
    LINES = "lines"


Subscription = Annotated[
    str, typer.Argument(metavar="TOPIC/NAME", help="The subscription: orders/billing.", show_default=False)
]
Subscriptions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TOPIC/NAME]...",
        help="The subscriptions; or MODULE:BUS for those that a program declares. Default: all that the local broker "
        "has, and those of the configuration file.",
        show_default=False,
    ),
]
Output = Annotated[
    OutputChoice | None,
    typer.Option(
        "--output",
        "-o",
        help="table: for people. lines: columns between tabs, a line each. json: an object a line. Default: table on a "
        "terminal, else lines.",
        show_default=False,
    ),
]

_CONNECTION = "Connection"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where to: local:, local:NAME, local:?path=FILE, local+http://HOST:PORT, eventbridge:?region=REGION, "
        "pubsub:PROJECT, eventgrid://HOST. Without it the profile is taken, then CROSSBUS_URL, CROSSBUS_PROFILE, and "
        "default_profile of the file.",
        rich_help_panel=_CONNECTION,
        show_default=False,
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="A profile of the configuration file.",
        rich_help_panel=_CONNECTION,
        show_default=False,
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration file, instead of crossbus.toml.",
        rich_help_panel=_CONNECTION,
        show_default=False,
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the traceback of an error; CROSSBUS_DEBUG=1 does so too.", callback=set_debug
    ),
]


def one_place(url: str | None, profile: str | None) -> None:
    """Refuse two options that both say which bus to use."""
    if url is not None and profile is not None:
        raise ConfigurationError("--url and --profile both say which bus to use; give one of them")
