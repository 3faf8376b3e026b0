"""`PublishTelemetry`: the spans and metrics of publishing to one topic."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from crossbus.adapter import Description, PutBack, SendOutcome
from crossbus.errors import ErrorCode
from crossbus.event import Event
from crossbus.requests import counting
from crossbus.telemetry import names
from crossbus.telemetry.carrying import carried, inject, span_context
from crossbus.telemetry.describing import OTHER, Attributes, error_name, of_adapter, of_event
from crossbus.telemetry.options import TelemetryOptions
from crossbus.telemetry.sources import Source
from crossbus.wire import TRACEPARENT

__all__ = ["PublishTelemetry", "Redrive", "Request", "Sending", "fail"]

GONE: Final = SendOutcome(code=ErrorCode.NOT_FOUND, message="the record is gone")


class Sending:
    """One event on its way: its span, if it has one, and in which context it travels."""

    __slots__ = ("ambient", "attributes", "context", "link", "span")

    def __init__(
        self,
        ambient: Context,
        context: Context,
        link: trace.SpanContext | None,
        span: trace.Span | None,
        attributes: Attributes | None,
    ) -> None:
        self.ambient = ambient
        """Where it was published."""
        self.context = context
        """Where it is sent: within its own span, if it has one."""
        self.link = link
        """The creation context, which the event carries."""
        self.span = span
        self.attributes = attributes
        """What a link to it shall say."""

    def end(self, message_id: str = "", error: BaseException | None = None) -> None:
        """End its span: with the provider's id of the message, or with an error."""
        span = self.span
        if span is None:
            return
        if message_id:
            span.set_attribute(names.MESSAGE_ID, message_id)
        if error is not None:
            fail(span, error_name(error))
        span.end()


class Request:
    """A request to the provider that is under way, in the context of its span or of its only event."""

    __slots__ = ("_began", "_count", "_operation", "_owner", "_sent", "_span", "_token")

    def __init__(
        self, owner: PublishTelemetry, operation: str, count: int, span: trace.Span | None, context: Context
    ) -> None:
        self._owner = owner
        self._operation = operation
        self._count = count
        self._span = span
        self._token: Token[Context] = otel_context.attach(context)
        self._sent = counting()
        self._began = time.perf_counter()

    def failed(self, error: BaseException) -> None:
        """It raised: an error for all of its events."""
        self._end([error_name(error)] * self._count)

    def ended(self, outcomes: object) -> None:
        """It was answered. What is no outcome for each event counts as an error for all."""
        if isinstance(outcomes, Sequence) and len(outcomes) == self._count:
            self._end([_error_of(outcome) for outcome in outcomes])
        else:
            self._end([OTHER] * self._count)

    def _end(self, errors: list[str | None]) -> None:
        error = next((found for found in errors if found is not None), None)
        self._owner.count_request(
            self._operation, self._sent, errors, error, time.perf_counter() - self._began
        )
        otel_context.detach(self._token)
        if self._span is not None:
            if error is not None:
                fail(self._span, error)
            self._span.end()


class Redrive:
    """Events that are being put back in one request: each has its span. The request is in that of its only event."""

    __slots__ = ("_request", "_spans")

    def __init__(self, request: Request, spans: Sequence[trace.Span]) -> None:
        self._request = request
        self._spans = spans
        """Empty where nobody traces."""

    def failed(self, error: BaseException) -> None:
        """It raised: an error for all of its events."""
        self._request.failed(error)
        for span in self._spans:
            fail(span, error_name(error))
            span.end()

    def ended(self, answers: Sequence[PutBack]) -> None:
        """It was answered, for each event. A record that was gone by then is an error: nothing was put back."""
        outcomes = [GONE if answer.outcome is None else answer.outcome for answer in answers]
        self._request.ended(outcomes)
        for span, outcome in zip(self._spans, outcomes, strict=False):
            if (error := _error_of(outcome)) is not None:
                fail(span, error)
            span.end()


class PublishTelemetry:
    """Makes the spans of one topic's events, and counts them."""

    def __init__(
        self, source: Source, options: TelemetryOptions, description: Description, topic: str
    ) -> None:
        self._source = source
        self._topic = topic
        self._keys = options.baggage
        self._of_event = of_event(options)
        base = of_adapter(description, topic)
        self._base = base
        self._spans = {
            name: {
                **base,
                **description.attributes,
                names.OPERATION_NAME: name,
                names.OPERATION_TYPE: names.SPANS[name],
            }
            for name in (names.PUBLISH, names.CREATE, names.SEND, names.REDRIVE)
        }
        self._counted: dict[tuple[str, str | None], tuple[Attributes, Attributes]] = {}

    # --- one event ----------------------------------------------------------------------------------------------

    def start(self, event: Event, operation: str = names.PUBLISH) -> tuple[Event, Sending | None]:
        """Begin to publish: returns the event with its trace context, and what is to be ended, if anything.

        A `traceparent` that the event has already is left alone: the span links to it, and there is none of
        `operation` create.
        """
        source = self._source
        source.countdown -= 1
        if source.countdown <= 0:
            source.refresh()
        ambient = otel_context.get_current()
        if not source.active:
            # An empty context is the usual case, and the cheapest question.
            if ambient and (TRACEPARENT not in event._extensions or self._keys):
                return inject(event, ambient, self._keys), None
            return event, None
        tracer = source.tracer
        own = TRACEPARENT in event._extensions
        if tracer is None or (own and operation == names.CREATE):
            event = inject(event, ambient, self._keys) if ambient else event
            link = span_context(carried(event)) if TRACEPARENT in event._extensions else None
            return event, Sending(ambient, ambient, link, None, self._of_event(event) if link else None)
        described = self._of_event(event)
        link = span_context(carried(event)) if own else None
        span = tracer.start_span(
            f"{operation} {self._topic}",
            context=ambient,
            kind=SpanKind.CLIENT if own else SpanKind.PRODUCER,
            attributes={**self._spans[operation], **described},
            links=None if link is None else [trace.Link(link, described)],
        )
        context = trace.set_span_in_context(span, ambient)
        if not own or self._keys:
            event = inject(event, context, self._keys)
        return event, Sending(ambient, context, link if own else span.get_span_context(), span, described)

    # --- requests -----------------------------------------------------------------------------------------------

    def start_request(self, sendings: Sequence[Sending | None]) -> Request | None:
        """Begin a request with the events of these; None if there is nothing to do.

        An event alone is sent within its own span. Several have a span of the request, which links to each; it
        belongs to where they were published, if that is one place.
        """
        source = self._source
        if not source.active:
            return None
        count = len(sendings)
        first = sendings[0]
        if count == 1 and first is not None and (first.span is not None or source.tracer is None):
            return Request(self, names.PUBLISH, 1, None, first.context)
        known = [sending for sending in sendings if sending is not None]
        ambient = known[0].ambient if known else Context()
        if any(sending.ambient is not ambient for sending in known):
            ambient = Context()
        if source.tracer is None:
            return Request(self, names.SEND, count, None, ambient)
        span = source.tracer.start_span(
            f"{names.SEND} {self._topic}",
            context=ambient,
            kind=SpanKind.CLIENT,
            attributes={**self._spans[names.SEND], names.BATCH_COUNT: count},
            links=[
                trace.Link(sending.link, sending.attributes) for sending in known if sending.link is not None
            ],
        )
        return Request(self, names.SEND, count, span, trace.set_span_in_context(span, ambient))

    def start_redrive(self, events: Sequence[Event | None]) -> Redrive | None:
        """Begin to put events back from the dead letter: in the ambient trace, else each in that of the event."""
        if not self._source.refresh():
            return None
        ambient = otel_context.get_current()
        count, tracer = len(events), self._source.tracer
        if tracer is None:
            return Redrive(Request(self, names.REDRIVE, count, None, ambient), ())
        begun = [self._start_redrive(tracer, event, ambient) for event in events]
        context = trace.set_span_in_context(*begun[0]) if count == 1 else ambient
        return Redrive(Request(self, names.REDRIVE, count, None, context), [span for span, _ in begun])

    def _start_redrive(
        self, tracer: trace.Tracer, event: Event | None, ambient: Context
    ) -> tuple[trace.Span, Context]:
        published = Context() if event is None else carried(event)
        parent = ambient if span_context(ambient) is not None else published
        described = {} if event is None else self._of_event(event)
        link = span_context(published)
        span = tracer.start_span(
            f"{names.REDRIVE} {self._topic}",
            context=parent,
            kind=SpanKind.CLIENT,
            attributes={**self._spans[names.REDRIVE], **described},
            links=None if link is None else [trace.Link(link, described)],
        )
        return span, parent

    def count_request(
        self,
        operation: str,
        sent: list[int],
        errors: Sequence[str | None],
        error: str | None,
        seconds: float,
    ) -> None:
        """Count the requests of a call, and the events of it."""
        instruments = self._source.instruments
        if instruments is None:
            return
        one, timed = self._attributes(operation, error)
        instruments.requests.add(sent[0] or 1, one)
        instruments.operation_duration.record(seconds, timed)
        if error is None:
            instruments.sent.add(len(errors), one)
            return
        for found in dict.fromkeys(errors):
            instruments.sent.add(errors.count(found), self._attributes(operation, found)[0])

    def _attributes(self, operation: str, error: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the attributes of counters and those of durations; made once for each operation and error."""
        found = self._counted.get((operation, error))
        if found is None:
            one = {**self._base, names.OPERATION_NAME: operation}
            if error is not None:
                one[names.ERROR_TYPE] = error
            found = one, {**one, names.OPERATION_TYPE: names.SPANS[operation]}
            self._counted[operation, error] = found
        return found


def _error_of(outcome: object) -> str | None:
    if not isinstance(outcome, SendOutcome):
        return OTHER
    return None if outcome.code is None else error_name(outcome.code)


def fail(span: trace.Span, error: str) -> None:
    """Mark a span as failed. The text of an exception may hold data, and is not said."""
    span.set_attribute(names.ERROR_TYPE, error)
    span.set_status(Status(StatusCode.ERROR, error))
