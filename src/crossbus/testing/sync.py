"""`SyncTestBus`: the same as `TestBus` for tests that are plain functions."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, TypeVar

from crossbus.bus import Bus
from crossbus.deadletter import DeadLetter
from crossbus.event import Event
from crossbus.publishing import Receipt
from crossbus.sync import SyncBus
from crossbus.testing.bus import TestBus
from crossbus.testing.clock import Clock
from crossbus.testing.loops import OwnLoop, SharedLoop
from crossbus.testing.watching import Handled

__all__ = ["SyncTestBus"]

T = TypeVar("T")


class SyncTestBus:
    """A `TestBus` without asyncio: it runs an event loop in a thread, and every call waits for its result.

    ```python
    with SyncTestBus(shop.bus) as bus:
        bus.publish("orders", event)
        bus.wait_idle()
        assert bus.handled("orders", "billing")[0].outcome == "ack"
    ```

    Handlers run in that thread. What goes wrong in its loop outside of a call, such as in a task that a handler began
    and nobody awaits, is raised by the next call, at the latest at the end of the block.

    Args:
        bus: The program's `Bus` or `SyncBus`. It must not be open. Default: a new Bus, whose events have the source
            ``/test``. The loop of a `SyncBus` is the one that it always has: the program calls it as usual.
        clock: The time of leases, delays and timeouts. It stands still until `advance`.
    """

    __test__ = False

    def __init__(self, bus: Bus | SyncBus | None = None, *, clock: Clock | None = None) -> None:
        self._test = TestBus(bus.bus if isinstance(bus, SyncBus) else bus, clock=clock)
        self.bus = self._test.bus
        """The program's Bus; of a `SyncBus`, the one underneath. Its coroutines go through `complete`."""
        self.clock = self._test.clock
        """The time of this bus; `advance` moves it."""
        self.subscribe = self._test.subscribe
        """`Bus.subscribe`: handlers added before a call are run from that call on."""
        self.topic = self._test.topic
        """`Bus.topic`."""
        self._is_shared = isinstance(bus, SyncBus)
        self._loop: OwnLoop | SharedLoop | None = None

    def __enter__(self) -> SyncTestBus:
        if self._loop is not None:
            raise RuntimeError("this SyncTestBus is open already")
        self._loop = loop = SharedLoop() if self._is_shared else OwnLoop()
        try:
            loop.complete(self._test.__aenter__())
        except BaseException:
            self._loop = None
            loop.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            loop.complete(self._test.__aexit__(None, None, None))
        finally:
            loop.close()
            self._test._abandon()  # if the loop has died and could not do it
        if error is None:
            loop.raise_what_went_wrong()

    # --- doing --------------------------------------------------------------------------------------------------

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop of this bus, and return its result: `bus.complete(shop.place_order("o-1"))`.

        For the program's own coroutines that publish, and for those of `bus.bus`.
        """
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("this SyncTestBus is not open; use it in `with SyncTestBus(bus) as bus:`")
        loop = self._loop
        result = loop.complete(coroutine)
        loop.raise_what_went_wrong()
        return result

    def publish(self, topic: str, event: Any) -> Receipt:
        """Publish one event through the Bus. See `Bus.publish`."""
        return self.complete(self._test.publish(topic, event))

    def publish_many(self, topic: str, events: Iterable[Any]) -> list[Receipt]:
        """Publish many events through the Bus. See `Bus.publish_many`."""
        return self.complete(self._test.publish_many(topic, events))

    def wait_idle(self, timeout: float = 5.0) -> None:
        """Wait until nothing is due or under way. See `TestBus.wait_idle`; raises `TimeoutError`."""
        self.complete(self._test.wait_idle(timeout))

    def advance(self, seconds: float) -> None:
        """Move the time on. See `TestBus.advance`."""
        self.complete(self._test.advance(seconds))

    # --- seeing -------------------------------------------------------------------------------------------------

    def published(self, topic: str | None = None, type: str | None = None) -> list[Event]:
        """Return what was published through the Bus. See `TestBus.published`."""
        return self._test.published(topic, type)

    def handled(self, topic: str | None = None, name: str | None = None) -> list[Handled]:
        """Return what became of each delivery. See `TestBus.handled`."""
        return self._test.handled(topic, name)

    def dead_letters(self, topic: str, name: str) -> list[DeadLetter]:
        """Return the dead letters of a subscription. See `TestBus.dead_letters`."""
        return self.complete(self._test.dead_letters(topic, name))

    def __repr__(self) -> str:
        return repr(self._test).replace("TestBus", "SyncTestBus", 1)
