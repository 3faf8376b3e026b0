"""Replay: past events again, to the subscription named and to no other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from crossbus.bus import Bus
from crossbus.conformance.cases import case
from crossbus.conformance.inbox import Inbox
from crossbus.conformance.trial import Trial
from crossbus.deduplicate import Deduplicate, MemoryStore
from crossbus.event import Event


def _two(t: Trial, ordered: bool = False, **options: Any) -> tuple[Bus, str, Inbox, Inbox]:
    bus, topic = t.bus(), t.topic()
    named = t.inbox(bus, topic, "named", ordered=ordered, **options)
    other = t.inbox(bus, topic, "other", ordered=ordered)
    return bus, topic, named, other


@case(
    "replay/from-time", "a replay from a time brings each event since", starred=True, requires={"replay_time"}
)
async def from_time(t: Trial) -> None:
    bus, topic, named, _ = _two(t)
    old = t.events(3, type="com.example.old")
    new = [event.replace(id=f"{event.id}-new") for event in t.events(5)]
    async with t.consuming(bus):
        await bus.publish_many(topic, old)
        await t.arrive(named, old)
        await t.elapse(3.0)
        start = datetime.fromtimestamp(t.clock.time() - 1.0, UTC)
        await bus.publish_many(topic, new)
        await t.arrive(named, new)
        await t.elapse(2.0)
        before = dict(named.counts)
        await bus.replay(topic, "named", time=start)
        await t.until(
            lambda: all(named.counts[event.id] > before[event.id] for event in new),
            lambda: named.missing_text([event.id for event in new], 2),
        )
        await t.elapse(2.0)
    again = [event.id for event in old if named.counts[event.id] > before[event.id]]
    t.duplicates("what is older than the start of a replay", len(again))


@case(
    "replay/from-position",
    "a replay from a position brings each event from there on",
    starred=True,
    requires={"replay_position"},
)
async def from_position(t: Trial) -> None:
    bus, topic, named, _ = _two(t)
    events = t.events(6)
    async with t.consuming(bus):
        await bus.publish_many(topic, events[:3])
        await t.arrive(named, events[:3])
        await t.elapse(2.0)  # until they are acknowledged
        (subscription,) = [one.declaration for one in bus.subscriptions if one.declaration.name == "named"]
        position = await t.harness.position(await t.adapter(), subscription)
        receipts = [await bus.publish(topic, event) for event in events[3:]]
        await t.arrive(named, events)
        await t.elapse(2.0)
        before = dict(named.counts)
        await bus.replay(topic, "named", position=position or receipts[0].message_id)
        await t.until(
            lambda: all(named.counts[event.id] > before[event.id] for event in events[4:]),
            lambda: named.missing_text([event.id for event in events[4:]], 2),
        )
        await t.elapse(2.0)
    again = [event.id for event in events[:3] if named.counts[event.id] > before[event.id]]
    t.duplicates("what is before the position of a replay", len(again))


@case(
    "replay/only-the-subscription",
    "a replay reaches the subscription named and no other",
    starred=True,
    requires={"replay_time"},
)
async def only_the_subscription(t: Trial) -> None:
    bus, topic, named, other = _two(t)
    events = t.events(5)
    start = datetime.fromtimestamp(t.clock.time() - 1.0, UTC)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.arrive(named, events)
        await t.arrive(other, events)
        await t.elapse(2.0)
        before, elsewhere = dict(named.counts), dict(other.counts)
        await bus.replay(topic, "named", time=start)
        await t.until(
            lambda: all(named.counts[event.id] > before[event.id] for event in events),
            lambda: named.missing_text([event.id for event in events], 2),
        )
        await t.elapse(3.0)
    assert other.counts == elsewhere, "a replay of one subscription reached another of the same topic"


@case(
    "replay/in-order",
    "a replay of an ordered subscription is in order",
    starred=True,
    requires={"replay_time", "replay_ordered", "ordering"},
)
async def in_order(t: Trial) -> None:
    bus, topic, named, _ = _two(t, ordered=True)
    events = t.events(t.size(50, least=12))
    keyed = [event.replace(extensions={"partitionkey": f"k-{n % 4}"}) for n, event in enumerate(events)]
    start = datetime.fromtimestamp(t.clock.time() - 1.0, UTC)
    async with t.consuming(bus):
        await bus.publish_many(topic, keyed)
        await t.arrive(named, keyed)
        await t.elapse(2.0)
        seen, before = len(named), dict(named.counts)
        await bus.replay(topic, "named", time=start)
        await t.until(
            lambda: all(named.counts[event.id] > before[event.id] for event in keyed),
            lambda: named.missing_text([event.id for event in keyed], 2),
        )
        await t.elapse(1.0)
    check_order(named.events[seen:], "a replay")


@case(
    "replay/with-duplicate-suppression",
    "a replay reaches the handler with duplicate suppression on, too",
    starred=True,
    requires={"replay_time"},
)
async def with_duplicate_suppression(t: Trial) -> None:
    bus, topic, named, _ = _two(t, middleware=[Deduplicate(MemoryStore())])
    events = t.events(5)
    start = datetime.fromtimestamp(t.clock.time() - 1.0, UTC)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.arrive(named, events)
        await t.elapse(2.0)
        await bus.replay(topic, "named", time=start)
        await t.arrive(named, events, times=2)


def check_order(events: list[Event], where: str) -> None:
    """Fail unless the events of each key, at their first appearance, are in the order of their numbers."""
    last: dict[object, int] = {}
    seen: set[str] = set()
    for event in events:
        if event.id in seen:
            continue
        seen.add(event.id)
        key, number = event.extensions.get("partitionkey"), event.data["number"]
        assert last.get(key, -1) < number, (
            f"{where}: on key {key!r} event {number} came after event {last[key]}"
        )
        last[key] = number
