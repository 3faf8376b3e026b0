"""`Consumer`: takes deliveries of one subscription, holds them, gives them to workers, and settles them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from crossbus.adapter import Adapter, LeaseOutcome, Received, Receiver
from crossbus.asking import guarded
from crossbus.breaking import state_of
from crossbus.clock import Clock, TimerHandle
from crossbus.consumer_settings import ConsumerSettings
from crossbus.delivery import Delivery, DeliveryState
from crossbus.errors import BusClosedError
from crossbus.fetching import HEAD_START, Fetcher, after_turns
from crossbus.key_order import KeyOrder
from crossbus.leases import LeaseKeeper, Settler, extend_once, within_total
from crossbus.outcomes import Retry
from crossbus.publishing import Publisher
from crossbus.telling import DeliveryLog
from crossbus.topology import Subscription

if TYPE_CHECKING:
    from crossbus.health import SubscriptionHealth
    from crossbus.telemetry.consuming import ConsumeTelemetry

__all__ = ["Consumer"]

logger = logging.getLogger("crossbus")

YIELD_EVERY: Final = 16
"""After so many events in a row that never waited, others get their turn."""
CANCEL_LIMIT: Final = 5.0
"""Seconds that a handler is given to end once it is cancelled."""
SETTLE_LIMIT: Final = 10.0
"""Seconds that a provider is given to answer the last settlements, and to close."""
_ENDING = ("draining", "stopped")


class Consumer:
    """Consumes one subscription."""

    def __init__(
        self,
        subscription: Subscription,
        adapter: Adapter,
        settings: ConsumerSettings,
        *,
        clock: Clock,
        telemetry: ConsumeTelemetry,
        dead_letters: Publisher,
    ) -> None:
        self.subscription = subscription
        self.adapter = adapter
        self.clock = clock
        self.telemetry = telemetry
        self.log = DeliveryLog(subscription, telemetry)
        self._pull = settings.handlers is None
        self._processor = settings.processor(
            self,
            settings.handlers,
            settings.middleware,
            settings.mapping,
            telemetry=telemetry,
            dead_letters=dead_letters,
        )
        limits = adapter.capabilities.lease
        self._lease = subscription.lease if not limits.fixed else min(subscription.lease, limits.maximum)
        self._delays = adapter.capabilities.retry_delays
        self._buffer: deque[Delivery] = deque()
        self._order = KeyOrder()
        self._fetcher = Fetcher(
            subscription,
            adapter,
            clock,
            telemetry=telemetry,
            window=settings.window,
            take=self._take,
            on_failed=self._fail,
        )
        self._held: dict[Delivery, TimerHandle] = {}
        self._pulled: set[Delivery] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._state: Literal["running", "paused", "draining", "failed", "stopped"] = "stopped"
        self._why: str | None = None
        """Why it is paused, if it paused itself."""
        self._receiver: Receiver | None = None
        self._keeper: LeaseKeeper | None = None
        self._settler: Settler | None = None
        self._stopping = False
        self.failed: asyncio.Future[None] | None = None
        """Done with an exception when consuming cannot go on."""
        self.stopped: asyncio.Future[None] | None = None
        """Done when it has been stopped."""

    # --- beginning and end --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the receiver and begin to fetch."""
        self.failed = asyncio.get_running_loop().create_future()
        self.failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.stopped = asyncio.get_running_loop().create_future()
        self._receiver = receiver = await guarded(
            self.adapter, self.adapter.open_receiver(self.subscription, self._fetcher.most)
        )
        clock, telemetry, fixed = self.clock, self.telemetry, self.adapter.capabilities.lease.fixed
        self._keeper = LeaseKeeper(
            receiver, clock=clock, telemetry=telemetry, lease=self._lease, fixed=fixed, on_lost=self._lost
        )
        self._settler = Settler(
            receiver,
            clock=clock,
            telemetry=telemetry,
            on_settled=self._settled,
            tell_all=self.subscription.ordered,
        )
        self._state = "paused" if self.is_paused else "running"
        telemetry.watch(self.adapter, lambda: self._fetcher.in_hand + len(self._held))
        self._fetcher.start(receiver)

    async def stop(self, limit: float) -> None:
        """Drain: fetch no more, give back what no handler has begun, wait for handlers, settle, close.

        Handlers that still run after `limit` seconds are cancelled; their events are given back.
        """
        if self._receiver is None:
            return
        assert self.stopped is not None
        if self._stopping:
            await asyncio.shield(self.stopped)
            return
        self._stopping = True
        if self._state != "failed":
            self._state = "draining"
        try:
            try:
                await self._drain(limit)
            finally:  # also when draining is cancelled
                await self._end()
        finally:
            self._receiver = None
            self._stopping = False
            self._state = "stopped" if self._state != "failed" else "failed"
            for future in self._idle:
                future.cancel()
            self.stopped.set_result(None)

    async def _drain(self, limit: float) -> None:
        await self._fetcher.stop()
        self._give_back_waiting()
        busy = [worker for worker in self._workers if not worker.done() and self._processor.runs.of(worker)]
        for worker in self._workers:
            if worker not in busy:
                worker.cancel()
        if busy:
            _, late = await asyncio.wait(busy, timeout=limit)
            for worker in late:
                name = self._processor.runs.name_of(worker)
                logger.warning(
                    "%s: %s did not end in %.0f s; its event is given back", self.subscription, name, limit
                )

    async def _end(self) -> None:
        """Cancel what still runs, give back what is left, settle, close."""
        assert self._receiver is not None
        assert self._keeper is not None
        assert self._settler is not None
        await self._fetcher.stop()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers, timeout=CANCEL_LIMIT)
        self._give_back_waiting()
        for delivery in list(self._pulled):
            self.settle(delivery, self._delays.floor(0.0))
            delivery.state = DeliveryState.LOST  # to whoever has it still
        await self._settler.drain(SETTLE_LIMIT)
        await self._keeper.close()
        self._processor.close()
        await self.telemetry.unwatch()
        try:
            await asyncio.wait_for(self._receiver.close(), SETTLE_LIMIT)
        except Exception:
            logger.exception("%s: closing its receiver failed", self.subscription)

    def _give_back_waiting(self) -> None:
        """Give back what no handler has begun: buffered, behind a key, or held for a delay."""
        waiting = [*self._buffer, *self._order.take_all(), *self._held]
        self._buffer.clear()
        for delivery in list(self._held):
            self._unhold(delivery)
        for delivery in waiting:
            self.settle(delivery, self._delays.floor(0.0))

    # --- deliveries and workers ---------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        self._state = "failed"
        assert self.failed is not None
        if not self.failed.done():
            self.failed.set_exception(error)

    def _take(self, received: Sequence[Received]) -> None:
        assert self._keeper is not None
        now = self.clock.monotonic()
        ordered, total = self.subscription.ordered, self.adapter.capabilities.lease.total
        deliveries = [Delivery(item, self, now + item.lease_seconds, now + total) for item in received]
        self.telemetry.received(deliveries)
        for item, delivery in zip(received, deliveries, strict=True):
            self._fetcher.count(len(item.body))
            self._keeper.add(delivery)
            if ordered and not self._order.admit(delivery):
                continue
            self._buffer.append(delivery)
        if self.is_paused:
            self._give_back_waiting()
            return
        after_turns(HEAD_START if len(received) >= YIELD_EVERY else 0, lambda: self._wake(len(received)))

    def _wake(self, count: int) -> None:
        while count > 0 and self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                count -= 1
        if not self._pull:
            while count > 0 and self._buffer and len(self._workers) < self.subscription.concurrency:
                worker = asyncio.create_task(
                    self._work(),
                    name=f"crossbus worker {self.subscription}",
                    context=self.telemetry.background(),
                )
                self._workers.add(worker)
                worker.add_done_callback(self._worker_ended)
                count -= 1

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if self._buffer and self._state not in _ENDING:
            self._wake(1)  # a handler cancelled it: another takes what is left

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        streak = 0
        buffer, process = self._buffer, self._processor.process
        while True:
            while buffer:
                await process(buffer.popleft(), task)
                streak += 1
                if streak >= YIELD_EVERY:
                    streak = 0
                    await asyncio.sleep(0)
            if self._state in _ENDING:
                return
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            try:
                await idle
            except asyncio.CancelledError:
                with suppress(ValueError):
                    self._idle.remove(idle)
                raise

    def take_more(self, most: int) -> list[Delivery]:
        """Take what is buffered, for a handler of several events."""
        return [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]

    # --- the pull form ------------------------------------------------------------------------------------------

    async def next(self) -> Delivery:
        """Return the next delivery whose event can be read and matches the filter."""
        while True:
            while self._buffer:
                delivery = self._buffer.popleft()
                self._pulled.add(delivery)
                try:
                    if await self._processor.prepare(delivery):
                        return delivery
                except BaseException:
                    self.give_back(delivery, 0.0)
                    raise
            if self._state in _ENDING:
                raise BusClosedError(f"{self.subscription}: the bus is closed")
            assert self.failed is not None
            await self._wait_idle(self.failed)
            if self.failed.done():
                self.failed.result()

    async def _wait_idle(self, failed: asyncio.Future[None]) -> None:
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(idle)
        try:
            await asyncio.wait({idle, failed}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if idle.done() and self._buffer:
                self._wake(1)  # it was for whoever else waits
            raise
        finally:
            with suppress(ValueError):
                self._idle.remove(idle)

    async def settle_by_hand(self, delivery: Delivery, delay: float | None) -> LeaseOutcome:
        """Settle for `Delivery.ack`."""
        if delivery.state is not DeliveryState.IN_HAND:
            return self._settled_already(delivery, delay)
        delivery.state = DeliveryState.SETTLED
        assert self._settler is not None
        assert self._keeper is not None
        self._keeper.discard(delivery)
        self._free(delivery)
        return await self._settler.settle(delivery, delay)

    async def fail_by_hand(self, delivery: Delivery, retry: Retry) -> LeaseOutcome:
        """Fail for `Delivery.retry`."""
        if delivery.state is DeliveryState.IN_HAND:
            await self._processor.failed(delivery, retry, None)
        return self._settled_already(delivery, 0.0)

    async def reject_by_hand(self, delivery: Delivery, reason: str) -> LeaseOutcome:
        """Dead-letter for `Delivery.reject`."""
        if delivery.state is DeliveryState.IN_HAND:
            await self._processor.give_up(delivery, reason, None, None)
        return self._settled_already(delivery, 0.0)

    def _settled_already(self, delivery: Delivery, delay: float | None) -> LeaseOutcome:
        if delivery.state is not DeliveryState.LOST:
            return LeaseOutcome.OK
        self.settle(delivery, delay)  # frees its place
        return LeaseOutcome.LOST

    async def extend_by_hand(self, delivery: Delivery, seconds: float) -> LeaseOutcome:
        """Extend for `Delivery.extend`."""
        if delivery.state is not DeliveryState.IN_HAND or self._receiver is None:
            return LeaseOutcome.LOST
        return await extend_once(self._receiver, delivery, seconds, self.clock, self.telemetry)

    # --- settling -----------------------------------------------------------------------------------------------

    def settle(self, delivery: Delivery, delay: float | None) -> None:
        """Acknowledge a delivery, or give it back after a delay that the provider has. Once only."""
        if delivery.state is not DeliveryState.IN_HAND:
            if delivery.state is DeliveryState.LOST:
                self._free(delivery)
                self._release_key(delivery, delay)
            return
        delivery.state = DeliveryState.SETTLED
        if delay is not None:
            self._order.leave(delivery)
        assert self._settler is not None
        assert self._keeper is not None
        self._keeper.discard(delivery)
        self._settler.add(delivery, delay)
        self._free(delivery)

    def give_back(self, delivery: Delivery, delay: float) -> None:
        """Give a delivery back, to come again after `delay` seconds; held here for what the provider cannot hold."""
        if delivery.state in (DeliveryState.SETTLED, DeliveryState.HELD):
            return
        delay = within_total(delivery, delay, self.clock, self.log)
        if self._state == "draining":
            self.settle(delivery, self._delays.floor(delay))
            return
        step = self._delays.floor(delay)
        # A retry holds its key: what was fetched behind it must come after it again.
        for other in self._order.take_behind(delivery):
            self.settle(other, step)
        hold = delay - step
        if hold <= 0 or delivery.state is not DeliveryState.IN_HAND:
            self.settle(delivery, step)
            return
        delivery.state = DeliveryState.HELD
        self._held[delivery] = self.clock.call_at(
            self.clock.monotonic() + hold, lambda: self._end_hold(delivery, step)
        )
        self._free(delivery)
        self._fetcher.hold(len(delivery.received.body))

    def expire(self, delivery: Delivery) -> None:
        """Drop a delivery whose lease ended unnoticed, before a handler began: another may have it."""
        if self._keeper is not None:
            self._keeper.discard(delivery)
        delivery.state = DeliveryState.LOST
        self._lost(delivery)
        self.settle(delivery, 0.0)

    def abandon(self, delivery: Delivery) -> None:
        """Keep the lease of a delivery no longer, so that it comes to another consumer."""
        if self._keeper is not None:
            self._keeper.discard(delivery)

    def _end_hold(self, delivery: Delivery, step: float) -> None:
        if self._unhold(delivery):
            self.settle(delivery, step)

    def _unhold(self, delivery: Delivery) -> bool:
        timer = self._held.pop(delivery, None)
        if timer is None:
            return False
        timer.cancel()
        if delivery.state is DeliveryState.HELD:
            delivery.state = DeliveryState.IN_HAND
        self._fetcher.unhold(len(delivery.received.body))
        return True

    def _free(self, delivery: Delivery) -> None:
        """Give a delivery's place in the window to another."""
        if delivery.released:
            return
        delivery.released = True
        if self._pull:
            self._pulled.discard(delivery)
        self._fetcher.free(len(delivery.received.body))

    def _settled(self, delivery: Delivery, delay: float | None, outcome: LeaseOutcome) -> None:
        if outcome is not LeaseOutcome.OK:
            delivery.state = DeliveryState.LOST
            self.log.settled_too_late(delivery, delay)
        self._release_key(delivery, delay)

    def _lost(self, delivery: Delivery) -> None:
        self.log.lost(delivery)
        if delivery in self._buffer:
            self._buffer.remove(delivery)
            self.settle(delivery, 0.0)
        elif self._unhold(delivery):
            self.settle(delivery, 0.0)

    def _release_key(self, delivery: Delivery, delay: float | None) -> None:
        """A delivery has ended: let the next of its key go if it is done, else give back what came behind it too."""
        if delay is None:
            following = self._order.done(delivery)
        else:
            self._order.leave(delivery)
            stale, following = self._order.left(delivery)
            for other in stale:
                self.settle(other, self._delays.floor(0.0))
        if following is None:
            return
        if following.state is DeliveryState.IN_HAND:
            self._buffer.append(following)
            self._wake(1)
        else:  # lost while it waited: it comes again, and before those behind it
            self.settle(following, 0.0)

    # --- flow ---------------------------------------------------------------------------------------------------

    def pause(self, why: str | None = None) -> None:
        """Fetch no more, and give back what no handler has begun."""
        self._fetcher.allowed.clear()
        if self._state == "running":
            self._state = "paused"
            self._why = why
            self._give_back_waiting()

    def resume(self) -> None:
        """Go on after a pause."""
        self._fetcher.allowed.set()
        self._processor.reset_breaker()
        if self._state == "paused":
            self._state, self._why = "running", None

    @property
    def is_paused(self) -> bool:
        """True while paused."""
        return not self._fetcher.allowed.is_set()

    @property
    def is_quiet(self) -> bool:
        """True if nothing is in hand and everything is settled."""
        return (
            not self._fetcher.in_hand
            and not self._held
            and (self._settler is None or not (self._settler._pending or self._settler._tasks))
        )

    def handler_of(self, task: asyncio.Task[Any]) -> str | None:
        """Return the name of the handler that a task is running, if it is one of this consumer's."""
        runs = self._processor.runs
        return runs.name_of(task) if runs.of(task) is not None else None

    def health(self) -> SubscriptionHealth:
        """Say how it does."""
        from crossbus.health import SubscriptionHealth

        return SubscriptionHealth(
            self._state,
            len(self._buffer) + len(self._order),
            self._fetcher.in_hand + len(self._held),
            self._processor.runs.stuck(),
            self._fetcher.ok,
            self._why or self._fetcher.problem,
            state_of(self.subscription.breaker, self._why),
        )
