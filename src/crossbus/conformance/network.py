"""Resilience, where there is a network: it is cut, in each way in which it can be, and it is slow. Nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Final

from crossbus.adapter import Adapter
from crossbus.conformance.cases import case
from crossbus.conformance.interrupted import OUTAGE, interrupted, nothing_dead, patient_bus
from crossbus.conformance.proxy import Cut
from crossbus.conformance.trial import Trial
from crossbus.conformance.wrap import Watch
from crossbus.delivery import Delivery

DELAY: Final = 0.2
"""Seconds of a slow network, in each direction."""
NARROW: Final = 200_000
"""Bytes per second of a narrow network."""
LARGE: Final = 10_000
"""Bytes of an event's data on a narrow network."""


async def _cut(t: Trial, how: Cut) -> None:
    async with t.harness.cut(t.id, how):
        await t.elapse(OUTAGE)


@case(
    "resilience/connection-cut",
    "the connection is cut, refused for a while, and restored: none lost",
    requires={"network"},
    timeout=5,
    exclusive=True,
)
async def connection_cut(t: Trial) -> None:
    await interrupted(t, lambda: _cut(t, "refused"))


@case(
    "resilience/connection-swallowed",
    "a connection that falls silent and stays so is given up, and another is made: none lost",
    starred=True,
    requires={"network"},
    timeout=8,
    exclusive=True,
)
async def connection_swallowed(t: Trial) -> None:
    await interrupted(t, lambda: _cut(t, "swallowed"))


@case(
    "resilience/publish-unanswered",
    "a publish whose answer is lost with the connection is sent again: none lost, a receipt for each",
    starred=True,
    requires={"network"},
    timeout=5,
    exclusive=True,
)
async def publish_unanswered(t: Trial) -> None:
    bus, topic = patient_bus(t), t.topic()
    inbox = t.inbox(bus, topic, "unanswered", lease=t.lease(10))
    before, *events = t.events(51)
    async with t.consuming(bus):
        await bus.publish(topic, before)
        async with t.harness.cut(t.id, "unanswered"):
            single = asyncio.ensure_future(bus.publish(topic, events[0]))
            many = asyncio.ensure_future(bus.publish_many(topic, events[1:]))
            await t.elapse(OUTAGE)
            assert not single.done() and not many.done(), (
                "a publish had its receipt although no answer came through: the case proves nothing"
            )
        receipts = [
            await t.within(single, "the receipt of a publish whose answer was lost", 300),
            *await t.within(many, "the receipts of a batch whose answer was lost", 300),
        ]
        assert [receipt.event_id for receipt in receipts] == [event.id for event in events], (
            "there is not one receipt for each event of a batch whose answer was lost"
        )
        await t.arrive(inbox, [before, *events], within=300)
        await nothing_dead(t, bus, topic, "unanswered")
    if again := len(inbox) - len(inbox.counts):
        t.notes.append(f"{again} came again")


@case(
    "resilience/settle-unanswered",
    "an ack whose answer is lost with the connection is sent again, harmlessly: it had landed",
    starred=True,
    requires={"network"},
    timeout=5,
    exclusive=True,
)
async def settle_unanswered(t: Trial) -> None:
    watches: list[Watch] = []
    go = asyncio.Event()

    def wrap(adapter: Adapter) -> Adapter:
        watches.append(Watch(adapter))
        return watches[-1]

    async def wait(delivery: Delivery) -> None:
        await go.wait()

    bus, topic = t.bus(wrap=wrap), t.topic()
    *events, last = t.events(6)
    lease = t.lease(10)
    inbox = t.inbox(bus, topic, "acknowledged", wait, lease=lease)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.arrive(inbox, events)
        async with t.harness.cut(t.id, "unanswered"):
            go.set()
            await t.until(lambda: "ack" in watches[0].log, "what was handled was not acknowledged")
            await t.elapse(OUTAGE)
        await t.elapse(lease * 1.5)  # an ack that had not landed shows when its lease has ended
        await bus.publish(topic, last)
        await t.arrive(inbox, [last], within=300)
        t.check_once(inbox, [event.id for event in [*events, last]])
        await nothing_dead(t, bus, topic, "acknowledged")


@case(
    "resilience/slow-network",
    "a network that takes 200 ms each way: leases are kept, and each event comes once",
    requires={"network"},
    timeout=3,
    exclusive=True,
)
async def slow_network(t: Trial) -> None:
    bus, topic = patient_bus(t), t.topic()
    events = t.events(t.size(300, least=30))
    lease = t.lease(10)

    async def work(delivery: Delivery) -> None:
        if delivery.event.id == events[0].id:
            await t.elapse(lease * 1.5)

    inbox = t.inbox(bus, topic, "slow", work, lease=lease)
    async with t.consuming(bus):
        async with t.harness.slow(t.id, delay=DELAY):
            await bus.publish(topic, events[0])
            await bus.publish_many(topic, events[1:])
            await t.until(
                lambda: len(set(inbox.done)) == len(events),
                lambda: f"over a slow network, {inbox.missing_text(e.id for e in events)}",
                within=300,
            )
            await t.elapse(1.0)
        t.check_once(inbox, [event.id for event in events])
        await nothing_dead(t, bus, topic, "slow")


@case(
    "resilience/narrow-network",
    "a network as narrow as 200,000 bytes per second: all is published and handled, and nothing twice",
    starred=True,
    requires={"network"},
    timeout=3,
    exclusive=True,
)
async def narrow_network(t: Trial) -> None:
    bus, topic = patient_bus(t), t.topic()
    events = [event.replace(data="x" * LARGE) for event in t.events(t.size(200, least=30))]
    inbox = t.inbox(bus, topic, "narrow", lease=t.lease(60))
    async with t.consuming(bus):
        async with t.harness.slow(t.id, bytes_per_second=NARROW):
            await bus.publish_many(topic, events)
            await t.once(inbox, events, within=300)
        await nothing_dead(t, bus, topic, "narrow")
