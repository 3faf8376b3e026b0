"""Who plays in the demo: the events, the subscriptions, and what happens to which event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from crossbus.cli.reading import Item, read_event, splitter
from crossbus.codecs import decode_json
from crossbus.errors import ConfigurationError, EventError
from crossbus.event import Event
from crossbus.filters import Filter, all_, any_, exact, prefix
from crossbus.portable import check_portable

__all__ = ["Cast", "Role", "cast_of_file", "cast_of_shop"]

MOST: Final = 200
"""Events of a user's file that are played; more would take longer than they teach."""


@dataclass(frozen=True)
class Role:
    """A subscription, and its filter as a program writes it."""

    name: str
    filter: Filter | None
    written: str
    why: str


@dataclass(frozen=True)
class Cast:
    """What the demo plays with."""

    title: str
    topic: str
    events: tuple[Event, ...]
    roles: tuple[Role, ...]
    worker: str
    """The subscription whose handler fails."""
    flaky: Event
    """Its handler fails twice, then succeeds."""
    failure: str
    poison: Event
    """Its handler rejects it, until it is repaired."""
    rejection: str
    repair: str
    problems: tuple[str, ...] = ()
    """What is wrong with lines of the user's file."""
    remark: str = ""
    """What else there is to say of the file."""


def cast_of_shop() -> Cast:
    """Return the shop's own cast."""
    text = files("crossbus.demo").joinpath("events.jsonl").read_bytes()
    events = {event.id: event for event in map(decode_json, text.splitlines())}
    return Cast(
        title="a small shop",
        topic="shop",
        events=tuple(events.values()),
        roles=(
            Role(
                "billing",
                exact(type="com.acme.order.placed"),
                'exact(type="com.acme.order.placed")',
                "charges each order",
            ),
            Role(
                "eu-desk",
                all_(prefix(type="com.acme.order."), exact(region="eu")),
                'all_(prefix(type="com.acme.order."), exact(region="eu"))',
                "sees what happens to European orders",
            ),
            Role(
                "operations",
                any_(prefix(type="google."), prefix(type="Microsoft.")),
                'any_(prefix(type="google."), prefix(type="Microsoft."))',
                "watches what the clouds report",
            ),
            Role("archive", None, "None", "keeps everything"),
        ),
        worker="billing",
        flaky=events["shop-3"],
        failure="the payment service does not answer",
        poison=events["shop-5"],
        rejection="no exchange rate for CHF",
        repair="Somebody adds the exchange rate.",
    )


def cast_of_file(path: Path) -> Cast:
    """Return a cast made of a user's events.

    Raises:
        ConfigurationError: there is no event in the file.
        OSError: it cannot be read.
    """
    events, problems, more = _read(path)
    if not events:
        first = f": {problems[0]}" if problems else ""
        raise ConfigurationError(f"{path} holds no CloudEvent that can be played{first}")
    common = Counter(event.type for event in events).most_common(1)[0][0]
    family = f"{common.split('.')[0]}." if "." in common else common
    return Cast(
        title=f"the events of {path.name}",
        topic="events",
        events=tuple(events),
        roles=(
            Role("everything", None, "None", "gets all of them"),
            Role("one-type", exact(type=common), f'exact(type="{common}")', "gets one type"),
            Role("one-family", prefix(type=family), f'prefix(type="{family}")', "gets what begins alike"),
        ),
        worker="everything",
        flaky=events[0],
        failure="a service that it needs does not answer",
        poison=events[-1],
        rejection="this event cannot be handled",
        repair="Somebody repairs the handler.",
        problems=tuple(problems),
        remark=f"Only the first {MOST} are played." if more else "",
    )


def _read(path: Path) -> tuple[list[Event], list[str], bool]:
    events: list[Event] = []
    problems: list[str] = []
    with path.open("rb") as stream:
        items = _items(stream)
        for item in islice(items, MOST):
            try:
                event = read_event(item)
                check_portable(event)
                events.append(event)
            except EventError as error:
                problems.append(f"line {item.line}: {error}")
        more = next(items, None) is not None
    return events, problems, more


def _items(stream: BinaryIO) -> Iterator[Item]:
    split = splitter()
    while chunk := stream.read(1 << 16):
        yield from split.feed(chunk)
    yield from split.finish()
