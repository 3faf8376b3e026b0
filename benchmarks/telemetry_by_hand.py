"""What `bench_telemetry` compares crossbus's telemetry with: nothing, and the same calls of OpenTelemetry by hand.

Both stand where crossbus's own stands, so that all else is equal. By hand is what a careful application would write:
the same spans, attributes, links, context and metrics, with nothing kept from one event to the next but names and
instruments, no options and no redaction.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Sequence
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanKind, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from crossbus.telemetry.making import Telemetries
from crossbus.telemetry.names import PROCESS_DURATION

__all__ = ["by_hand", "nothing"]

_propagator = TraceContextTextMapPropagator()


class NoPublishing:
    """Telemetry of publishing that does nothing."""

    def start(self, event: Any, operation: str = "publish") -> tuple[Any, None]:
        return event, None

    def start_request(self, sendings: Sequence[Any]) -> None:
        return None


class NoConsuming:
    """Telemetry of consuming that does nothing."""

    redacts = False

    def background(self) -> contextvars.Context:
        return contextvars.copy_context()

    def watch(self, adapter: Any, in_hand: Any) -> None: ...

    async def unwatch(self) -> None: ...

    async def receive(self, receiver: Any, most: int, wait: float) -> Any:
        return await receiver.receive(most, wait)

    def received(self, deliveries: Any) -> None: ...

    def process(self, delivery: Any) -> Any: ...

    def settling(self, batch: Any) -> Any: ...

    async def extend(self, receiver: Any, leases: Any, seconds: float) -> Any:
        return await receiver.extend(leases, seconds)


# --- by hand ------------------------------------------------------------------------------------------------------


class _Instruments:
    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("shop")

        def histogram(name: str) -> metrics.Histogram:
            return meter.create_histogram(
                name, "s", explicit_bucket_boundaries_advisory=PROCESS_DURATION.buckets
            )

        self.sent = meter.create_counter("messaging.client.sent.messages")
        self.consumed = meter.create_counter("messaging.client.consumed.messages")
        self.requests = meter.create_counter("crossbus.provider.requests")
        self.operation_duration = histogram("messaging.client.operation.duration")
        self.process_duration = histogram("messaging.process.duration")
        self.age = histogram("crossbus.event.age")


class _Sending:
    __slots__ = ("context", "span")

    def __init__(self, span: trace.Span, context: Context) -> None:
        self.span = span
        self.context = context

    def end(self, message_id: str = "", error: BaseException | None = None) -> None:
        self.span.set_attribute("messaging.message.id", message_id)
        self.span.end()


class _Request:
    __slots__ = ("_began", "_instruments", "_token", "_topic")

    def __init__(self, instruments: _Instruments, topic: str, context: Context) -> None:
        self._instruments = instruments
        self._topic = topic
        self._token = otel_context.attach(context)
        self._began = time.perf_counter()

    def ended(self, outcomes: object) -> None:
        counted = {
            "messaging.system": "crossbus",
            "messaging.destination.name": self._topic,
            "messaging.operation.name": "publish",
        }
        self._instruments.requests.add(1, counted)
        self._instruments.sent.add(1, counted)
        took = time.perf_counter() - self._began
        self._instruments.operation_duration.record(took, {**counted, "messaging.operation.type": "send"})
        otel_context.detach(self._token)


class HandPublishing(NoPublishing):
    """Publishing, by hand. Of single events, as the benchmark publishes."""

    def __init__(self, tracer: trace.Tracer, instruments: _Instruments, topic: str) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._topic = topic

    def start(self, event: Any, operation: str = "publish") -> tuple[Any, Any]:
        span = self._tracer.start_span(
            f"publish {self._topic}",
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "crossbus",
                "messaging.destination.name": self._topic,
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "cloudevents.event_id": event.id,
                "cloudevents.event_source": event.source,
                "cloudevents.event_type": event.type,
            },
        )
        context = trace.set_span_in_context(span)
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, context)
        if carrier:
            event = event.with_attributes(**carrier)
        return event, _Sending(span, context)

    def start_request(self, sendings: Sequence[Any]) -> Any:
        return _Request(self._instruments, self._topic, sendings[0].context)


class _Processing:
    __slots__ = ("_began", "_owner", "_span", "_token")

    def __init__(self, owner: HandConsuming, span: trace.Span, context: Context) -> None:
        self._owner = owner
        self._span = span
        self._token = otel_context.attach(context)
        self._began = time.perf_counter()

    def handled(self, error: BaseException | None = None) -> None:
        took = time.perf_counter() - self._began
        self._owner.instruments.process_duration.record(took, self._owner.about("process", "process"))
        self._span.end()

    def close(self) -> None:
        otel_context.detach(self._token)


class _Settling:
    __slots__ = ("_began", "_owner", "_span", "_token")

    def __init__(self, owner: HandConsuming, span: trace.Span, context: Context) -> None:
        self._owner = owner
        self._span = span
        self._token = otel_context.attach(context)
        self._began = time.perf_counter()

    def end(self, error: BaseException | None = None) -> None:
        self._owner.count("ack", "settle", time.perf_counter() - self._began)
        otel_context.detach(self._token)
        self._span.end()


class HandConsuming(NoConsuming):
    """Consuming, by hand."""

    def __init__(
        self, tracer: trace.Tracer, instruments: _Instruments, topic: str, subscription: str, adapter: Any
    ) -> None:
        self._tracer = tracer
        self.instruments = instruments
        self._topic = topic
        self._subscription = subscription
        self._adapter = adapter
        self._polled_at = 0

    def about(self, operation: str, type: str | None = None) -> dict[str, Any]:
        found = {
            "messaging.system": "crossbus",
            "messaging.destination.name": self._topic,
            "messaging.destination.subscription.name": self._subscription,
            "messaging.operation.name": operation,
        }
        if type is not None:
            found["messaging.operation.type"] = type
        return found

    def count(self, operation: str, type: str, seconds: float | None) -> None:
        self.instruments.requests.add(1, self.about(operation))
        if seconds is not None:
            self.instruments.operation_duration.record(seconds, self.about(operation, type))

    async def receive(self, receiver: Any, most: int, wait: float) -> Any:
        self._polled_at = time.time_ns()
        began = time.perf_counter()
        received = await receiver.receive(most, wait)
        self.count("receive", "receive", time.perf_counter() - began if received else None)
        return received

    def _published(self, delivery: Any) -> Context:
        """Extract the context in which the event was published."""
        event = delivery.decoded
        if event is None:
            event = delivery.decoded = self._adapter.decode(delivery.received)
        extensions = event.extensions
        carrier = {name: extensions[name] for name in ("traceparent", "tracestate") if name in extensions}
        return _propagator.extract(carrier, Context())

    def received(self, deliveries: Any) -> None:
        self.instruments.consumed.add(len(deliveries), self.about("receive"))
        links = []
        for delivery in deliveries:
            delivery.trace = self._published(delivery)
            found = trace.get_current_span(delivery.trace).get_span_context()
            if found.is_valid:
                links.append(trace.Link(found, {"messaging.message.id": delivery.message_id}))
        attributes = {**self.about("receive", "receive"), "messaging.batch.message_count": len(deliveries)}
        self._tracer.start_span(
            f"receive {self._topic}",
            context=deliveries[0].trace if len(deliveries) == 1 else Context(),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            links=links,
            start_time=self._polled_at,
        ).end()

    def process(self, delivery: Any) -> Any:
        event, published = delivery.event, delivery.trace
        age = time.time() - (delivery.received.published or event.time.timestamp())
        self.instruments.age.record(age, self.about("process"))
        attributes = {
            **self.about("process", "process"),
            "cloudevents.event_id": event.id,
            "cloudevents.event_source": event.source,
            "cloudevents.event_type": event.type,
            "messaging.message.id": delivery.message_id,
            "crossbus.delivery.attempt": delivery.attempt,
        }
        found = trace.get_current_span(published).get_span_context()
        span = self._tracer.start_span(
            f"process {self._topic}",
            context=published,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[trace.Link(found, {"cloudevents.event_id": event.id})] if found.is_valid else None,
        )
        delivery.trace = trace.set_span_in_context(span, published)
        return _Processing(self, span, delivery.trace)

    def settling(self, batch: Any) -> Any:
        one = batch[0][0].trace if len(batch) == 1 else Context()
        found = [trace.get_current_span(delivery.trace).get_span_context() for delivery, _ in batch]
        links = [trace.Link(context) for context in found] if len(batch) > 1 else None
        attributes = {**self.about("ack", "settle"), "messaging.batch.message_count": len(batch)}
        span = self._tracer.start_span(
            f"ack {self._topic}", context=one, kind=SpanKind.CLIENT, attributes=attributes, links=links
        )
        return _Settling(self, span, trace.set_span_in_context(span, one))


# --- in the place of crossbus's own -------------------------------------------------------------------------------


def nothing() -> None:
    """Let every bus of this process have no telemetry."""
    _replace(lambda topic: NoPublishing(), lambda subscription, adapter: NoConsuming())


def by_hand(tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
    """Let every bus of this process have telemetry that is written by hand."""
    tracer, instruments = tracer_provider.get_tracer("shop"), _Instruments(meter_provider)
    _replace(
        lambda topic: HandPublishing(tracer, instruments, topic.name),
        lambda subscription, adapter: HandConsuming(
            tracer, instruments, subscription.topic.name, subscription.name, adapter
        ),
    )


def _replace(publishing: Any, consuming: Any) -> None:
    telemetries: Any = Telemetries
    telemetries.of_topic = lambda self, topic, adapter: publishing(topic)
    telemetries.of_subscription = lambda self, subscription, adapter, clock: consuming(subscription, adapter)
