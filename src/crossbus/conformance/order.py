"""Order: events of one key one after the other, as published; and no further than that."""

from __future__ import annotations

import asyncio

from crossbus.adapter import SendOutcome, Wire
from crossbus.conformance.cases import case
from crossbus.conformance.replay import check_order
from crossbus.conformance.trial import Trial
from crossbus.conformance.wrap import Watch
from crossbus.delivery import Delivery
from crossbus.errors import ErrorCode, PartialPublishError
from crossbus.event import Event
from crossbus.outcomes import Reject, Retry
from crossbus.topology import Topic


def _keyed(t: Trial, keys: list[str], prefix: str = "") -> list[Event]:
    return [
        event.replace(id=f"{event.id}{prefix}", extensions={"partitionkey": key})
        for event, key in zip(t.events(len(keys)), keys, strict=True)
    ]


@case(
    "order/per-key",
    "1,000 events of 16 keys with 10 consumers: each key in order",
    requires={"ordering"},
    timeout=3,
)
async def per_key(t: Trial) -> None:
    topic = t.topic()
    consumers = t.size(10, least=3)
    events = _keyed(t, [f"key-{n % 16}" for n in range(t.size(1000, least=160))])
    log: list[Event] = []
    running: set[object] = set()
    overlaps: list[object] = []

    async def note(delivery: Delivery) -> None:
        key = delivery.event.extensions["partitionkey"]
        if key in running:
            overlaps.append(key)
        running.add(key)
        log.append(delivery.event)
        await asyncio.sleep(0)
        running.discard(key)

    buses = [t.bus() for _ in range(consumers)]
    for bus in buses:
        t.inbox(bus, topic, "ordered", note, ordered=True)
    async with t.consuming(*buses):
        await buses[0].publish_many(topic, events)
        wanted = {event.id for event in events}
        await t.until(
            lambda: len(log) >= len(wanted) and wanted <= {event.id for event in log},
            lambda: (
                f"{len(wanted - {event.id for event in log})} of {len(wanted)} ordered events are missing"
            ),
            within=300,
        )
    check_order(log, f"{topic}/ordered with {consumers} consumers")
    t.duplicates(f"{topic}/ordered", len(log) - len(wanted))
    assert not overlaps or t.capabilities.duplicates, f"two handlers ran at once on key {overlaps[0]!r}"


@case("order/retry-holds-key", "a retry holds its key", starred=True, requires={"ordering", "retry_delay"})
async def retry_holds_key(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = _keyed(t, ["k", "k", "k"])

    async def fail_first(delivery: Delivery) -> None:
        if delivery.event.id == events[0].id and inbox.counts[events[0].id] <= 2:
            raise Retry(after=2.0)

    inbox = t.inbox(bus, topic, "held", fail_first, ordered=True)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.until(
            lambda: len(set(inbox.done)) == 3, lambda: f"of three events on one key came {inbox.numbers}"
        )
    first_of_second = inbox.ids.index(events[1].id)
    assert inbox.ids[:first_of_second].count(events[0].id) >= 3, (
        f"an event overtook one of its key that was being retried; they came in the order {inbox.numbers}"
    )
    check_order([event for event in inbox.events if event.id in inbox.done], inbox.name)


@case(
    "order/dead-letter-releases-key",
    "a dead letter releases its key",
    starred=True,
    requires={"ordering", "dead_letters"},
)
async def dead_letter_releases_key(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = _keyed(t, ["k", "k", "k"])

    async def refuse_first(delivery: Delivery) -> None:
        if delivery.event.id == events[0].id:
            raise Reject("poison")

    inbox = t.inbox(bus, topic, "released", refuse_first, ordered=True)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.arrive(inbox, events)
        (letter,) = await t.dead(bus, topic, "released", 1)
    assert letter.event is not None and letter.event.id == events[0].id, (
        "another event than the rejected one is dead"
    )
    check_order(inbox.events, inbox.name)


@case("order/failing-key-alone", "a failing key does not hold another", starred=True, requires={"ordering"})
async def failing_key_alone(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = _keyed(t, [*("bad", "good") * 10])
    good = [event for event in events if event.extensions["partitionkey"] == "good"]
    failing = True

    async def fail_bad(delivery: Delivery) -> None:
        if failing and delivery.event.extensions["partitionkey"] == "bad":
            raise Retry(after=20.0)

    inbox = t.inbox(bus, topic, "apart", fail_bad, ordered=True)
    async with t.consuming(bus):
        began = t.now()
        await bus.publish_many(topic, events)
        await t.arrive(inbox, good, within=18)
        assert t.now() - began < 20 * t.harness.patience, (
            "a failing key held another until it was tried again"
        )
        bad = {event.id for event in events} - {event.id for event in good}
        assert len(bad & inbox.counts.keys()) <= 1, "events overtook the failing one of their key"
        failing = False
        await t.until(
            lambda: bad <= set(inbox.done), "a key that failed did not go on when it could", within=120
        )
    check_order([event for event in inbox.events if event.id in inbox.done], inbox.name)


@case(
    "order/failed-publish-stops-key",
    "a failed publish on a key stops that key, and no other; the key recovers",
    starred=True,
    requires={"ordering"},
)
async def failed_publish_stops_key(t: Trial) -> None:
    topic = t.topic()
    events = _keyed(t, ["k", "k", "k", "other", "k", "other"])
    poison = {1}

    class Refusing(Watch):
        def encode(self, topic: Topic, event: Event) -> Wire:
            wire = super().encode(topic, event)
            if topic.kind == "topic" and event.data["number"] in poison:
                refused.append(wire)
            return wire

    refused: list[Wire] = []

    def refuse(to: Topic, wire: Wire) -> SendOutcome | None:
        if any(wire is one for one in refused):
            return SendOutcome(code=ErrorCode.PERMISSION_DENIED, message="refused (put in by the kit)")
        return None

    # Where a request succeeds or fails as a whole, one that is refused in part is none: one event for each.
    most = t.capabilities.publish_batch if t.capabilities.has("partial_publish") else 1
    bus = t.bus(wrap=lambda adapter: Refusing(adapter, on_send=refuse, publish_batch=most))
    inbox = t.inbox(bus, topic, "recovering", ordered=True)
    async with t.consuming(bus):
        try:
            await bus.publish_many(topic, events)
        except PartialPublishError as error:
            failed = [n for n, result in enumerate(error.results) if result.error is not None]
            assert failed == [1, 2, 4], (
                f"event 1 of a key was refused; of events 0 to 5 with key k but 3 and 5, {failed} failed, "
                "not 1 and what stood behind it: 2 and 4"
            )
        else:
            raise AssertionError("publish_many went well although one event was refused")
        poison.clear()
        await bus.publish_many(topic, events[1:3] + events[4:5])
        await t.arrive(inbox, events)
    check_order(inbox.events, inbox.name)


@case("order/no-key", "events without a key run side by side: no key, no promise", requires={"ordering"})
async def no_key(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = t.events(20)

    async def work(delivery: Delivery) -> None:
        await t.elapse(1.0)

    inbox = t.inbox(bus, topic, "unkeyed", work, ordered=True, concurrency=5)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.once(inbox, events, quiet=2.0)
    assert inbox.peak > 1, "events without a key were handled one after the other in an ordered subscription"
