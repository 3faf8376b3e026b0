"""Providers of OpenTelemetry that remember, for the cases about traces: the kit needs no SDK."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context

__all__ = ["Meters", "Span", "Tracers"]


class Span(trace.Span):
    """A span, and all that was said of it."""

    def __init__(
        self,
        name: str,
        kind: trace.SpanKind,
        context: trace.SpanContext,
        parent: trace.SpanContext | None,
        attributes: Mapping[str, Any],
        links: Sequence[trace.Link],
    ) -> None:
        self.name = name
        self.kind = kind
        self.context = context
        self.parent = parent
        self.at_start = dict(attributes)
        """The attributes with which it started: those that a sampler sees."""
        self.attributes = dict(attributes)
        self.links = list(links)
        self.status = trace.StatusCode.UNSET
        self.ended = False

    @property
    def linked(self) -> set[int]:
        """The ids of the spans that it links to."""
        return {link.context.span_id for link in self.links}

    def end(self, end_time: int | None = None) -> None:
        """As OpenTelemetry's."""
        self.ended = True

    def get_span_context(self) -> trace.SpanContext:
        """As OpenTelemetry's."""
        return self.context

    def set_attributes(self, attributes: Any) -> None:
        """As OpenTelemetry's."""
        self.attributes.update(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        """As OpenTelemetry's."""
        self.attributes[key] = value

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """As OpenTelemetry's; not remembered."""

    def add_link(self, context: trace.SpanContext, attributes: Any = None) -> None:
        """As OpenTelemetry's."""
        self.links.append(trace.Link(context, attributes))

    def update_name(self, name: str) -> None:
        """As OpenTelemetry's."""
        self.name = name

    def is_recording(self) -> bool:
        """As OpenTelemetry's."""
        return not self.ended

    def set_status(self, status: Any, description: str | None = None) -> None:
        """As OpenTelemetry's."""
        self.status = status.status_code if isinstance(status, trace.Status) else status

    def record_exception(self, exception: BaseException, *_: Any, **__: Any) -> None:
        """As OpenTelemetry's; not remembered."""


class Tracers(trace.TracerProvider):
    """Remembers every span."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.schemas: set[tuple[str, str | None]] = set()
        """The names of the tracers, each with its schema URL."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> trace.Tracer:
        """As OpenTelemetry's."""
        self.schemas.add((instrumenting_module_name, schema_url))
        return _Tracer(self.spans)

    def of(self, operation: str, event_id: str | None = None) -> list[Span]:
        """Return the spans of an operation that have ended; of one event, by its id."""
        return [
            span
            for span in self.spans
            if span.ended
            and span.attributes.get("messaging.operation.name") == operation
            and (event_id is None or span.attributes.get("cloudevents.event_id") == event_id)
        ]


class _Tracer(trace.Tracer):
    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Any = None,
        links: Any = None,
        *_: Any,
        **__: Any,
    ) -> trace.Span:
        parent = trace.get_current_span(context).get_span_context()
        made = trace.SpanContext(
            parent.trace_id if parent.is_valid else random.getrandbits(128) or 1,
            random.getrandbits(64) or 1,
            is_remote=False,
            trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            trace_state=parent.trace_state if parent.is_valid else None,
        )
        span = Span(name, kind, made, parent if parent.is_valid else None, attributes or {}, links or ())
        self._spans.append(span)
        return span

    @contextmanager
    def start_as_current_span(self, name: str, *args: Any, **options: Any) -> Iterator[trace.Span]:  # type: ignore[override]
        with trace.use_span(self.start_span(name, *args, **options), end_on_exit=True) as span:
            yield span


class Meters(metrics.MeterProvider):
    """Remembers which instruments were used, with which attributes."""

    def __init__(self) -> None:
        self.used: dict[str, set[str]] = {}
        """By the name of an instrument, the names of all attributes that it was given."""
        self.units: dict[str, str] = {}

    def get_meter(
        self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Any = None
    ) -> metrics.Meter:
        """As OpenTelemetry's."""
        return _Meter(self, name)


class _Instrument(metrics.Counter, metrics.Histogram):
    def __init__(self, note: Callable[[Mapping[str, Any]], None]) -> None:
        self._note = note

    def add(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:
        self._note(attributes or {})

    def record(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:
        self._note(attributes or {})


class _Meter(metrics.NoOpMeter):
    def __init__(self, owner: Meters, name: str) -> None:
        super().__init__(name)
        self._owner = owner

    def _make(self, name: str, unit: str) -> _Instrument:
        self._owner.units[name] = unit
        return _Instrument(lambda attributes: self._owner.used.setdefault(name, set()).update(attributes))

    def create_counter(self, name: str, unit: str = "", description: str = "") -> metrics.Counter:
        return self._make(name, unit)

    def create_histogram(
        self, name: str, unit: str = "", description: str = "", **_: Any
    ) -> metrics.Histogram:
        return self._make(name, unit)
