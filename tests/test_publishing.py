"""Publishing: batches, outcomes, retries, order per key, bounds, closing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.scripted import ScriptedAdapter, refuse
from tests.support import run

from crossbus import (
    Bus,
    BusClosedError,
    ErrorCode,
    Event,
    EventTooLarge,
    InvalidEvent,
    PartialPublishError,
    PermissionDenied,
    PublishError,
    Receipt,
    Throttled,
    Unavailable,
    publishing,
)
from crossbus.adapter import SendOutcome
from crossbus.testing import Clock


def event(id: str = "e-1", key: str | None = None, **fields: object) -> Event:
    extensions = None if key is None else {"partitionkey": key}
    return Event(**{"id": id, "type": "t", "source": "/s", "extensions": extensions, **fields})  # type: ignore[arg-type]


def test_a_lone_publish_goes_at_once() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter) as bus:
            coroutine = bus.publish("orders", event())
            first = asyncio.ensure_future(coroutine)
            await asyncio.sleep(0)
            assert adapter.under_way == 1, "it waited for company"
            assert await first == Receipt("orders", "e-1", "p-0")

    run(scenario())


def test_publishes_at_once_share_batches_and_keep_to_the_count() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter) as bus:
            receipts = await asyncio.gather(*(bus.publish("orders", event(f"e-{i}")) for i in range(25)))
        assert [receipt.event_id for receipt in receipts] == [f"e-{i}" for i in range(25)]
        assert adapter.published == [f"e-{i}" for i in range(25)]
        assert len(adapter.batches) <= 4
        assert max(map(len, adapter.batches)) == 10

    run(scenario())


def test_batches_keep_to_the_bytes() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(publish_batch_bytes=2500)
        async with Bus(adapter=adapter) as bus:
            await bus.publish_many("orders", [event(f"e-{i}", data="x" * 900) for i in range(7)])
        assert [len(batch) for batch in adapter.batches] == [2, 2, 2, 1]

    run(scenario())


def test_only_failed_and_retryable_events_are_sent_again() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.answers.append(
            lambda wires: [
                SendOutcome("p-0"),
                SendOutcome(code=ErrorCode.THROTTLED, message="slow down", retryable=True),
                SendOutcome(code=ErrorCode.INVALID_REQUEST, message="malformed"),
                SendOutcome("p-3"),
            ]
        )
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(PartialPublishError) as caught:
                await bus.publish_many("orders", [event(f"e-{i}") for i in range(4)])
        assert adapter.batches == [["e-0", "e-1", "e-2", "e-3"], ["e-1"]]
        results = caught.value.results
        assert [result.event_id for result in results] == ["e-0", "e-1", "e-2", "e-3"]
        assert [result.error is None for result in results] == [True, True, False, True]
        assert [result.event_id for result in caught.value.failed] == ["e-2"]
        assert "malformed" in str(results[2].error)
        assert "1 of 4" in str(caught.value)

    run(scenario())


def test_a_throttled_publish_is_tried_again() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.answers.extend([refuse(), refuse()])
        async with Bus(adapter=adapter) as bus:
            await bus.publish("orders", event())
        assert adapter.batches == [["e-1"]] * 3

    run(scenario())


def test_a_publish_that_keeps_failing_raises_the_portable_error_in_the_end() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.answers.extend([refuse()] * 100)
        async with Bus(adapter=adapter, publish_timeout=0.3) as bus:
            with pytest.raises(Throttled, match=r"orders.*no") as caught:
                await bus.publish("orders", event())
        assert caught.value.retryable

    run(scenario())


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ConnectionError("gone"), Unavailable),
        (PermissionError("no"), PermissionDenied),
        (ValueError("?"), PublishError),
    ],
)
def test_an_exception_of_the_sdk_becomes_a_portable_error(
    raised: Exception, expected: type[Exception]
) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.answers.extend([lambda wires: raised] * 100)
        async with Bus(adapter=adapter, publish_timeout=0.01) as bus:
            with pytest.raises(expected) as caught:
                await bus.publish("orders", event())
        assert caught.value.__cause__ is raised

    run(scenario())


def test_an_adapter_that_answers_too_little_is_an_error_not_a_loss() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.answers.append(lambda wires: [SendOutcome("p")])
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(PartialPublishError, match="answered 1 outcomes for 2"):
                await bus.publish_many("orders", [event("a"), event("b")])

    run(scenario())


def test_a_bad_event_among_good_ones_keeps_none_of_them_back() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def events() -> AsyncIterator[object]:
            yield event("a")
            yield Event(type="t", source="aws.mine")
            yield event("c")

        async with Bus(adapter=adapter) as bus:
            with pytest.raises(PartialPublishError) as caught:
                await bus.publish_many("orders", events())
        assert adapter.batches == [["a", "c"]]
        assert isinstance(caught.value.results[1].error, InvalidEvent)

    run(scenario())


def test_a_single_event_beyond_the_adapters_limit_is_refused_before_the_network() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(event_bytes=500)
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(EventTooLarge, match="500") as caught:
                await bus.publish("orders", event(data="x" * 600))
            assert caught.value.limit == 500
            assert caught.value.size > 600
        assert not adapter.sent

    run(scenario())


def test_an_empty_batch_makes_no_call() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter) as bus:
            assert await bus.publish_many("orders", []) == []
        assert not adapter.sent

    run(scenario())


def test_events_of_one_key_are_never_under_way_twice() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(without=["partial_publish"], publish_batch=2)
        async with Bus(adapter=adapter) as bus:
            await bus.publish_many(
                "orders", [event(f"{key}-{i}", key) for i in range(6) for key in ("a", "b", "c")]
            )
        order = adapter.published
        for key in ("a", "b", "c"):
            assert [id for id in order if id.startswith(key)] == [f"{key}-{i}" for i in range(6)]

    run(scenario())


def test_where_batches_may_be_partial_a_key_is_in_a_batch_once() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter) as bus:
            await bus.publish_many("orders", [event("a-0", "a"), event("a-1", "a"), event("b-0", "b")])
        assert adapter.batches == [["a-0", "b-0"], ["a-1"]]

    run(scenario())


def test_a_failed_publish_stops_its_key_and_no_other_and_the_key_recovers() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.answers.append(
            lambda wires: [SendOutcome(code=ErrorCode.INVALID_REQUEST, message="bad"), SendOutcome("p")]
        )
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(PartialPublishError) as caught:
                await bus.publish_many(
                    "orders", [event("a-0", "a"), event("a-1", "a"), event("b-0", "b"), event("a-2", "a")]
                )
            assert [result.event_id for result in caught.value.failed] == ["a-0", "a-1", "a-2"]
            assert "'a-0' before it on ordering key 'a'" in str(caught.value.failed[1].error)
            assert (await bus.publish("orders", event("a-3", "a"))).event_id == "a-3"
        assert adapter.batches == [["a-0", "b-0"], ["a-3"]]

    run(scenario())


def test_back_pressure_bounds_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "MAX_WAITING", 50)

    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        taken = 0

        async def events() -> AsyncIterator[Event]:
            nonlocal taken
            for i in range(1000):
                taken += 1
                yield event(f"e-{i}")

        async with Bus(adapter=adapter) as bus:
            publishing_task = asyncio.ensure_future(bus.publish_many("orders", events()))
            await asyncio.sleep(0.05)
            # 8 requests of 10 under way, 50 waiting, one at the door.
            assert taken <= 8 * 10 + 50 + 1
            assert adapter.most_under_way == publishing.MAX_IN_FLIGHT
            adapter.gate.set()
            assert len(await publishing_task) == 1000

    run(scenario())


def test_closing_finishes_what_is_under_way() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        bus = Bus(adapter=adapter)
        await bus.open()
        tasks = [asyncio.ensure_future(bus.publish("orders", event(f"e-{i}"))) for i in range(30)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(bus.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        adapter.gate.set()
        await closing
        assert len(await asyncio.gather(*tasks)) == 30
        with pytest.raises(BusClosedError, match="not open"):
            await bus.publish("orders", event())

    run(scenario())


def test_what_cannot_be_finished_in_time_fails_and_says_so() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        bus = Bus(adapter=adapter, drain_limit=0.05)
        await bus.open()
        many = asyncio.ensure_future(
            bus.publish_many("orders", [event(f"e-{i}", "k" if i % 2 else None) for i in range(200)])
        )
        await asyncio.sleep(0.01)
        await bus.close()
        with pytest.raises(PartialPublishError, match="closed before") as caught:
            await many
        assert len(caught.value.failed) == 200

    run(scenario())


def test_a_publisher_waiting_for_room_is_told_that_the_bus_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "MAX_WAITING", 1)

    async def scenario() -> None:
        adapter = ScriptedAdapter(publish_batch=1)
        adapter.gate = asyncio.Event()
        bus = Bus(adapter=adapter, drain_limit=0.05)
        await bus.open()
        tasks = [asyncio.ensure_future(bus.publish("orders", event(f"e-{i}"))) for i in range(20)]
        await asyncio.sleep(0.01)
        await bus.close()
        # The first went alone, with the provider: it ends when the provider answers.
        adapter.gate.set()
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, Receipt)
        assert all(isinstance(outcome, BusClosedError) for outcome in others)

    run(scenario())


def test_middleware_wraps_publishing_outermost_first() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        async def outer(event: Event, call_next: object) -> Receipt:
            seen.append("outer")
            return await call_next(event.replace(subject="s"))  # type: ignore[operator]

        async def inner(event: Event, call_next: object) -> Receipt:
            seen.append(f"inner {event.subject}")
            return await call_next(event)  # type: ignore[operator]

        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter, publish_middleware=[outer, inner]) as bus:
            await bus.publish("orders", event())
            receipts = await bus.publish_many("orders", [event("x"), event("y")])
            assert [receipt.event_id for receipt in receipts] == ["x", "y"]
            with pytest.raises(PartialPublishError):
                await bus.publish_many("orders", [event("x"), Event(type="t", source="aws.s")])
        assert seen[:2] == ["outer", "inner s"]
        assert all(event.subject == "s" for _, events in adapter.sent for event in events)

    run(scenario())


def test_closing_waits_for_a_publish_in_its_middleware() -> None:
    async def scenario() -> None:
        proceed = asyncio.Event()

        async def slow(event: Event, call_next: object) -> Receipt:
            await proceed.wait()
            return await call_next(event)  # type: ignore[operator]

        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter, publish_middleware=[slow])
        await bus.open()
        task = asyncio.ensure_future(bus.publish("orders", event()))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(bus.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        proceed.set()
        await closing
        assert (await task).event_id == "e-1"

    run(scenario())


def test_the_source_of_the_bus_is_the_default() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with Bus(adapter=adapter, source="/shop") as bus:
            await bus.publish("orders", Event(type="t"))
        async with Bus(adapter=adapter) as bus:
            with pytest.raises(InvalidEvent, match="source"):
                await bus.publish("orders", Event(type="t"))
        assert adapter.sent[0][1][0].source == "/shop"

    run(scenario())


def test_retries_wait_by_the_clock() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        adapter.answers.append(refuse())
        async with Bus(adapter=adapter, clock=clock) as bus:
            task = asyncio.ensure_future(bus.publish("orders", event()))
            await asyncio.sleep(0.02)
            assert not task.done()
            await clock.advance(1)
            await task

    run(scenario())
