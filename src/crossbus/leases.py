"""Keeping the leases of what is in hand, and settling in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from crossbus.adapter import LeaseOutcome, Receiver, Settlement
from crossbus.clock import Clock, TimerHandle, sleep
from crossbus.delivery import Delivery, DeliveryState

if TYPE_CHECKING:
    from crossbus.telemetry.consuming import ConsumeTelemetry
    from crossbus.telling import DeliveryLog

__all__ = ["LeaseKeeper", "Settler", "extend_once", "within_total"]

logger = logging.getLogger("crossbus")

_OK = LeaseOutcome.OK
SETTLE_TRIES: Final = 4
"""How often settling is tried at least; more often only while the lease lasts."""
SETTLE_PAUSE: Final = 0.2
"""Seconds before the second try; each pause is twice the one before it."""
SETTLE_PAUSE_MOST: Final = 5.0
EXTEND_LIMIT: Final = 5.0
"""Seconds, or a third of the lease if that is more, within which extending must be answered: one request that never is
must not cost all other leases."""


class LeaseKeeper:
    """Extends the leases of deliveries, buffered or being handled, until they are discarded.

    None is extended beyond `Delivery.until`: what is not settled by then comes again, to whoever asks. Where leases are
    `fixed` by the provider, they may be shorter than the declared `lease`: each delivery says how long its own is.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        clock: Clock,
        telemetry: ConsumeTelemetry,
        lease: float,
        fixed: bool = False,
        on_lost: Callable[[Delivery], None],
    ) -> None:
        self._receiver = receiver
        self._telemetry = telemetry
        self._clock = clock
        self._lease = lease
        self._fixed = fixed
        self._on_lost = on_lost
        self._kept: dict[Any, Delivery] = {}
        self._timer: TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, delivery: Delivery) -> None:
        """Keep the lease of a delivery."""
        if self._fixed and delivery.received.lease_seconds < self._lease:
            self._lease = delivery.received.lease_seconds
        self._kept[delivery.received.lease] = delivery
        if self._timer is None and self._task is None:
            self._arm(delivery.received.lease_seconds)

    def discard(self, delivery: Delivery) -> None:
        """Keep it no longer."""
        self._kept.pop(delivery.received.lease, None)

    def _arm(self, lease: float) -> None:
        # A third of the lease: two more chances before it ends.
        self._timer = self._clock.call_at(self._clock.monotonic() + lease / 3, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._kept and not self._closed:
            self._task = asyncio.create_task(self._keep(), name="crossbus leases")
            self._task.add_done_callback(self._kept_once)

    def _kept_once(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("leases could not be extended, trying again: %s: %s", type(error).__name__, error)
        if not self._closed and self._timer is None:
            extendable = [d.expires for d in self._kept.values() if _extendable(d)]
            if extendable:
                soonest = min(extendable) - self._clock.monotonic()
                self._arm(min(self._lease, max(soonest, self._lease / 20)))

    async def _keep(self) -> None:
        now = self._clock.monotonic()
        due = [d for d in self._kept.values() if d.expires - now < self._lease * 0.7 and _extendable(d)]
        # Near the end of what the provider allows altogether, a lease is extended to that end, and no further.
        last = [d for d in due if d.until - now < self._lease]
        if last:
            due = [d for d in due if d.until - now >= self._lease]
            left = min(d.until for d in last) - now
            await self._extend(last, left, now)
        if due:
            await self._extend(due, self._lease, now)

    async def _extend(self, due: Sequence[Delivery], seconds: float, now: float) -> None:
        if seconds <= 0:
            return
        async with asyncio.timeout(max(EXTEND_LIMIT, self._lease / 3)):
            leases = [d.received.lease for d in due]
            outcomes = await self._telemetry.extend(self._receiver, leases, seconds)
        for delivery, outcome in zip(due, outcomes, strict=True):
            if outcome is LeaseOutcome.OK:
                delivery.expires = now + seconds
            elif outcome is LeaseOutcome.LOST and delivery.received.lease in self._kept:
                del self._kept[delivery.received.lease]
                delivery.state = DeliveryState.LOST
                self._on_lost(delivery)

    async def close(self) -> None:
        """Stop keeping anything."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _extendable(delivery: Delivery) -> bool:
    return delivery.until - delivery.expires > 1.0  # less is not worth a request


async def extend_once(
    receiver: Receiver, delivery: Delivery, seconds: float, clock: Clock, telemetry: ConsumeTelemetry
) -> LeaseOutcome:
    """Make one lease last `seconds` from now, or as long as the provider lets it; `LOST` if it lets it no longer."""
    seconds = min(seconds, delivery.until - clock.monotonic())
    if seconds <= 0:
        return LeaseOutcome.LOST
    outcome = (await telemetry.extend(receiver, [delivery.received.lease], seconds))[0]
    if outcome is LeaseOutcome.OK:
        delivery.expires = clock.monotonic() + seconds
    return outcome


def within_total(delivery: Delivery, delay: float, clock: Clock, log: DeliveryLog) -> float:
    """Shorten a delay to what the provider lets a delivery be held: it ends early, never in a lost lease."""
    left = max(0.0, delivery.until - clock.monotonic())
    if delay <= left:
        return delay
    log.comes_early(delivery, delay, left)
    return left


class Settler:
    """Collects settlements and hands them to the receiver in batches, once a turn of the event loop."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        clock: Clock,
        telemetry: ConsumeTelemetry,
        on_settled: Callable[[Delivery, float | None, LeaseOutcome], None],
        tell_all: bool,
    ) -> None:
        self._tell_all = tell_all
        """Whether `on_settled` is to be called for what went well, too."""
        self._telemetry = telemetry
        self._receiver = receiver
        self._clock = clock
        self._on_settled = on_settled
        self._pending: list[tuple[Delivery, float | None]] = []
        self._due = False
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[Any, asyncio.Future[LeaseOutcome]] = {}

    def add(self, delivery: Delivery, delay: float | None) -> None:
        """Acknowledge a delivery (`delay` None), or give it back after a delay that the provider has."""
        self._pending.append((delivery, delay))
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def settle(self, delivery: Delivery, delay: float | None) -> LeaseOutcome:
        """Settle one, and wait for the answer."""
        future: asyncio.Future[LeaseOutcome] = asyncio.get_running_loop().create_future()
        self._waiting[delivery.received.lease] = future
        self.add(delivery, delay)
        return await future

    def _flush(self) -> None:
        self._due = False
        batch, self._pending = self._pending, []
        if batch:
            task = asyncio.create_task(self._settle(batch), name="crossbus settle")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _settle(self, batch: list[tuple[Delivery, float | None]]) -> None:
        attempt = 0
        while batch:
            attempt += 1
            pause = min(SETTLE_PAUSE * 2 ** (attempt - 1), SETTLE_PAUSE_MOST)
            try:
                outcomes = await self._ask(batch)
            except Exception as error:
                logger.warning(
                    "settling %d deliveries failed: %s: %s", len(batch), type(error).__name__, error
                )
                outcomes = [LeaseOutcome.FAILED] * len(batch)
            if not isinstance(outcomes, Sequence) or len(outcomes) != len(batch):
                # Settling twice is harmless; what became of each is not known otherwise.
                logger.error("settling %d deliveries was answered with %r", len(batch), outcomes)
                outcomes = [LeaseOutcome.FAILED] * len(batch)
            if not self._tell_all and not self._waiting and all(outcome is _OK for outcome in outcomes):
                return
            again: list[tuple[Delivery, float | None]] = []
            for entry, outcome in zip(batch, outcomes, strict=True):
                if outcome is LeaseOutcome.FAILED and self._try_again(entry[0], attempt, pause):
                    again.append(entry)
                else:
                    self._settled(*entry, outcome)
            batch = again
            if batch:
                await sleep(self._clock, pause)

    async def _ask(self, batch: list[tuple[Delivery, float | None]]) -> Sequence[LeaseOutcome]:
        settling = self._telemetry.settling(batch)
        settlements = [Settlement(d.received.lease, delay) for d, delay in batch]
        if settling is None:
            return await self._receiver.settle(settlements)
        try:
            outcomes = await self._receiver.settle(settlements)
        except BaseException as error:
            settling.end(error)
            raise
        settling.end()
        return outcomes

    def _try_again(self, delivery: Delivery, attempt: int, pause: float) -> bool:
        """Whether settling may still work: an outage that is shorter than the lease costs no second handling."""
        if attempt < SETTLE_TRIES:
            return True
        return not self._draining and self._clock.monotonic() + pause < delivery.expires

    def _settled(self, delivery: Delivery, delay: float | None, outcome: LeaseOutcome) -> None:
        future = self._waiting.pop(delivery.received.lease, None) if self._waiting else None
        if future is not None and not future.done():
            future.set_result(outcome)
        self._on_settled(delivery, delay, outcome)

    async def drain(self, limit: float) -> None:
        """Wait until everything is settled, or has been tried often enough; `limit` real seconds at most.

        What is not answered by then comes again when its lease ends.
        """
        self._draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while self._pending or self._tasks:
            self._flush()
            done, late = await asyncio.wait(self._tasks, timeout=max(0.0, end - loop.time()))
            self._tasks.difference_update(done)
            if late:
                logger.error(
                    "settling was not answered within %g s, %d requests: their events come again",
                    limit,
                    len(late),
                )
                for task in late:
                    task.cancel()
                await asyncio.wait(late, timeout=1.0)
                self._give_up_waiting()
                return

    def _give_up_waiting(self) -> None:
        """Answer those who wait for what is never answered."""
        for future in self._waiting.values():
            if not future.done():
                future.set_result(LeaseOutcome.FAILED)
        self._waiting.clear()
