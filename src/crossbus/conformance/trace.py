"""Trace: the context of an event comes with it, and its spans are one trace."""

from __future__ import annotations

import re

from opentelemetry import trace as otel

from crossbus.adapter import Description
from crossbus.conformance.cases import case
from crossbus.conformance.spans import Meters, Span, Tracers
from crossbus.conformance.trial import Trial
from crossbus.delivery import Delivery
from crossbus.event import Event
from crossbus.outcomes import Reject, Retry
from crossbus.telemetry import names
from crossbus.topology import RetryPolicy

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACESTATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,a@b=~!#$%&'()*+-./:;<>?@[]^_`{|}"
OWN = {"traceparent": TRACEPARENT, "tracestate": TRACESTATE}


def _check(event: Event, where: str) -> None:
    for name, value in OWN.items():
        assert event.extensions.get(name) == value, (
            f"{where}: {name} was sent as {value!r} and came as {event.extensions.get(name)!r}"
        )


@case("trace/bytes-kept", "`traceparent` and `tracestate` are kept byte for byte", starred=True)
async def bytes_kept(t: Trial) -> None:
    odd = {"traceparent": "00-00000000000000000000000000000001-0000000000000001-00", "tracestate": "a=1"}
    future = {
        "traceparent": "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes",
        "tracestate": "b=2",
    }
    invalid = {"traceparent": "no trace context at all"}
    sent = [
        Event(type="com.example.trace", source="/conformance", extensions=x)
        for x in (OWN, odd, future, invalid)
    ]
    for before, after in zip(sent, await t.round_trip(sent), strict=True):
        for name in ("traceparent", "tracestate"):
            was, came = before.extensions.get(name), after.extensions.get(name)
            assert was == came, f"{name} was sent as {was!r} and came as {came!r}"


@case("trace/own-not-overwritten", "a `traceparent` that the user put in is not overwritten", starred=True)
async def own_not_overwritten(t: Trial) -> None:
    context = otel.SpanContext(
        trace_id=0x1234567890ABCDEF1234567890ABCDEF,
        span_id=0x1234567890ABCDEF,
        is_remote=False,
        trace_flags=otel.TraceFlags(otel.TraceFlags.SAMPLED),
    )
    with otel.use_span(otel.NonRecordingSpan(context)):
        own = Event(type="com.example.trace", source="/conformance", extensions=OWN)
        plain = Event(type="com.example.trace", source="/conformance")
        received = await t.round_trip([own, plain])
    _check(received[0], "an event with a context of its own, published inside a span")
    given = str(received[1].extensions.get("traceparent", ""))
    assert given.startswith("00-1234567890abcdef1234567890abcdef-"), (
        f"an event published inside a span carries the traceparent {given!r}, which is not of that span's trace"
    )


@case(
    "trace/bytes-through-dead-letter",
    "`traceparent` and `tracestate` are kept through retry, dead letter and redrive",
    starred=True,
    requires={"dead_letters", "redeliver"},
)
async def bytes_through_dead_letter(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    event = t.events(1, extensions=OWN)[0]
    state = "retry"

    async def act(delivery: Delivery) -> None:
        nonlocal state
        if state == "retry":
            state = "reject"
            raise Retry(after=0.1)
        if state == "reject":
            raise Reject("broken")

    inbox = t.inbox(bus, topic, "traced", act)
    async with t.consuming(bus):
        await bus.publish(topic, event)
        (letter,) = await t.dead(bus, topic, "traced", 1)
        assert letter.traceparent == TRACEPARENT, f"the record's traceparent is {letter.traceparent!r}"
        assert letter.event is not None, "the dead letter of a valid event does not hold it as an event"
        _check(letter.event, "in the dead letter")
        state = "redriven"
        await bus.dead_letters(topic, "traced").redrive()
        await t.until(lambda: inbox.done, "a redriven event did not reach its handler")
    for number, received in enumerate(inbox.events, 1):
        _check(received, f"at delivery {number}")


# --- spans ------------------------------------------------------------------------------------------------------------


@case("trace/one-trace", "publisher and handler are in one trace, with a link", starred=True)
async def one_trace(t: Trial) -> None:
    tracers = Tracers()
    topic = t.topic()
    publisher, consumer = t.bus(tracer_provider=tracers), t.bus(tracer_provider=tracers)
    publisher.topic(topic)
    current: dict[str, int] = {}

    async def note(delivery: Delivery) -> None:
        current[delivery.event.id] = otel.get_current_span().get_span_context().span_id

    inbox = t.inbox(consumer, topic, "traced", note)
    events = t.events(3)
    async with t.consuming(consumer), publisher:
        with tracers.get_tracer("the program's").start_as_current_span("request") as request:
            for event in events:
                await publisher.publish(topic, event)
        await t.once(inbox, events)
        await t.until(
            lambda: all(tracers.of("process", e.id) for e in events), "a handler's span did not end"
        )
    of_request = request.get_span_context()
    for event in events:
        (publish,) = tracers.of("publish", event.id)
        assert publish.parent == of_request, (
            f"the span of a publish is no child of the span around it: {publish.name}"
        )
        for process in tracers.of("process", event.id):
            _continues(process, publish, "a handler's span")
            assert (publish.kind, process.kind) == (otel.SpanKind.PRODUCER, otel.SpanKind.CONSUMER), (
                f"the kinds are {publish.kind.name} and {process.kind.name}"
            )
        assert current[event.id] in {
            process.context.span_id for process in tracers.of("process", event.id)
        }, "in the handler another span is current than its own"


@case(
    "trace/spans-through-dead-letter",
    "one trace through retry, dead letter and redrive",
    starred=True,
    requires={"dead_letters", "redeliver"},
)
async def spans_through_dead_letter(t: Trial) -> None:
    tracers = Tracers()
    bus, topic = t.bus(tracer_provider=tracers), t.topic()
    (event,) = t.events(1)
    state = "retry"

    async def act(delivery: Delivery) -> None:
        nonlocal state
        if state == "retry":
            state = "reject"
            raise Retry(after=0.1)
        if state == "reject":
            raise Reject("broken")

    inbox = t.inbox(bus, topic, "traced", act)
    async with t.consuming(bus):
        await bus.publish(topic, event)
        await t.dead(bus, topic, "traced", 1)
        state = "redriven"
        await bus.dead_letters(topic, "traced").redrive()
        await t.until(lambda: inbox.done, "a redriven event did not reach its handler")
        await t.until(
            lambda: any("error.type" not in span.attributes for span in tracers.of("process", event.id)),
            "the span of the last handler did not end",
        )
    (publish,) = tracers.of("publish", event.id)
    processed = tracers.of("process", event.id)
    for number, span in enumerate(processed, 1):
        _continues(span, publish, f"the handler's span number {number} of {len(processed)}")
    errors = [span.attributes.get("error.type") for span in processed]
    assert errors[0] == "Retry", f"a handler that raised Retry has error.type {errors[0]!r}"
    assert "Reject" in errors, f"a handler that raised Reject has no span with its error: {errors}"
    for name, spans in (
        ("the dead-letter record", [s for s in tracers.of("publish") if s is not publish]),
        ("the redrive", tracers.of("redrive")),
    ):
        assert spans, f"{name} has no span"
        for span in spans:
            assert span.context.trace_id == publish.context.trace_id, (
                f"{name} is in another trace than the event"
            )
            assert publish.context.span_id in span.linked, f"{name} does not link to the publish of the event"


@case("trace/batch-links", "a batch links each event", starred=True)
async def batch_links(t: Trial) -> None:
    tracers = Tracers()
    bus, topic = t.bus(tracer_provider=tracers), t.topic()
    handled: list[str] = []
    events = t.events(t.size(25))

    async def handle(batch: list[Event]) -> None:
        handled.extend(event.id for event in batch)

    def linked() -> set[int]:
        return {id for span in tracers.of("process") for id in span.linked}

    bus.subscribe(topic, "batched", batch=10)(handle)
    wanted = {event.id for event in events}
    async with t.consuming(bus):
        with tracers.get_tracer("the program's").start_as_current_span("request") as request:
            await bus.publish_many(topic, events)
        await t.until(
            lambda: wanted <= set(handled), lambda: f"{len(set(handled))} of {len(wanted)} were handled"
        )
        await t.until(
            lambda: len(linked()) >= len(wanted), lambda: f"handlers' spans link to {len(linked())} events"
        )
    created = {span.attributes["cloudevents.event_id"]: span for span in tracers.of("create")}
    assert created.keys() == wanted, f"{len(created)} of {len(wanted)} events have a create span"
    for span in created.values():
        assert span.parent == request.get_span_context(), (
            "a create span is no child of the span around publish_many"
        )
        assert span.kind is otel.SpanKind.PRODUCER, f"a create span has kind {span.kind.name}"
    made = {span.context.span_id for span in created.values()}
    sent = [span for name in ("send", "publish") for span in tracers.of(name)]
    assert made <= linked(), f"the spans of handlers link to {len(made & linked())} of {len(made)} events"
    several = [span for span in sent if span.attributes.get("messaging.batch.message_count", 1) > 1]
    for span in several:
        assert span.kind is otel.SpanKind.CLIENT, (
            f"the span of a request with several events has kind {span.kind.name}"
        )
        count = span.attributes["messaging.batch.message_count"]
        assert len(span.linked & made) == count, (
            f"a request with {count} events links to {len(span.linked & made)}"
        )


@case("trace/root-span", "an event without a trace context starts a root span", starred=True)
async def root_span(t: Trial) -> None:
    tracers = Tracers()
    bus, topic = t.bus(tracer_provider=tracers), t.topic()
    inbox = t.inbox(bus, topic, "traced")
    events = t.events(2)
    with tracers.get_tracer("the program's").start_as_current_span("main"):
        async with t.consuming(bus):
            for event in events:
                await t.send_wire(bus, topic, event)
            await t.once(inbox, events)
            await t.until(
                lambda: all(tracers.of("process", e.id) for e in events), "a handler's span did not end"
            )
    traces = set()
    for event in events:
        for span in tracers.of("process", event.id):
            assert span.parent is None, (
                "an event without trace context is handled in the trace of somebody else"
            )
            assert not span.links, (
                "an event without trace context is handled in a span that links to somewhere"
            )
            traces.add(span.context.trace_id)
    assert len(traces) >= len(events), "two events without trace context share a trace"
    for received in inbox.events:
        assert "traceparent" not in received.extensions, (
            "an event came with a traceparent that nobody gave it"
        )


@case("trace/names", "names of spans, metrics and attributes follow the conventions", starred=True)
async def names_follow_conventions(t: Trial) -> None:
    tracers, meters = Tracers(), Meters()
    bus, topic = t.bus(tracer_provider=tracers, meter_provider=meters), t.topic()
    failing = True

    async def act(delivery: Delivery) -> None:
        nonlocal failing
        if failing:
            failing = False
            raise ValueError("not yet")

    inbox = t.inbox(bus, topic, "traced", act, retry=RetryPolicy(first_delay=0.1, jitter=False))
    one, *more = t.events(12)
    async with t.consuming(bus):
        await bus.publish(topic, one)
        await bus.publish_many(topic, more)
        wanted = {event.id for event in (one, *more)}
        await t.until(lambda: wanted <= set(inbox.done), lambda: inbox.missing_text(wanted))
        await t.elapse(1.0)
        described = bus.adapter_for(topic).describe()
    assert _SYSTEM.match(described.system), (
        f"messaging.system is {described.system!r}: lower case, digits, _ and ."
    )
    assert ("crossbus", names.SCHEMA_URL) in tracers.schemas, f"the schema is not declared: {tracers.schemas}"
    seen = set()
    for span in tracers.spans:
        operation = span.at_start.get(names.OPERATION_NAME)
        assert operation in names.SPANS, f"span {span.name!r} has {names.OPERATION_NAME} {operation!r}"
        seen.add(operation)
        _check_span(span, str(operation), topic, described)
    missing = {"publish", "create", "receive", "process", "ack"} - seen
    assert not missing, f"no span of these operations was made: {sorted(missing)}"
    failed = [span for span in tracers.of("process") if span.status is otel.StatusCode.ERROR]
    assert failed, "the span of a handler that failed has no status ERROR"
    assert {span.attributes.get(names.ERROR_TYPE) for span in failed} == {"ValueError"}
    known = {metric.name: metric for metric in names.METRICS}
    assert {one.name for one in _STANDARD} <= meters.used.keys(), (
        f"not measured: {sorted({one.name for one in _STANDARD} - meters.used.keys())}"
    )
    for name, attributes in meters.used.items():
        assert meters.units[name] == known[name].unit, f"{name} is measured in {meters.units[name]!r}"
        ids = {one for one in attributes if one.endswith((".id", "_id"))}
        assert not ids, f"{name} has ids among its attributes: {sorted(ids)}"


_SYSTEM = re.compile(r"[a-z][a-z0-9_.]*\Z")
_STANDARD = (names.SENT, names.CONSUMED, names.OPERATION_DURATION, names.PROCESS_DURATION)
_KINDS = {
    "create": otel.SpanKind.PRODUCER,
    "publish": otel.SpanKind.PRODUCER,
    "process": otel.SpanKind.CONSUMER,
}


def _check_span(span: Span, operation: str, topic: str, described: Description) -> None:
    about = span.at_start
    assert span.name == f"{operation} {topic}", f"a span is called {span.name!r}, not '{operation} {topic}'"
    assert span.kind is _KINDS.get(operation, otel.SpanKind.CLIENT), (
        f"{span.name!r} has kind {span.kind.name}"
    )
    consumed = names.SPANS[operation] in ("receive", "process", "settle")
    wanted = {
        names.SYSTEM: (consumed and described.consume_system) or described.system,
        names.OPERATION_TYPE: names.SPANS[operation],
        names.DESTINATION: topic,
        names.SERVER_ADDRESS: described.server_address,
        names.SERVER_PORT: described.server_port,
        names.SUBSCRIPTION: "traced" if consumed else None,
    }
    for name, value in wanted.items():
        assert about.get(name) == value, (
            f"{span.name!r} started with {name} {about.get(name)!r}, not {value!r}"
        )
    if operation in ("publish", "create", "process"):
        for name in (names.EVENT_ID, names.EVENT_SOURCE, names.EVENT_TYPE):
            assert about.get(name), f"{span.name!r} started without {name}"
        assert names.BATCH_COUNT not in about, f"{span.name!r} is of one event and has {names.BATCH_COUNT}"
    unknown = {
        name for name in span.attributes if name.startswith(("messaging.", "cloudevents.", "crossbus."))
    } - names.SPAN_ATTRIBUTES.keys()
    assert not unknown, f"{span.name!r} has attributes that no convention has: {sorted(unknown)}"


def _continues(span: Span, publish: Span, what: str) -> None:
    assert span.context.trace_id == publish.context.trace_id, f"{what} is in another trace than the publish"
    assert span.parent is not None, f"{what} has no parent"
    assert span.parent.span_id == publish.context.span_id, f"{what} is no child of the span of the publish"
    assert publish.context.span_id in span.linked, f"{what} does not link to the span of the publish"
