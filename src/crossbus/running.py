"""`Runner`: the consumers of a bus, signals, draining, health."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from crossbus.consumer_settings import ConsumerSettings
from crossbus.consuming import Consumer
from crossbus.delivery import Delivery
from crossbus.errors import BusClosedError, DeclarationError
from crossbus.processing import Processor
from crossbus.stopping import stop_at_signals
from crossbus.subscriptions import SubscriptionHandle
from crossbus.watchdog import Watchdog

if TYPE_CHECKING:
    from crossbus.bus import Bus
    from crossbus.health import Health

__all__ = ["Runner", "call_hook"]

logger = logging.getLogger("crossbus")

being_imported: str | None = None
"""The module that `crossbus run` is importing just now: one that consumes by itself would never end being imported."""


async def call_hook(hook: Callable[[Bus], Any], bus: Bus) -> None:
    """Call a start or stop hook, and wait for what it does."""
    answer = hook(bus)
    if inspect.isawaitable(answer):
        await answer


class Runner:
    """Runs the consumers of one bus."""

    def __init__(self, bus: Bus, processor: Callable[..., Processor] = Processor) -> None:
        self._bus = bus
        self._processor = processor
        self._consumers: dict[tuple[str, str], Consumer] = {}
        self._paused: set[tuple[str, str]] = set()
        self._watchdog: Watchdog | None = None

    # --- beginning and end --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until a signal, then drain. See `Bus.run`."""
        if being_imported is not None:
            raise DeclarationError(
                f"{being_imported} runs its bus while crossbus run imports it; put that under "
                'if __name__ == "__main__":'
            )
        opened_here = not self._bus.is_open
        loop, stop = asyncio.get_running_loop(), _Stop()
        try:
            # From here on, or a signal that comes when the bus is just open would end the process at once.
            with stop_at_signals(lambda: loop.call_soon_threadsafe(stop.stop)):
                if await stop.came_before(self._bus.open()):
                    return
                async with self.running():
                    await self._until(stop.event)
        finally:
            if opened_here:
                await self._bus.close()

    async def _until(self, stop: asyncio.Event) -> None:
        stopper = asyncio.ensure_future(stop.wait())
        waits: set[asyncio.Future[Any]] = {stopper}
        for consumer in self._consumers.values():
            waits |= {future for future in (consumer.failed, consumer.stopped) if future is not None}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            stopper.cancel()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bus]:
        """Consume in the background of a block. See `Bus.running`."""
        bus = self._bus
        opened_here = not bus.is_open
        await bus.open()
        started: list[Consumer] = []
        try:
            handled = [handle for handle in bus.subscriptions if handle.handlers]
            if not handled:
                raise DeclarationError(
                    "nothing to consume: no subscription has a handler; decorate one with @bus.subscribe(topic, name)"
                )
            await bus._ensure()
            for handle in handled:
                consumer = await self._start(handle, None)
                started.append(consumer)
            yield bus
            for consumer in started:
                if consumer.failed is not None and consumer.failed.done() and not consumer.failed.cancelled():
                    consumer.failed.result()
        finally:
            await self._stop(started, bus.drain_limit)
            if opened_here:
                await bus.close()

    async def stop(self, limit: float) -> None:
        """Drain all consumers."""
        await self._stop(list(self._consumers.values()), limit)

    async def _start(self, handle: SubscriptionHandle, window: int | None) -> Consumer:
        bus = self._bus
        subscription = handle.declaration
        if subscription.key in self._consumers:
            raise DeclarationError(f"subscription {subscription} is being consumed by this bus already")
        pull = window is not None
        adapter = await bus._connections.adapter_of(subscription.topic)
        consumer = Consumer(
            subscription,
            adapter,
            ConsumerSettings(
                handlers=None if pull else handle.handlers,
                middleware=() if pull else bus._handle_middleware + handle.middleware,
                mapping=handle.mapping,
                window=window,
                processor=self._processor,
            ),
            clock=bus.clock,
            telemetry=bus._telemetry.of_subscription(subscription, adapter, bus.clock),
            dead_letters=bus._dead_letter_publisher(subscription, adapter),
        )
        if subscription.key in self._paused:
            consumer.pause()
        self._consumers[subscription.key] = consumer
        try:
            await consumer.start()
        except BaseException:
            self._consumers.pop(subscription.key, None)
            raise
        if self._watchdog is None:
            self._watchdog = Watchdog(min(5.0, subscription.lease / 4), self._name_of)
        return consumer

    async def _stop(self, consumers: list[Consumer], limit: float) -> None:
        try:
            await asyncio.gather(*(consumer.stop(limit) for consumer in consumers))
        finally:
            for consumer in consumers:
                if self._consumers.get(consumer.subscription.key) is consumer:
                    del self._consumers[consumer.subscription.key]
            if not self._consumers and self._watchdog is not None:
                watchdog, self._watchdog = self._watchdog, None
                watchdog.stop()

    def is_handling(self, task: asyncio.Task[Any] | None) -> bool:
        """True if a handler runs in a task."""
        return task is not None and self._name_of(task) is not None

    def _name_of(self, task: asyncio.Task[Any]) -> str | None:
        for consumer in list(self._consumers.values()):
            if (name := consumer.handler_of(task)) is not None:
                return name
        return None

    # --- the pull form ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def deliveries(
        self, handle: SubscriptionHandle, most: int
    ) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Pull deliveries. See `Bus.deliveries`."""
        if not isinstance(most, int) or most < 1:
            raise DeclarationError(f"deliveries(max={most!r}): it must be a whole number from 1")
        self._bus._check_open(f"deliveries of {handle.declaration}")
        await self._bus._ensure()
        consumer = await self._start(handle, most)
        try:
            yield _Pull(consumer)
        finally:
            await self._stop([consumer], self._bus.drain_limit)

    # --- flow and health ----------------------------------------------------------------------------------------

    def pause(self, handle: SubscriptionHandle) -> None:
        """Pause a subscription, now and if it is started later."""
        self._paused.add(handle.declaration.key)
        consumer = self._consumers.get(handle.declaration.key)
        if consumer is not None:
            consumer.pause()

    def resume(self, handle: SubscriptionHandle) -> None:
        """Resume a subscription."""
        self._paused.discard(handle.declaration.key)
        consumer = self._consumers.get(handle.declaration.key)
        if consumer is not None:
            consumer.resume()

    @property
    def is_quiet(self) -> bool:
        """True if no consumer has anything in hand."""
        return all(consumer.is_quiet for consumer in self._consumers.values())

    def health(self) -> Health:
        """Say how all do."""
        from crossbus.health import Health

        consumers = dict(self._consumers)
        found = {str(consumer.subscription): consumer.health() for consumer in consumers.values()}
        blocked_by = self._watchdog.blocked_by if self._watchdog is not None else None
        alive = blocked_by is None and not any(health.stuck for health in found.values())
        ready = (
            self._bus.is_open
            and alive
            and all(health.state == "running" and health.last_receive_ok for health in found.values())
        )
        return Health(alive, ready, found, blocked_by)


class _Stop:
    """That a signal came: it cuts opening short, and has what runs drain."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._opening: asyncio.Task[Any] | None = None

    def stop(self) -> None:
        """Note that it came."""
        self.event.set()
        if self._opening is not None:
            self._opening.cancel()

    async def came_before(self, opening: Awaitable[None]) -> bool:
        """Open, in the task of the caller, whose context variables hooks may set. True if that was cut short."""
        task = self._opening = asyncio.current_task()
        assert task is not None
        try:
            await opening
        except asyncio.CancelledError:
            if not self.event.is_set() or task.uncancel() > 0:
                raise
            return True
        finally:
            self._opening = None
        return False


class _Pull:
    """The iterator of the pull form."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __aiter__(self) -> _Pull:
        return self

    async def __anext__(self) -> Delivery:
        try:
            return await self._consumer.next()
        except BusClosedError:
            raise StopAsyncIteration from None
