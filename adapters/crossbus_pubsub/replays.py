"""Replay by seek: what a subscription is given again, and how deliveries of it are known."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from crossbus.adapter import ReplayFrom
from crossbus.clock import Clock
from crossbus.errors import ErrorCode, ProviderError, provider_error
from crossbus.event import new_id
from crossbus.topology import Subscription
from crossbus_pubsub.naming import Names, short
from crossbus_pubsub.sources import REPLAYED, Replay, Source, find_sources
from crossbus_pubsub.wanted import OWNED

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = ["Replays"]

logger = logging.getLogger("crossbus")


class Replays:
    """The replays that were begun through one adapter: its receivers know them at once."""

    def __init__(self) -> None:
        self._by_source: dict[str, Replay] = {}

    def of(self, source: Source, published: float) -> str | None:
        """Return the id of the last replay, if it brought a message of this time."""
        replay = self._by_source.get(source.name) or source.replay
        return replay.id if replay is not None and replay.since <= published <= replay.until else None

    async def seek(
        self,
        client: Client,
        names: Names,
        subscription: Subscription,
        filter: str,
        start: ReplayFrom,
        clock: Clock,
        *,
        emulator: bool,
    ) -> None:
        """Let all generations of a subscription seek to a time; the current one to a snapshot."""
        sources = await find_sources(client, names, subscription, filter)
        since = 0
        target: dict[str, Any]
        if start.time is not None:
            since = int(start.time.timestamp())
            target = {"time": start.time}
        else:
            assert start.position is not None
            target = {"snapshot": names.snapshot(start.position)}
            sources = sources[:1]  # a snapshot is of one Pub/Sub subscription
        replay = Replay(new_id()[:36].lower(), since, int(clock.time()) + 1)
        for source in sources:
            if start.time is not None:
                there = await _retaining(client, source, start.time.timestamp(), clock)
                if there is not None and not emulator:
                    await _note(client, there, replay)
            self._by_source[source.name] = replay
        await asyncio.gather(*(client.call("Seek", subscription=source.name, **target) for source in sources))


async def _retaining(client: Client, source: Source, since: float, clock: Clock) -> Any | None:
    """Return a subscription that can give again what was acknowledged since then; None if we may not look."""
    try:
        there = await client.call("GetSubscription", subscription=source.name)
    except ProviderError as error:
        if error.code is ErrorCode.PERMISSION_DENIED:
            return None
        raise
    _check_retention(there, since, clock)
    return there


async def _note(client: Client, there: Any, replay: Replay) -> None:
    """Note a replay in a label, for consumers that begin later. The emulator cannot change labels."""
    if there.labels.get(OWNED) != "subscription":
        return  # somebody's: it is left as it is
    request = client.type("UpdateSubscriptionRequest")()
    request.subscription.name = there.name
    request.subscription.labels.update(there.labels)
    request.subscription.labels[REPLAYED] = replay.text()
    request.update_mask.paths.append("labels")
    try:
        await client.send("UpdateSubscription", request)
    except ProviderError as error:
        if error.code is not ErrorCode.PERMISSION_DENIED:
            raise
        logger.warning("consumers that drop duplicates may drop what is replayed: %s", error)


def _check_retention(there: Any, since: float, clock: Clock) -> None:
    kept = max(
        float(there.message_retention_duration.seconds) if there.retain_acked_messages else 0.0,
        float(there.topic_message_retention_duration.seconds),
    )
    if not kept:
        raise provider_error(
            ErrorCode.INVALID_REQUEST,
            f"pubsub: {short(there.name)} does not keep what was acknowledged, so that nothing can be replayed: set "
            "its option retain_acked = true (or retention on the topic), and run `await bus.provision()`",
        )
    if since < clock.time() - kept - 60:
        raise provider_error(
            ErrorCode.INVALID_REQUEST,
            f"pubsub: {short(there.name)} keeps events for {kept / 86400:g} days; a replay cannot begin before",
        )
