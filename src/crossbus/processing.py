"""`Processor`: what happens to one delivery, from its bytes to its outcome."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from crossbus.breaking import Rejections
from crossbus.deadletter import Reason, make_record
from crossbus.deadlines import Run, Runs
from crossbus.delivery import Delivery, DeliveryState, ForeignMessage
from crossbus.errors import CrossbusError, DataError, DeclarationError, DecodeError, EventTooLarge
from crossbus.event import Event
from crossbus.handlers import HandleMiddleware, Handler, HandlerSet, checked_answer
from crossbus.joining import call_together
from crossbus.outcomes import NotYet, Reject, Retry
from crossbus.publishing import Publisher
from crossbus.threads import Threads
from crossbus.wire import WIRE_VERSION, take_own

if TYPE_CHECKING:
    from crossbus.consuming import Consumer
    from crossbus.telemetry.consuming import ConsumeTelemetry

__all__ = ["HandlerTimeout", "Processor"]

logger = logging.getLogger("crossbus")

UNKNOWN_WIRE_DELAY: Final = 60.0
"""Seconds until a delivery in an unknown wire form comes again: a newer release may take it."""
MISMATCH_DELAY: Final = 10.0
"""Seconds until an event of an external subscription that the filter does not match comes again."""


class HandlerTimeout(CrossbusError):
    """A handler exceeded its `timeout`. It was cancelled, and the event is retried."""


class _Unhandled(Exception):
    """No handler takes the event's type."""


class _GivenUp(Exception):
    """The delivery belongs into the dead letter; the cause says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Processor:
    """Decodes, filters, calls handlers, and decides outcomes for one consumer."""

    def __init__(
        self,
        consumer: Consumer,
        handlers: HandlerSet | None,
        middleware: tuple[HandleMiddleware, ...],
        mapping: Callable[[ForeignMessage], Event] | None,
        *,
        telemetry: ConsumeTelemetry,
        dead_letters: Publisher,
    ) -> None:
        self._consumer = consumer
        self._subscription = subscription = consumer.subscription
        self._adapter = consumer.adapter
        self._clock = consumer.clock
        self._handlers = handlers
        self._mapping = mapping
        self._telemetry = telemetry
        self._log = consumer.log
        self._dead_letters = dead_letters
        self._executor = Threads(subscription.concurrency, f"crossbus {subscription}")
        self._retry = subscription.retry
        self._address = f"{subscription.topic.name}/{subscription.name}"
        filter = subscription.filter
        self._residual: Callable[[Event], bool] | None = None
        if filter is not None:
            compiled = self._adapter.compile(filter)
            # Not evaluated again if exact, unless the event is made here, or the provider may have another filter.
            own = subscription.resource is not None or self._adapter.name in subscription.native_filter
            if compiled.residual is not None or mapping is not None or subscription.external or own:
                self._residual = filter.predicate
        only = handlers.only if handlers is not None else None
        self._batch = only if only is not None and only.is_batch else None
        self._layers = middleware
        self._chain = self._wrap(self._call_handler)
        # The usual case needs no layers: one async handler, and no middleware.
        self._direct = only if only is not None and only.is_async and not middleware else None
        self.runs = Runs(self._clock, subscription.timeout, str(subscription), abandon=consumer.abandon)
        self._warned: set[Handler] = set()
        breaker = subscription.breaker
        self._rejections = None if breaker is None else Rejections(breaker)

    # --- one delivery -------------------------------------------------------------------------------------------

    async def process(self, delivery: Delivery, task: asyncio.Task[Any]) -> None:
        """Take one delivery, or several for a handler of several, to its outcome."""
        if self._batch is not None:
            await self._process_batch(delivery, self._batch, task)
            return
        run = self.runs.begin(task, [delivery])
        try:
            try:
                if delivery.expires <= run.began:
                    self._consumer.expire(delivery)
                    return
                if not self._read(delivery):
                    return
            except Exception as problem:
                run.handling = False
                await self._unreadable(delivery, problem)
                return
            processing = self._telemetry.process(delivery)
            error: BaseException | None = None
            try:
                direct = self._direct
                if direct is None:
                    await self._chain(delivery)
                else:
                    run.handler = direct
                    answer = await direct.call(delivery)
                    if answer is not None:
                        self._answered(direct, answer)
            except BaseException as raised:
                error = raised
            run.handling = False
            if run.cancelled:
                task.uncancel()
                if isinstance(error, asyncio.CancelledError):
                    error = self._late(run)
            if processing is not None:
                processing.handled(error)
            try:
                if error is None:
                    self.acknowledge(delivery)
                else:
                    await self._decide(delivery, error, run, task)
            except Exception as problem:
                self._unforeseen(delivery, problem)
            if processing is not None:
                processing.close()  # not if the worker is ending: its context ends with it
        except Exception as problem:
            self._unforeseen(delivery, problem)
        except BaseException:
            self._consumer.give_back(delivery, 0.0)
            raise
        finally:
            self.runs.end(task)

    def _wrap(self, call: Callable[[Delivery], Awaitable[Any]]) -> Callable[[Delivery], Awaitable[Any]]:
        """Put the middleware around a call, the first outermost."""
        for layer in reversed(self._layers):
            call = functools.partial(_layer, layer, call)
        return call

    async def prepare(self, delivery: Delivery) -> bool:
        """Read a delivery and hold it against the filter; False if that settled it."""
        if delivery.expires <= self._clock.monotonic():
            self._consumer.expire(delivery)
            return False
        try:
            return self._read(delivery)
        except Exception as problem:
            await self._unreadable(delivery, problem)
            return False

    def _read(self, delivery: Delivery) -> bool:
        """Read a delivery. False if that settled it; raises `_GivenUp` if it belongs into the dead letter."""
        if delivery.state is not DeliveryState.IN_HAND:
            self._consumer.settle(delivery, None)
            return False
        try:
            event = delivery.decoded
            if event is None:
                event = self._adapter.decode(delivery.received)
        except DecodeError as error:
            event = self._map(delivery, error)
        if event._extensions:
            event, own = take_own(event)
            if own.wire > WIRE_VERSION:
                self._log.unknown_wire(delivery, own.wire)
                self._consumer.give_back(delivery, UNKNOWN_WIRE_DELAY)
                return False
            if own.subscription is not None and own.subscription != self._address:
                self._consumer.settle(delivery, None)
                return False
            delivery.replay = own.replay
        delivery._event = event
        if self._residual is None or self._residual(event):
            return True
        self._telemetry.count_filtered()
        wish = self._subscription.on_mismatch
        if wish == "dead_letter":
            raise _GivenUp(Reason.MISMATCH)
        if wish == "release":
            self._consumer.give_back(delivery, MISMATCH_DELAY)
        else:
            self._consumer.settle(delivery, None)
        return False

    def _map(self, delivery: Delivery, error: DecodeError) -> Event:
        """Make an event of a message that is none, by the subscription's `mapping`."""
        if self._mapping is None:
            raise _GivenUp(Reason.UNDECODABLE) from error
        try:
            event = self._mapping(ForeignMessage.of(delivery))
            if not isinstance(event, Event):
                raise DeclarationError(f"mapping returned {type(event).__name__}, not an Event")
        except Exception as failed:
            raise _GivenUp(Reason.UNDECODABLE) from failed
        return event

    async def _unreadable(self, delivery: Delivery, problem: Exception) -> None:
        if isinstance(problem, _GivenUp):
            try:
                await self.give_up(delivery, problem.reason, problem.__cause__, None)
            except Exception as another:
                problem = another
            else:
                return
        self._unforeseen(delivery, problem)

    def _unforeseen(self, delivery: Delivery, problem: Exception) -> None:
        """Something failed that was not the handler, such as an adapter: the event comes again, the worker lives on."""
        if delivery.state in (DeliveryState.SETTLED, DeliveryState.HELD):
            return
        self._log.unforeseen(delivery, problem)
        self._consumer.give_back(delivery, self._retry.delay(delivery.attempt or 1))

    async def _call_handler(self, delivery: Delivery) -> None:
        assert self._handlers is not None
        handler = self._handlers.find(delivery.event.type)
        if handler is None:
            raise _Unhandled
        answer = await self._call(handler, handler.call, delivery)
        if answer is not None:
            self._answered(handler, answer)

    def _answered(self, handler: Handler, answer: Any) -> None:
        """Take what a handler of one event returned, though it should return nothing."""
        if isinstance(answer, (Retry, Reject)):
            raise answer  # returned instead of raised: it is clear what was meant
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise DeclarationError(
                f"handler {handler.name} is a plain function but returned something to await; make it `async def`"
            )
        if handler not in self._warned:
            self._warned.add(handler)
            logger.warning(
                "%s: handler %s returned %s; what a handler returns is ignored, and the event acknowledged",
                self._subscription,
                handler.name,
                type(answer).__name__,
            )

    async def _call(self, handler: Handler, call: Callable[[Any], Any], argument: Any) -> Any:
        run = self.runs.of(asyncio.current_task())
        if run is not None:
            run.handler = handler
        if handler.is_async:
            return await call(argument)
        if run is not None:
            run.in_thread = True
        try:
            return await self._executor.run(call, argument)
        finally:
            if run is not None:
                run.in_thread = False

    # --- several at once ----------------------------------------------------------------------------------------

    async def _process_batch(self, first: Delivery, handler: Handler, task: asyncio.Task[Any]) -> None:
        taken = [first, *self._consumer.take_more(self._subscription.batch - 1)]
        run = self.runs.begin(task, taken)
        try:
            run.handling = False
            run.deliveries = ready = [delivery for delivery in taken if await self.prepare(delivery)]
            if not ready:
                return
            self.runs.begin_handling(run)
            processing = self._telemetry.process_batch(ready)
            outcomes: Sequence[BaseException | None]
            try:
                if self._layers:
                    outcomes = await call_together(
                        ready, self._wrap, functools.partial(self._call_batch, handler, task)
                    )
                else:
                    outcomes = await self._call_batch(handler, task, ready)
            except BaseException as raised:
                outcomes = [raised] * len(ready)
            run.handling = False
            if run.cancelled:
                task.uncancel()
                outcomes = [
                    self._late(run) if isinstance(error, asyncio.CancelledError) else error
                    for error in outcomes
                ]
            if processing is not None:
                processing.handled(next((error for error in outcomes if error is not None), None))
            await self._decide_each(ready, outcomes, run, task)
            if processing is not None:
                processing.close()
        except Exception as problem:
            for delivery in taken:
                self._unforeseen(delivery, problem)
        except BaseException:
            for delivery in taken:
                self._consumer.give_back(delivery, 0.0)
            raise
        finally:
            self.runs.end(task)

    async def _call_batch(
        self, handler: Handler, task: asyncio.Task[Any], deliveries: Sequence[Delivery]
    ) -> Sequence[BaseException | None]:
        """Call a handler of several events; answers for each with None or what went wrong."""
        events = [delivery.event for delivery in deliveries]
        try:
            answer = await self._call(handler, handler.function, events)
            checked = checked_answer(handler, answer, len(events))
        except BaseException as error:
            if not isinstance(error, Exception) and self._layers:
                raise  # through the layers as what it is: a cancellation
            return [error] * len(events)
        return [None] * len(events) if checked is None else checked

    async def _decide_each(
        self,
        deliveries: Sequence[Delivery],
        outcomes: Sequence[BaseException | None],
        run: Run,
        task: asyncio.Task[Any],
    ) -> None:
        ending: BaseException | None = None
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            if outcome is None:
                self.acknowledge(delivery)
                continue
            try:
                await self._decide(delivery, outcome, run, task)
            except Exception as problem:
                self._unforeseen(delivery, problem)
            except BaseException as error:  # the worker is ending: the others are given back first
                self._consumer.give_back(delivery, 0.0)
                ending = error
        if ending is not None:
            raise ending

    # --- outcomes -----------------------------------------------------------------------------------------------

    def acknowledge(self, delivery: Delivery) -> None:
        """The event is done."""
        if self._rejections is not None:
            self._rejections.add(False)
        self._consumer.settle(delivery, None)

    def _late(self, run: Run) -> HandlerTimeout:
        name = run.handler.name if run.handler is not None else None
        return HandlerTimeout(f"{name} did not end within {self._subscription.timeout:g} s")

    async def _decide(
        self,
        delivery: Delivery,
        error: BaseException,
        run: Run,
        task: asyncio.Task[Any],
    ) -> None:
        name = run.handler.name if run.handler is not None else None
        if task.cancelling() and isinstance(error, Exception) and not isinstance(error, HandlerTimeout):
            # Shutdown is no failure, whatever the handler made of its cancellation.
            error = asyncio.CancelledError()
        if delivery.state in (DeliveryState.SETTLED, DeliveryState.HELD) and isinstance(error, Exception):
            self._log.failed_after_settling(delivery, name, error)
        elif isinstance(error, _Unhandled):
            await self._unhandled(delivery)
        elif isinstance(error, Reject):
            await self.give_up(delivery, error.reason, None, name)
        elif isinstance(error, DataError):
            await self._invalid(delivery, error, name)
        elif isinstance(error, Exception):
            await self.failed(delivery, error, name)
        else:
            # Cancelled, or the program is ending: neither acknowledged nor a failure.
            self._consumer.give_back(delivery, 0.0)
            if not isinstance(error, asyncio.CancelledError) or task.cancelling():
                raise error

    async def _unhandled(self, delivery: Delivery) -> None:
        if self._subscription.on_unhandled == "drop":
            self.acknowledge(delivery)
            return
        assert self._handlers is not None
        known = ", ".join(sorted(self._handlers.by_type))
        error = DeclarationError(
            f"no handler for type {delivery.event.type!r}; there are handlers for: {known}"
        )
        await self.give_up(delivery, Reason.UNHANDLED, error, None)

    async def _invalid(self, delivery: Delivery, error: DataError, name: str | None) -> None:
        wish = self._subscription.on_invalid
        if wish == "retry":
            await self.failed(delivery, error, name)
        elif wish == "pause":
            self._consumer.give_back(delivery, 0.0)
            self._log.pauses(delivery, name, error)
            self._consumer.pause(f"paused: {error}")
        else:
            await self.give_up(delivery, Reason.INVALID, error, name)

    async def failed(self, delivery: Delivery, error: Exception, name: str | None) -> None:
        """Retry by the policy, or give up if this was the last attempt."""
        policy = self._retry
        attempt = delivery.attempt
        asked = error.after if isinstance(error, Retry) else None
        if policy.exhausted(attempt) and not isinstance(error, NotYet):
            reason = error.reason if isinstance(error, Retry) and error.reason else Reason.FAILED
            await self.give_up(delivery, reason, error, name)
            return
        delay = asked if asked is not None else policy.delay(attempt or 1)
        if not isinstance(error, Retry):
            self._log.failed(delivery, name, error, policy.attempts, delay)
        self._telemetry.count_retry(error)
        self._consumer.give_back(delivery, delay)

    async def give_up(
        self, delivery: Delivery, reason: str, error: BaseException | None, handler: str | None
    ) -> None:
        """Write the record into the dead letter, then acknowledge: a crash between may duplicate, never lose."""
        if self._consumer.is_paused or self._opens_breaker():
            self._consumer.give_back(delivery, 0.0)
            return
        record = make_record(
            self._subscription,
            delivery.received,
            delivery._event,
            reason=reason,
            error=error,
            handler=handler,
            now=self._clock.time(),
        )
        try:
            await self._dead_letters.publish(record)
        except CrossbusError as problem:
            if isinstance(problem, EventTooLarge):
                what, delay = "left to the backstop, its record is too large", self._retry.max_delay
            else:
                what = "given back, its record could not be written"
                delay = self._retry.delay(delivery.attempt or 1)
            self._log.not_dead(delivery, what, problem)
            self._consumer.give_back(delivery, delay)
        else:
            self._log.dead(delivery, reason, error)
            self._telemetry.count_dead(reason)
            self._consumer.settle(delivery, None)

    def _opens_breaker(self) -> bool:
        why = None if self._rejections is None else self._rejections.add(True)
        if why is None:
            return False
        logger.error("%s is %s; resume it when the cause is mended", self._subscription, why)
        self._consumer.pause(why)
        return True

    def reset_breaker(self) -> None:
        """Forget what was rejected."""
        if self._rejections is not None:
            self._rejections.clear()

    def close(self) -> None:
        """Stop the timer and the threads."""
        self.runs.close()
        self._executor.close()


async def _layer(
    middleware: HandleMiddleware, call_next: Callable[[Delivery], Awaitable[Any]], delivery: Delivery
) -> Any:
    return await middleware(delivery, call_next)
