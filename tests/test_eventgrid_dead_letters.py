"""Dead letters on Event Grid, which has no way to look at an event without taking it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crossbus import Bus, Event, Reject, RetryPolicy, shelf
from crossbus.adapter import LeaseOutcome, Settlement, Wire
from crossbus.delivery import Delivery
from crossbus.errors import ErrorCode
from crossbus.topology import Subscription, Topic
from eventgrid_harness import World, strict_world
from strict_eventgrid import Queue
from support import run

DEAD = "orders--billing--dead"
BILLING = Subscription(topic=Topic("orders"), name="billing", lease=2.0)


@pytest.fixture
def world() -> Iterator[World]:
    with strict_world(shortest_wait=1) as found:
        found.namespace.add("orders", "billing", "shipping", lock=2.0)
        found.namespace.add(DEAD, "dead-letters", lock=2.0)
        yield found


def dead(world: World) -> Queue:
    return world.namespace.topics[DEAD]["dead-letters"]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for is in another thread
            await asyncio.sleep(0.02)


def event(n: int = 0, **more: Any) -> Event:
    return Event(id=f"o-{n}", type="com.acme.order", source="/shop", data={"n": n}, **more)


async def bury(world: World, bus: Bus, count: int) -> None:
    """Have events rejected until so many records stand in the dead letter."""
    async with bus.running():
        await bus.publish_many("orders", [event(n) for n in range(count)])
        await until(lambda: len(dead(world).ready) == count)


def rejecting(world: World) -> Bus:
    bus = Bus(adapter=world.adapter(), provision="never")

    async def refuse(delivery: Delivery) -> None:
        raise Reject("no such customer")

    bus.subscribe("orders", "billing", lease=2)(refuse)
    return bus


def test_looking_many_times_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event Grid drops what was received 10 times: a record that was looked at often is published anew."""
    monkeypatch.setattr(shelf, "KEEP", 0.05)

    async def main() -> None:
        async with rejecting(world) as bus:
            await bury(world, bus, 3)
            seen = []
            for _ in range(13):
                letters = await bus.dead_letters("orders", "billing").list()
                seen.append([letter.id for letter in letters])
                assert [letter.event.id for letter in letters if letter.event] == ["o-0", "o-1", "o-2"]
                await asyncio.sleep(0.2)  # given back meanwhile
            assert all(ids == seen[0] for ids in seen)

    run(main(), limit=120)
    assert not dead(world).dropped
    assert len(dead(world).ready) + len(dead(world).due) >= 3


def test_what_was_looked_at_is_given_back(world: World) -> None:
    async def main() -> None:
        async with rejecting(world) as bus, Bus(adapter=world.adapter(), provision="never") as other:
            other.subscribe("orders", "billing", lease=2)
            await bury(world, bus, 2)
            assert len(await bus.dead_letters("orders", "billing").list()) == 2
            await asyncio.sleep(shelf.KEEP + 0.5)
            assert len(await other.dead_letters("orders", "billing").list()) == 2

    run(main())


def test_closing_gives_back_at_once(world: World) -> None:
    dead(world).lock = 60.0

    async def main() -> None:
        async with rejecting(world) as bus:
            await bury(world, bus, 2)
            await bus.dead_letters("orders", "billing").list()
        async with rejecting(world) as bus:
            assert len(await bus.dead_letters("orders", "billing").list()) == 2

    run(main())


def test_a_record_written_twice_is_listed_once_and_removed_wholly(world: World) -> None:
    async def main() -> None:
        async with rejecting(world) as bus:
            await bury(world, bus, 1)
            adapter = bus.adapter_for("orders")
            (record,) = await adapter.dead_letters(BILLING).browse(10)
            topic = BILLING.dead_letter
            await adapter.send(topic, [Wire(record.body, {}, len(record.body) + 1)])
            letters = bus.dead_letters("orders", "billing")
            (letter,) = await letters.list()
            assert await letters.purge([letter.id]) == 1
            assert not await letters.list()

    run(main())
    assert not dead(world).locked
    assert not dead(world).ready


def test_redriving_reaches_one_subscription_and_clears_the_dead_letter(world: World) -> None:
    async def main() -> None:
        handled: list[str] = []
        broken = True

        async def bill(delivery: Delivery) -> None:
            if broken:
                raise Reject("broken")
            handled.append(f"billing {delivery.event.id} {sorted(delivery.event.extensions)}")

        async def ship(delivery: Delivery) -> None:
            handled.append(f"shipping {delivery.event.id}")

        bus = Bus(adapter=world.adapter(), provision="never")
        bus.subscribe("orders", "billing", lease=2)(bill)
        bus.subscribe("orders", "shipping", lease=2)(ship)
        async with bus, bus.running():
            await bus.publish_many("orders", [event(n, extensions={"tenant": "t"}) for n in range(30)])
            await until(lambda: len(dead(world).ready) == 30 and len(handled) == 30)
            broken = False
            handled.clear()
            assert await bus.dead_letters("orders", "billing").redrive() == 30
            await until(lambda: len(handled) == 30)
            await asyncio.sleep(0.5)
            assert sorted(handled) == sorted(f"billing o-{n} ['tenant']" for n in range(30))
            assert not await bus.dead_letters("orders", "billing").list()

    run(main(), limit=60)
    # One look, then one request for each: not a look for each.
    receives = [path for _, path in world.namespace.requests if f"{DEAD}/" in path and ":receive" in path]
    assert len(receives) < 10, receives


def test_what_is_no_event_cannot_be_put_back(world: World) -> None:
    async def main() -> None:
        adapter = world.adapter()
        await adapter.open()
        try:
            good = adapter.encode(BILLING.topic, event())
            outcomes = await adapter.dead_letters(BILLING).redeliver([Wire(b"\x00", {}, 1), good])
            assert [outcome.code for outcome in outcomes] == [ErrorCode.INVALID_REQUEST, None]
        finally:
            await adapter.close()

    run(main())


def test_removing_after_the_locks_ended_removes_all_the_same(world: World) -> None:
    async def main() -> None:
        async with rejecting(world) as bus:
            await bury(world, bus, 3)
            queue = bus.adapter_for("orders").dead_letters(BILLING)
            records = await queue.browse(10)
            await asyncio.sleep(shelf.KEEP + 2.5)  # given back, and then nobody holds them
            assert await queue.delete([record.lease for record in records]) == [LeaseOutcome.OK] * 3
            assert await queue.delete([records[0].lease]) == [LeaseOutcome.LOST]
            assert not await queue.browse(10)

    run(main())


def test_what_was_received_ten_times_is_gone_from_a_subscription(world: World) -> None:
    """What the documentation says of Event Grid, and why attempts are bounded: no blob, no event."""

    async def main() -> None:
        adapter = world.adapter()
        await adapter.open()
        try:
            await adapter.send(BILLING.topic, [adapter.encode(BILLING.topic, event())])
            receiver = await adapter.open_receiver(BILLING, 1)
            for attempt in range(1, 11):
                (one,) = await receiver.receive(1, 5)
                assert one.attempt == attempt
                await receiver.settle([Settlement(one.lease, 0.0)])
            assert await receiver.receive(1, 1) == []
            await receiver.close()
        finally:
            await adapter.close()

    run(main())
    assert len(world.namespace.topics["orders"]["billing"].dropped) == 1


def test_a_failure_at_the_tenth_receive_is_recorded(world: World) -> None:
    async def main() -> None:
        bus = Bus(adapter=world.adapter(), provision="never")

        async def fail(delivery: Delivery) -> None:
            raise RuntimeError("always")

        retry = RetryPolicy(attempts=10, first_delay=0.01, max_delay=0.01, jitter=False)
        bus.subscribe("orders", "billing", lease=2, retry=retry)(fail)
        async with bus, bus.running():
            await bus.publish("orders", event())
            await until(lambda: len(dead(world).ready) == 1)
            (letter,) = await bus.dead_letters("orders", "billing").list()
            assert letter.attempts == 10

    run(main())
    assert not world.namespace.topics["orders"]["billing"].dropped
