"""Metrics: what is counted and measured, by which attributes, and the trace behind a number."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from tests.consuming import until
from tests.scripted import ScriptedAdapter, refuse
from tests.support import run
from tests.traced import TRACE_ID, TRACEPARENT, Metered, Traced, context_of, event, sent, shop

from crossbus import (
    Bus,
    CrossbusError,
    Deduplicate,
    Event,
    MemoryStore,
    PartialPublishError,
    PermissionDenied,
    Reject,
    RetryPolicy,
    TelemetryOptions,
    exact,
)
from crossbus.adapter import Backlog, LeaseOutcome, SendOutcome
from crossbus.errors import ErrorCode
from crossbus.telemetry import names
from crossbus.testing import Clock


async def nothing(event: Event) -> None: ...


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="crossbus")


COMMON = {"messaging.system": "scripted", "messaging.destination.name": "orders"}
SERVER = {"server.address": "127.0.0.1", "server.port": 1}
CONSUMER = {**COMMON, "messaging.destination.subscription.name": "billing"}


def only(metered: Metered, name: str) -> Any:
    (point,) = metered.points(name)
    return point


def test_what_is_published_and_handled_is_counted_and_timed() -> None:
    async def scenario() -> None:
        metered, adapter = Metered(), ScriptedAdapter()
        async with shop(None, adapter, nothing, metered=metered) as bus:
            await bus.publish("orders", event())
            adapter.receiver.put(sent(adapter)[0])
            await until(lambda: adapter.receiver.settled)
            assert only(metered, "crossbus.deliveries.in_hand").attributes == CONSUMER
        (one,) = metered.points("messaging.client.sent.messages")
        assert one.attributes == {**COMMON, **SERVER, "messaging.operation.name": "publish"}
        assert one.value == 1
        (one,) = metered.points("messaging.client.consumed.messages")
        assert one.attributes == {**CONSUMER, **SERVER, "messaging.operation.name": "receive"}
        assert one.value == 1
        process = only(metered, "messaging.process.duration")
        assert process.attributes == {
            **CONSUMER,
            **SERVER,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
        }
        assert process.explicit_bounds == names.PROCESS_DURATION.buckets
        durations = metered.values(
            "messaging.client.operation.duration", "messaging.operation.name", "messaging.operation.type"
        )
        assert durations == {("publish", "send"): 1, ("receive", "receive"): 1, ("ack", "settle"): 1}
        requests = metered.values("crossbus.provider.requests", "messaging.operation.name")
        assert requests == {"publish": 1, "receive": 1, "ack": 1}
        assert only(metered, "crossbus.event.age").attributes == CONSUMER
        assert metered.points("crossbus.deliveries.in_hand") == [], "nobody consumes any more"

    run(scenario())


def test_a_batch_is_one_request_and_each_failure_is_told_apart() -> None:
    async def scenario() -> None:
        metered, adapter = Metered(), ScriptedAdapter()
        refused = SendOutcome(code=ErrorCode.PERMISSION_DENIED, message="no")
        adapter.answers.append(lambda wires: [SendOutcome("p-0"), refused, refused])
        async with Bus(adapter=adapter, meter_provider=metered.provider) as bus:
            with pytest.raises(PartialPublishError):
                await bus.publish_many("orders", [event("a"), event("b"), event("c")])
        sent = metered.values("messaging.client.sent.messages", "messaging.operation.name", "error.type")
        assert sent == {("send", None): 1, ("send", "PermissionDenied"): 2}
        requests = metered.values("crossbus.provider.requests", "messaging.operation.name", "error.type")
        assert requests == {("send", "PermissionDenied"): 1}

    run(scenario())


def test_what_is_sent_again_is_counted_each_time() -> None:
    async def scenario() -> None:
        clock = Clock()
        metered, adapter = Metered(), ScriptedAdapter(clock=clock)
        adapter.answers.append(refuse(ErrorCode.THROTTLED))
        adapter.answers.append(lambda wires: ConnectionError())
        adapter.answers.append(lambda wires: PermissionError())
        async with Bus(adapter=adapter, meter_provider=metered.provider) as bus:
            publishing = asyncio.ensure_future(bus.publish("orders", event()))
            while not publishing.done():
                await clock.advance(0.1)
            with pytest.raises(PermissionDenied):
                await publishing
        assert metered.values("messaging.client.sent.messages", "error.type") == {
            "Throttled": 1,
            "ConnectionError": 1,
            "PermissionError": 1,
        }

    run(scenario())


def test_failures_retries_and_dead_letters_are_counted() -> None:
    async def scenario() -> None:
        metered, adapter = Metered(), ScriptedAdapter()

        async def bill(event: Event) -> None:
            raise Reject("order o-1 is closed") if event.id == "r" else ValueError(event.id)

        declared = {"retry": RetryPolicy(attempts=2, first_delay=0, jitter=False)}
        async with shop(None, adapter, bill, metered=metered, declared=declared):
            adapter.receiver.put(event("1"))
            adapter.receiver.put(event("2"), attempt=2)
            adapter.receiver.put(event("r"))
            adapter.receiver.put(b"no event")
            await until(lambda: len(adapter.receiver.settled) == 4)
        assert metered.values("crossbus.retries", "error.type") == {"ValueError": 1}
        assert metered.values("crossbus.dead_lettered", "crossbus.dead_letter.reason") == {
            "failed": 1,
            "rejected": 1,
            "undecodable": 1,
        }
        assert metered.values("messaging.process.duration", "error.type") == {"ValueError": 2, "Reject": 1}
        assert metered.values("messaging.client.consumed.messages", "error.type") == {None: 4}

    run(scenario())


def test_what_is_dropped_here_is_counted() -> None:
    async def scenario() -> None:
        metered, adapter = Metered(), ScriptedAdapter()
        declared = {"filter": exact(type="wanted")}
        layers = [Deduplicate(MemoryStore())]
        async with shop(None, adapter, nothing, metered=metered, declared=declared, handle_middleware=layers):
            adapter.receiver.put(event("1"))
            for _ in range(2):
                adapter.receiver.put(Event(id="2", type="wanted", source="/shop"))
                await until(lambda: not adapter.receiver.waiting)
                await until(lambda: adapter.receiver.settled)
            await until(lambda: len(adapter.receiver.settled) == 3)
        assert metered.values("crossbus.filtered") == {(): 1}
        assert metered.values("crossbus.duplicates.dropped") == {(): 1}

    run(scenario())


@pytest.mark.parametrize("outcome", list(LeaseOutcome))
def test_extended_leases_are_counted(outcome: LeaseOutcome) -> None:
    async def scenario() -> None:
        clock = Clock()
        metered, adapter = Metered(), ScriptedAdapter(clock=clock)
        adapter.receiver.extend_answer = outcome

        async def bill(event: Event) -> None:
            await asyncio.Event().wait()

        async with shop(None, adapter, bill, metered=metered, clock=clock, drain_limit=0):
            adapter.receiver.put(event())
            await until(lambda: metered.points("crossbus.event.age"))
            assert metered.values("crossbus.deliveries.in_hand") == {(): 1}
            while not adapter.receiver.extended:
                await clock.advance(1)
        assert metered.values("crossbus.lease.extensions", "crossbus.lease.outcome") == {outcome.value: 1}
        assert metered.values("crossbus.provider.requests", "messaging.operation.name")["extend"] == 1

    run(scenario())


def test_polls_that_bring_nothing_are_requests_and_say_nothing_of_durations() -> None:
    async def scenario() -> None:
        metered, adapter = Metered(), ScriptedAdapter()
        idle = asyncio.Event()

        async def receive(most: int, wait: float) -> list[Any]:
            adapter.receiver.receives.append(most)
            if len(adapter.receiver.receives) == 4:
                idle.set()
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return []

        adapter.receiver.receive = receive  # type: ignore[method-assign]
        async with shop(None, adapter, nothing, metered=metered):
            await idle.wait()
        assert metered.values("crossbus.provider.requests", "messaging.operation.name") == {"receive": 3}
        assert not metered.points("messaging.client.operation.duration")

    run(scenario())


def test_the_age_is_counted_from_when_the_provider_took_the_event_else_from_its_time() -> None:
    async def scenario() -> None:
        clock = Clock()
        metered, adapter = Metered(), ScriptedAdapter(clock=clock)
        async with shop(None, adapter, nothing, metered=metered, clock=clock):
            adapter.receiver.put(event(), published=clock.time() - 100)
            old = Event(id="2", type="t", source="/s", time="2000-01-01T00:00:00Z")
            adapter.receiver.put(old)
            adapter.receiver.put(event("3").replace(time=None))
            await until(lambda: len(adapter.receiver.settled) == 3)
        age = only(metered, "crossbus.event.age")
        assert age.count == 2, "one has neither"
        assert age.min == 100
        assert age.max > 20 * 365 * 86400
        assert age.explicit_bounds == names.AGE.buckets

    run(scenario())


def test_a_duration_leads_to_its_trace() -> None:
    async def scenario() -> None:
        traced, metered, adapter = Traced(), Metered(), ScriptedAdapter()
        async with shop(traced, adapter, nothing, metered=metered):
            adapter.receiver.put(event(traceparent=TRACEPARENT))
            await until(lambda: adapter.receiver.settled)
        exemplars = metered.exemplars()  # once: collecting empties them
        for name, span in (
            ("messaging.process.duration", "process orders"),
            ("messaging.client.operation.duration", "ack orders"),
        ):
            assert (TRACE_ID, context_of(traced.named(span)).span_id) in exemplars[name]

    run(scenario())


class CountingAdapter(ScriptedAdapter):
    """Tells of its backlog, or fails to."""

    def __init__(self, *answers: Backlog | Exception, **options: Any) -> None:
        super().__init__(**options)
        self.backlogs = list(answers)

    async def backlog(self, subscription: Any) -> Backlog:
        answer = self.backlogs.pop(0) if len(self.backlogs) > 1 else self.backlogs[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_backlog_is_looked_at_while_it_is_consumed() -> None:
    async def scenario() -> None:
        metered, adapter = Metered(), CountingAdapter(ConnectionError(), Backlog(3, 1, 12.5, 2))
        options = TelemetryOptions(backlog=0.01)
        async with shop(None, adapter, nothing, metered=metered, telemetry=options):
            await until(lambda: metered.points("crossbus.backlog.waiting"))
            seen = {
                name: only(metered, f"crossbus.backlog.{name}") for name in ("waiting", "oldest_age", "dead")
            }
            assert {name: point.value for name, point in seen.items()} == {
                "waiting": 3,
                "oldest_age": 12.5,
                "dead": 2,
            }
            assert seen["waiting"].attributes == CONSUMER
        assert not metered.points("crossbus.backlog.waiting")

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "options", "lacks"),
    [
        (Backlog(3), TelemetryOptions(backlog=0), []),
        (Backlog(3), TelemetryOptions(backlog=0.01), ["backlog"]),
        (Backlog(), TelemetryOptions(backlog=0.01), []),
        (PermissionError("no"), TelemetryOptions(backlog=0.01), []),
    ],
    ids=["switched off", "no such capability", "not told", "forbidden"],
)
def test_a_backlog_that_is_not_seen_stands_in_no_metric(
    answer: Any, options: TelemetryOptions, lacks: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="crossbus")

    async def scenario() -> None:
        metered, adapter = Metered(), CountingAdapter(answer, without=lacks)
        async with shop(None, adapter, nothing, metered=metered, telemetry=options):
            adapter.receiver.put(event())
            await until(lambda: adapter.receiver.settled)
            await asyncio.sleep(0.05)
            assert not metered.points("crossbus.backlog.waiting")

    run(scenario())
    warned = "its backlog cannot be seen, and stands in no metric: PermissionError: no"
    assert caplog.text.count(warned) == isinstance(answer, PermissionError)


def test_two_buses_are_told_apart_in_one_instrument() -> None:
    async def scenario() -> None:
        metered = Metered()
        one, other = ScriptedAdapter(), ScriptedAdapter()
        async with (
            shop(None, one, nothing, metered=metered),
            Bus(adapter=other, meter_provider=metered.provider) as bus,
        ):
            bus.subscribe("invoices", "audit")(nothing)
            async with bus.running():
                seen = metered.values("crossbus.deliveries.in_hand", "messaging.destination.name")
                assert seen == {"orders": 0, "invoices": 0}

    run(scenario())


def test_nobody_who_wants_metrics_costs_none() -> None:
    async def scenario() -> None:
        adapter = CountingAdapter(PermissionError("never asked"))
        bus = Bus(adapter=adapter, meter_provider=NoOpMeterProvider())
        bus.subscribe("orders", "billing")(nothing)
        async with bus, bus.running():
            adapter.receiver.put(event())
            await until(lambda: adapter.receiver.settled)
        assert len(adapter.backlogs) == 1

    run(scenario())


def test_every_metric_is_measured_as_it_is_listed_and_has_no_ids() -> None:
    async def scenario() -> None:
        clock = Clock()
        metered, adapter = Metered(), CountingAdapter(Backlog(1, 1, 1.0, 1), clock=clock)

        async def bill(event: Event) -> None:
            if event.id == "slow":
                await asyncio.Event().wait()
            if event.id != "good":
                raise Reject("no") if event.id == "rejected" else ValueError

        async with shop(
            None,
            adapter,
            bill,
            metered=metered,
            clock=clock,
            drain_limit=0,
            declared={"filter": exact(type="com.acme.order.placed")},
            handle_middleware=[Deduplicate(MemoryStore())],
        ) as bus:
            await bus.publish("orders", event())
            for id in ("good", "good", "rejected", "bad", "slow"):
                adapter.receiver.put(event(id))
                await until(lambda: not adapter.receiver.waiting)
                await asyncio.sleep(0.01)
            adapter.receiver.put(Event(id="x", type="other", source="/s"))
            while not adapter.receiver.extended:
                await clock.advance(1)
            await until(lambda: len(adapter.receiver.settled) >= 5)
            measured = metered.names()
            points = {metric.name: metered.points(metric.name) for metric in names.METRICS}
        assert measured == {one.name: (one.unit, one.description) for one in names.METRICS}
        for metric in names.METRICS:
            listed = {
                *("messaging.system", "messaging.destination.name"),
                *("messaging.destination.subscription.name",),
                *metric.attributes,
            }
            for point in points[metric.name]:
                assert set(point.attributes) <= listed, metric.name
                assert not any(name.endswith((".id", "_id")) for name in point.attributes)

    run(scenario())


def test_the_reference_lists_every_name() -> None:
    script = Path(__file__).parent.parent / "scripts" / "gen_telemetry.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_handler_of_several_is_measured_once_and_each_age_counts() -> None:
    async def scenario() -> None:
        metered, adapter = Metered(), ScriptedAdapter()

        async def bill(events: list[Event]) -> None: ...

        for number in range(3):
            adapter.receiver.put(event(str(number)))
        async with shop(None, adapter, bill, metered=metered):
            await until(lambda: len(adapter.receiver.settled) == 3)
        assert metered.values("messaging.process.duration") == {(): 1}
        assert metered.values("crossbus.event.age") == {(): 3}

    run(scenario())


def test_extending_that_fails_is_a_request_with_its_error() -> None:
    async def scenario() -> None:
        clock = Clock()
        metered, adapter = Metered(), ScriptedAdapter(clock=clock)
        adapter.receiver.extend_answer = ConnectionError()

        async def bill(event: Event) -> None:
            await asyncio.Event().wait()

        async with shop(None, adapter, bill, metered=metered, clock=clock, drain_limit=0):
            adapter.receiver.put(event())
            await until(lambda: metered.points("crossbus.event.age"))
            while not adapter.receiver.extended:
                await clock.advance(1)
            requests = metered.values("crossbus.provider.requests", "messaging.operation.name", "error.type")
            assert requests["extend", "ConnectionError"] >= 1
        assert not metered.points("crossbus.lease.extensions")

    run(scenario())


def test_an_adapter_that_answers_nonsense_is_an_error_of_no_name() -> None:
    async def scenario() -> None:
        metered, adapter = Metered(), ScriptedAdapter()
        adapter.answers.append(lambda wires: ["nonsense"])
        adapter.answers.append(lambda wires: 7)
        async with Bus(adapter=adapter, meter_provider=metered.provider) as bus:
            for _ in range(2):
                with pytest.raises(CrossbusError):
                    await bus.publish("orders", event())
        assert metered.values("messaging.client.sent.messages", "error.type") == {"_OTHER": 2}

    run(scenario())
