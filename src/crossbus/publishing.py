"""Publishing: batches that form by themselves, an outcome for each event, order per key, bounded memory."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from crossbus.adapter import Adapter, SendOutcome, Wire
from crossbus.asking import code_of, was_cancelled
from crossbus.clock import Clock, sleep
from crossbus.errors import (
    BusClosedError,
    CrossbusError,
    ErrorCode,
    EventTooLarge,
    ProviderError,
    PublishError,
    provider_error,
)
from crossbus.event import Event
from crossbus.topology import Topic
from crossbus.waiting import Turn, Waiting

if TYPE_CHECKING:
    from crossbus.telemetry.publishing import PublishTelemetry, Sending

__all__ = ["PublishResult", "Publisher", "Receipt"]

logger = logging.getLogger("crossbus")

MAX_IN_FLIGHT: Final = 8
"""The most requests of one topic under way at once."""
MAX_WAITING: Final = 10_000
"""The most events of one topic that wait to be sent; publishing waits beyond that."""
MAX_WAITING_BYTES: Final = 64_000_000
RETRY_FIRST: Final = 0.1
RETRY_CAP: Final = 5.0
YIELD_EVERY: Final = 64
"""After so many publishes in a row that never waited, others get their turn."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Proof that the provider took an event."""

    topic: str
    event_id: str
    message_id: str
    """The provider's own id of the message."""


class PublishResult(msgspec.Struct, frozen=True):
    """What became of one event of several: a receipt or an error."""

    event_id: str
    receipt: Receipt | None = None
    error: CrossbusError | None = None


class Publisher:
    """Publishes to one topic through its adapter."""

    def __init__(
        self,
        topic: Topic,
        adapter: Adapter,
        *,
        clock: Clock,
        telemetry: PublishTelemetry,
        check: Callable[[Event], None],
        timeout: float = 60.0,
    ) -> None:
        self.topic = topic
        self._adapter = adapter
        self._clock = clock
        self._telemetry = telemetry
        self._check = check
        self._timeout = timeout
        capabilities = adapter.capabilities
        self._count_limit = capabilities.publish_batch
        self._bytes_limit = capabilities.publish_batch_bytes
        self._event_limit = capabilities.event_bytes
        # Where a batch may be taken in part, two events of one key in it could change places.
        self._one_per_key = capabilities.has("partial_publish")
        self._queue: deque[Waiting] = deque()
        self._waiting_count = 0
        self._waiting_bytes = 0
        self._parked: dict[str, deque[Waiting]] = {}
        self._busy_keys: set[str] = set()
        self._in_flight = 0
        self._held = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._flush_due = False
        self._streak = 0
        self._closed = False
        """True once nothing more is taken; what is under way goes on."""
        self._over = False
        """True once nothing goes on: the adapter is being closed."""
        self._room: deque[Turn] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()

    # --- one event ----------------------------------------------------------------------------------------------

    async def publish(self, event: Event) -> Receipt:
        """Publish one event. Alone it goes at once; with others under way it shares a batch."""
        event, sending = self._telemetry.start(event)
        if sending is not None:
            return await self._publish_traced(event, sending)
        return await self._publish(event, None)

    async def _publish_traced(self, event: Event, sending: Sending) -> Receipt:
        try:
            receipt = await self._publish(event, sending)
        except BaseException as error:
            sending.end(error=error)
            raise
        sending.end(receipt.message_id)
        return receipt

    async def _publish(self, event: Event, sending: Sending | None) -> Receipt:
        wire = self._prepare(event)
        outcome: SendOutcome | CrossbusError
        if self._in_flight or self._queue or self._closed or wire.key is not None:
            outcome = await self._publish_queued(wire, event._id, sending)
        else:
            # Alone: without a task, a future, or another turn of the event loop.
            self._in_flight = 1
            try:
                if sending is None:
                    outcome = (await self._adapter.send(self.topic, (wire,)))[0]
                else:
                    outcome = (await self._send((wire,), (sending,)))[0]
                if not isinstance(outcome, SendOutcome):
                    outcome = self._nonsense(f"an outcome of type {type(outcome).__name__}")
            except (Exception, asyncio.CancelledError) as error:
                if was_cancelled(error):
                    raise
                outcome = self._outcome_of(error)
            finally:
                self._in_flight -= 1
                if self._queue or self._idle:
                    self._after_send()
            if outcome.code is None:
                self._streak += 1
                if self._streak >= YIELD_EVERY:
                    self._streak = 0
                    await asyncio.sleep(0)
                return Receipt(self.topic.name, event._id, outcome.message_id)
            if outcome.retryable:
                outcome = await self._publish_queued(wire, event._id, sending, failed=outcome)
        if isinstance(outcome, CrossbusError):
            raise outcome
        if outcome.code is not None:
            raise self._error(outcome)
        return Receipt(self.topic.name, event._id, outcome.message_id)

    async def _publish_queued(
        self, wire: Wire, event_id: str, sending: Sending | None, failed: SendOutcome | None = None
    ) -> SendOutcome | CrossbusError:
        future: asyncio.Future[SendOutcome | CrossbusError] = asyncio.get_running_loop().create_future()

        def done(outcome: SendOutcome | CrossbusError) -> None:
            if not future.done():
                future.set_result(outcome)

        waiting = Waiting(wire, event_id, done, sending)
        if failed is None:
            await self._enqueue(waiting)
        elif self._over:
            return self._too_late(waiting)
        else:
            self._start([waiting], failed)
        return await future

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep the publisher open for a publish that is still in its middleware."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._after_send()

    # --- many events --------------------------------------------------------------------------------------------

    async def enqueue(self, event: Event, done: Callable[[SendOutcome | CrossbusError], None]) -> None:
        """Add an event to a batch; `done` is called with its outcome. Waits while too much waits already.

        Raises what is wrong with the event itself.
        """
        event, sending = self._telemetry.start(event, "create")
        if sending is not None:
            done = self._ending(sending, done)
        try:
            await self._enqueue(Waiting(self._prepare(event), event.id, done, sending))
        except BaseException as error:
            if sending is not None:
                sending.end(error=error)
            raise

    def _ending(
        self, sending: Sending, done: Callable[[SendOutcome | CrossbusError], None]
    ) -> Callable[[SendOutcome | CrossbusError], None]:
        def ended(outcome: SendOutcome | CrossbusError) -> None:
            failed = outcome if isinstance(outcome, CrossbusError) else None
            if failed is None and outcome.code is not None:  # type: ignore[union-attr]
                failed = self._error(outcome)  # type: ignore[arg-type]
            try:
                sending.end("" if failed else outcome.message_id, failed)  # type: ignore[union-attr]
            finally:
                done(outcome)

        return ended

    def result(self, event_id: str, outcome: SendOutcome | CrossbusError) -> PublishResult:
        """Make the result of one event of several."""
        if isinstance(outcome, CrossbusError):
            return PublishResult(event_id, None, outcome)
        if outcome.code is not None:
            return PublishResult(event_id, None, self._error(outcome))
        return PublishResult(event_id, Receipt(self.topic.name, event_id, outcome.message_id), None)

    async def _enqueue(self, waiting: Waiting) -> None:
        if self._is_full or self._room:
            await self._wait_for_room()
        if self._closed:
            raise BusClosedError(f"the bus is closed: nothing more can be published to {self.topic.name!r}")
        self._queue.append(waiting)
        self._waiting_count += 1
        self._waiting_bytes += waiting.wire.size
        if len(self._queue) >= self._count_limit and self._in_flight < MAX_IN_FLIGHT:
            self._flush()
        elif not self._flush_due:
            # The publishes of this turn of the event loop share a batch; a lone one waits no longer than that.
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    @property
    def _is_full(self) -> bool:
        return self._waiting_count >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES

    async def _wait_for_room(self) -> None:
        turn = Turn()
        self._room.append(turn)
        try:
            while not self._closed and (self._is_full or self._room[0] is not turn):
                turn.woken = asyncio.get_running_loop().create_future()
                await turn.woken
        finally:
            self._room.remove(turn)
            if self._room:
                self._room[0].wake()

    def _prepare(self, event: Event) -> Wire:
        self._check(event)
        wire = self._adapter.encode(self.topic, event)
        if wire.size > self._event_limit:
            raise EventTooLarge(
                f"event {event.id!r} has {wire.size:,} bytes as {self._adapter.name} counts them; the limit is "
                f"{self._event_limit:,}: store the data elsewhere and publish a reference to it",
                size=wire.size,
                limit=self._event_limit,
            )
        return wire

    # --- batches ------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flush_due = False
        while self._queue and self._in_flight < MAX_IN_FLIGHT:
            batch = self._take()
            if not batch:
                break
            self._start(batch, None)

    def _start(self, batch: list[Waiting], failed: SendOutcome | None) -> None:
        self._in_flight += 1
        task = asyncio.create_task(
            self._send_batch(batch, failed), name=f"crossbus publish {self.topic.name}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[Waiting]:
        """Take the next batch from the queue: within the limits, and no key that is under way already."""
        batch: list[Waiting] = []
        size = 0
        keys: set[str] = set()
        while self._queue and len(batch) < self._count_limit:
            waiting = self._queue[0]
            wire = waiting.wire
            if batch and size + wire.size > self._bytes_limit:
                break
            self._queue.popleft()
            key = wire.key
            if key is not None:
                if key in self._busy_keys or (self._one_per_key and key in keys):
                    self._parked.setdefault(key, deque()).append(waiting)
                    continue
                keys.add(key)
            batch.append(waiting)
            size += wire.size
            self._waiting_count -= 1
            self._waiting_bytes -= wire.size
        self._busy_keys |= keys
        return batch

    async def _send_batch(self, batch: list[Waiting], failed: SendOutcome | None) -> None:
        keys = {waiting.wire.key for waiting in batch if waiting.wire.key is not None}
        give_up = self._clock.monotonic() + self._timeout
        delay = RETRY_FIRST
        failures = [] if failed is None else [failed]
        try:
            while batch:
                if failures:
                    pause = random.uniform(delay / 2, delay)
                    delay = min(delay * 2, RETRY_CAP)
                    if self._clock.monotonic() + pause >= give_up:
                        for waiting, outcome in zip(batch, failures, strict=True):
                            self._finish(waiting, outcome)
                        return
                    await sleep(self._clock, pause)
                outcomes = await self._try_batch(batch)
                again: list[Waiting] = []
                failures = []
                for waiting, outcome in zip(batch, outcomes, strict=True):
                    if outcome.code is not None and outcome.retryable:
                        again.append(waiting)
                        failures.append(outcome)
                    else:
                        self._finish(waiting, outcome)
                batch = again
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.done(self._too_late(waiting))
            raise
        finally:
            self._in_flight -= 1
            self._release(keys)
            self._after_send()

    async def _try_batch(self, batch: list[Waiting]) -> Sequence[SendOutcome]:
        try:
            outcomes = await self._send(
                [waiting.wire for waiting in batch], [waiting.sending for waiting in batch]
            )
        except (Exception, asyncio.CancelledError) as error:
            if was_cancelled(error):
                raise
            return [self._outcome_of(error)] * len(batch)
        if not isinstance(outcomes, Sequence):
            return [self._nonsense(type(outcomes).__name__)] * len(batch)
        if len(outcomes) != len(batch):
            return [self._nonsense(f"{len(outcomes)} outcomes for {len(batch)} events")] * len(batch)
        return [
            outcome
            if isinstance(outcome, SendOutcome)
            else self._nonsense(f"an outcome of type {type(outcome).__name__}")
            for outcome in outcomes
        ]

    async def _send(self, wires: Sequence[Wire], sendings: Sequence[Sending | None]) -> Sequence[SendOutcome]:
        """Send one request, in the trace of its events. May return or raise whatever the adapter does."""
        request = self._telemetry.start_request(sendings)
        if request is None:
            return await self._adapter.send(self.topic, wires)
        try:
            outcomes = await self._adapter.send(self.topic, wires)
        except BaseException as error:
            request.failed(error)
            raise
        request.ended(outcomes)
        return outcomes

    def _nonsense(self, what: str) -> SendOutcome:
        return SendOutcome(code=ErrorCode.UNKNOWN, message=f"{self._adapter.name} answered {what}")

    def _finish(self, waiting: Waiting, outcome: SendOutcome) -> None:
        waiting.done(outcome)
        key = waiting.wire.key
        if outcome.code is None or key is None:
            return
        # What was to follow on this key must not overtake it: it fails too, and the key is free again.
        behind = list(self._parked.pop(key, ()))
        behind += [other for other in self._queue if other.wire.key == key]
        if not behind:
            return
        self._queue = deque(other for other in self._queue if other.wire.key != key)
        for other in behind:
            self._waiting_count -= 1
            self._waiting_bytes -= other.wire.size
            error = PublishError(
                f"event {other.event_id!r} was not published: event {waiting.event_id!r} before it on ordering key "
                f"{key!r} failed"
            )
            error.retryable = outcome.retryable
            other.done(error)

    def _release(self, keys: set[str]) -> None:
        self._busy_keys -= keys
        for key in keys:
            parked = self._parked.pop(key, None)
            if parked:
                self._queue.extendleft(reversed(parked))

    def _after_send(self) -> None:
        if self._queue and not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)
        if self._room and not self._is_full:
            for turn in islice(self._room, MAX_WAITING - self._waiting_count):
                turn.wake()
        if self.is_idle:
            while self._idle:
                idle = self._idle.popleft()
                if not idle.done():
                    idle.set_result(None)

    # --- errors and the end -------------------------------------------------------------------------------------

    def _outcome_of(self, error: BaseException) -> SendOutcome:
        if isinstance(error, ProviderError):
            return SendOutcome("", error.code, str(error), error.retryable, error)
        code, retryable = code_of(self._adapter, error) or (ErrorCode.UNKNOWN, False)
        return SendOutcome("", code, f"{type(error).__name__}: {error}", retryable, error)

    def _error(self, outcome: SendOutcome) -> CrossbusError:
        if isinstance(outcome.cause, ProviderError):
            return outcome.cause
        assert outcome.code is not None
        message = f"publishing to {self.topic.name!r} failed: {outcome.message or outcome.code.value}"
        if outcome.code is ErrorCode.UNKNOWN:
            error: ProviderError = PublishError(message)
            error.retryable = outcome.retryable
            error.__cause__ = outcome.cause
            return error
        return provider_error(outcome.code, message, retryable=outcome.retryable, cause=outcome.cause)

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way."""
        return not (self._in_flight or self._queue or self._held)

    async def wait_idle(self) -> None:
        """Wait until nothing is under way."""
        while not self.is_idle:
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle

    async def close(self, limit: float) -> None:
        """Finish what is under way, for at most `limit` seconds; then fail what is left."""
        self._closed = not self._held
        for turn in self._room:
            turn.wake()
        try:
            async with asyncio.timeout(limit):
                await self.wait_idle()
            self._closed = True
        except TimeoutError:
            self._closed = self._over = True
            left, self._queue = list(self._queue), deque()
            for parked in self._parked.values():
                left.extend(parked)
            self._parked.clear()
            for waiting in left:
                waiting.done(self._too_late(waiting))
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _too_late(self, waiting: Waiting) -> BusClosedError:
        return BusClosedError(f"the bus was closed before event {waiting.event_id!r} was published")
