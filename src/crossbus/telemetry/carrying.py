"""Trace context and baggage in an event: putting them in, taking them out, and what else an upstream may have left.

They travel as the CloudEvents Distributed Tracing extension: `traceparent` and `tracestate` hold the context in which
the event was published, and nobody rewrites them.
https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from crossbus.event import Event
from crossbus.telemetry.names import BAGGAGE
from crossbus.wire import TRACEPARENT, TRACESTATE

__all__ = ["carried", "inject", "span_context", "xray_context"]

MOST_BAGGAGE: Final = 1024
"""Bytes that an attribute of an event may have everywhere; baggage beyond that is left out, key by key."""

_propagator = TraceContextTextMapPropagator()  # not the global one: the names of the extension are fixed
_baggage = W3CBaggagePropagator()
_XRAY: Final = re.compile(r"Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|\Z)")
_XRAY_PARENT: Final = re.compile(r"Parent=([0-9a-f]{16})(?:;|\Z)")


def carried(event: Event, keys: Sequence[str] = ()) -> Context:
    """Return the context in which an event was published, with the baggage that has these keys."""
    extensions = event._extensions
    carrier = {name: str(extensions[name]) for name in (TRACEPARENT, TRACESTATE) if name in extensions}
    context = _propagator.extract(carrier, context=Context()) if TRACEPARENT in carrier else Context()
    if keys and BAGGAGE in extensions:
        found = baggage.get_all(_baggage.extract({BAGGAGE: str(extensions[BAGGAGE])}, context=Context()))
        for key in keys:
            if key in found:
                context = baggage.set_baggage(key, found[key], context)
    return context


def inject(event: Event, context: Context, keys: Sequence[str] = ()) -> Event:
    """Return the event with a context, unless it has one of its own; and with the baggage that has these keys."""
    extensions = event._extensions
    carrier: dict[str, str] = {}
    if TRACEPARENT not in extensions:
        _propagator.inject(carrier, context=context)
    if keys and (text := _baggage_text(context, keys)):
        carrier[BAGGAGE] = text
    # An empty tracestate says nothing, and an attribute may not be empty everywhere.
    given = {name: value for name, value in carrier.items() if value and name not in extensions}
    return event.with_attributes(**given) if given else event


def _baggage_text(context: Context, keys: Sequence[str]) -> str:
    kept = Context()
    text = ""
    for key in keys:
        value = baggage.get_baggage(key, context)
        if value is None:
            continue
        more = baggage.set_baggage(key, value, kept)
        carrier: dict[str, str] = {}
        _baggage.inject(carrier, context=more)
        if len(carrier.get(BAGGAGE, "")) <= MOST_BAGGAGE:
            kept, text = more, carrier.get(BAGGAGE, "")
    return text


def span_context(context: Context) -> trace.SpanContext | None:
    """Return what identifies the span of a context; None if there is none."""
    found = trace.get_current_span(context).get_span_context()
    return found if found.is_valid else None


def xray_context(header: str) -> trace.SpanContext | None:
    """Read a trace header of AWS X-Ray; None if it names no span.

    Source: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    """
    root, parent = _XRAY.search(header), _XRAY_PARENT.search(header)
    if root is None or parent is None:
        return None
    found = trace.SpanContext(
        int(root[1] + root[2], 16),
        int(parent[1], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED if "Sampled=1" in header else 0),
    )
    return found if found.is_valid else None
