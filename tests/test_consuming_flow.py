"""Consuming, against an adapter that answers as told: leases, delays, order, flow, drain, middleware, the pull form."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from tests.consuming import NO_JITTER, consuming, event, record_of, until
from tests.scripted import DelayRange, DelaySteps, LeaseLimits, ScriptedAdapter
from tests.support import run

from crossbus import (
    Breaker,
    Bus,
    DeclarationError,
    Delivery,
    Event,
    NotFound,
    Reject,
    Retry,
    exact,
)
from crossbus.adapter import LeaseOutcome
from crossbus.testing import Clock

# --- leases and delays ------------------------------------------------------------------------------------------


def test_leases_of_what_runs_and_what_is_buffered_are_kept() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        proceed = asyncio.Event()

        async def handler(event: Event) -> None:
            await proceed.wait()

        async with consuming(adapter, handler, clock=clock, concurrency=2, ordered=True):
            leases = {adapter.receiver.put(event(str(i), key="k")).lease for i in range(2)}
            await until(lambda: not adapter.receiver.waiting)
            for _ in range(10):
                await clock.advance(25)
            kept = {lease for lease, seconds in adapter.receiver.extended}
            assert kept == leases
            assert {seconds for _, seconds in adapter.receiver.extended} == {60.0}
            proceed.set()
            await until(lambda: len(adapter.receiver.acked) == 2)
            count = len(adapter.receiver.extended)
            await clock.advance(300)
            assert len(adapter.receiver.extended) == count

    run(scenario())


def test_leases_that_the_provider_makes_shorter_than_declared_are_kept_in_time() -> None:
    """A fixed lease is the subscription's, and one that others made may have a shorter one than is declared."""

    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, lease=LeaseLimits(fixed=True))
        proceed = asyncio.Event()
        began = clock.monotonic()
        times: list[float] = []
        extend = adapter.receiver.extend

        async def noted(leases: Any, seconds: float) -> Any:
            times.append(clock.monotonic() - began)
            return await extend(leases, seconds)

        adapter.receiver.extend = noted  # type: ignore[method-assign]

        async def handler(event: Event) -> None:
            await proceed.wait()

        async with consuming(adapter, handler, clock=clock, lease=300.0):
            adapter.receiver.put(event(), lease_seconds=60.0)
            await until(lambda: not adapter.receiver.waiting)
            for _ in range(60):
                await clock.advance(10)
            gaps = [after - before for before, after in pairwise([0.0, *times])]
            assert max(gaps) <= 30.0, f"a lock of 60 s was renewed at {times}"
            proceed.set()
            await until(lambda: len(adapter.receiver.acked) == 1)

    run(scenario())


def test_extending_by_hand_what_the_provider_holds_no_longer_is_an_answer() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, lease=LeaseLimits(total=100.0))
        answers: list[LeaseOutcome] = []
        proceed = asyncio.Event()

        async def handler(delivery: Delivery) -> None:
            await proceed.wait()
            answers.append(await delivery.extend(60))

        async with consuming(adapter, handler, clock=clock):
            adapter.receiver.put(event())
            await until(lambda: not adapter.receiver.waiting)
            for _ in range(11):
                await clock.advance(10)
            asked = len(adapter.receiver.extended)
            proceed.set()
            await until(lambda: bool(answers))
            assert answers == [LeaseOutcome.LOST]
            assert len(adapter.receiver.extended) == asked, "the provider was asked for no time at all"

    run(scenario())


def test_no_lease_is_extended_beyond_what_the_provider_holds_altogether() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, lease=LeaseLimits(total=200.0))
        began = clock.monotonic()
        ends: list[float] = []
        extend = adapter.receiver.extend

        async def noted(leases: Any, seconds: float) -> Any:
            ends.append(clock.monotonic() - began + seconds)
            return await extend(leases, seconds)

        adapter.receiver.extend = noted  # type: ignore[method-assign]
        proceed = asyncio.Event()

        async def handler(event: Event) -> None:
            await proceed.wait()

        async with consuming(adapter, handler, clock=clock, drain_limit=0.01):
            adapter.receiver.put(event())
            await until(lambda: not adapter.receiver.waiting)
            for _ in range(40):
                await clock.advance(10)
            assert max(ends) == pytest.approx(200.0)
            assert {seconds for _, seconds in adapter.receiver.extended[:-1]} == {60.0}
            count = len(ends)
            # Another delivery has a total of its own.
            adapter.receiver.put(event("e-2"))
            await until(lambda: not adapter.receiver.waiting)
            await clock.advance(30)
            assert adapter.receiver.extended[count:] == [(2, 60.0)]

    run(scenario())


def test_extending_by_hand_ends_where_the_provider_does() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, lease=LeaseLimits(total=100.0))
        bus = Bus(adapter=adapter, clock=clock)
        bus.subscribe("orders", "billing")
        adapter.receiver.put(event())
        async with bus, bus.deliveries("orders", "billing") as deliveries:
            delivery = await anext(deliveries)
            assert await delivery.extend(1000) is LeaseOutcome.OK
            assert adapter.receiver.extended == [(1, 100.0)]
            assert delivery.expires == delivery.until
            await delivery.ack()

    run(scenario())


@pytest.mark.parametrize(
    ("delay", "spent", "held", "step"),
    [
        pytest.param(50.0, 0.0, 0.0, 50.0, id="within the total"),
        pytest.param(150.0, 0.0, 50.0, 100.0, id="held first, then given back"),
        pytest.param(900.0, 0.0, 100.0, 100.0, id="more than the total: returned early"),
        pytest.param(150.0, 120.0, 0.0, 80.0, id="the handler has used up most of it"),
        pytest.param(900.0, 190.0, 0.0, 10.0, id="nearly nothing is left"),
    ],
)
def test_a_delay_ends_before_what_the_provider_holds_altogether(
    delay: float, spent: float, held: float, step: float
) -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(
            clock=clock, lease=LeaseLimits(total=200.0), retry_delays=DelayRange(0.0, 100.0)
        )
        proceed = asyncio.Event()

        async def handler(event: Event) -> None:
            await proceed.wait()
            raise Retry(after=delay)

        async with consuming(adapter, handler, clock=clock):
            adapter.receiver.put(event())
            await until(lambda: not adapter.receiver.waiting)
            await clock.advance(spent)
            proceed.set()
            if held:
                await clock.advance(held - 1)
                assert not adapter.receiver.given_back
                await clock.advance(2)
            await until(lambda: adapter.receiver.given_back)
            assert adapter.receiver.given_back == [(1, pytest.approx(step))]

    run(scenario())


def test_a_lost_lease_is_noticed_and_a_buffered_delivery_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        adapter.receiver.extend_answer = LeaseOutcome.LOST
        proceed = asyncio.Event()
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)
            await proceed.wait()

        async with consuming(adapter, handler, clock=clock, concurrency=2, ordered=True) as bus:
            adapter.receiver.put(event("first", key="k"))
            adapter.receiver.put(event("behind", key="k"))
            await until(lambda: handled == ["first"])
            await clock.advance(25)
            proceed.set()
            await until(lambda: bus.health().subscriptions["orders/billing"].in_hand == 0)
            adapter.receiver.put(event("after", key="k"))
            await until(lambda: handled == ["first", "after"])
        assert 1 not in adapter.receiver.acked

    run(scenario())
    assert "lease of message m-1 was lost" in caplog.text


def test_extending_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        adapter.receiver.extend_answer = ConnectionError("gone")
        proceed = asyncio.Event()

        async def handler(event: Event) -> None:
            await proceed.wait()

        async with consuming(adapter, handler, clock=clock):
            adapter.receiver.put(event())
            await until(lambda: not adapter.receiver.waiting)
            await clock.advance(21)
            await clock.advance(21)
            assert len(adapter.receiver.extended) >= 2
            proceed.set()
            await until(lambda: adapter.receiver.acked)

    run(scenario())
    assert "could not be extended" in caplog.text


def test_an_ack_that_fails_is_tried_again_and_a_lost_one_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.receiver.settle_answers.extend(
            [ConnectionError("gone"), LeaseOutcome.FAILED, LeaseOutcome.LOST]
        )

        async def handler(event: Event) -> None:
            """Take it."""

        async with consuming(adapter, handler):
            adapter.receiver.put(event())
            await until(lambda: not adapter.receiver.settle_answers)
            await asyncio.sleep(0.01)

    run(scenario())
    assert "settling 1 deliveries failed" in caplog.text
    assert "its lease was lost before it was settled" in caplog.text


def test_an_ack_is_tried_as_long_as_its_lease_lasts() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.receiver.settle_answers.extend([ConnectionError("gone")] * 8)
        clock = Clock()

        async def handler(event: Event) -> None:
            """Take it."""

        async with consuming(adapter, handler, clock=clock, lease=60):
            adapter.receiver.put(event())
            await until(lambda: len(adapter.receiver.settle_answers) < 8)
            for _ in range(12):
                await clock.advance(3)
            assert adapter.receiver.acked == [1]

    run(scenario())


def test_draining_does_not_wait_for_a_network_that_is_gone() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.receiver.settle_answers.extend([ConnectionError("gone")] * 50)

        async def handler(event: Event) -> None:
            """Take it."""

        async with consuming(adapter, handler, lease=600):
            adapter.receiver.put(event())
            await until(lambda: len(adapter.receiver.settle_answers) < 50)
        assert len(adapter.receiver.settle_answers) >= 44

    run(scenario())


@pytest.mark.parametrize(
    ("delays", "asked", "held", "given"),
    [
        (DelaySteps((0.0, 10.0, 60.0)), 45.0, 35.0, 10.0),
        (DelaySteps((0.0, 10.0, 60.0)), 60.0, 0.0, 60.0),
        (DelaySteps((0.0, 10.0, 60.0)), 100.0, 40.0, 60.0),
        (DelayRange(0, 30), 45.0, 15.0, 30.0),
    ],
)
def test_a_delay_that_the_provider_does_not_have_is_held_here(
    delays: Any, asked: float, held: float, given: float
) -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, retry_delays=delays)

        async def handler(event: Event) -> None:
            raise Retry(after=asked)

        async with consuming(adapter, handler, clock=clock):
            received = adapter.receiver.put(event())
            await until(lambda: not adapter.receiver.waiting)
            await asyncio.sleep(0.01)
            if held:
                await clock.advance(held - 1)
                assert not adapter.receiver.settled
                await clock.advance(1)
            await until(lambda: adapter.receiver.given_back == [(received.lease, given)])

    run(scenario())


def test_a_held_delivery_is_given_back_by_a_shutdown() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, retry_delays=DelaySteps((0.0, 10.0)))

        async def handler(event: Event) -> None:
            raise Retry(after=500)

        async with consuming(adapter, handler, clock=clock):
            received = adapter.receiver.put(event())
            await until(lambda: not adapter.receiver.waiting)
            await asyncio.sleep(0.01)
        assert adapter.receiver.given_back == [(received.lease, 0.0)]

    run(scenario())


# --- order ------------------------------------------------------------------------------------------------------


def test_events_of_a_key_are_handled_one_after_the_other() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(receive_batch=100)
        running: set[str] = set()
        seen: dict[str, list[int]] = {"a": [], "b": []}

        async def handler(event: Event) -> None:
            key = str(event.get("partitionkey"))
            assert key not in running
            running.add(key)
            await asyncio.sleep(0.001)
            running.discard(key)
            seen[key].append(int(event.id))

        for i in range(40):
            adapter.receiver.put(event(str(i), key="ab"[i % 2]))
        async with consuming(adapter, handler, ordered=True):
            await until(lambda: len(adapter.receiver.acked) == 40)
        assert seen == {"a": list(range(0, 40, 2)), "b": list(range(1, 40, 2))}

    run(scenario())


def test_a_retry_gives_back_what_was_fetched_behind_it() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(receive_batch=100)

        async def handler(event: Event) -> None:
            await asyncio.sleep(0.005)
            if event.id == "0":
                raise Retry(after=5)

        for i in range(3):
            adapter.receiver.put(event(str(i), key="k"))
        adapter.receiver.put(event("other", key="l"))
        async with consuming(adapter, handler, ordered=True):
            await until(lambda: len(adapter.receiver.settled) == 4)
        assert adapter.receiver.given_back == [(2, 5.0), (3, 5.0), (1, 5.0)]
        assert adapter.receiver.acked == [4]

    run(scenario())


# --- flow -------------------------------------------------------------------------------------------------------


def test_concurrency_is_a_cap_and_back_pressure_stops_fetching() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        proceed = asyncio.Event()
        running = most = 0

        async def handler(event: Event) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await proceed.wait()
            running -= 1

        for i in range(50):
            adapter.receiver.put(event(str(i)))
        async with consuming(adapter, handler, concurrency=4):
            await asyncio.sleep(0.05)
            assert most == 4
            assert len(adapter.receiver.waiting) == 46
            proceed.set()
            await until(lambda: len(adapter.receiver.acked) == 50)
        assert most == 4

    run(scenario())


def test_the_next_request_goes_out_before_many_events_keep_the_loop_busy() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(receive_batch=20)
        seen: list[str] = []
        receive = adapter.receiver.receive

        async def through_a_client(max: int, wait: float) -> Any:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append("request")
            return await receive(max, wait)

        async def handler(event: Event) -> None:
            seen.append("event")

        adapter.receiver.receive = through_a_client  # type: ignore[method-assign]
        for i in range(20):
            adapter.receiver.put(event(str(i)))
        async with consuming(adapter, handler, concurrency=60):
            await until(lambda: len(adapter.receiver.acked) == 20)
        assert seen == ["request", "request"] + ["event"] * 20

    run(scenario())


def test_events_that_came_as_consuming_stops_are_given_back() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(receive_batch=20)
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)

        async with consuming(adapter, handler, concurrency=60):
            await until(lambda: adapter.receiver.receives)
            for i in range(20):
                adapter.receiver.put(event(str(i)))
            while adapter.receiver.waiting:  # noqa: ASYNC110 (no turn later than that)
                await asyncio.sleep(0)
        assert len(adapter.receiver.acked) == len(handled)
        assert len(adapter.receiver.acked) + len(adapter.receiver.given_back) == 20

    run(scenario())


def test_the_window_grows_with_what_is_handled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by no more than twice as much: what takes no time at first may take long in a moment."""
    monkeypatch.setattr("crossbus.fetching.time", SimpleNamespace(monotonic=lambda: 0.0))

    async def scenario() -> None:
        adapter = ScriptedAdapter(receive_batch=100)

        async def handler(event: Event) -> None: ...

        for i in range(400):
            adapter.receiver.put(event(str(i)))
        async with consuming(adapter, handler, concurrency=2):
            await until(lambda: len(adapter.receiver.acked) == 400)
        asked = adapter.receiver.receives
        assert asked[0] == 2
        assert 100 in asked
        assert all(more <= 2 * (2 + sum(asked[:n])) for n, more in enumerate(asked))

    run(scenario())


def test_pause_gives_back_and_resume_goes_on() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)

        async with consuming(adapter, handler) as bus:
            await bus.pause("orders", "billing")
            assert not bus.health().ready
            adapter.receiver.put(event())
            await asyncio.sleep(0.03)
            assert not handled
            # A receive that was under way when it was paused may return: that is given back.
            assert len(adapter.receiver.waiting) + len(adapter.receiver.given_back) == 1
            await bus.resume("orders", "billing")
            if adapter.receiver.given_back:
                adapter.receiver.put(event())
            await until(lambda: handled == ["e-1"])
            with pytest.raises(DeclarationError, match="did you mean 'orders/billing'"):
                await bus.pause("orders", "biling")

    run(scenario())


def test_a_breaker_pauses_and_empties_nothing_into_the_dead_letter(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise Reject("all are bad today")

        async with consuming(adapter, handler, breaker=Breaker(rejected=3, of=5), concurrency=1) as bus:
            for i in range(20):
                adapter.receiver.put(event(str(i)))
            await until(lambda: bus.health().subscriptions["orders/billing"].state == "paused")
            await asyncio.sleep(0.02)
            assert len(adapter.records()) == 2
            assert "3 of the last 3" in str(bus.health().subscriptions["orders/billing"].error)
            await bus.resume("orders", "billing")
            await until(lambda: len(adapter.records()) == 4)

    run(scenario())
    assert "resume it when the cause is mended" in caplog.text


def test_a_receive_that_fails_is_tried_again_and_a_fatal_one_ends_consuming(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)

        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handler)
        adapter.receiver.fail(ConnectionError("gone"))
        running = asyncio.ensure_future(bus.run())
        await until(lambda: bus.is_open and "orders/billing" in bus.health().subscriptions)
        adapter.receiver.put(event())
        await until(lambda: handled == ["e-1"])
        assert bus.health().ready
        adapter.receiver.fail(NotFound("subscription was deleted"))
        with pytest.raises(NotFound, match="was deleted"):
            await running
        assert adapter.closed == 1

    run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "orders/billing: receiving failed, trying again: ConnectionError: gone",
        "orders/billing: receiving again",
        "orders/billing: receiving failed for good: NotFound: subscription was deleted",
    ]


# --- drain ------------------------------------------------------------------------------------------------------


def test_drain_finishes_what_runs_and_gives_back_what_is_buffered() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter(receive_batch=100)
        started = asyncio.Event()

        async def handler(event: Event) -> None:
            started.set()
            await asyncio.sleep(0.05)

        for i in range(3):
            adapter.receiver.put(event(str(i), key="k"))
        async with consuming(adapter, handler, ordered=True):
            await started.wait()
        assert adapter.receiver.acked == [1]
        assert sorted(adapter.receiver.given_back) == [(2, 0.0), (3, 0.0)]
        assert adapter.receiver.closed
        assert not adapter.records()

    run(scenario())


def test_a_handler_that_does_not_end_is_cancelled_and_its_event_given_back() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            await asyncio.sleep(60)

        async with consuming(adapter, handler, drain_limit=0.05):
            adapter.receiver.put(event(), attempt=5)
            await until(lambda: not adapter.receiver.waiting)
            await asyncio.sleep(0.01)
        assert adapter.receiver.given_back == [(1, 0.0)]
        assert not adapter.records()
        assert not adapter.receiver.acked

    run(scenario())


def test_a_handler_that_is_cancelled_from_within_is_neither_acked_nor_dead_lettered() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise asyncio.CancelledError

        async with consuming(adapter, handler):
            adapter.receiver.put(event(), attempt=5)
            await until(lambda: adapter.receiver.given_back == [(1, 0.0)])
            adapter.receiver.put(event())
            await until(lambda: len(adapter.receiver.given_back) == 2)
        assert not adapter.records()

    run(scenario())


# --- middleware -------------------------------------------------------------------------------------------------


def test_middleware_wraps_handling_and_sees_what_is_raised() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        seen: list[str] = []

        def layer(name: str) -> Any:
            async def middleware(delivery: Delivery, call_next: Any) -> None:
                seen.append(f"{name} before {delivery.event.id}")
                try:
                    await call_next(delivery)
                except ValueError:
                    seen.append(f"{name} saw it")
                    raise Reject("by middleware") from None

            return middleware

        async def handler(event: Event) -> None:
            raise ValueError

        async with consuming(adapter, handler, handle_middleware=[layer("bus")], middleware=[layer("own")]):
            adapter.receiver.put(event())
            await until(lambda: adapter.receiver.acked)
        assert seen == ["bus before e-1", "own before e-1", "own saw it"]
        assert record_of(adapter)["reason"] == "by middleware"

    run(scenario())


# --- the pull form ----------------------------------------------------------------------------------------------


def test_the_pull_form_settles_by_hand() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing", filter=exact(type="t"))
        for id in ("ack", "retry", "reject", "leave"):
            adapter.receiver.put(event(id))
        adapter.receiver.put(event("other", type="u"))
        async with bus:
            async with bus.deliveries("orders", "billing", max=4) as deliveries:
                async for delivery in deliveries:
                    if delivery.event.id == "ack":
                        assert await delivery.ack() is LeaseOutcome.OK
                        assert await delivery.ack() is LeaseOutcome.OK
                        assert await delivery.extend(5) is LeaseOutcome.LOST
                    elif delivery.event.id == "retry":
                        assert await delivery.extend(5) is LeaseOutcome.OK
                        await delivery.retry(after=9, reason="later")
                    elif delivery.event.id == "reject":
                        await delivery.reject("bad")
                    else:
                        break
            # What was handed out and not settled, and what was fetched and not handed out.
            assert sorted(adapter.receiver.given_back) == [(2, 9.0), (4, 0.0), (5, 0.0)]
            assert record_of(adapter)["reason"] == "bad"
            with pytest.raises(DeclarationError, match="max=0"):
                async with bus.deliveries("orders", "billing", max=0):
                    pass

    run(scenario())


def test_the_pull_form_ends_with_the_bus_and_raises_what_is_fatal() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")
        async with bus, bus.deliveries("orders", "billing") as deliveries:
            adapter.receiver.fail(NotFound("deleted"))
            with pytest.raises(NotFound, match="deleted"):
                await anext(aiter(deliveries))

    run(scenario())


def test_middleware_wraps_each_event_of_a_batch() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        seen: list[str] = []
        handled: list[list[str]] = []

        async def middleware(delivery: Delivery, call_next: Any) -> None:
            if delivery.event.id == "known":
                return
            if delivery.event.id == "refused":
                raise Reject("by middleware")
            try:
                await call_next(delivery)
                seen.append(f"{delivery.event.id} done")
            except Retry:
                seen.append(f"{delivery.event.id} again")
                raise

        async def handler(events: list[Event]) -> Any:
            handled.append([event.id for event in events])
            return [Retry(after=3) if event.id == "later" else None for event in events]

        for id in ("known", "good", "refused", "later"):
            adapter.receiver.put(event(id))
        async with consuming(adapter, handler, middleware=[middleware]):
            await until(lambda: len(adapter.receiver.settled) == 4)
        assert handled == [["good", "later"]]
        assert sorted(seen) == ["good done", "later again"]
        assert sorted(adapter.receiver.acked) == [1, 2, 3]
        assert adapter.receiver.given_back == [(4, 3.0)]
        assert record_of(adapter)["reason"] == "by middleware"

    run(scenario())


def test_a_batch_whose_events_middleware_all_takes_never_reaches_the_handler() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def middleware(delivery: Delivery, call_next: Any) -> None:
            """Take it."""

        async def handler(events: list[Event]) -> None:
            raise AssertionError("never called")

        adapter.receiver.put(event("a"))
        async with consuming(adapter, handler, middleware=[middleware]):
            await until(lambda: adapter.receiver.acked == [1])
        assert not adapter.records()

    run(scenario())


@pytest.mark.parametrize("layered", [False, True])
def test_a_batch_beyond_its_timeout_is_cancelled_and_each_event_retried(layered: bool) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def middleware(delivery: Delivery, call_next: Any) -> None:
            await call_next(delivery)

        async def handler(events: list[Event]) -> None:
            await asyncio.sleep(60)

        for id in ("a", "b"):
            adapter.receiver.put(event(id))
        layers = [middleware] if layered else []
        async with consuming(adapter, handler, timeout=0.05, retry=NO_JITTER, middleware=layers):
            await until(lambda: adapter.receiver.given_back == [(1, 2.0), (2, 2.0)])

    run(scenario())


@pytest.mark.parametrize("layered", [False, True])
def test_a_batch_that_runs_when_the_bus_stops_is_given_back(layered: bool) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        started = asyncio.Event()

        async def middleware(delivery: Delivery, call_next: Any) -> None:
            await call_next(delivery)

        async def handler(events: list[Event]) -> None:
            started.set()
            await asyncio.sleep(60)

        for id in ("a", "b"):
            adapter.receiver.put(event(id), attempt=9)
        layers = [middleware] if layered else []
        async with consuming(adapter, handler, drain_limit=0.05, middleware=layers):
            await started.wait()
        assert adapter.receiver.given_back == [(1, 0.0), (2, 0.0)]
        assert not adapter.records()

    run(scenario())


def test_a_handler_that_settled_by_hand_and_then_fails_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(delivery: Delivery) -> None:
            await delivery.ack()
            raise ValueError("too late")

        async with consuming(adapter, handler):
            adapter.receiver.put(event(), attempt=5)
            await until(lambda: adapter.receiver.acked == [1])
            await asyncio.sleep(0.01)
        assert not adapter.records()
        assert not adapter.receiver.given_back

    run(scenario())
    assert "failed after it had settled the event itself: ValueError: too late" in caplog.text


def test_handlers_may_publish_while_the_bus_closes() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        bus = Bus(adapter=adapter)
        started = asyncio.Event()

        @bus.subscribe("orders", "billing")
        async def handler(event: Event) -> None:
            started.set()
            await asyncio.sleep(0.02)
            await bus.publish("bills", event)

        await bus.open()
        async with bus.running():
            adapter.receiver.put(event())
            await started.wait()
            await bus.close()
        assert adapter.receiver.acked == [1]
        assert [topic for topic, _ in adapter.sent] == ["bills"]

    run(scenario())


def test_a_delivery_whose_lease_ended_in_the_buffer_is_not_begun() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        adapter.receiver.extend_answer = LeaseOutcome.FAILED
        proceed = asyncio.Event()
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)
            await proceed.wait()

        async with consuming(adapter, handler, clock=clock, ordered=True) as bus:
            adapter.receiver.put(event("first", key="k"))
            adapter.receiver.put(event("behind", key="k"))
            await until(lambda: handled == ["first"])
            await clock.advance(100)
            proceed.set()
            await until(lambda: bus.health().subscriptions["orders/billing"].in_hand == 0)
        assert handled == ["first"]

    run(scenario())
