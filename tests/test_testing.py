"""`TestBus` and `SyncTestBus`: the program's own Bus on a private broker, what it published and handled, idleness."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import Any

import pytest
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
    RetryPolicy,
)
from crossbus.deduplicate import Deduplicate, MemoryStore
from crossbus.processing import HandlerTimeout
from crossbus.testing import Clock, Handled, SyncTestBus, TestBus

PLACED = "com.acme.order.placed"
STEADY = RetryPolicy(attempts=3, first_delay=10, factor=1, jitter=False)


def placed(order: str = "o-1", **attributes: Any) -> Event:
    return Event(type=PLACED, source="/shop", data={"order": order}, **attributes)


def outcomes(handled: list[Handled]) -> list[str]:
    return [one.outcome for one in handled]


# --- what is seen -------------------------------------------------------------------------------------------------


def test_what_is_published_and_handled_is_seen() -> None:
    bus = Bus("local:", source="/shop")
    bus.topic("bills")

    @bus.subscribe("orders", "billing")
    async def bill(order: dict[str, str]) -> None:
        await bus.publish("bills", Event(type="com.acme.bill", data=order))

    async def main() -> None:
        async with TestBus(bus) as test:
            event = placed()
            receipt = await test.publish("orders", event)
            await test.wait_idle()
            assert receipt.topic == "orders"
            (handled,) = test.handled("orders", "billing")
            assert handled == Handled(event, "orders", "billing", bill.__qualname__, 1, "ack", None)
            assert test.published("orders") == [event]
            assert [one.type for one in test.published()] == [PLACED, "com.acme.bill"]
            (made,) = test.published(type="com.acme.bill")
            assert (made.source, made.data) == ("/shop", {"order": "o-1"})
            assert test.published("bills", PLACED) == []

    run(main())


def test_handled_is_filtered_and_refuses_a_misspelt_subscription() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None: ...

        @bus.subscribe("orders", "mail")
        def mail(event: Event) -> None: ...

        bus.publish("orders", placed())
        bus.wait_idle()
        assert {one.subscription for one in bus.handled("orders")} == {"billing", "mail"}
        assert [one.subscription for one in bus.handled(name="mail")] == ["mail"]
        with pytest.raises(DeclarationError, match="orders/bilings is not declared; did you mean"):
            bus.handled("orders", "bilings")


def test_every_outcome_has_its_name() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", retry=STEADY)
        async def bill(event: Event) -> None:
            wish = event.data["order"]
            if wish == "retry":
                raise Retry(after=5)
            if wish == "fail":
                raise ValueError("no")
            if wish == "reject":
                raise Reject("never")

        unhandled = bus.subscribe("orders", "by-type", on_unhandled="drop")

        @unhandled.on("com.acme.other")
        async def other(event: Event) -> None: ...

        for wish in ("ack", "retry", "fail", "reject"):
            bus.publish("orders", placed(wish))
        bus.wait_idle()
        found = {one.event.data["order"]: one for one in bus.handled("orders", "billing")}
        assert {wish: one.outcome for wish, one in found.items()} == {
            "ack": "ack",
            "retry": "retry",
            "fail": "retry",
            "reject": "reject",
        }
        assert repr(found["fail"].error) == "ValueError('no')"
        assert isinstance(found["retry"].error, Retry)
        assert isinstance(found["reject"].error, Reject)
        dropped = bus.handled("orders", "by-type")
        assert [(one.outcome, one.handler, one.error) for one in dropped] == [("drop", None, None)] * 4


def test_a_retry_comes_when_the_time_has_moved_and_ends_in_the_dead_letter() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", retry=STEADY)
        async def bill(order: dict[str, str]) -> None:
            raise ValueError("no")

        event = placed()
        bus.publish("orders", event)
        bus.wait_idle()
        bus.advance(9.9)
        bus.wait_idle()
        assert outcomes(bus.handled()) == ["retry"]
        assert "1 delayed (first: orders/billing, in 0.1 s)" in repr(bus)
        bus.advance(0.1)
        assert outcomes(bus.handled()) == ["retry", "retry"]
        bus.advance(10)
        assert [(one.outcome, one.attempt) for one in bus.handled()] == [
            ("retry", 1),
            ("retry", 2),
            ("reject", 3),
        ]
        (letter,) = bus.dead_letters("orders", "billing")
        assert (letter.event, letter.error, letter.attempts) == (event, "ValueError: no", 3)
        assert "delayed" not in repr(bus)


def test_all_retries_run_in_one_advance_also_in_threads() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", retry=STEADY)
        def bill(order: dict[str, str]) -> None:
            time.sleep(0.02)
            raise ValueError("no")

        bus.publish("orders", placed())
        bus.advance(20)
        assert outcomes(bus.handled()) == ["retry", "retry", "reject"]


def test_each_event_of_a_batch_has_its_outcome() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", concurrency=1)
        async def bill(events: list[Event]) -> list[Any]:
            return [Reject("bad") if event.data["order"] == "bad" else None for event in events]

        bus.publish_many("orders", [placed("a"), placed("bad"), placed("c")])
        bus.wait_idle()
        found = [(one.event.data["order"], one.outcome, one.handler) for one in bus.handled()]
        assert sorted(found) == [
            ("a", "ack", bill.__qualname__),
            ("bad", "reject", bill.__qualname__),
            ("c", "ack", bill.__qualname__),
        ]


def test_data_that_does_not_fit_is_rejected_and_the_error_says_so() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing")
        async def bill(order: dict[str, int]) -> None: ...

        bus.publish("orders", placed())
        bus.wait_idle()
        (handled,) = bus.handled()
        assert (handled.outcome, type(handled.error).__name__) == ("reject", "DataError")


def test_a_paused_subscription_releases() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", on_invalid="pause")
        async def bill(order: dict[str, int]) -> None: ...

        bus.publish("orders", placed())
        bus.wait_idle()
        (handled,) = bus.handled()
        assert (handled.outcome, type(handled.error).__name__) == ("release", "DataError")
        bus.publish("orders", placed())
        bus.wait_idle()  # what waits in a paused subscription is nothing to wait for
        assert len(bus.handled()) == 1


def test_a_breaker_that_opens_releases() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", breaker=Breaker(rejected=1, of=1))
        async def bill(event: Event) -> None:
            raise Reject("bad")

        bus.publish("orders", placed())
        bus.wait_idle()
        assert outcomes(bus.handled()) == ["release"]
        assert bus.dead_letters("orders", "billing") == []


def test_a_timeout_is_a_retry() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", timeout=5, retry=STEADY)
        async def bill(event: Event) -> None:
            await asyncio.Event().wait()

        bus.publish("orders", placed())
        bus.advance(5)
        bus.wait_idle()
        (handled,) = bus.handled()
        assert handled.outcome == "retry"
        assert isinstance(handled.error, HandlerTimeout)
        assert handled.handler == bill.__qualname__


def test_a_handler_that_settles_by_hand_is_noted_once() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", retry=STEADY)
        async def bill(delivery: Delivery) -> None:
            match delivery.event.data["order"]:
                case "ack":
                    await delivery.ack()
                case "retry":
                    await delivery.retry(after=5)
                case "reject":
                    await delivery.reject("by hand")

        for wish in ("ack", "retry", "reject"):
            bus.publish("orders", placed(wish))
            bus.wait_idle()
        assert outcomes(bus.handled()) == ["ack", "retry", "reject"]
        assert {one.handler for one in bus.handled()} == {bill.__qualname__}


def test_a_suppressed_duplicate_was_acknowledged_without_a_handler() -> None:
    calls: list[str] = []
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing", middleware=[Deduplicate(MemoryStore())])
        async def bill(event: Event) -> None:
            calls.append(event.id)

        event = placed()
        bus.publish("orders", event)
        bus.wait_idle()
        bus.publish("orders", event)
        bus.wait_idle()
        assert calls == [event.id]
        assert [(one.outcome, one.handler) for one in bus.handled()] == [
            ("ack", bill.__qualname__),
            ("ack", None),
        ]


def test_reprs_tell_what_an_assertion_needs() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            raise ValueError("no")

        bus.publish("orders", placed(id="e-1"))
        bus.wait_idle()
        text = repr(bus.handled()[0])
        assert text.startswith(f"<Handled {PLACED} e-1 of orders/billing by test_reprs")
        assert text.endswith("bill, attempt 1: retry (ValueError: no)>")
        assert repr(bus).startswith("<SyncTestBus: 1 published, 1 handled (1 retry), 1 delayed (first: ")


# --- idle ---------------------------------------------------------------------------------------------------------


def test_wait_idle_waits_for_a_chain_of_handlers() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("first", "relay")
        async def relay(event: Event) -> None:
            await asyncio.sleep(0.05)
            await bus.bus.publish("second", event)

        @bus.subscribe("second", "thread")
        def thread(event: Event) -> None:
            time.sleep(0.05)

        bus.publish("first", placed())
        bus.wait_idle()
        assert [one.topic for one in bus.handled()] == ["first", "second"]


@pytest.mark.parametrize("in_thread", [False, True])
def test_wait_idle_names_the_handler_that_does_not_end(in_thread: bool) -> None:
    with SyncTestBus() as bus:
        end = threading.Event()

        async def bill_async(event: Event) -> None:
            await asyncio.to_thread(end.wait, 10)

        def bill(event: Event) -> None:
            end.wait(10)

        bus.subscribe("orders", "billing")(bill if in_thread else bill_async)
        bus.publish("orders", placed())
        name = re.escape((bill if in_thread else bill_async).__qualname__)
        with pytest.raises(TimeoutError, match=f"0.1 s: handler {name} of orders/billing runs, attempt 1"):
            bus.wait_idle(timeout=0.1)
        end.set()
        bus.wait_idle()
        assert outcomes(bus.handled()) == ["ack"]


def test_wait_idle_gives_up_on_events_that_never_end() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "echo")
        async def echo(event: Event) -> None:
            await bus.bus.publish("orders", event)

        bus.publish("orders", placed())
        with pytest.raises(TimeoutError, match=r"not idle after 0\.1 s: "):
            bus.wait_idle(timeout=0.1)


def test_events_behind_a_retry_of_their_key_are_not_waited_for() -> None:
    with SyncTestBus() as bus:
        seen: list[str] = []

        @bus.subscribe("orders", "billing", ordered=True, retry=STEADY)
        async def bill(delivery: Delivery) -> None:
            seen.append(delivery.event.data["order"])
            if delivery.attempt == 1 and len(seen) == 1:
                raise ValueError("not yet")

        for order in ("a", "b"):
            bus.publish("orders", placed(order, extensions={"partitionkey": "k"}))
        bus.wait_idle()
        assert seen == ["a"]
        bus.advance(10)
        assert seen == ["a", "a", "b"]


def test_a_redriven_event_is_waited_for() -> None:
    with SyncTestBus() as bus:
        good = False

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None:
            if not good:
                raise Reject("not good")

        bus.publish("orders", placed())
        bus.wait_idle()
        good = True
        assert bus.complete(bus.bus.dead_letters("orders", "billing").redrive()) == 1
        bus.wait_idle()
        assert outcomes(bus.handled()) == ["reject", "ack"]
        assert bus.dead_letters("orders", "billing") == []
        assert len(bus.published()) == 1


def test_what_is_pulled_is_in_hand() -> None:
    async def main() -> None:
        async with TestBus() as test:
            test.subscribe("orders", "pulled")
            await test.publish("orders", placed())
            await test.wait_idle()  # nobody consumes it
            async with test.bus.deliveries("orders", "pulled") as deliveries:
                delivery = await anext(deliveries)
                with pytest.raises(TimeoutError, match="1 in hand of orders/pulled"):
                    await test.wait_idle(0.05)
                await delivery.ack()
                await test.wait_idle()
            assert test.handled() == []

    run(main())


def test_a_consumer_that_cannot_go_on_is_an_error() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None: ...

        bus.wait_idle()
        bus.bus._connections.opened(None).inner.engine.delete_topic("orders")  # type: ignore[union-attr]
        with pytest.raises(NotFound, match="'billing' was deleted"):
            bus.wait_idle()


def test_advance_goes_forward_only() -> None:
    with SyncTestBus() as bus, pytest.raises(ValueError, match="forward"):
        bus.advance(-1)


def test_advancing_a_year_of_nothing_takes_no_time() -> None:
    with SyncTestBus() as bus:

        @bus.subscribe("orders", "billing")
        async def bill(event: Event) -> None: ...

        before = time.monotonic()
        bus.advance(365 * 86400)
        assert bus.clock.monotonic() == 365 * 86400
        assert time.monotonic() - before < 5


def test_a_clock_may_be_given() -> None:
    clock = Clock(start=1_000_000_000)
    with SyncTestBus(clock=clock) as bus:
        assert bus.clock is clock
        assert bus.bus.clock is clock
        bus.advance(5)
        assert clock.time() == 1_000_000_005
