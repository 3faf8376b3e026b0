"""Replay: the events of an archive of the bus, again to one rule alone.

EventBridge takes up to ten minutes to put an event into an archive, and replays in the background.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-replay-archived-event.html
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from crossbus.adapter import ReplayFrom
from crossbus.errors import ErrorCode, provider_error
from crossbus.event import new_id
from crossbus_eventbridge.standing import Look

if TYPE_CHECKING:
    from crossbus.topology import Subscription
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["MARGIN", "replay"]

MARGIN: Final = timedelta(minutes=1)
"""How much earlier a replay begins: EventBridge goes by the time in each event, which is a little before it was
published, and by whole minutes. What comes too often is harmless; what does not come is lost."""


async def replay(adapter: EventBridgeAdapter, subscription: Subscription, start: ReplayFrom) -> None:
    """Start a replay from a time until now. Raises `NotFound` if the bus has no archive."""
    connection = adapter.connection
    bus = adapter.names.bus(subscription.topic)
    found = await connection.call("events_control", "DescribeEventBus", bus, Name=bus)
    look = Look(adapter)
    queue = await look.queue(adapter.names.queue(subscription)) if subscription.external else None
    rule = await look.rule_to(subscription, (queue or {}).get("QueueArn", ""))
    if rule is None:
        raise provider_error(
            ErrorCode.NOT_FOUND,
            f"eventbridge: bus {bus} has no rule {adapter.names.rule(subscription)} for {subscription}; create it with "
            "`crossbus provision`, or name it: options = { rule = ... }",
        )
    archives = await connection.call(
        "events_control", "ListArchives", f"of bus {bus}", EventSourceArn=found["Arn"]
    )
    names = [one["ArchiveName"] for one in archives.get("Archives", ()) if one.get("State") != "DISABLED"]
    if not names:
        raise provider_error(
            ErrorCode.NOT_FOUND,
            f"eventbridge: bus {bus} has no archive, so that nothing can be replayed to {subscription}: set "
            "archive=DAYS in the profile and run `await bus.provision()`; it holds what is published from then on",
        )
    own = adapter.names.archive(bus)
    name = own if own in names else names[0]
    assert start.time is not None  # there is no capability for positions
    begin, end = start.time.astimezone(UTC) - MARGIN, datetime.fromtimestamp(adapter.clock.time(), UTC)
    if begin + MARGIN >= end:
        raise provider_error(
            ErrorCode.INVALID_REQUEST,
            f"eventbridge: a replay to {subscription} cannot begin in the future ({begin})",
        )
    await connection.call(
        "events_control",
        "StartReplay",
        f"to {subscription}",
        ReplayName=f"crossbus-{new_id()[:24]}",
        EventSourceArn=_archive_arn(found["Arn"], name),
        EventStartTime=begin,
        EventEndTime=end,
        Destination={"Arn": found["Arn"], "FilterArns": [rule.arn]},
    )


def _archive_arn(bus: str, name: str) -> str:
    return f"{bus.rpartition(':')[0]}:archive/{name}"
