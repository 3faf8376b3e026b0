"""Publishing when something goes wrong around it: adapters that misbehave, cancellation, races with closing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.scripted import ScriptedAdapter, refuse
from tests.support import run

from crossbus import (
    Bus,
    BusClosedError,
    ErrorCode,
    Event,
    PartialPublishError,
    PublishError,
    Receipt,
    Throttled,
    Unavailable,
    publishing,
)
from crossbus.adapter import SendOutcome, Wire
from crossbus.errors import CrossbusError


def event(id: str = "e-1", key: str | None = None, **fields: Any) -> Event:
    extensions = None if key is None else {"partitionkey": key}
    return Event(**{"id": id, "type": "t", "source": "/s", "extensions": extensions, **fields})


class NonsenseAdapter(ScriptedAdapter):
    """Answers `send` with `nonsense`."""

    nonsense: Any = None

    async def send(self, topic: Any, wires: Sequence[Wire]) -> Any:
        await asyncio.sleep(0)
        return self.nonsense


@pytest.mark.parametrize("nonsense", [None, 7, [None, None], [SendOutcome("p"), None]])
@pytest.mark.parametrize("key", [None, "k"])
def test_an_adapter_that_answers_nonsense_is_an_error_and_nobody_waits_for_ever(
    nonsense: Any, key: str | None
) -> None:
    async def scenario() -> None:
        adapter = NonsenseAdapter(without=["partial_publish"])
        adapter.nonsense = nonsense
        async with Bus(adapter=adapter) as bus:
            outcomes = await asyncio.wait_for(
                asyncio.gather(
                    *(bus.publish("orders", event(f"e-{i}", key)) for i in range(2)), return_exceptions=True
                ),
                5,
            )
            assert any(isinstance(outcome, CrossbusError) for outcome in outcomes), outcomes
            with pytest.raises(PartialPublishError):
                await asyncio.wait_for(bus.publish_many("orders", [event("a", key), event("b", key)]), 5)

    run(scenario())


def test_an_adapter_that_cannot_name_its_own_error_is_an_error_and_nobody_waits_for_ever() -> None:
    class Adapter(ScriptedAdapter):
        def error_code(self, error: BaseException) -> Any:
            raise RuntimeError("no idea")

    async def scenario() -> None:
        adapter = Adapter()
        adapter.answers.append(lambda wires: ConnectionError("down"))
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(PublishError, match="down"):
                await asyncio.wait_for(bus.publish("orders", event("e-1", "k")), 5)
            assert (await bus.publish("orders", event("e-2", "k"))).event_id == "e-2"

    run(scenario())


def test_a_cancellation_that_the_sdk_made_itself_is_tried_again() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        def cancelled(wires: Any) -> Any:
            raise asyncio.CancelledError

        adapter.answers.extend([cancelled, cancelled])
        async with Bus(adapter=adapter) as bus:
            assert (await bus.publish("orders", event("e-1"))).event_id == "e-1"

    run(scenario())


def test_a_cancelled_publish_is_cancelled_and_the_next_goes_through() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        async with Bus(adapter=adapter) as bus:
            for key in (None, "k"):
                task = asyncio.ensure_future(bus.publish("orders", event("e-1", key)))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            adapter.gate.set()
            assert (await bus.publish("orders", event("e-2", "k"))).event_id == "e-2"

    run(scenario())


# --- waiting for room -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_limit", [None, 400])
def test_order_per_key_holds_while_publishers_wait_for_room(
    monkeypatch: pytest.MonkeyPatch, bytes_limit: int | None
) -> None:
    monkeypatch.setattr(publishing, "MAX_WAITING", 3)
    if bytes_limit is not None:
        monkeypatch.setattr(publishing, "MAX_WAITING", 1000)
        monkeypatch.setattr(publishing, "MAX_WAITING_BYTES", bytes_limit)

    async def scenario() -> None:
        adapter = ScriptedAdapter(publish_batch=2)
        async with Bus(adapter=adapter) as bus:
            tasks = []
            for round in range(60):
                tasks += [
                    asyncio.ensure_future(bus.publish("orders", event(f"{key}-{round}", key)))
                    for key in "abcd"
                ]
                if round % 7 == 0:
                    await asyncio.sleep(0)
            await asyncio.gather(*tasks)
        for key in ("a", "b", "c", "d"):
            assert [id for id in adapter.published if id.startswith(key)] == [f"{key}-{i}" for i in range(60)]

    run(scenario())


def test_cancelled_publishers_that_wait_for_room_keep_nobody_else_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing, "MAX_WAITING", 1)

    async def scenario() -> None:
        adapter = ScriptedAdapter(publish_batch=1)
        async with Bus(adapter=adapter) as bus:
            tasks = [asyncio.ensure_future(bus.publish("orders", event(f"e-{i}"))) for i in range(60)]
            await asyncio.sleep(0)
            for task in tasks[10:50]:
                task.cancel()
            outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert sum(isinstance(outcome, Receipt) for outcome in outcomes) == 20

    run(scenario())


# --- closing ----------------------------------------------------------------------------------------------------


def test_nothing_is_tried_again_once_the_bus_is_closed() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        adapter.answers.append(refuse())
        bus = Bus(adapter=adapter, drain_limit=0.02)
        await bus.open()
        alone = asyncio.ensure_future(bus.publish("orders", event()))
        await asyncio.sleep(0.01)
        await bus.close()
        assert adapter.closed
        adapter.gate.set()  # the provider answers too late: throttled
        with pytest.raises(BusClosedError, match="closed before"):
            await alone
        assert adapter.published == ["e-1"], "sent again through an adapter that is closed"

    run(scenario())


def test_a_retry_is_under_way_for_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "YIELD_EVERY", 1)

    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        closed: list[int] = []
        adapter.answers.extend([refuse(), lambda wires: closed.append(adapter.closed)])
        bus = Bus(adapter=adapter)
        await bus.open()
        alone = asyncio.ensure_future(bus.publish("orders", event()))
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(bus.close())
        await asyncio.sleep(0.01)
        adapter.gate.set()
        assert isinstance(await alone, Receipt)
        await closing
        assert closed == [0], "sent through an adapter that is closed"

    run(scenario())


def test_a_stream_is_read_no_further_once_the_bus_is_closed() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        read = 0

        async def stream() -> AsyncIterator[Event]:
            nonlocal read
            while True:
                read += 1
                yield event(f"e-{read}")
                await asyncio.sleep(0)

        bus = Bus(adapter=adapter)
        await bus.open()
        task = asyncio.ensure_future(bus.publish_many("orders", stream()))
        await asyncio.sleep(0.01)
        await bus.close()
        with pytest.raises(PartialPublishError, match="closed") as caught:
            await asyncio.wait_for(task, 5)
        assert len(caught.value.results) == read
        assert len(caught.value.failed) == 1

    run(scenario())


# --- many, and what surrounds them ------------------------------------------------------------------------------


@pytest.mark.parametrize("middleware", [False, True])
def test_an_unforeseen_exception_is_the_result_of_its_event_and_of_no_other(middleware: bool) -> None:
    class Adapter(ScriptedAdapter):
        def encode(self, topic: Any, event: Event) -> Wire:
            if event.id == "bad":
                raise KeyError("no such thing")
            return super().encode(topic, event)

    async def through(event: Event, call_next: Any) -> Receipt:
        await asyncio.sleep(0)
        receipt: Receipt = await call_next(event)
        return receipt

    async def scenario() -> None:
        adapter = Adapter()
        async with Bus(adapter=adapter, publish_middleware=[through] if middleware else []) as bus:
            with pytest.raises(PartialPublishError, match="no such thing") as caught:
                await bus.publish_many("orders", [event("a"), event("bad"), event("b")])
        results = caught.value.results
        assert [(result.event_id, result.receipt is not None) for result in results] == [
            ("a", True),
            ("bad", False),
            ("b", True),
        ]
        assert isinstance(results[1].error, PublishError)
        assert isinstance(results[1].error.__cause__, KeyError)

    run(scenario())


def test_middleware_that_takes_its_time_does_not_change_the_order_of_a_key() -> None:
    async def slow_at_first(event: Event, call_next: Any) -> Receipt:
        await asyncio.sleep(0.01 if event.id.endswith("0") else 0)
        receipt: Receipt = await call_next(event)
        return receipt

    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter, publish_middleware=[slow_at_first]) as bus:
            await bus.publish_many("orders", [event(f"{k}-{i}", k) for i in range(4) for k in "ab"])
        for key in "ab":
            assert [id for id in adapter.published if id.startswith(key)] == [f"{key}-{i}" for i in range(4)]

    run(scenario())


def test_the_span_of_an_event_that_was_refused_at_the_door_ends() -> None:
    async def scenario() -> None:
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        bus = Bus(adapter=adapter, tracer_provider=provider, drain_limit=0.02)
        await bus.open()

        def events() -> Iterator[Event]:
            yield event("e-1")
            raise RuntimeError("the source ended")

        with pytest.raises(RuntimeError, match="the source ended"):
            await bus.publish_many("orders", events())
        publisher = bus._publishers["orders"]
        await bus.close()
        with pytest.raises(BusClosedError):
            await publisher.enqueue(event("e-2"), lambda outcome: None)
        assert [span.attributes["cloudevents.event_id"] for span in exporter.get_finished_spans()] == [  # type: ignore[index]
            "e-1",
            "e-2",
        ]

    run(scenario())


def test_each_event_of_a_batch_is_told_its_own_error() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        def both(wires: Sequence[Wire]) -> list[SendOutcome]:
            codes = [ErrorCode.THROTTLED, ErrorCode.UNAVAILABLE]
            return [SendOutcome(code=code, message="no", retryable=True) for code in codes]

        adapter.answers.extend([both] * 10)
        async with Bus(adapter=adapter, publish_timeout=0.05) as bus:
            with pytest.raises(PartialPublishError) as caught:
                await bus.publish_many("orders", [event("a"), event("b")])
        assert [type(result.error) for result in caught.value.results] == [Throttled, Unavailable]

    run(scenario())
