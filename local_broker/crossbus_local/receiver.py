"""`LocalReceiver`: deliveries from the engine to an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from crossbus.adapter import LeaseOutcome, Received, Receiver, Settlement
from crossbus_local.engine import Engine
from crossbus_local.queue import Queue

__all__ = ["LocalReceiver"]


class _Waiter:
    """One task that waits in one loop. Woken from that loop or from any other thread."""

    __slots__ = ("_future", "_loop", "called")

    def __init__(self) -> None:
        self.called = False
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> bool:
        """Let the task go on, soon. False if its loop is closed."""
        if asyncio._get_running_loop() is self._loop:
            self._done()
            return True
        try:
            self._loop.call_soon_threadsafe(self._done)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _done(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        await self._future


class LocalReceiver(Receiver):
    """Takes deliveries from one queue of an engine. Holds nothing of its own but who waits in it."""

    def __init__(
        self, engine: Engine, topic: str, name: str, lease: float, room: float = float("inf")
    ) -> None:
        """`room` is how many bytes a receive returns at most, beside those of its last delivery."""
        self._engine = engine
        self._room = room
        self._name = topic, name
        self._queue = engine.find(topic, name)
        self._lease = lease
        self._waiting: set[_Waiter] = set()
        self._closed = False

    @property
    def queue(self) -> Queue:
        """The queue that was last received from."""
        return self._queue

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """Return up to `max` deliveries, as soon as there is one; none after `wait` seconds, or once closed.

        Does not suspend when something is there, and never between taking deliveries and returning them.
        """
        taken = [] if self._closed else self._take(max)
        if taken or self._closed or wait <= 0:
            return taken
        until = self._engine.clock.monotonic() + wait
        while True:
            waiter = _Waiter()
            taken, due = self._engine.receive(self._queue, max, self._lease, waiter, self._room)
            if taken:
                return taken
            await self._wait(waiter, min(due, until))
            if self._closed:
                return []
            if self._engine.clock.monotonic() >= until:
                return self._take(max)

    def _take(self, most: int) -> list[Received]:
        if self._queue.deleted:
            self._queue = self._engine.find(*self._name)  # it may have been made again
        return self._engine.receive(self._queue, most, self._lease, None, self._room)[0]

    async def _wait(self, waiter: _Waiter, until: float) -> None:
        self._waiting.add(waiter)
        timer = self._engine.clock.call_at(until, waiter.wake) if until < float("inf") else None
        gone = True
        try:
            await waiter.wait()
            gone = self._closed
        finally:
            if timer is not None:
                timer.cancel()
            self._waiting.discard(waiter)
            self._engine.leave(self._queue, waiter, pass_on=gone)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """Acknowledge deliveries, or give them back."""
        return self._engine.settle(self._queue, settlements)

    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        """Make leases last `seconds` from now."""
        return self._engine.extend(self._queue, leases, seconds)

    async def close(self) -> None:
        """Let those who wait in `receive` return. Deliveries in hand come again when their leases end."""
        self._closed = True
        for waiter in list(self._waiting):
            waiter.wake()
