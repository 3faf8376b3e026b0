"""Tracing: one trace from publisher to handler, by default; and next to nothing without an SDK."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from tests.consuming import until
from tests.scripted import ScriptedAdapter, refuse
from tests.support import run
from tests.traced import (
    SPAN_ID,
    TRACE_ID,
    TRACEPARENT,
    TRACESTATE,
    Metered,
    Traced,
    attributes_of,
    context_of,
    event,
    links_of,
    parent_of,
    sent,
    shop,
)

from crossbus import (
    Bus,
    CrossbusError,
    DeadLetters,
    Event,
    InvalidEvent,
    PartialPublishError,
    PermissionDenied,
    Reject,
    Retry,
    Subscription,
    SyncBus,
    Topic,
    __version__,
)
from crossbus.adapter import DeadLetterQueue, LeaseOutcome, PutBack, Received, SendOutcome, Wire
from crossbus.codecs import encode_json
from crossbus.deadletter import make_record
from crossbus.errors import ErrorCode
from crossbus.telemetry import names
from crossbus.telemetry.making import Telemetries

# --- with an SDK --------------------------------------------------------------------------------------------------


def test_publisher_and_handler_are_in_one_trace_and_the_handler_links_to_the_publish() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        current: list[trace.SpanContext] = []

        async def bill(event: Event) -> None:
            current.append(trace.get_current_span().get_span_context())

        async with shop(traced, adapter, bill) as bus:
            with traced.tracer.start_as_current_span("request"):
                await bus.publish("orders", event())
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: len(traced.spans) == 5)
        request, publish = traced.named("request"), traced.named("publish orders")
        process, receive = traced.named("process orders"), traced.named("receive orders")
        ack = traced.named("ack orders")
        assert parent_of(publish).span_id == context_of(request).span_id
        assert parent_of(process).span_id == context_of(publish).span_id
        assert links_of(process) == [context_of(publish).span_id]
        assert len({context_of(span).trace_id for span in traced.spans}) == 1
        assert parent_of(receive).span_id == context_of(publish).span_id
        assert links_of(receive) == [context_of(publish).span_id]
        assert parent_of(ack).span_id == context_of(process).span_id
        assert (publish.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
        assert (receive.kind, ack.kind) == (SpanKind.CLIENT, SpanKind.CLIENT)
        scope = process.instrumentation_scope
        assert scope is not None
        assert (scope.name, scope.version, scope.schema_url) == ("crossbus", __version__, names.SCHEMA_URL)
        assert current == [context_of(process)], "the span is current in the handler"

    run(scenario())


@pytest.mark.parametrize("clock", [0.0, 3600.0, -3600.0], ids=["equal", "ahead", "behind"])
def test_a_receive_in_a_trace_begins_with_the_event_and_not_with_a_poll_that_waited(clock: float) -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None: ...

        async with shop(traced, adapter, bill):
            polled = time.time_ns()
            await asyncio.sleep(0.01)  # the poll waits
            published = time.time() + clock
            adapter.receiver.put(event(traceparent=TRACEPARENT), published=published)
            await until(lambda: len(traced.spans) == 3)
        receive, process = traced.named("receive orders"), traced.named("process orders")
        assert receive.start_time is not None
        assert process.start_time is not None
        assert receive.start_time <= process.start_time, "whatever clock the provider has"
        if clock == 0:
            assert receive.start_time == int(published * 1e9)
        elif clock < 0:
            assert receive.start_time <= polled + 10_000_000, "it cannot begin before its poll, and is that"

    run(scenario())


def test_the_span_is_current_in_a_handler_that_runs_in_a_thread() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        current: list[int] = []

        def bill(event: Event) -> None:
            current.append(trace.get_current_span().get_span_context().span_id)

        async with shop(traced, adapter, bill):
            adapter.receiver.put(event(traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.settled)
        assert current == [context_of(traced.named("process orders")).span_id]

    run(scenario())


def test_spans_say_what_was_published_where_and_hold_no_data() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None: ...

        async with shop(traced, adapter, bill) as bus:
            await bus.publish(
                "orders", Event(id="e-1", type="t", source="/shop", subject="o-1", data={"card": "secret"})
            )
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: len(traced.spans) == 4)
        common = {
            "messaging.system": "scripted",
            "messaging.destination.name": "orders",
            "server.address": "127.0.0.1",
            "server.port": 1,
            "cloudevents.event_id": "e-1",
            "cloudevents.event_source": "/shop",
            "cloudevents.event_type": "t",
        }
        assert attributes_of(traced.named("publish orders")) == {
            **common,
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.message.id": "p-0",
        }
        assert attributes_of(traced.named("process orders")) == {
            **common,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.subscription.name": "billing",
            "messaging.message.id": "m-1",
            "crossbus.delivery.attempt": 1,
        }
        here = {name: value for name, value in common.items() if not name.startswith("cloudevents")}
        here["messaging.destination.subscription.name"] = "billing"
        receive = traced.named("receive orders")
        assert attributes_of(receive) == {
            **here,
            "messaging.operation.name": "receive",
            "messaging.operation.type": "receive",
            "messaging.batch.message_count": 1,
        }
        assert [dict(link.attributes or {}) for link in receive.links] == [{"messaging.message.id": "m-1"}]
        assert attributes_of(traced.named("ack orders")) == {
            **here,
            "messaging.operation.name": "ack",
            "messaging.operation.type": "settle",
            "messaging.message.id": "m-1",
        }

    run(scenario())


def test_an_event_without_trace_context_starts_a_root_span() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None: ...

        with traced.tracer.start_as_current_span("the consumer's own"):
            async with shop(traced, adapter, bill):
                adapter.receiver.put(event())
                await until(lambda: adapter.receiver.settled)
        process = traced.named("process orders")
        assert process.parent is None
        assert links_of(process) == []
        assert traced.named("receive orders").parent is None
        assert parent_of(traced.named("ack orders")).span_id == context_of(process).span_id

    run(scenario())


def test_a_traceparent_of_the_users_is_never_overwritten_and_tracestate_kept_byte_for_byte() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        seen: list[Event] = []

        async def bill(event: Event) -> None:
            seen.append(event)

        async with shop(traced, adapter, bill) as bus:
            with traced.tracer.start_as_current_span("request"):
                await bus.publish("orders", event(traceparent=TRACEPARENT, tracestate=TRACESTATE))
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: len(traced.spans) == 5)
        for handled in (*sent(adapter), *seen):
            assert handled.extensions["traceparent"] == TRACEPARENT
            assert handled.extensions["tracestate"] == TRACESTATE
        assert len(seen) == 1
        publish, process = traced.named("publish orders"), traced.named("process orders")
        assert links_of(publish) == [SPAN_ID], "the publish links to what the user put in"
        assert publish.kind is SpanKind.CLIENT
        assert context_of(publish).trace_id == context_of(traced.named("request")).trace_id
        assert parent_of(process).span_id == SPAN_ID
        assert context_of(process).trace_id == TRACE_ID

    run(scenario())


@pytest.mark.parametrize("traceparent", ["", "00-nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_traceparent_that_cannot_be_read_is_kept_and_starts_a_root_span(traceparent: str) -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        seen: list[Event] = []

        async def bill(event: Event) -> None:
            seen.append(event)

        async with shop(traced, adapter, bill):
            adapter.receiver.put(event(traceparent=traceparent) if traceparent else event())
            await until(lambda: adapter.receiver.settled)
        assert traced.named("process orders").parent is None
        assert seen[0].extensions.get("traceparent", "") == traceparent

    run(scenario())


def test_each_event_of_a_batch_has_its_own_create_span_and_the_request_links_to_each() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        async with Bus(adapter=adapter, tracer_provider=traced.provider) as bus:
            with traced.tracer.start_as_current_span("request"):
                await bus.publish_many("orders", [event(f"e-{i}") for i in range(3)])
        assert adapter.batches == [["e-0", "e-1", "e-2"]]
        published = [span for span in traced.spans if span.name == "create orders"]
        assert [attributes_of(span)["cloudevents.event_id"] for span in published] == ["e-0", "e-1", "e-2"]
        carried = [str(event.extensions["traceparent"]).split("-")[2] for event in sent(adapter)]
        assert carried == [f"{context_of(span).span_id:016x}" for span in published]
        assert [attributes_of(span)["messaging.message.id"] for span in published] == ["p-0", "p-1", "p-2"]
        assert {span.kind for span in published} == {SpanKind.PRODUCER}
        assert {attributes_of(span)["messaging.operation.type"] for span in published} == {"create"}
        send, request = traced.named("send orders"), traced.named("request")
        assert links_of(send) == [context_of(span).span_id for span in published]
        assert [dict(link.attributes or {})["cloudevents.event_id"] for link in send.links] == [
            "e-0",
            "e-1",
            "e-2",
        ]
        assert send.kind is SpanKind.CLIENT
        assert attributes_of(send)["messaging.operation.type"] == "send"
        assert attributes_of(send)["messaging.batch.message_count"] == 3
        assert parent_of(send).span_id == context_of(request).span_id
        assert {context_of(span).trace_id for span in traced.spans} == {context_of(request).trace_id}

    run(scenario())


def test_what_fails_of_a_batch_ends_its_span_with_the_error() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        adapter.answers.append(
            lambda wires: [SendOutcome("p-0"), SendOutcome(code=ErrorCode.PERMISSION_DENIED, message="no")]
        )
        async with Bus(adapter=adapter, tracer_provider=traced.provider) as bus:
            with pytest.raises(PartialPublishError):
                await bus.publish_many("orders", [event("a"), event("b"), Event(type="t", source="aws.x")])
        created = [span for span in traced.spans if span.name == "create orders"]
        by_id = {attributes_of(span)["cloudevents.event_id"]: span for span in created}
        assert len(by_id) == 3
        errors = [attributes_of(span).get("error.type") for span in by_id.values()]
        assert sorted(map(str, errors)) == ["InvalidEvent", "None", "PermissionDenied"]
        assert by_id["a"].status.status_code is StatusCode.UNSET
        assert by_id["b"].status.status_code is StatusCode.ERROR
        send = traced.named("send orders")
        assert attributes_of(send)["error.type"] == "PermissionDenied"
        assert send.status.status_code is StatusCode.ERROR

    run(scenario())


def test_a_publish_that_fails_ends_its_span_with_the_error() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        adapter.answers.append(refuse(ErrorCode.PERMISSION_DENIED, retryable=False))
        async with Bus(adapter=adapter, tracer_provider=traced.provider) as bus:
            with pytest.raises(PermissionDenied):
                await bus.publish("orders", event())
            with pytest.raises(InvalidEvent):
                await bus.publish("orders", Event(type="t", source="aws.x"))
        assert [attributes_of(span)["error.type"] for span in traced.spans] == [
            "PermissionDenied",
            "InvalidEvent",
        ]
        assert {span.status.status_code for span in traced.spans} == {StatusCode.ERROR}

    run(scenario())


@pytest.mark.parametrize("raised", [ValueError("no"), Retry(after=1), Reject("no")])
def test_a_handler_that_fails_ends_its_span_with_the_error(raised: Exception) -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None:
            raise raised

        async with shop(traced, adapter, bill):
            adapter.receiver.put(event(traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.settled)
        process = traced.named("process orders")
        assert attributes_of(process)["error.type"] == type(raised).__name__
        assert process.status.status_code is StatusCode.ERROR
        assert "no" not in (process.status.description or ""), "texts of exceptions may hold data"
        assert not process.events

    run(scenario())


def test_a_handler_of_several_has_one_span_that_links_to_each() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        current: list[int] = []

        async def bill(events: list[Event]) -> None:
            current.append(trace.get_current_span().get_span_context().span_id)

        bus = Bus(adapter=adapter, tracer_provider=traced.provider)
        bus.subscribe("orders", "billing")(bill)
        for number in (1, 2):
            adapter.receiver.put(event(f"e-{number}", traceparent=f"00-{TRACE_ID:032x}-{number:016x}-01"))
        adapter.receiver.put(event("e-3"))
        async with bus, bus.running():
            await until(lambda: adapter.receiver.settled)
        process, receive = traced.named("process orders"), traced.named("receive orders")
        assert process.parent is None
        assert receive.parent is None
        assert links_of(process) == links_of(receive) == [1, 2]
        assert [dict(link.attributes or {}) for link in process.links] == [
            {
                "cloudevents.event_id": f"e-{number}",
                "cloudevents.event_source": "/shop",
                "cloudevents.event_type": "com.acme.order.placed",
                "messaging.message.id": f"m-{number}",
            }
            for number in (1, 2)
        ]
        ack = traced.named("ack orders")
        assert parent_of(ack).span_id == context_of(process).span_id, "settled in the trace of their handling"
        assert attributes_of(ack)["messaging.batch.message_count"] == 3
        assert attributes_of(process) == {
            "messaging.system": "scripted",
            "server.address": "127.0.0.1",
            "server.port": 1,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "orders",
            "messaging.destination.subscription.name": "billing",
            "messaging.batch.message_count": 3,
        }
        assert current == [context_of(process).span_id]

    run(scenario())


def test_what_a_handler_publishes_continues_the_trace() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        bus = Bus(adapter=adapter, tracer_provider=traced.provider)

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            await bus.publish("invoices", Event(id="i-1", type="t", source="/billing"))

        async with bus, bus.running():
            adapter.receiver.put(event(traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.settled)
        publish, process = traced.named("publish invoices"), traced.named("process orders")
        assert parent_of(publish).span_id == context_of(process).span_id
        assert {context_of(span).trace_id for span in traced.spans} == {TRACE_ID}

    run(scenario())


def test_a_dead_letter_record_keeps_the_trace_context_of_the_event() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None:
            raise Reject("no")

        async with shop(traced, adapter, bill):
            adapter.receiver.put(event(traceparent=TRACEPARENT, tracestate=TRACESTATE))
            await until(lambda: adapter.records())
        (record,) = adapter.records()
        assert record.extensions["traceparent"] == TRACEPARENT
        assert record.extensions["tracestate"] == TRACESTATE
        assert record.data["traceparent"] == TRACEPARENT
        assert record.data["event"]["tracestate"] == TRACESTATE
        written, process = traced.named("publish orders--billing--dead"), traced.named("process orders")
        assert parent_of(written).span_id == context_of(process).span_id
        assert links_of(written) == [SPAN_ID]
        assert {context_of(span).trace_id for span in traced.spans} == {TRACE_ID}

    run(scenario())


# --- without an SDK -----------------------------------------------------------------------------------------------


def test_without_an_sdk_nothing_is_added() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter, tracer_provider=trace.NoOpTracerProvider())
        seen: list[Event] = []

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            assert trace.get_current_span() is trace.INVALID_SPAN
            seen.append(event)

        async with bus, bus.running():
            await bus.publish("orders", event())
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: seen)
        assert dict(sent(adapter)[0].extensions) == {}
        assert dict(seen[0].extensions) == {}

    run(scenario())


def test_without_an_sdk_an_ambient_context_passes_through() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter, tracer_provider=trace.NoOpTracerProvider())
        inside: list[trace.SpanContext] = []

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            inside.append(trace.get_current_span().get_span_context())
            await bus.publish("invoices", Event(id="i-1", type="t", source="/billing"))

        incoming = trace.SpanContext(TRACE_ID, SPAN_ID, is_remote=True, trace_flags=trace.TraceFlags(1))
        async with bus, bus.running():
            with trace.use_span(trace.NonRecordingSpan(incoming)):
                await bus.publish("orders", event())
                await bus.publish(
                    "orders", event("e-2", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-00")
                )
            for published in sent(adapter):
                adapter.receiver.put(published)
            await until(lambda: len(inside) == 2)
        assert [event.extensions["traceparent"] for event in sent(adapter)] == [
            TRACEPARENT,
            "00-" + "1" * 32 + "-" + "2" * 16 + "-00",
        ]
        assert [context.trace_id for context in inside] == [TRACE_ID, int("1" * 32, 16)]
        invoices = [e for topic, events in adapter.sent if topic == "invoices" for e in events]
        assert {e.extensions["traceparent"] for e in invoices} == {
            e.extensions["traceparent"] for e in sent(adapter)
        }

    run(scenario())


def test_an_sdk_that_is_set_up_after_the_bus_is_found() -> None:
    """In a process of its own: a global tracer provider can be set once."""
    program = """
        import asyncio
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from crossbus import Bus, Event

        async def main():
            exporter = InMemorySpanExporter()
            bus = Bus("local:")
            bus.topic("orders")
            async with bus:
                await bus.publish("orders", Event(type="t", source="/s"))
                assert not exporter.get_finished_spans()
                provider = TracerProvider()
                provider.add_span_processor(SimpleSpanProcessor(exporter))
                trace.set_tracer_provider(provider)
                for number in range(200):
                    await bus.publish("orders", Event(type="t", source="/s"))
            names = {span.name for span in exporter.get_finished_spans()}
            scopes = {span.instrumentation_scope.name for span in exporter.get_finished_spans()}
            print(names, scopes)

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "{'publish orders'} {'crossbus'}\n", done.stderr


# --- redrive, settling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", [True, False])
def test_a_redrive_is_in_the_trace_around_it_else_in_that_of_the_event(around: bool) -> None:
    async def scenario() -> None:
        traced, metered = Traced(), Metered()
        bus = Bus("local:", tracer_provider=traced.provider, meter_provider=metered.provider)
        rejected: list[str] = []

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            if event.id not in rejected:
                rejected.append(event.id)
                raise Reject("no")

        async with bus, bus.running():
            await bus.publish("orders", event())
            letters = bus.dead_letters("orders", "billing")
            await until(lambda: len(traced.spans) >= 4)
            with traced.tracer.start_as_current_span("operator") if around else nullcontext():
                assert await letters.redrive() == 1
            await until(lambda: len([s for s in traced.spans if s.name == "process orders"]) == 2)
        publish, redrive = traced.named("publish orders"), traced.named("redrive orders")
        parent = traced.named("operator") if around else publish
        assert parent_of(redrive).span_id == context_of(parent).span_id
        assert links_of(redrive) == [context_of(publish).span_id]
        assert attributes_of(redrive)["messaging.operation.type"] == "send"
        assert attributes_of(redrive)["cloudevents.event_id"] == "e-1"
        for process in [span for span in traced.spans if span.name == "process orders"]:
            assert parent_of(process).span_id == context_of(publish).span_id
        assert metered.values("crossbus.provider.requests", "messaging.operation.name")["redrive"] == 1

    run(scenario())


@pytest.mark.parametrize("fault", [None, ConnectionError()], ids=["answered", "raised"])
def test_what_is_put_back_in_one_request_has_a_span_each_with_its_own_outcome(
    fault: Exception | None,
) -> None:
    traced, metered = Traced(), Metered()
    billing = Subscription(topic=Topic("orders"), name="billing")
    originals = [event(f"e-{n}", traceparent=f"00-{n:032x}-{n:016x}-01") for n in (1, 2, 3)]

    class Queue(DeadLetterQueue):
        async def browse(self, limit: int) -> Sequence[Received]:
            records = [
                make_record(
                    billing,
                    Received(n, b"", {}, f"m-{n}"),
                    original,
                    reason="no",
                    error=None,
                    handler=None,
                    now=1.0,
                )
                for n, original in enumerate(originals)
            ]
            return [Received(n, encode_json(one), {}, f"d-{n}") for n, one in enumerate(records)]

        async def put_back(self, records: Sequence[tuple[Any, Wire]]) -> Sequence[PutBack]:
            if fault is not None:
                raise fault
            refused = SendOutcome(code=ErrorCode.INVALID_REQUEST, message="too large")
            return [PutBack(SendOutcome("p")), PutBack(None), PutBack(refused)]

        async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
            raise AssertionError

        async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
            raise AssertionError

    class Adapter(ScriptedAdapter):
        def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
            return Queue()

    adapter = Adapter()
    telemetry = Telemetries(None, traced.provider, metered.provider).of_topic(billing.topic, adapter)
    with pytest.raises(CrossbusError if fault is None else (CrossbusError, ConnectionError)):
        run(DeadLetters(adapter, billing, telemetry).redrive())
    spans = [span for span in traced.spans if span.name == "redrive orders"]
    assert [attributes_of(span)["cloudevents.event_id"] for span in spans] == ["e-1", "e-2", "e-3"]
    assert [context_of(span).trace_id for span in spans] == [1, 2, 3], "each in the trace of its event"
    errors = [attributes_of(span).get("error.type") for span in spans]
    assert errors == ([None, "NotFound", "InvalidRequest"] if fault is None else [errors[0]] * 3)
    assert fault is None or errors[0] is not None
    assert metered.values("crossbus.provider.requests", "messaging.operation.name") == {"redrive": 1}


def test_settling_that_fails_ends_its_span_with_the_error_and_is_tried_again() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None: ...

        adapter.receiver.settle_answers.append(ConnectionError())
        async with shop(traced, adapter, bill):
            adapter.receiver.put(event(traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.acked)
        first, second = [span for span in traced.spans if span.name == "ack orders"]
        assert attributes_of(first)["error.type"] == "ConnectionError"
        assert second.status.status_code is StatusCode.UNSET

    run(scenario())


def test_what_is_settled_in_one_request_links_to_each_handling() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        gate = asyncio.Event()
        begun: list[str] = []

        async def bill(event: Event) -> None:
            begun.append(event.id)
            await gate.wait()
            if event.id == "e-2":
                raise Retry(after=0)

        async with shop(traced, adapter, bill):
            for number in (1, 2):
                adapter.receiver.put(event(f"e-{number}", traceparent=f"00-{number:032x}-{number:016x}-01"))
            await until(lambda: len(begun) == 2)
            gate.set()
            await until(lambda: len(adapter.receiver.settled) == 2)
        settle = traced.named("settle orders")
        handled = {context_of(span).span_id for span in traced.spans if span.name == "process orders"}
        assert settle.parent is None
        assert set(links_of(settle)) == handled
        assert attributes_of(settle)["messaging.batch.message_count"] == 2

    run(scenario())


def test_what_a_sync_bus_publishes_from_an_iterator_is_in_the_callers_trace() -> None:
    traced, adapter = Traced(), ScriptedAdapter()
    with (
        SyncBus(adapter=adapter, tracer_provider=traced.provider) as bus,
        traced.tracer.start_as_current_span("request"),
    ):
        bus.publish_many("orders", (event(f"e-{number}") for number in range(3)))
    request = context_of(traced.named("request"))
    created = [span for span in traced.spans if span.name == "create orders"]
    assert len(created) == 3
    assert {parent_of(span).span_id for span in created} == {request.span_id}
    assert {context_of(span).trace_id for span in traced.spans} == {request.trace_id}
