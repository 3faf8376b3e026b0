"""`ConsumeTelemetry`: the spans, metrics and log fields of consuming one subscription."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Sequence
from contextvars import Token
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from crossbus.adapter import Adapter, Description, LeaseOutcome, Received, Receiver
from crossbus.deadletter import Reason
from crossbus.event import Event
from crossbus.outcomes import NotYet
from crossbus.requests import counting
from crossbus.telemetry import names
from crossbus.telemetry.backlogs import BacklogWatch
from crossbus.telemetry.carrying import carried, span_context, xray_context
from crossbus.telemetry.describing import Attributes, error_name, exception_text, of_adapter, of_event
from crossbus.telemetry.options import TelemetryOptions
from crossbus.telemetry.publishing import fail
from crossbus.telemetry.quiet import quiet
from crossbus.telemetry.sources import Source, Watched
from crossbus.wire import TRACEPARENT

if TYPE_CHECKING:
    from crossbus.delivery import Delivery
    from crossbus.topology import Subscription

__all__ = ["ConsumeTelemetry", "Processing", "Settling"]

_REASONS = {value for name, value in vars(Reason).items() if name.isupper()}


class Processing:
    """One call of a handler: current until it is closed, and in the publisher's trace."""

    __slots__ = ("_began", "_owner", "_span", "_token")

    def __init__(self, owner: ConsumeTelemetry, span: trace.Span | None, context: Context) -> None:
        self._owner = owner
        self._span = span
        self._token: Token[Context] = otel_context.attach(context)
        self._began = time.perf_counter()

    def handled(self, error: BaseException | None = None) -> None:
        """The handler returned, or failed. What is done about it still belongs to its context."""
        self._owner.count_processed(time.perf_counter() - self._began, error)
        if self._span is not None:
            if error is not None:
                fail(self._span, error_name(error))
            self._span.end()

    def close(self) -> None:
        """Leave the context. To be called where it was entered."""
        otel_context.detach(self._token)


class Settling:
    """A request that settles deliveries."""

    __slots__ = ("_began", "_operation", "_owner", "_sent", "_span", "_token")

    def __init__(
        self, owner: ConsumeTelemetry, operation: str, span: trace.Span | None, context: Context
    ) -> None:
        self._owner = owner
        self._operation = operation
        self._span = span
        self._token: Token[Context] = otel_context.attach(context)
        self._sent = counting()
        self._began = time.perf_counter()

    def end(self, error: BaseException | None = None) -> None:
        """It was answered, or it raised."""
        name = None if error is None else error_name(error)
        self._owner.count_request(self._operation, self._sent, name, time.perf_counter() - self._began)
        otel_context.detach(self._token)
        if self._span is not None:
            if name is not None:
                fail(self._span, name)
            self._span.end()


class ConsumeTelemetry:
    """Makes the spans of one subscription's deliveries, counts them, and describes them in logs.

    Args:
        decode: Reads a delivery, as the adapter does.
        now: The time of day, for the age of events.
    """

    def __init__(
        self,
        source: Source,
        options: TelemetryOptions,
        description: Description,
        subscription: Subscription,
        *,
        decode: Callable[[Received], Event],
        now: Callable[[], float],
    ) -> None:
        self._source = source
        self._options = options
        self._declared = subscription
        self._topic = topic = subscription.topic.name
        self._subscription = subscription.name
        self._decode = decode
        self._now = now
        self._of_event = of_event(options)
        self._keys = options.baggage
        self._base = base = of_adapter(description, topic, subscription.name)
        without_server = {
            name: value
            for name, value in base.items()
            if name not in (names.SERVER_ADDRESS, names.SERVER_PORT)
        }
        self._plain: Attributes = without_server
        self._spans = {
            name: {
                **base,
                **description.attributes,
                names.OPERATION_NAME: name,
                names.OPERATION_TYPE: names.SPANS[name],
            }
            for name in (names.RECEIVE, names.PROCESS, names.ACK, names.RETRY, names.SETTLE)
        }
        self._made: dict[tuple[str, str | None], Attributes] = {}
        self._polled_at = 0
        """When the last poll began, in nanoseconds since the epoch."""
        self._watch: BacklogWatch | None = None

    # --- in the background --------------------------------------------------------------------------------------

    def background(self) -> contextvars.Context:
        """Return the caller's context variables without its span: what runs for long belongs to no trace."""
        context = contextvars.copy_context()
        context.run(otel_context.attach, Context())
        return context

    def watch(self, adapter: Adapter, in_hand: Callable[[], int]) -> None:
        """Begin to observe how many deliveries are in hand, and the backlog, if anybody wants metrics."""
        self._source.refresh()
        instruments = self._source.instruments
        if instruments is not None:
            watched = Watched(self._plain, in_hand)
            self._watch = BacklogWatch(adapter, self._declared, instruments, watched, self._options.backlog)
            self._watch.start(self.background())

    async def unwatch(self) -> None:
        """Observe no more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.stop()

    # --- receiving ----------------------------------------------------------------------------------------------

    async def receive(self, receiver: Receiver, most: int, wait: float) -> Sequence[Received]:
        """Poll. What an instrumented SDK would say of it is not said: most polls bring nothing."""
        if not self._source.refresh():
            return await receiver.receive(most, wait)
        self._polled_at = time.time_ns()
        sent, began = counting(), time.perf_counter()
        try:
            with quiet():
                received = await receiver.receive(most, wait)
        except Exception as error:
            self.count_request(names.RECEIVE, sent, error_name(error), time.perf_counter() - began)
            self._receive_span(Context(), [], error)
            raise
        # A poll that waited in vain says nothing about how fast the provider is.
        self.count_request(names.RECEIVE, sent, None, time.perf_counter() - began if received else None)
        return received

    def received(self, deliveries: Sequence[Delivery]) -> None:
        """Note what a poll brought: a span of one delivery is in its trace; of several, it links to each."""
        source = self._source
        if source.instruments is not None:
            source.instruments.consumed.add(len(deliveries), self._attributes(names.RECEIVE, None))
        if source.tracer is None or not self._polled_at:
            return
        links: list[trace.Link] = []
        for delivery in deliveries:
            context = self._published(delivery)
            found = None if context is None else span_context(context)
            if found is not None:
                # Little, for there may be many, and who handles them says the rest.
                links.append(trace.Link(found, {names.MESSAGE_ID: delivery.message_id}))
        if len(deliveries) == 1 and links and self._options.mode != "link":
            # In the event's trace it begins with the event: a poll may have waited long before there was one.
            self._receive_span(deliveries[0].trace, links, None, 1, since=self._accepted(deliveries[0]))
        else:
            self._receive_span(Context(), links, None, len(deliveries))

    def _receive_span(
        self,
        context: Context,
        links: list[trace.Link],
        error: BaseException | None,
        count: int = 0,
        since: float | None = None,
    ) -> None:
        if self._source.tracer is None:
            return
        attributes = self._spans[names.RECEIVE]
        span = self._source.tracer.start_span(
            f"{names.RECEIVE} {self._topic}",
            context=context,
            kind=SpanKind.CLIENT,
            attributes={**attributes, names.BATCH_COUNT: count} if count else attributes,
            links=links,
            start_time=self._polled_at if since is None else self._within_poll(since),
        )
        if error is not None:
            fail(span, error_name(error))
        span.end()

    def _within_poll(self, since: float) -> int:
        """Return a time of day in nanoseconds, not before the last poll nor in the future, whatever clock it is of."""
        return min(max(self._polled_at, int(since * 1e9)), time.time_ns())

    def _published(self, delivery: Delivery) -> Context | None:
        """Return the context in which a delivery's event was published; None if it cannot be read, or has none.

        Reads the delivery, and keeps the event for whoever reads it next.
        """
        event = delivery.decoded
        if event is None:
            try:
                event = delivery.decoded = self._decode(delivery.received)
            except Exception:  # whoever handles it will meet it again, and knows what to do
                return None
        if TRACEPARENT not in event._extensions and not self._keys:
            return None
        delivery.trace = context = carried(event, self._keys)
        return context

    # --- processing ---------------------------------------------------------------------------------------------

    def process(self, delivery: Delivery) -> Processing | None:
        """Begin to handle an event. None if there is nothing to do."""
        source = self._source
        source.countdown -= 1
        if source.countdown <= 0:
            source.refresh()
        event = delivery.event
        if not source.active:
            if TRACEPARENT not in event._extensions and not self._keys:
                return None
            return Processing(self, None, carried(event, self._keys))
        published = delivery.trace
        if published is None:
            published = carried(event, self._keys)
        if source.instruments is not None:
            self._count_age(delivery)
        if source.tracer is None:
            return Processing(self, None, published)
        parent, links = self._placed(delivery, published)
        about = {**self._spans[names.PROCESS], **self._of_event(event), names.MESSAGE_ID: delivery.message_id}
        if delivery.attempt is not None:
            about[names.ATTEMPT] = delivery.attempt
        span = source.tracer.start_span(
            f"{names.PROCESS} {self._topic}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes=about,
            links=links,
        )
        context = delivery.trace = trace.set_span_in_context(span, parent)
        return Processing(self, span, context)

    def _placed(self, delivery: Delivery, published: Context) -> tuple[Context, list[trace.Link]]:
        """Return the parent of a handler's span, and its links, by the mode."""
        creation = span_context(published)
        if creation is None and delivery.received.trace_header is not None:
            creation = xray_context(delivery.received.trace_header)
            found = Context() if creation is None else published
        else:
            found = published
        links = [] if creation is None else [trace.Link(creation, {names.EVENT_ID: delivery.event._id})]
        ambient = otel_context.get_current()
        around = trace.get_current_span(ambient)
        if not around.get_span_context().is_valid:
            if self._options.mode == "link" or span_context(found) is None:
                return _without_span(published), links
            return found, links
        if span_context(found) is None:
            return _with_baggage(ambient, published), links
        is_pushed = around.is_recording() and getattr(around, "kind", None) is SpanKind.SERVER
        if self._options.mode == "link" or (self._options.mode == "auto" and is_pushed):
            return _with_baggage(ambient, published), links
        links.append(trace.Link(around.get_span_context()))
        return found, links

    def process_batch(self, deliveries: Sequence[Delivery]) -> Processing | None:
        """Begin to handle several events at once: one span, with a link to each."""
        source = self._source
        if not source.refresh():
            return None
        if source.instruments is not None:
            for delivery in deliveries:
                self._count_age(delivery)
        root = Context()
        if source.tracer is None:
            return Processing(self, None, root)
        links: list[trace.Link] = []
        for delivery in deliveries:
            found = span_context(carried(delivery.event))
            if found is None and delivery.received.trace_header is not None:
                found = xray_context(delivery.received.trace_header)
            if found is not None:
                about = {**self._of_event(delivery.event), names.MESSAGE_ID: delivery.message_id}
                links.append(trace.Link(found, about))
        span = source.tracer.start_span(
            f"{names.PROCESS} {self._topic}",
            context=root,
            kind=SpanKind.CONSUMER,
            attributes={**self._spans[names.PROCESS], names.BATCH_COUNT: len(deliveries)},
            links=links,
        )
        context = trace.set_span_in_context(span, root)
        for delivery in deliveries:
            delivery.trace = context
        return Processing(self, span, context)

    def count_processed(self, seconds: float, error: BaseException | None) -> None:
        """Record how long a handler took: while its span is current, so that there are exemplars."""
        instruments = self._source.instruments
        if instruments is not None:
            name = None if error is None else error_name(error)
            instruments.process_duration.record(seconds, self._attributes(names.PROCESS, name, timed=True))

    def _accepted(self, delivery: Delivery) -> float | None:
        """Return when the provider accepted an event that was read, else its time; None if neither is known."""
        event = delivery._event or delivery.decoded
        since = delivery.received.published
        if since is None and event is not None and event.time is not None:
            since = event.time.timestamp()
        return since

    def _count_age(self, delivery: Delivery) -> None:
        assert self._source.instruments is not None
        since = self._accepted(delivery)
        if since is not None:
            self._source.instruments.age.record(max(0.0, self._now() - since), self._plain)

    # --- settling and leases ------------------------------------------------------------------------------------

    def settling(self, batch: Sequence[tuple[Delivery, float | None]]) -> Settling | None:
        """Begin to settle deliveries, in the trace of their handling if it is one, else with a link to each."""
        source = self._source
        if not source.active:
            return None
        acks = sum(delay is None for _, delay in batch)
        operation = names.ACK if acks == len(batch) else names.SETTLE if acks else names.RETRY
        contexts = {id(delivery.trace): delivery.trace for delivery, _ in batch}
        context = batch[0][0].trace if len(contexts) == 1 and batch[0][0].trace is not None else Context()
        if source.tracer is None:
            return Settling(self, operation, None, context)
        links = []
        if len(contexts) > 1:
            found = [span_context(one) for one in contexts.values() if one is not None]
            links = [trace.Link(one) for one in found if one is not None]
        attributes: Attributes = {**self._spans[operation]}
        if len(batch) == 1:
            attributes[names.MESSAGE_ID] = batch[0][0].message_id
        else:
            attributes[names.BATCH_COUNT] = len(batch)
        span = source.tracer.start_span(
            f"{operation} {self._topic}",
            context=context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            links=links,
        )
        return Settling(self, operation, span, trace.set_span_in_context(span, context))

    async def extend(
        self, receiver: Receiver, leases: Sequence[Any], seconds: float
    ) -> Sequence[LeaseOutcome]:
        """Extend leases, without a span: it happens by itself, and says nothing about the event."""
        if not self._source.refresh():
            return await receiver.extend(leases, seconds)
        sent, began = counting(), time.perf_counter()
        try:
            with quiet():
                outcomes = await receiver.extend(leases, seconds)
        except Exception as error:
            self.count_request(names.EXTEND, sent, error_name(error), time.perf_counter() - began)
            raise
        self.count_request(names.EXTEND, sent, None, time.perf_counter() - began)
        if self._source.instruments is not None:
            for outcome in dict.fromkeys(outcomes):
                about = {**self._plain, names.OUTCOME: outcome.value}
                self._source.instruments.extensions.add(list(outcomes).count(outcome), about)
        return outcomes

    # --- counting -----------------------------------------------------------------------------------------------

    def count_request(
        self, operation: str, sent: list[int], error: str | None, seconds: float | None
    ) -> None:
        """Count the requests of a call, and how long it took; None if that says nothing."""
        instruments = self._source.instruments
        if instruments is None:
            return
        instruments.requests.add(sent[0] or 1, self._attributes(operation, error))
        if seconds is not None and operation in names.SPANS:
            instruments.operation_duration.record(seconds, self._attributes(operation, error, timed=True))

    def count_retry(self, error: BaseException) -> None:
        """Count a delivery that comes again after a failure."""
        if self._source.instruments is not None and not isinstance(error, NotYet):
            about = {**self._plain, names.ERROR_TYPE: error_name(error)}
            self._source.instruments.retries.add(1, about)

    def count_dead(self, reason: str) -> None:
        """Count an event that was put into the dead letter. A handler's own reason may be any text."""
        if self._source.instruments is not None:
            about = {**self._plain, names.REASON: reason if reason in _REASONS else "rejected"}
            self._source.instruments.dead_lettered.add(1, about)

    def count_filtered(self) -> None:
        """Count a delivery that the filter dropped here."""
        if self._source.instruments is not None:
            self._source.instruments.filtered.add(1, self._plain)

    def count_duplicate(self) -> None:
        """Count a duplicate that was not handled again."""
        if self._source.instruments is not None:
            self._source.instruments.duplicates.add(1, self._plain)

    def _attributes(self, operation: str, error: str | None, *, timed: bool = False) -> Attributes:
        """Return the attributes of a metric; made once for each operation and error."""
        key = (f"{operation} timed" if timed else operation, error)
        found = self._made.get(key)
        if found is None:
            found = {**self._base, names.OPERATION_NAME: operation}
            if timed:
                found[names.OPERATION_TYPE] = names.SPANS[operation]
            if error is not None:
                found[names.ERROR_TYPE] = error
            self._made[key] = found
        return found

    # --- logs ---------------------------------------------------------------------------------------------------

    def fields(self, delivery: Delivery, error: BaseException | None = None) -> Attributes:
        """Return the fields of a log record about a delivery, for `extra`."""
        fields: Attributes = {
            "topic": self._topic,
            "subscription": self._subscription,
            "message_id": delivery.message_id,
            "attempt": delivery.attempt,
        }
        event = delivery._event
        if event is not None:
            fields |= {names.FIELD_OF[name]: value for name, value in self._of_event(event).items()}
        if error is not None:
            fields["error_type"] = error_name(error)
        return fields

    @property
    def redacts(self) -> bool:
        """True if texts of exceptions pass a hook, so that a traceback must not be logged."""
        return self._options.redact is not None

    def text_of(self, error: BaseException) -> str:
        """Return the text of an exception for a log message."""
        return exception_text(error, self._options)


def _without_span(published: Context) -> Context:
    """Return a context in which a trace begins, with the baggage of another."""
    return _with_baggage(Context(), published)


def _with_baggage(context: Context, published: Context) -> Context:
    from opentelemetry import baggage

    for key, value in baggage.get_all(published).items():
        context = baggage.set_baggage(key, value, context)
    return context
