"""Telemetry: how a handler's span belongs to the publisher's, what others left upstream, and what is not said."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind
from tests.consuming import until
from tests.scripted import ScriptedAdapter
from tests.support import run
from tests.traced import (
    SPAN_ID,
    TRACE_ID,
    TRACEPARENT,
    Traced,
    attributes_of,
    context_of,
    event,
    links_of,
    parent_of,
    sent,
    shop,
)

from crossbus import Bus, ConfigurationError, Delivery, Event, Reject, RetryPolicy, TelemetryOptions
from crossbus.adapter import Received
from crossbus.clock import SystemClock
from crossbus.telemetry.making import Telemetries
from crossbus.telemetry.names import LOG_FIELDS
from crossbus.topology import Subscription, Topic

ROOT, PARENT = "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
XRAY = f"Root={ROOT};Parent={PARENT};Sampled=1"
XRAY_TRACE = int(ROOT[2:].replace("-", ""), 16)


async def nothing(event: Event) -> None: ...


def handled(
    traced: Traced, given: Event, *, options: TelemetryOptions | None = None, header: str | None = None
) -> Any:
    """Handle one event and return its span; for what happens in a request of somebody else's."""
    adapter = ScriptedAdapter()
    telemetry = Telemetries(options, traced.provider, None).of_subscription(
        Subscription(topic=Topic("orders"), name="billing"), adapter, SystemClock()
    )
    received = Received(1, b"", {}, "m-1", attempt=1, trace_header=header)
    delivery = Delivery(received, None, 0.0)  # type: ignore[arg-type]
    delivery._event = given
    processing = telemetry.process(delivery)
    assert processing is not None
    processing.handled()
    processing.close()
    return traced.named("process orders")


# --- parent and link ----------------------------------------------------------------------------------------------


def test_in_link_mode_a_handler_begins_a_trace_that_links_to_the_publisher() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        async with shop(traced, adapter, nothing, telemetry=TelemetryOptions(mode="link")):
            adapter.receiver.put(event(traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.settled)
        process, receive, ack = (traced.named(f"{name} orders") for name in ("process", "receive", "ack"))
        assert process.parent is None
        assert context_of(process).trace_id != TRACE_ID
        assert links_of(process) == links_of(receive) == [SPAN_ID]
        assert receive.parent is None
        assert parent_of(ack).span_id == context_of(process).span_id

    run(scenario())


@pytest.mark.parametrize("mode", ["auto", "link"])
def test_inside_a_server_span_the_handler_belongs_to_it_and_links_to_the_publisher(mode: Any) -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("POST /push", kind=SpanKind.SERVER) as server:
        process = handled(traced, event(traceparent=TRACEPARENT), options=TelemetryOptions(mode=mode))
    assert parent_of(process).span_id == server.get_span_context().span_id
    assert links_of(process) == [SPAN_ID]


def test_inside_a_server_span_the_trace_of_the_publisher_can_be_asked_for() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("POST /push", kind=SpanKind.SERVER) as server:
        process = handled(traced, event(traceparent=TRACEPARENT), options=TelemetryOptions(mode="parent"))
    assert parent_of(process).span_id == SPAN_ID
    assert links_of(process) == [SPAN_ID, server.get_span_context().span_id]


def test_inside_a_span_of_another_kind_it_belongs_to_the_publisher_and_links_to_both() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("batch job") as job:
        process = handled(traced, event(traceparent=TRACEPARENT))
    assert parent_of(process).span_id == SPAN_ID
    assert links_of(process) == [SPAN_ID, job.get_span_context().span_id]


def test_inside_a_span_an_event_without_trace_context_belongs_to_it() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("batch job") as job:
        process = handled(traced, event())
    assert parent_of(process).span_id == job.get_span_context().span_id


def test_a_span_around_running_is_not_the_parent_of_all_that_is_handled() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        with traced.tracer.start_as_current_span("POST /start", kind=SpanKind.SERVER):
            async with shop(traced, adapter, nothing):
                adapter.receiver.put(event(traceparent=TRACEPARENT))
                await until(lambda: adapter.receiver.settled)
        for name in ("receive", "process", "ack"):
            assert context_of(traced.named(f"{name} orders")).trace_id == TRACE_ID

    run(scenario())


def test_the_file_says_the_mode_of_a_profile_over_the_program() -> None:
    async def scenario() -> None:
        traced = Traced()
        profile = {"url": "local:", "telemetry": {"mode": "link", "subject": True}}
        bus = Bus(
            profile="desk",
            config={"profiles": {"desk": profile}},
            source="/shop",
            tracer_provider=traced.provider,
            telemetry=TelemetryOptions(mode="parent"),
        )
        bus.subscribe("orders", "billing")(nothing)
        async with bus, bus.running():
            await bus.publish("orders", Event(type="t", subject="o-1"))
            await until(lambda: any(span.name == "ack orders" for span in traced.spans))
        publish, process = traced.named("publish orders"), traced.named("process orders")
        assert process.parent is None
        assert links_of(process) == [context_of(publish).span_id]
        assert attributes_of(process)["cloudevents.event_subject"] == "o-1"

    run(scenario())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"mode": "links"}, "profiles.desk.telemetry.mode must be 'auto', 'parent' or 'link', not 'links'"),
        ({"mod": "link"}, "unknown key profiles.desk.telemetry.mod; did you mean 'mode'?"),
        ({"baggage": "tenant"}, "profiles.desk.telemetry.baggage must be a list of the keys that may travel"),
        ({"backlog": -1}, "profiles.desk.telemetry.backlog must be a number from 0, not -1"),
    ],
)
def test_what_the_file_says_wrongly_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Bus(profile="desk", config={"profiles": {"desk": {"url": "local:", "telemetry": table}}})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "x"},
        {"subject": 1},
        {"redact": 1},
        {"baggage": "tenant"},
        {"baggage": [""]},
        {"backlog": -1},
        {"backlog": True},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"TelemetryOptions\({next(iter(options))}="):
        TelemetryOptions(**options)
    with pytest.raises(ConfigurationError, match="TelemetryOptions"):
        Bus("local:", telemetry=options)  # type: ignore[arg-type]


# --- X-Ray --------------------------------------------------------------------------------------------------------


def test_the_trace_of_xray_is_linked_where_the_event_has_none() -> None:
    process = handled(Traced(), event(), header=XRAY)
    assert process.parent is None
    (link,) = process.links
    assert (link.context.trace_id, link.context.span_id) == (XRAY_TRACE, int(PARENT, 16))
    assert link.context.trace_flags.sampled


def test_the_trace_of_xray_is_not_looked_at_where_the_event_has_one() -> None:
    process = handled(Traced(), event(traceparent=TRACEPARENT), header=XRAY)
    assert links_of(process) == [SPAN_ID]


@pytest.mark.parametrize(
    "header", ["", "Root=1-zz;Parent=1", f"Root={ROOT}", "Self=1", f"Root={ROOT};Parent=0"]
)
def test_a_header_of_xray_that_names_no_span_is_no_link(header: str) -> None:
    assert handled(Traced(), event(), header=header).links == ()


def test_a_handler_of_several_links_to_the_traces_of_xray_too() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(events: list[Event]) -> None: ...

        async with shop(traced, adapter, bill):
            adapter.receiver.put(event(), trace_header=XRAY)
            await until(lambda: adapter.receiver.settled)
        assert links_of(traced.named("process orders")) == [int(PARENT, 16)]

    run(scenario())


# --- context stays ------------------------------------------------------------------------------------------------


def test_publishes_of_several_requests_that_share_a_batch_keep_their_traces() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        adapter.gate = asyncio.Event()
        async with Bus(adapter=adapter, tracer_provider=traced.provider) as bus:

            async def request(number: int) -> None:
                with traced.tracer.start_as_current_span(f"request {number}"):
                    await bus.publish("orders", event(f"e-{number}"))

            tasks = [asyncio.create_task(request(number)) for number in range(4)]
            await until(lambda: adapter.under_way == 2)
            adapter.gate.set()
            await asyncio.gather(*tasks)
        assert adapter.batches == [["e-0"], ["e-1", "e-2", "e-3"]]
        publishes = {attributes_of(s)["cloudevents.event_id"]: s for s in traced.spans if "publish" in s.name}
        for number in range(4):
            request_span = traced.named(f"request {number}")
            assert parent_of(publishes[f"e-{number}"]).span_id == context_of(request_span).span_id
        send = traced.named("send orders")
        assert send.parent is None, "it is of several traces, and belongs to none"
        assert links_of(send) == [context_of(publishes[f"e-{n}"]).span_id for n in (1, 2, 3)]

    run(scenario())


def test_middleware_and_tasks_of_a_handler_are_in_its_span() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        seen: list[int] = []

        def note() -> None:
            seen.append(trace.get_current_span().get_span_context().span_id)

        async def layer(delivery: Delivery, call_next: Any) -> None:
            note()
            await call_next(delivery)
            note()

        async def later() -> None:
            await asyncio.sleep(0)
            note()

        async def bill(event: Event) -> None:
            await asyncio.create_task(later())
            await asyncio.to_thread(note)

        async with shop(traced, adapter, bill, handle_middleware=[layer]):
            adapter.receiver.put(event(traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.settled)
        assert seen == [context_of(traced.named("process orders")).span_id] * 4

    run(scenario())


def test_a_retry_and_a_dead_letter_stay_in_the_trace() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None:
            raise ValueError

        declared = {"retry": RetryPolicy(attempts=2, first_delay=0, jitter=False)}
        async with shop(traced, adapter, bill, declared=declared):
            adapter.receiver.put(event(traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.settled)
            adapter.receiver.put(event(traceparent=TRACEPARENT), attempt=2)
            await until(lambda: adapter.receiver.acked)
        names = [span.name for span in traced.spans]
        assert names == [
            *("receive orders", "process orders", "retry orders"),
            *("receive orders", "process orders", "publish orders--billing--dead", "ack orders"),
        ]
        assert {context_of(span).trace_id for span in traced.spans} == {TRACE_ID}
        attempts = [
            attributes_of(s)["crossbus.delivery.attempt"] for s in traced.spans if "process" in s.name
        ]
        assert attempts == [1, 2]

    run(scenario())


def test_a_poll_that_fails_has_a_span_and_idle_ones_have_none() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        idle = asyncio.Event()

        async def receive(most: int, wait: float) -> list[Received]:
            adapter.receiver.receives.append(most)
            if len(adapter.receiver.receives) == 3:
                raise ConnectionError
            if len(adapter.receiver.receives) == 5:
                idle.set()
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return []

        adapter.receiver.receive = receive  # type: ignore[method-assign]
        async with shop(traced, adapter, nothing):
            await idle.wait()
        (failed,) = traced.spans
        assert failed.name == "receive orders"
        assert attributes_of(failed)["error.type"] == "ConnectionError"

    run(scenario())


def test_what_is_not_sampled_is_told_to_the_consumer() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        traced.provider.sampler = ALWAYS_OFF
        async with shop(traced, adapter, nothing) as bus:
            await bus.publish("orders", event())
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: adapter.receiver.settled)
        assert not traced.spans
        flags = int(str(sent(adapter)[0].extensions["traceparent"]).rpartition("-")[2], 16)
        assert not flags & trace.TraceFlags.SAMPLED

    run(scenario())


# --- baggage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_sdk", [True, False])
@pytest.mark.parametrize("keys", [(), ("tenant",), ("tenant", "absent")])
def test_only_allowed_baggage_travels(with_sdk: bool, keys: tuple[str, ...]) -> None:
    async def scenario() -> None:
        traced, adapter = Traced() if with_sdk else None, ScriptedAdapter()
        seen: list[dict[str, object]] = []

        async def bill(event: Event) -> None:
            seen.append(dict(baggage.get_all()))

        async with shop(traced, adapter, bill, telemetry=TelemetryOptions(baggage=keys)) as bus:
            context = baggage.set_baggage("tenant", "t 1", baggage.set_baggage("user", "ann"))
            token = otel_context.attach(context)
            await bus.publish("orders", event())
            otel_context.detach(token)
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: seen)
        assert sent(adapter)[0].extensions.get("baggage") == ("tenant=t+1" if keys else None)
        assert seen == [{"tenant": "t 1"} if keys else {}]

    run(scenario())


def test_baggage_that_arrives_and_is_not_allowed_is_left_in_the_event() -> None:
    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()
        seen: list[object] = []

        async def bill(event: Event) -> None:
            seen.append((dict(baggage.get_all()), event.extensions["baggage"]))

        async with shop(traced, adapter, bill, telemetry=TelemetryOptions(baggage=("a",))):
            adapter.receiver.put(event(baggage="a=1,b=2"))
            await until(lambda: seen)
        assert seen == [({"a": "1"}, "a=1,b=2")]

    run(scenario())


def test_baggage_that_is_too_large_is_left_out_key_by_key() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with shop(
            None, adapter, nothing, telemetry=TelemetryOptions(baggage=("large", "small"))
        ) as bus:
            context = baggage.set_baggage("small", "1", baggage.set_baggage("large", "x" * 1024))
            token = otel_context.attach(context)
            await bus.publish("orders", event())
            otel_context.detach(token)
        assert sent(adapter)[0].extensions["baggage"] == "small=1"

    run(scenario())


# --- what is not said ---------------------------------------------------------------------------------------------


def test_subject_and_data_stand_nowhere_and_a_hook_redacts_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    def redact(name: str, value: Any) -> Any:
        asked.append(name)
        if name == "exception.message":
            return str(value).replace("4111", "****")
        return {"cloudevents.event_source": None, "cloudevents.event_id": "hidden"}.get(name, value)

    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None:
            raise ValueError("card 4111 was refused")

        async with shop(traced, adapter, bill, telemetry=TelemetryOptions(redact=redact)) as bus:
            await bus.publish("orders", Event(id="e-1", type="t", source="/ann", subject="ann", data="4111"))
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: adapter.receiver.settled)
        for span in traced.spans:
            about = [attributes_of(span), *(dict(link.attributes or {}) for link in span.links)]
            assert "ann" not in str(about)
            assert "4111" not in f"{about} {span.status.description} {span.events}"
            assert "cloudevents.event_source" not in attributes_of(span)
        assert attributes_of(traced.named("process orders"))["cloudevents.event_id"] == "hidden"

    with caplog.at_level(logging.DEBUG, logger="crossbus"):
        run(scenario())
    (record,) = [one for one in caplog.records if "failed at attempt" in one.message]
    assert "ValueError: card **** was refused" in record.message
    assert record.__dict__["event_id"] == "hidden"
    assert "event_source" not in record.__dict__
    assert "4111" not in caplog.text
    assert set(asked) == {
        *("cloudevents.event_id", "cloudevents.event_source", "cloudevents.event_type"),
        "exception.message",
    }


def test_a_hook_that_fails_costs_no_event_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def redact(name: str, value: Any) -> Any:
        raise KeyError(name)

    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None:
            raise Reject("no")

        async with shop(traced, adapter, bill, telemetry=TelemetryOptions(redact=redact)) as bus:
            await bus.publish("orders", event())
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: adapter.receiver.acked)
        assert not [name for span in traced.spans for name in attributes_of(span) if "cloudevents" in name]

    run(scenario())
    assert "the redact hook failed for cloudevents.event_id, which is left out: KeyError" in caplog.text


@pytest.mark.parametrize("with_hook", [True, False])
def test_an_adapter_that_cannot_decode_costs_nobody_the_consumer(
    with_hook: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ScriptedAdapter):
        def decode(self, received: Received) -> Event:
            if received.message_id == "m-1":
                raise ValueError("card 4111")
            return super().decode(received)

    def redact(name: str, value: Any) -> Any:
        return None

    async def scenario() -> None:
        traced, adapter = Traced(), Broken()
        options = TelemetryOptions(redact=redact) if with_hook else None
        async with shop(traced, adapter, nothing, telemetry=options):
            adapter.receiver.put(event("1"))
            adapter.receiver.put(event("2", traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.acked)
        assert adapter.receiver.acked == [2]
        assert traced.named("process orders").parent is not None

    run(scenario())
    assert "message m-1 is given back" in caplog.text
    assert ("4111" in caplog.text) is not with_hook


def test_the_log_says_in_fields_what_was_handled_within_its_span(caplog: pytest.LogCaptureFixture) -> None:
    spans: list[int] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            spans.append(trace.get_current_span().get_span_context().span_id)

    async def scenario() -> None:
        traced, adapter = Traced(), ScriptedAdapter()

        async def bill(event: Event) -> None:
            raise ValueError("no")

        noting = Noting()
        logging.getLogger("crossbus").addHandler(noting)
        try:
            async with shop(traced, adapter, bill, telemetry=TelemetryOptions(subject=True)):
                given = event(traceparent=TRACEPARENT).replace(subject="o-1")
                adapter.receiver.put(given)
                await until(lambda: adapter.receiver.settled)
        finally:
            logging.getLogger("crossbus").removeHandler(noting)
        assert spans == [context_of(traced.named("process orders")).span_id]

    run(scenario())
    (record,) = caplog.records
    assert {name: record.__dict__[name] for name in record.__dict__ if name in LOG_FIELDS} == {
        "topic": "orders",
        "subscription": "billing",
        "message_id": "m-1",
        "attempt": 1,
        "event_id": "e-1",
        "event_source": "/shop",
        "event_type": "com.acme.order.placed",
        "event_subject": "o-1",
        "error_type": "ValueError",
    }
