"""`TestBus`: the program's own Bus, on a broker that only this test sees."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final

from crossbus.bus import Bus
from crossbus.deadletter import DeadLetter
from crossbus.errors import BusClosedError, DeclarationError
from crossbus.event import Event
from crossbus.publishing import Receipt
from crossbus.sync import SyncBus
from crossbus.testing.broker import PrivateBroker
from crossbus.testing.clock import Clock
from crossbus.testing.idle import Idleness
from crossbus.testing.watching import Handled, watching

__all__ = ["DRAIN_LIMIT", "TestBus", "default_bus"]

DRAIN_LIMIT: Final = 1.0
"""Seconds that the end of a test waits for handlers that still run; then they are cancelled."""
THREAD_LIMIT: Final = 1.0
"""Seconds that each step of `advance` waits for handlers in threads."""


class TestBus:
    """The program's own Bus on an in-memory broker of its own, whatever it is configured for, with a clock to move.

    ```python
    async with TestBus(shop.bus) as bus:
        await bus.publish("orders", event)
        await bus.wait_idle()
        assert bus.handled("orders", "billing")[0].outcome == "ack"
    ```

    The block opens the bus (its `on_start` hooks run) and consumes every subscription that has a handler. Publishing
    through the Bus itself, as handlers do, is seen too. After the block, also after an exception, the Bus is what it
    was: closed, with its own configuration; declarations made in the block, and changes of `bus.state`, are gone.
    Handlers that run when the block ends have one second, and are then cancelled.

    Args:
        bus: The program's Bus. It must not be open. Default: a new one, whose events have the source ``/test``.
        clock: The time of leases, delays and timeouts, for this block. It stands still until `advance`.

    Raises:
        DeclarationError: on entering, if the bus is open already.
    """

    __test__ = False  # its name begins with Test, but it is none

    def __init__(self, bus: Bus | None = None, *, clock: Clock | None = None) -> None:
        self.bus = default_bus() if bus is None else _checked(bus)
        """The program's Bus, for what else it can do: `pause`, `replay`, `backlog`, ..."""
        self.clock = Clock() if clock is None else clock
        """The time of this bus."""
        self.subscribe = self.bus.subscribe
        """`Bus.subscribe`: handlers added in the block are run too."""
        self.topic = self.bus.topic
        """`Bus.topic`."""
        self._handled: list[Handled] = []
        self._broker = PrivateBroker(self.clock)
        self._idleness = Idleness(self.bus, self._broker)
        self._restoring = ExitStack()
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> TestBus:
        self._broker = PrivateBroker(self.clock)
        self._idleness = Idleness(self.bus, self._broker)
        self._handled = []
        self._starting = asyncio.Lock()
        processor = watching(self._note)
        self._restoring.enter_context(self.bus._retargeted(self._broker, self.clock, processor, DRAIN_LIMIT))
        try:
            await self.bus.open()
            await self._consume()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.bus.close()
        finally:
            self._restoring.close()

    def _abandon(self) -> None:
        """End what can be ended without the event loop, if that ended before this block."""
        runner = self.bus._runner
        if self.bus.is_open:
            for consumer in runner._consumers.values():
                consumer._processor.close()
            if runner._watchdog is not None:
                runner._watchdog.stop()
        self._restoring.close()

    def _note(self, handled: Handled) -> None:
        self._handled.append(handled)

    async def _consume(self) -> None:
        """See that what is declared by now is there, and begin to consume what has a handler."""
        if not self.bus.is_open:
            raise BusClosedError(
                "the bus of the test is not open: use it in `async with TestBus(bus) as bus:`"
            )
        async with self._starting:
            runner = self.bus._runner
            await self.bus._ensure()
            for handle in self.bus.subscriptions:
                if handle.handlers and handle.declaration.key not in runner._consumers:
                    await runner._start(handle, None)

    # --- doing --------------------------------------------------------------------------------------------------

    async def publish(self, topic: str, event: Any) -> Receipt:
        """Publish one event through the Bus. See `Bus.publish`."""
        await self._consume()
        return await self.bus.publish(topic, event)

    async def publish_many(self, topic: str, events: Iterable[Any] | AsyncIterable[Any]) -> list[Receipt]:
        """Publish many events through the Bus. See `Bus.publish_many`."""
        await self._consume()
        return await self.bus.publish_many(topic, events)

    async def wait_idle(self, timeout: float = 5.0) -> None:
        """Wait until nothing waits that is due, no handler runs, and nothing is being published or settled.

        Events that wait for a retry do not count: they come when `advance` has moved the time. Nor do those of a
        subscription that is paused or has no handler.

        Args:
            timeout: Seconds of the real time.

        Raises:
            TimeoutError: it took longer; the message says what is still busy.
        """
        await self._consume()
        await self._idleness.wait(timeout)

    async def advance(self, seconds: float) -> None:
        """Move the time on: delays, timeouts and leases that end on the way do so in order, each at its time.

        Before each of them everything that can go on does so, plain functions in threads included (for up to a
        second each); what an `async def` handler awaits from outside, such as the network, is not waited for.
        """
        if not seconds >= 0:
            raise ValueError(f"advance({seconds}): time goes forward only")
        await self._consume()
        clock, target = self.clock, self.clock.monotonic() + seconds
        await self._idleness.rest(THREAD_LIMIT)
        while (due := clock.next_timer()) is not None and due <= target:
            await clock.advance(max(0.0, due - clock.monotonic()))
            await self._idleness.rest(THREAD_LIMIT)
        await clock.advance(max(0.0, target - clock.monotonic()))

    # --- seeing -------------------------------------------------------------------------------------------------

    def published(self, topic: str | None = None, type: str | None = None) -> list[Event]:
        """Return what was published through the Bus, by the test and by the program, in order.

        Args:
            topic: Only what was published to this topic.
            type: Only events of this type.
        """
        return [
            event
            for to, event in list(self._broker.published)
            if (topic is None or to == topic) and (type is None or event.type == type)
        ]

    def handled(self, topic: str | None = None, name: str | None = None) -> list[Handled]:
        """Return what became of each delivery, in the order in which they were settled.

        An event that was retried is there once for each attempt.

        Args:
            topic: Only of subscriptions of this topic.
            name: Only of subscriptions with this name.
        """
        self._check_declared(topic, name)
        return [
            handled
            for handled in list(self._handled)
            if (topic is None or handled.topic == topic) and (name is None or handled.subscription == name)
        ]

    def _check_declared(self, topic: str | None, name: str | None) -> None:
        """Refuse a misspelt name: a test that nothing was handled must not pass because of it."""
        if topic is not None and name is not None and self.bus.is_open:
            self.bus._declared(topic, name)

    async def dead_letters(self, topic: str, name: str) -> list[DeadLetter]:
        """Return the dead letters of a subscription, oldest first. `bus.dead_letters` can redrive and purge them."""
        return list(await self.bus.dead_letters(topic, name).list(limit=1_000_000))

    def __repr__(self) -> str:
        outcomes = Counter(handled.outcome for handled in list(self._handled))
        shown = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        text = f"{len(self._broker.published)} published, {len(self._handled)} handled"
        text += f" ({shown})" if shown else ""
        delayed = self._broker.delayed()
        if delayed:
            due, key = delayed[0]
            text += (
                f", {len(delayed)} delayed (first: {'/'.join(key)}, in {due - self.clock.monotonic():.3g} s)"
            )
        return f"<{type(self).__name__}: {text}>"


def default_bus() -> Bus:
    """Return a new Bus for a test that brings none."""
    return Bus("local:", source="/test")


def _checked(bus: object) -> Bus:
    if not isinstance(bus, Bus):
        hint = "; SyncTestBus takes a SyncBus" if isinstance(bus, SyncBus) else ""
        raise DeclarationError(f"TestBus takes the program's Bus, not {type(bus).__name__}{hint}")
    return bus
