"""Consuming when something goes wrong around it: adapters that misbehave, cancellation, races with closing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from tests.consuming import NO_JITTER, consuming, event, until
from tests.scripted import DelaySteps, ScriptedAdapter, ScriptedReceiver, refuse
from tests.silent import consuming_silently
from tests.support import run

from crossbus import Breaker, Bus, Delivery, Event, Reject, Retry, RetryPolicy, fetching, leases
from crossbus import consuming as consuming_module
from crossbus.adapter import LeaseOutcome, Received, Settlement
from crossbus.clock import SystemClock
from crossbus.deduplicate import Deduplicate, MemoryStore
from crossbus.leases import LeaseKeeper
from crossbus.testing import Clock
from crossbus.threads import Threads


def consumer_of(bus: Bus) -> Any:
    return bus._runner._consumers["orders", "billing"]


# --- what handlers do -------------------------------------------------------------------------------------------


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("raised", [Reject(ValueError("x")), Reject(None), Unspeakable(), Retry(reason=7)])  # type: ignore[arg-type]
@pytest.mark.parametrize("several", [False, True])
def test_whatever_is_raised_ends_in_the_dead_letter_and_consuming_goes_on(
    raised: Exception, several: bool
) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            raise raised

        async def handler_of_several(events: list[Event]) -> None:
            raise raised

        async with consuming(
            adapter, handler_of_several if several else handler, concurrency=1, retry=RetryPolicy(attempts=1)
        ) as bus:
            for _ in range(3):
                adapter.receiver.put(event())
            await until(lambda: len(adapter.receiver.acked) == 3)
            assert consumer_of(bus)._fetcher.in_hand == 0
        assert len(adapter.records()) == 3

    run(scenario())


def test_a_fault_of_ours_gives_the_event_back_and_the_worker_lives_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        encode = adapter.encode

        def broken(topic: Any, event: Event) -> Any:
            if topic.kind == "dead_letter":
                raise KeyError("unforeseen")
            return encode(topic, event)

        adapter.encode = broken  # type: ignore[method-assign]

        async def handler(event: Event) -> None:
            raise Reject("no")

        async with consuming(adapter, handler, concurrency=1, retry=NO_JITTER) as bus:
            adapter.receiver.put(event())
            adapter.receiver.put(event())
            await until(lambda: adapter.receiver.given_back == [(1, 2.0), (2, 2.0)])
            assert consumer_of(bus)._fetcher.in_hand == 0

    run(scenario())


def test_a_handler_that_asked_for_a_retry_and_returned_is_not_acknowledged() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, retry_delays=DelaySteps((0.0, 10.0)))

        async def handler(event: Event, delivery: Delivery) -> None:
            await delivery.retry(after=30)
            assert await delivery.ack() is LeaseOutcome.OK, "settling again does nothing"
            await delivery.retry(after=0)

        async with consuming(adapter, handler, clock=clock):
            received = adapter.receiver.put(event())
            await clock.advance(19)
            assert adapter.receiver.settled == []
            await clock.advance(2)
            assert adapter.receiver.settled == [Settlement(received.lease, 10.0)]

    run(scenario())


def test_a_handler_that_swallowed_its_timeout_leaves_no_trace_on_the_next_event() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)

        async def handler(event: Event) -> None:
            if event.id == "slow":
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                return
            raise ValueError("a failure like any other")

        async with consuming(adapter, handler, clock=clock, timeout=5, concurrency=1, retry=NO_JITTER):
            adapter.receiver.put(event("slow"))
            await asyncio.sleep(0.02)
            await clock.advance(6)
            await until(lambda: adapter.receiver.acked == [1])
            adapter.receiver.put(event("next"))
            await until(lambda: adapter.receiver.given_back == [(2, 2.0)])

    run(scenario())


@pytest.mark.parametrize("several", [False, True])
def test_the_timeout_is_the_handlers_and_does_not_cut_off_the_dead_letter(several: bool) -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        adapter.answers.extend([refuse()] * 4)  # the record is written at the fifth try only

        async def handler(event: Event) -> None:
            raise Reject("no")

        async def handler_of_several(events: list[Event]) -> None:
            raise Reject("no")

        async with consuming(
            adapter, handler_of_several if several else handler, clock=clock, timeout=0.2, concurrency=1
        ) as bus:
            received = adapter.receiver.put(event())
            await asyncio.sleep(0.02)
            await clock.advance(5)
            await until(lambda: adapter.receiver.acked == [received.lease])
            assert consumer_of(bus)._fetcher.in_hand == 0

    run(scenario())


def test_a_batch_with_undecodable_events_is_not_lost_when_time_is_up() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        adapter.answers.extend([refuse()] * 4)
        handled: list[str] = []

        async def handler(events: list[Event]) -> None:
            handled.extend(event.id for event in events)

        async with consuming(adapter, handler, clock=clock, timeout=0.2, concurrency=1) as bus:
            adapter.receiver.put(b"nonsense")
            adapter.receiver.put(event("good"))
            await asyncio.sleep(0.02)
            await clock.advance(5)
            await until(lambda: sorted(adapter.receiver.acked) == [1, 2])
            assert consumer_of(bus)._fetcher.in_hand == 0
        assert handled == ["good"]

    run(scenario())


def test_a_worker_that_a_handler_cancels_leaves_nothing_in_the_buffer() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None:
            if event.id == "e-0":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(1)

        async with consuming(adapter, handler, concurrency=1):
            for i in range(5):
                adapter.receiver.put(event(f"e-{i}"))
            await until(lambda: adapter.receiver.acked == [2, 3, 4, 5])
            assert adapter.receiver.given_back == [(1, 0.0)]

    run(scenario())


@pytest.mark.parametrize("twice", [False, True])
def test_middleware_that_gives_up_waiting_for_a_batch_or_calls_twice_harms_nobody_else(twice: bool) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def impatient(delivery: Delivery, call_next: Any) -> Any:
            if delivery.event.id == "e-0":
                if twice:
                    await call_next(delivery)
                    await call_next(delivery)
                else:
                    await asyncio.wait_for(call_next(delivery), 0.01)
            else:
                await call_next(delivery)

        async def handler(events: list[Event]) -> None:
            await asyncio.sleep(0.05)

        async with consuming(adapter, handler, handle_middleware=[impatient], concurrency=1, retry=NO_JITTER):
            for i in range(3):
                adapter.receiver.put(event(f"e-{i}"))
            await until(lambda: len(adapter.receiver.settled) == 3)
        assert sorted(adapter.receiver.acked) == [2, 3]
        assert adapter.receiver.given_back == [(1, 2.0)]

    run(scenario())


# --- order per key ----------------------------------------------------------------------------------------------


def ordered(adapter: ScriptedAdapter, handler: Any, **options: Any) -> Any:
    return consuming(adapter, handler, **{"ordered": True, "concurrency": 5, "retry": NO_JITTER, **options})


def test_a_key_stays_held_by_what_runs_when_others_behind_it_are_given_back() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        proceed = asyncio.Event()
        running: list[str] = []

        async def handler(event: Event) -> None:
            running.append(event.id)
            await proceed.wait()

        async with ordered(adapter, handler) as bus:
            adapter.receiver.put(event("k-1", "k"))
            adapter.receiver.put(event("k-2", "k"))
            await until(lambda: running == ["k-1"])
            await bus.pause("orders", "billing")
            await until(lambda: adapter.receiver.given_back == [(2, 0.0)])
            await bus.resume("orders", "billing")
            adapter.receiver.put(event("k-2", "k"), attempt=2)
            await asyncio.sleep(0.05)
            assert running == ["k-1"], "two events of one key at once"
            proceed.set()
            await until(lambda: adapter.receiver.acked == [1, 3])

    run(scenario())


def test_what_came_behind_a_held_retry_comes_again_after_it() -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, retry_delays=DelaySteps((0.0, 10.0)))
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)
            if handled == ["k-1"]:
                raise Retry(after=30)

        async with ordered(adapter, handler, clock=clock):
            adapter.receiver.put(event("k-1", "k"))
            await until(lambda: handled == ["k-1"])
            adapter.receiver.put(event("k-2", "k"))
            await clock.advance(25)
            await until(lambda: len(adapter.receiver.settled) == 2)
            assert handled == ["k-1"], "the next of the key overtook the retry"
            assert sorted(adapter.receiver.given_back)[0] == (1, 10.0)
            adapter.receiver.put(event("k-1", "k"), attempt=2)
            adapter.receiver.put(event("k-2", "k"), attempt=2)
            await until(lambda: handled == ["k-1", "k-1", "k-2"])

    run(scenario())


@pytest.mark.parametrize("how", ["lost", "expired"])
def test_what_waits_behind_an_unhandled_event_whose_lease_is_lost_is_not_handled_before_it(how: str) -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        proceed = asyncio.Event()
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)
            if event.id == "x":
                await proceed.wait()

        async with ordered(adapter, handler, clock=clock, concurrency=1, lease=30) as bus:
            consumer_of(bus)._fetcher.window = 10
            adapter.receiver.put(event("x"))
            await until(lambda: handled == ["x"])
            short = {} if how == "lost" else {"lease_seconds": 1.0}
            adapter.receiver.put(event("k-1", "k"), **short)
            adapter.receiver.put(event("k-2", "k"))
            await until(lambda: not adapter.receiver.waiting)
            if how == "lost":

                async def extend(leases: Sequence[Any], seconds: float) -> list[LeaseOutcome]:
                    return [LeaseOutcome.LOST if lease == 2 else LeaseOutcome.OK for lease in leases]

                adapter.receiver.extend = extend  # type: ignore[method-assign]
                await clock.advance(60)
            else:
                await clock.advance(2)
            proceed.set()
            await until(lambda: (3, 0.0) in adapter.receiver.given_back)
            assert handled == ["x"]
            adapter.receiver.put(event("k-1", "k"), attempt=2)
            adapter.receiver.put(event("k-2", "k"), attempt=2)
            await until(lambda: handled == ["x", "k-1", "k-2"])

    run(scenario())


# --- flow -------------------------------------------------------------------------------------------------------


def test_fetching_goes_on_when_what_was_held_is_given_back_by_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "MAX_HELD", 1)

    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, retry_delays=DelaySteps((0.0, 10.0)))

        async def handler(event: Event) -> None:
            if event.id == "e-1":
                raise Retry(after=30)

        async with consuming(adapter, handler, clock=clock) as bus:
            adapter.receiver.put(event("e-1"))
            await until(lambda: len(consumer_of(bus)._held) == 1)
            # One receive was under way already; after it fetching waits for room.
            adapter.receiver.put(event("e-2"))
            await until(lambda: adapter.receiver.acked == [2])
            await bus.pause("orders", "billing")
            await bus.resume("orders", "billing")
            adapter.receiver.put(event("e-3"))
            await until(lambda: adapter.receiver.acked == [2, 3])

    run(scenario())


def test_why_a_breaker_paused_is_said_until_it_is_resumed() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        proceed = asyncio.Event()

        async def handler(event: Event) -> None:
            await proceed.wait()
            raise Reject("no")

        async with consuming(adapter, handler, breaker=Breaker(rejected=1, of=1)) as bus:
            await bus.pause("orders", "billing")
            assert bus.health().subscriptions["orders/billing"].breaker == "closed", "paused by hand"
            await bus.resume("orders", "billing")
            adapter.receiver.put(event("e-1"))
            await asyncio.sleep(0.02)
            proceed.set()
            await until(lambda: adapter.receiver.given_back == [(1, 0.0)])
            adapter.receiver.put(event("e-2"))  # comes by the receive that was under way
            await until(lambda: adapter.receiver.given_back == [(1, 0.0), (2, 0.0)])
            health = bus.health().subscriptions["orders/billing"]
            assert health.state == "paused"
            assert health.breaker == "open"
            assert "1 of the last 1 events were rejected" in (health.error or "")
            await bus.resume("orders", "billing")
            assert bus.health().subscriptions["orders/billing"].breaker == "closed"

    run(scenario())


def test_fetching_goes_on_when_what_was_held_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_HELD", 1)

    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, retry_delays=DelaySteps((0.0, 10.0)))

        async def handler(event: Event) -> None:
            if event.id == "e-1":
                raise Retry(after=1000)

        async with consuming(adapter, handler, clock=clock) as bus:
            adapter.receiver.put(event("e-1"))
            await until(lambda: len(consumer_of(bus)._held) == 1)
            adapter.receiver.put(event("e-2"))
            await until(lambda: adapter.receiver.acked == [2])
            adapter.receiver.extend_answer = LeaseOutcome.LOST
            await clock.advance(60)
            adapter.receiver.put(event("e-3"))
            await until(lambda: adapter.receiver.acked == [2, 3])

    run(scenario())


def test_the_bytes_of_what_is_held_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 5000)

    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock, retry_delays=DelaySteps((0.0, 10.0)), receive_batch=1)

        async def handler(event: Event) -> None:
            raise Retry(after=30)

        async with consuming(adapter, handler, clock=clock) as bus:
            for i in range(20):
                adapter.receiver.put(event(f"e-{i}", data="x" * 1000))
            await asyncio.sleep(0.1)
            assert 4 <= len(consumer_of(bus)._held) <= 6
            await clock.advance(100)
            await until(lambda: len(adapter.receiver.given_back) == 20)
            assert consumer_of(bus)._fetcher.bytes == 0

    run(scenario())


# --- adapters that misbehave ------------------------------------------------------------------------------------


class OddReceiver(ScriptedReceiver):
    odd: Any = None

    async def receive(self, max: int, wait: float) -> Any:
        received = await super().receive(max, wait)
        if self.odd is not None:
            odd, self.odd = self.odd, None
            if isinstance(odd, BaseException):
                raise odd
            return odd
        return received


@pytest.mark.parametrize(
    "odd",
    [7, [None], [Received([], b"", {}, "m")], asyncio.CancelledError()],
    ids=["int", "none", "lease", "cancel"],
)
def test_a_fetch_never_dies_in_silence(odd: Any) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.receiver = receiver = OddReceiver()

        async def handler(event: Event) -> None: ...

        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handler)
        receiver.odd = odd
        receiver.put(event())
        running = asyncio.ensure_future(bus.run())
        if isinstance(odd, asyncio.CancelledError):  # of the SDK's own making: tried again
            await asyncio.sleep(0.05)
            receiver.put(event())
            await until(lambda: len(receiver.acked) >= 1)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            return
        with pytest.raises((TypeError, AttributeError)):
            await asyncio.wait_for(running, 5)

    run(scenario())


def test_a_fatal_error_of_the_sdk_is_raised_as_its_portable_one() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None: ...

        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handler)
        adapter.receiver.fail(PermissionError("not you"))
        from crossbus import PermissionDenied

        with pytest.raises(PermissionDenied, match="not you") as caught:
            await asyncio.wait_for(bus.run(), 5)
        assert isinstance(caught.value.__cause__, PermissionError)

    run(scenario())


@pytest.mark.parametrize("answers", [[], [LeaseOutcome.OK] * 3, None])
def test_settling_that_is_answered_with_nonsense_is_tried_again(answers: Any) -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        settle = adapter.receiver.settle
        nonsense = [answers]

        async def odd(settlements: Any) -> Any:
            return nonsense.pop() if nonsense else await settle(settlements)

        adapter.receiver.settle = odd  # type: ignore[method-assign]

        async def handler(event: Event) -> None: ...

        async with consuming(adapter, handler, ordered=True):
            adapter.receiver.put(event("k-1", "k"))
            adapter.receiver.put(event("k-2", "k"))
            await until(lambda: adapter.receiver.acked == [1, 2])

    run(scenario())


def test_a_provider_that_never_answers_does_not_keep_the_bus_from_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consuming_module, "SETTLE_LIMIT", 0.2)

    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def hang(*_: object) -> Any:
            await asyncio.Event().wait()

        adapter.receiver.settle = hang  # type: ignore[method-assign]
        adapter.receiver.close = hang  # type: ignore[method-assign]
        handled: list[str] = []

        async def handler(event: Event) -> None:
            handled.append(event.id)

        async with consuming(adapter, handler):
            adapter.receiver.put(event())
            await until(lambda: handled)

    run(scenario())
    assert "settling was not answered within 0.2 s, 1 requests: their events come again" in caplog.text
    assert "closing its receiver failed" in caplog.text


def test_extending_that_is_never_answered_does_not_cost_other_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXTEND_LIMIT", 0.1)

    async def scenario() -> None:
        adapter, extended = ScriptedAdapter(), []

        async def extend(tokens: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
            extended.append(list(tokens))
            if len(extended) == 1:
                await asyncio.Event().wait()
            return [LeaseOutcome.OK] * len(tokens)

        adapter.receiver.extend = extend  # type: ignore[method-assign]
        keeper = LeaseKeeper(
            adapter.receiver,
            clock=SystemClock(),
            telemetry=consuming_silently(adapter),
            lease=0.3,
            on_lost=lambda _: None,
        )
        received = adapter.receiver.put(event(), lease_seconds=0.3)
        keeper.add(Delivery(received, None, SystemClock().monotonic() + 0.3))  # type: ignore[arg-type]
        await until(lambda: len(extended) > 2, limit=30)
        await keeper.close()

    run(scenario())


def test_an_ack_by_hand_that_is_never_answered_ends_with_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming_module, "SETTLE_LIMIT", 0.2)

    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def hang(*_: object) -> Any:
            await asyncio.Event().wait()

        adapter.receiver.settle = hang  # type: ignore[method-assign]
        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")
        async with bus, bus.deliveries("orders", "billing") as deliveries:
            adapter.receiver.put(event())
            acking = asyncio.create_task((await anext(deliveries)).ack())
            await asyncio.sleep(0)
        assert await asyncio.wait_for(acking, 30) is LeaseOutcome.FAILED

    run(scenario())


def test_a_receiver_that_cannot_close_does_not_keep_the_bus_from_closing_and_opening_again() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        stopped: list[str] = []

        async def close() -> None:
            raise ConnectionError("gone")

        adapter.receiver.close = close  # type: ignore[method-assign]

        async def handler(event: Event) -> None: ...

        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handler)
        bus.on_stop(lambda bus: stopped.append("hook"))
        for round in (1, 2):
            async with bus, bus.running():
                adapter.receiver.put(event())
                await until(lambda round=round: len(adapter.receiver.acked) == round)
        assert stopped == ["hook", "hook"]

    run(scenario())


# --- the end ----------------------------------------------------------------------------------------------------


def test_stopping_twice_at_once_waits_for_the_same_end() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        begun, proceed = asyncio.Event(), asyncio.Event()

        async def handler(event: Event) -> None:
            begun.set()
            await proceed.wait()

        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handler)
        await bus.open()

        async def consume() -> None:
            async with bus.running():
                adapter.receiver.put(event())
                await begun.wait()

        consuming = asyncio.ensure_future(consume())
        await begun.wait()
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(bus.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        assert not consuming.done()
        proceed.set()
        await asyncio.gather(consuming, closing)
        assert adapter.receiver.acked == [1]

    run(scenario())


def test_run_ends_when_somebody_closes_the_bus() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()

        async def handler(event: Event) -> None: ...

        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handler)
        running = asyncio.ensure_future(bus.run())
        adapter.receiver.put(event())
        await until(lambda: adapter.receiver.acked == [1])
        await bus.close()
        await asyncio.wait_for(running, 5)

    run(scenario())


def test_a_drain_that_is_cancelled_cancels_handlers_gives_back_and_closes() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        begun = asyncio.Event()
        cancelled = asyncio.Event()

        async def handler(event: Event) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")(handler)

        async def consume() -> None:
            async with bus.running():
                await begun.wait()

        adapter.receiver.put(event())
        async with bus:
            task = asyncio.ensure_future(consume())
            await begun.wait()
            await asyncio.sleep(0.01)  # in the drain now
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert cancelled.is_set()
            assert adapter.receiver.settled == [Settlement(1, 0.0)]
            assert adapter.receiver.closed
            async with bus.running():  # and may be consumed again
                pass

    run(scenario())


def test_what_is_being_dead_lettered_at_the_drain_limit_is_given_back() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()

        async def handler(event: Event) -> None:
            raise Reject("no")

        async with consuming(adapter, handler, drain_limit=0.05):
            adapter.receiver.put(event())
            await until(lambda: adapter.under_way == 1)
        assert adapter.receiver.settled == [Settlement(1, 0.0)]

    run(scenario())


# --- the pull form ----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def pulling(adapter: ScriptedAdapter, *, max: int = 10, clock: Any = None, **declared: Any) -> Any:
    bus = Bus(adapter=adapter, clock=clock)
    bus.subscribe("orders", "billing", **declared)
    async with bus, bus.deliveries("orders", "billing", max=max) as deliveries:
        yield bus, deliveries


def test_a_consumer_that_gave_up_waiting_takes_no_wake_up_with_it() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with pulling(adapter) as (bus, deliveries):
            patient = asyncio.ensure_future(anext(deliveries))
            await asyncio.sleep(0.01)
            for _ in range(20):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(deliveries), 0.001)
            assert len(consumer_of(bus)._idle) == 1
            adapter.receiver.put(event())
            delivery = await asyncio.wait_for(patient, 2)
            await delivery.ack()

    run(scenario())


def test_a_consumer_cancelled_as_it_is_woken_passes_the_wake_up_on() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with pulling(adapter) as (bus, deliveries):
            waiting = [asyncio.ensure_future(anext(deliveries)) for _ in range(2)]
            await asyncio.sleep(0.01)
            consumer = consumer_of(bus)
            wake = consumer._wake

            def wake_and_cancel(count: int) -> None:
                consumer._wake = wake
                wake(count)
                waiting[1].cancel()

            consumer._wake = wake_and_cancel
            adapter.receiver.put(event())
            delivery = await asyncio.wait_for(waiting[0], 2)
            await delivery.ack()

    run(scenario())


@pytest.mark.parametrize("how", ["ack", "retry", "reject"])
def test_a_lost_delivery_frees_its_place_and_its_key_when_it_is_settled(how: str) -> None:
    async def scenario() -> None:
        clock = Clock()
        adapter = ScriptedAdapter(clock=clock)
        async with pulling(adapter, max=1, clock=clock, ordered=True) as (bus, deliveries):
            adapter.receiver.put(event("k-1", "k"))
            delivery = await anext(deliveries)
            adapter.receiver.extend_answer = LeaseOutcome.LOST
            await clock.advance(60)
            assert await getattr(delivery, how)() is LeaseOutcome.LOST
            assert await getattr(delivery, how)() is LeaseOutcome.LOST
            adapter.receiver.extend_answer = LeaseOutcome.OK
            adapter.receiver.put(event("k-2", "k"))
            following = await asyncio.wait_for(anext(deliveries), 2)
            assert following.event.id == "k-2"
            await following.ack()
            assert consumer_of(bus)._fetcher.in_hand == 0

    run(scenario())


def test_a_consumer_cancelled_while_an_event_is_dead_lettered_loses_nothing() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        adapter.gate = asyncio.Event()
        async with pulling(adapter) as (bus, deliveries):
            adapter.receiver.put(b"nonsense")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(deliveries), 0.05)
            await until(lambda: adapter.receiver.settled == [Settlement(1, 0.0)])
            assert consumer_of(bus)._fetcher.in_hand == 0
            adapter.gate.set()

    run(scenario())


def test_a_delivery_that_the_end_of_the_block_gave_back_says_so() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        async with pulling(adapter) as (_, deliveries):
            adapter.receiver.put(event())
            delivery = await anext(deliveries)
        assert adapter.receiver.settled == [Settlement(1, 0.0)]
        assert await delivery.ack() is LeaseOutcome.LOST
        assert await delivery.extend(10) is LeaseOutcome.LOST

    run(scenario())


def test_an_exception_in_the_block_gives_back_and_ends_who_waits() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        abandoned: list[Any] = []

        async def fail(bus: Bus) -> None:
            async with bus.deliveries("orders", "billing") as deliveries:
                adapter.receiver.put(event())
                await anext(deliveries)
                abandoned.append(asyncio.ensure_future(anext(deliveries, None)))
                await asyncio.sleep(0.01)
                raise ZeroDivisionError

        bus = Bus(adapter=adapter)
        bus.subscribe("orders", "billing")
        async with bus:
            with pytest.raises(ZeroDivisionError):
                await fail(bus)
            (waiting,) = abandoned
            assert await asyncio.wait_for(waiting, 2) is None
            assert adapter.receiver.settled == [Settlement(1, 0.0)]

    run(scenario())


def test_a_thread_that_cannot_be_started_is_none_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        threads = Threads(1, "test")
        start = threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            await threads.run(str, 1)
        monkeypatch.setattr(threading.Thread, "start", start)
        assert await asyncio.wait_for(threads.run(str, 2), 5) == "2"
        threads.close()

    run(scenario())


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_duplicates_are_taken_out_of_a_batch() -> None:
    async def scenario() -> None:
        adapter = ScriptedAdapter()
        handled: list[list[str]] = []

        async def handler(events: list[Event]) -> None:
            handled.append([event.id for event in events])

        dedupe = Deduplicate(MemoryStore())
        async with consuming(adapter, handler, handle_middleware=[dedupe], concurrency=1):
            adapter.receiver.put(event("a"))
            await until(lambda: adapter.receiver.acked == [1])
            adapter.receiver.put(event("a"))
            adapter.receiver.put(event("b"))
            await until(lambda: len(adapter.receiver.acked) == 3)
        assert handled == [["a"], ["b"]]

    run(scenario())
