"""`RemoteReceiver`: deliveries from a server, by long polls.

A delivery that the server handed out and that reached nobody, since the receive was cancelled or the connection
broke, is given back without costing an attempt: see `crossbus_local.http.channels`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from crossbus.adapter import LeaseOutcome, Received, Receiver, Settlement
from crossbus.errors import BusClosedError, NotFound, ProviderError
from crossbus.event import new_id
from crossbus_local.protocol import (
    LONGEST_WAIT,
    Abandon,
    Deliveries,
    Extend,
    LeaseAnswers,
    Receive,
    data_decoder,
    path_of,
)
from crossbus_local.remote.client import TIMEOUT
from crossbus_local.remote.settling import LONGEST, Settling

if TYPE_CHECKING:
    from crossbus_local.remote.adapter import RemoteAdapter

__all__ = ["RemoteReceiver"]

MOST: Final = 1000
"""The most deliveries of one request."""
GOODBYE: Final = 2.0
"""Seconds that giving back what was lost may take when a receiver is closed."""

_deliveries = data_decoder(Deliveries)
_answers = data_decoder(LeaseAnswers)


class _Channel:
    """One receive at a time asks under it."""

    __slots__ = ("arrived", "lost", "name", "number", "told")

    def __init__(self) -> None:
        self.name = new_id()
        self.number = 0
        self.arrived = 0
        """The last number whose answer arrived."""
        self.lost = 0
        """The last number whose answer did not arrive."""
        self.told = 0
        """The last such number that the server knows of."""


class RemoteReceiver(Receiver):
    """Takes deliveries from one subscription of a server."""

    def __init__(self, adapter: RemoteAdapter, topic: str, name: str, lease: float) -> None:
        self._adapter = adapter
        self._lease = min(lease, LONGEST)
        self._path = path_of("topics", topic, "subscriptions", name)
        self._settling = Settling(adapter, f"{self._path}/settle")
        self._channels: list[_Channel] = []
        """Those that nobody asks under at the moment."""
        self._receiving: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """Return up to `max` deliveries, as soon as there is one; none after `wait` seconds, or once closed."""
        if self._closed:
            return []
        channel = self._channels.pop() if self._channels else _Channel()
        channel.number += 1  # here, so that what is lost below is never an answer that arrived
        asking = asyncio.get_running_loop().create_task(self._receive(channel, max, wait))
        self._receiving.add(asking)
        asking.add_done_callback(self._receiving.discard)
        try:
            taken: Sequence[Received] = await asking
        except BaseException as error:
            # Also if the answer was there already, and was on its way to a task that was cancelled.
            channel.lost = channel.number
            if isinstance(error, asyncio.CancelledError):
                self._abandon_soon(channel)
                if self._closed and not _is_cancelled():
                    return []
            raise
        else:
            channel.arrived = channel.number
            return taken
        finally:
            self._channels.append(channel)

    async def _receive(self, channel: _Channel, max: int, wait: float) -> Sequence[Received]:
        end = time.monotonic() + wait
        while True:
            left = end - time.monotonic()
            taken = await self._ask(channel, max, min(left, LONGEST_WAIT) if left > 0 else 0.0)
            if taken or time.monotonic() >= end:
                return taken
            channel.number += 1

    async def _ask(self, channel: _Channel, most: int, wait: float) -> Sequence[Received]:
        lost = channel.lost
        form = Receive(
            channel.name, channel.number, min(most, MOST), wait, self._lease, lost, channel.arrived
        )
        answer = await self._adapter.again_if_restarted(
            lambda: self._adapter.client.data(
                f"{self._path}/receive", form, _deliveries, timeout=TIMEOUT + wait
            )
        )
        channel.told = lost
        return answer.deliveries

    # --- what did not arrive ------------------------------------------------------------------------------------

    def _abandon_soon(self, channel: _Channel) -> None:
        task = asyncio.get_running_loop().create_task(self._abandon(channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _abandon(self, channel: _Channel) -> None:
        lost = channel.lost
        try:
            form = Abandon(channel.name, lost, channel.arrived)
            await self._adapter.client.data(f"{self._path}/abandon", form, _deliveries, timeout=GOODBYE)
        except (ProviderError, BusClosedError):  # the next receive says it; without one, the leases end
            return
        channel.told = max(channel.told, lost)

    # --- leases -------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """Acknowledge deliveries, or give them back. What is settled meanwhile goes in one request after it."""
        return await self._settling.settle(settlements)

    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        """Make leases last `seconds` from now."""
        form = Extend(list(leases), min(seconds, LONGEST))
        try:
            answer = await self._adapter.client.data(f"{self._path}/extend", form, _answers)
        except NotFound:
            return [LeaseOutcome.LOST] * len(leases)
        return [LeaseOutcome(outcome) for outcome in answer.outcomes]

    async def close(self) -> None:
        """Let those who wait in `receive` return. Deliveries in hand come again when their leases end."""
        self._closed = True
        for asking in list(self._receiving):
            asking.cancel()
        if self._receiving:
            await asyncio.wait(self._receiving)
        for channel in self._channels:
            if channel.lost > channel.told:
                self._abandon_soon(channel)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOODBYE)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
