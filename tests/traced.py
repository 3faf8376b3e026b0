"""OpenTelemetry's SDK in memory, and what its tests ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.scripted import ScriptedAdapter

from crossbus import Bus, Event

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPAN_ID = 0x00F067AA0BA902B7
TRACEPARENT = f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01"
TRACESTATE = "rojo=00f067aa0ba902b7,  congo=t61rcWkgMzE ,,x@y=1"
"""With spaces and an empty member, which a propagator would tidy away."""


class Traced:
    """A tracer provider, and the spans that ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]


class Metered:
    """A meter provider, and what it has measured."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def metrics(self) -> list[Any]:
        """Collect what was measured."""
        data = self._reader.get_metrics_data()
        resources = [] if data is None else data.resource_metrics
        return [metric for one in resources for scope in one.scope_metrics for metric in scope.metrics]

    def points(self, name: str) -> list[Any]:
        """Return the data points of a metric; none if it was never measured."""
        return [point for one in self.metrics() if one.name == name for point in one.data.data_points]

    def names(self) -> dict[str, tuple[str, str]]:
        """Return unit and description of each metric that was measured."""
        return {metric.name: (metric.unit, metric.description) for metric in self.metrics()}

    def exemplars(self) -> dict[str, set[tuple[int, int]]]:
        """Return the spans that metrics lead to, by trace id and span id."""
        return {
            metric.name: {
                (one.trace_id, one.span_id) for point in metric.data.data_points for one in point.exemplars
            }
            for metric in self.metrics()
        }

    def values(self, name: str, *by: str) -> dict[Any, float]:
        """Return the values of a metric, by attributes; of a histogram, how many were recorded."""
        found: dict[Any, float] = {}
        for point in self.points(name):
            key = tuple(point.attributes.get(attribute) for attribute in by)
            value = point.value if hasattr(point, "value") else point.count
            found[key[0] if len(by) == 1 else key] = value
        return found


def event(id: str = "e-1", **extensions: Any) -> Event:
    return Event(id=id, type="com.acme.order.placed", source="/shop", extensions=extensions)


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def parent_of(span: ReadableSpan) -> trace.SpanContext:
    assert span.parent is not None
    return span.parent


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def links_of(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


@asynccontextmanager
async def shop(
    traced: Traced | None,
    adapter: ScriptedAdapter,
    handler: Any,
    *,
    metered: Metered | None = None,
    declared: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Bus]:
    """Run orders/billing on a scripted adapter."""
    bus = Bus(
        adapter=adapter,
        tracer_provider=trace.NoOpTracerProvider() if traced is None else traced.provider,
        meter_provider=None if metered is None else metered.provider,
        **options,
    )
    bus.subscribe("orders", "billing", **(declared or {}))(handler)
    async with bus, bus.running():
        yield bus


def sent(adapter: ScriptedAdapter) -> Sequence[Event]:
    return [event for topic, events in adapter.sent if topic == "orders" for event in events]
