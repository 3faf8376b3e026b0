"""What `crossbus doctor` asks Event Grid beyond `inspect`: whether the credentials are good, and what they permit.

Whether one may receive is seen by renewing a lock that nobody ever had, which changes nothing: whoever may not, is
refused before Event Grid looks for the lock. Whether one may publish can only be tried by publishing, so that ARM is
asked for it: which data actions the identity has on the topic.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from crossbus.checks import Result, clock_result
from crossbus.errors import NotFound, PermissionDenied
from crossbus_eventgrid.checks import CHECKS
from crossbus_eventgrid.control import NoControl
from crossbus_eventgrid.polling import settle_tokens

if TYPE_CHECKING:
    from crossbus.topology import Subscription, Topology
    from crossbus_eventgrid.adapter import EventGridAdapter
    from crossbus_eventgrid.control import Granted

__all__ = ["diagnose"]

SEND: Final = "Microsoft.EventGrid/events/send/action"
"""The data action of EventGrid Data Sender.

Source: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/integration#eventgrid-data-sender
"""
NO_TOKEN: Final = "crossbus-doctor-has-no-lock"
_AT_ONCE: Final = 8


async def diagnose(adapter: EventGridAdapter, topology: Topology) -> list[Result]:
    """Look at all that `inspect` does not. Raises what Event Grid says to credentials that are not good."""
    looks = _Looks(adapter)
    asked = [looks.consume(one) for one in topology.subscriptions]
    asked += [
        looks.publish("publish-permitted", one.name, adapter.topic_name(one)) for one in topology.topics
    ]
    asked += [
        looks.publish("dead-letter-permitted", str(one), adapter.topic_name(one.dead_letter))
        for one in topology.subscriptions
    ]
    results = [one for one in await asyncio.gather(*asked) if one is not None]
    return [*results, *clock_result(adapter.rest.date, adapter.clock.time())]


class _Looks:
    def __init__(self, adapter: EventGridAdapter) -> None:
        self._adapter = adapter
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def consume(self, declared: Subscription) -> Result | None:
        """Try to renew a lock that never was; nothing if the subscription is not there, for `inspect` says so."""
        async with self._room:
            try:
                await settle_tokens(
                    self._adapter.rest, self._adapter.place(declared), "renewLock", [NO_TOKEN]
                )
            except NotFound:
                return None
            except PermissionDenied as error:
                return Result("consume-permitted", "wrong", str(error), str(declared))
        return Result("consume-permitted", "ok", "", str(declared))

    async def publish(self, check: str, name: str, topic: str) -> Result | None:
        """Ask which data actions there are on a topic; nothing where there are no roles."""
        if self._adapter.rest.has_key:
            return Result(check, "ok", "a key permits all", name)
        async with self._room:
            try:
                granted = await self._adapter.control().granted(topic)
            except NoControl as problem:
                return Result(check, "unknown", str(problem), name)
        if granted is None:
            return None
        if _permits(granted, SEND):
            return Result(check, "ok", "", name)
        text = f"{SEND} on topic {topic} is missing: no role that is assigned to this identity has it"
        return Result(check, CHECKS[check].state, text, name)


def _permits(granted: Sequence[Granted], action: str) -> bool:
    return any(_matches(one.actions, action) and not _matches(one.excluded, action) for one in granted)


def _matches(patterns: Sequence[str], action: str) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), one.lower()) for one in patterns)
