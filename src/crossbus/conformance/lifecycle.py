"""Lifecycle: opening, closing, and everything that may be under way then."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

from crossbus.bus import Bus
from crossbus.conformance.cases import case
from crossbus.conformance.trial import Trial
from crossbus.delivery import Delivery
from crossbus.errors import BusClosedError
from crossbus.outcomes import Retry

SOON = 10.0
"""Real seconds that closing may take when nothing has to be waited for."""


async def _close_soon(bus: Bus, while_what: str) -> None:
    began = time.monotonic()
    try:
        await asyncio.wait_for(bus.close(), SOON)
    except TimeoutError:
        raise AssertionError(
            f"close while {while_what} took more than {time.monotonic() - began:.0f} s"
        ) from None
    assert not bus.is_open, f"a bus that was closed while {while_what} says that it is open"


@case("lifecycle/close-twice", "close is idempotent, and a closed bus can be opened again")
async def close_twice(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    inbox = t.inbox(bus, topic, "again")
    await bus.close()
    first, second = t.events(2)
    async with t.consuming(bus):
        await bus.publish(topic, first)
        await t.arrive(inbox, [first])
        await bus.open()
    await bus.close()
    await bus.close()
    assert not bus.is_open, "a closed bus says that it is open"
    async with t.consuming(bus):
        await bus.publish(topic, second)
        await t.once(inbox, [first, second])
    await asyncio.gather(bus.close(), bus.close())


@case("lifecycle/close-while-receiving", "close while blocked on receive")
async def close_while_receiving(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    t.inbox(bus, topic, "idle")
    await bus.open()
    async with bus.running():
        await t.elapse(1.0)
        await _close_soon(bus, "receiving")
    puller = t.bus()
    puller.subscribe(topic, "pulled")
    await puller.open()
    async with puller.deliveries(topic, "pulled") as deliveries:
        pulled = asyncio.ensure_future(anext(deliveries, None))
        await t.elapse(1.0)
        await _close_soon(puller, "pulling")
        try:
            await asyncio.wait_for(asyncio.gather(pulled, return_exceptions=True), SOON)
        except TimeoutError:
            raise AssertionError("who waits for a delivery still waits after the bus was closed") from None


@case("lifecycle/close-while-handling", "close while blocked on a handler")
async def close_while_handling(t: Trial) -> None:
    topic = t.topic()
    event = t.events(1)[0]
    ended: list[str] = []

    async def hang(delivery: Delivery) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(delivery.event.id)

    bus = t.bus(drain_limit=0.2)
    inbox = t.inbox(bus, topic, "hanging", hang)
    await bus.open()
    async with bus.running():
        await bus.publish(topic, event)
        await t.arrive(inbox, [event])
        await _close_soon(bus, "a handler hangs, with a drain limit of 0.2 s")
    assert ended, "a handler that hangs was left running after its bus was closed"
    after = t.bus()
    again = t.inbox(after, topic, "hanging")
    async with t.consuming(after):
        await t.arrive(again, [event], within=60 + t.lease(60))


@case("lifecycle/close-while-backing-off", "close while an event waits for its next attempt")
async def close_while_backing_off(t: Trial) -> None:
    topic = t.topic()
    event = t.events(1)[0]

    async def later(delivery: Delivery) -> None:
        raise Retry(after=40.0)

    bus = t.bus()
    inbox = t.inbox(bus, topic, "backing-off", later)
    await bus.open()
    async with bus.running():
        await bus.publish(topic, event)
        await t.arrive(inbox, [event])
        await t.elapse(1.0)
        await _close_soon(bus, "an event waits for its next attempt")
    after = t.bus()
    again = t.inbox(after, topic, "backing-off")
    async with t.consuming(after):
        await t.arrive(again, [event], within=60 + t.lease(60))


@case("lifecycle/drain", "drain finishes and acknowledges what runs, and gives back what is buffered")
async def drain(t: Trial) -> None:
    topic = t.topic()
    events = t.events(20)

    async def work(delivery: Delivery) -> None:
        await t.elapse(2.0)

    bus = t.bus()
    inbox = t.inbox(bus, topic, "drained", work, concurrency=2, lease=t.lease(60))
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.until(lambda: inbox.running == 2, "two handlers did not start")
        await t.elapse(0.5)
    assert inbox.running == 0, f"{inbox.running} handlers still run after the drain"
    assert set(inbox.done) == set(inbox.ids), (
        "a handler that ran when the drain began was cut off within the limit"
    )
    assert len(set(inbox.done)) < 20, "the drain handled everything: the case proves nothing"
    rest = [event for event in events if event.id not in inbox.counts]
    after = t.bus()
    again = t.inbox(after, topic, "drained", lease=t.lease(60))
    async with t.consuming(after):
        # Given back, they come at once: not only when their leases end.
        await t.arrive(again, rest, within=t.lease(60) / 2)
        await t.elapse(1.0)
    t.duplicates(f"{topic}/drained", len(set(inbox.done) & again.counts.keys()))
    await _drain_buffered(t)


async def _drain_buffered(t: Trial) -> None:
    """In the pull form it is certain that something is buffered: what was fetched and not asked for."""
    topic = t.topic()
    events = t.events(10)
    bus = t.bus()
    bus.subscribe(topic, "pulled", lease=t.lease(60))
    async with bus:
        await bus.publish_many(topic, events)
        async with bus.deliveries(topic, "pulled", max=10) as deliveries:
            first = await t.within(anext(deliveries), "a delivery of the pull form")
            await t.elapse(1.0)
            await first.ack()
    rest = [event for event in events if event.id != first.event.id]
    after = t.bus()
    inbox = t.inbox(after, topic, "pulled", lease=t.lease(60))
    async with t.consuming(after):
        await t.arrive(inbox, rest, within=t.lease(60) / 2)


@case("lifecycle/publish-after-close", "publishing before open and after close is a typed error")
async def publish_after_close(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    bus.topic(topic)
    event = t.events(1)[0]

    async def refused(when: str) -> None:
        for many in (False, True):
            try:
                await (bus.publish_many(topic, [event]) if many else bus.publish(topic, event))
            except BusClosedError:
                continue
            raise AssertionError(f"publishing {when} went well; BusClosedError is due")

    await refused("before open")
    async with bus:
        await bus.publish(topic, event)
    await refused("after close")


@case("lifecycle/close-while-publishing", "nothing is lost when the bus closes with publishes in flight")
async def close_while_publishing(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    await t.provide((topic, "late"))
    bus.topic(topic)
    events = t.events(50)
    await bus.open()
    publishing = [asyncio.ensure_future(bus.publish(topic, event)) for event in events]
    await asyncio.sleep(0)
    await bus.close()
    results = await asyncio.gather(*publishing, return_exceptions=True)
    taken = [
        event for event, result in zip(events, results, strict=True) if not isinstance(result, BaseException)
    ]
    odd = [r for r in results if isinstance(r, BaseException) and not isinstance(r, BusClosedError)]
    assert not odd, (
        f"a publish in flight ended with {type(odd[0]).__name__} ({odd[0]}) when its bus was closed"
    )
    after = t.bus()
    inbox = t.inbox(after, topic, "late")
    async with t.consuming(after):
        await t.arrive(inbox, taken)


@case("lifecycle/two-buses", "two buses in one process do not meet")
async def two_buses(t: Trial) -> None:
    one, other = t.bus(), t.bus(world="-other") if t.harness.worlds else t.bus()
    topic = t.topic()
    other_topic = topic if t.harness.worlds else t.topic()
    mine, theirs = t.inbox(one, topic, "same"), t.inbox(other, other_topic, "same")
    events = t.events(10)
    async with t.consuming(one):
        async with t.consuming(other):
            await one.publish_many(topic, events[:5])
            await other.publish_many(other_topic, events[5:])
            await t.once(mine, events[:5])
            await t.once(theirs, events[5:])
        # Closing one leaves the other at work.
        last = events[0].replace(id=f"{t.id}-last")
        await one.publish(topic, last)
        await t.once(mine, [*events[:5], last])
        assert not other.is_open and one.is_open, "closing one bus closed, or left open, the other"


@case(
    "lifecycle/sigterm",
    "SIGTERM during load: none lost, none dead-lettered",
    starred=True,
    exclusive=True,
    requires={"dead_letters"},
)
async def sigterm(t: Trial) -> None:
    topic = t.topic()
    events = t.events(t.size(400, least=60))

    async def work(delivery: Delivery) -> None:
        await t.elapse(0.5)

    # Should `run` not take the signal, it shall not end the process that tests it.
    in_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, lambda *_: None) if in_main else None
    done: list[str] = []
    try:
        await t.provide((topic, "terminated"), lease=t.lease())
        publisher = t.bus()
        publisher.topic(topic)
        async with publisher:
            await publisher.publish_many(topic, events)
        for _ in range(2):
            bus = t.bus()
            inbox = t.inbox(bus, topic, "terminated", work, concurrency=5, lease=t.lease())
            running = asyncio.ensure_future(bus.run())
            await t.until(lambda inbox=inbox: len(inbox.done) >= 10, "a bus that runs handled no ten events")  # type: ignore[misc]
            if in_main:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                running.cancel()
            ended, _ = await asyncio.wait([running], timeout=30)
            assert ended, "bus.run() did not end after SIGTERM"
            if not running.cancelled():
                running.result()
            assert not bus.is_open, "a bus that run() opened is open after SIGTERM"
            assert inbox.running == 0 and set(inbox.ids) == set(inbox.done), (
                "SIGTERM cut off handlers that ran"
            )
            done += inbox.done
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    rest = [event for event in events if event.id not in done]
    assert rest, "SIGTERM came after the load: the case proves nothing"
    after = t.bus()
    last = t.inbox(after, topic, "terminated", concurrency=50, lease=t.lease())
    async with t.consuming(after):
        await t.arrive(last, rest, within=60 + t.lease(60))
        await t.elapse(t.lease() * 2)  # an ack that did not land shows when its lease ends
        letters = await after.dead_letters(topic, "terminated").list()
    assert not letters, f"SIGTERM dead-lettered {len(letters)} events: {letters[0].reason}"
    t.duplicates(f"{topic}/terminated", len(done) - len(set(done)) + len(set(done) & last.counts.keys()))
