"""What `crossbus doctor` asks AWS beyond `inspect`: whose credentials these are, what they may, what is near full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from crossbus.checks import Result, clock_result
from crossbus.errors import PermissionDenied
from crossbus_eventbridge import making
from crossbus_eventbridge.limits import MAX_PATTERN, RULES
from crossbus_eventbridge.permitted import permitted
from crossbus_eventbridge.standing import Look

if TYPE_CHECKING:
    from crossbus.topology import Topic, Topology
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["diagnose"]

NEAR: Final = 0.9
"""From this part of a limit on it is said."""


async def diagnose(adapter: EventBridgeAdapter, topology: Topology) -> list[Result]:
    """Look at all that `inspect` does not. Raises what AWS says to credentials that are not good."""
    identity = await adapter.connection.identity()
    region = adapter.connection.clients.region
    found = [Result("credentials", "ok", f"{identity.arn}, region {region}")]
    found += clock_result(identity.date, adapter.clock.time())
    found += await permitted(adapter, identity, topology)
    if adapter.options.api == "classic":
        buses = {adapter.names.bus(topic): topic for topic in topology.topics}
        found += await asyncio.gather(*(_rules(adapter, bus, topic) for bus, topic in buses.items()))
        found += [_pattern(str(one), making.pattern_text(adapter, one)) for one in topology.subscriptions]
    return found


async def _rules(adapter: EventBridgeAdapter, bus: str, topic: Topic) -> Result:
    try:
        count = len(await Look(adapter).rules(bus)) if await Look(adapter).bus(topic) else 0
    except PermissionDenied as error:
        return Result("rules-limit", "unknown", str(error), topic.name)
    said = f"bus {bus} has {count} rules, of {RULES} that AWS gives by default"
    return Result("rules-limit", "warning" if count >= NEAR * RULES else "ok", said, topic.name)


def _pattern(name: str, pattern: str) -> Result:
    said = f"the pattern has {len(pattern):,} of {MAX_PATTERN:,} characters"
    return Result("pattern-size", "warning" if len(pattern) >= NEAR * MAX_PATTERN else "ok", said, name)
