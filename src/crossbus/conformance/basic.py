"""Basic: sending and receiving, sharing and not mixing, and what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from crossbus.bus import Bus
from crossbus.conformance.cases import case
from crossbus.conformance.compare import same_events
from crossbus.conformance.trial import Trial
from crossbus.delivery import Delivery
from crossbus.errors import NotFound
from crossbus.event import Event
from crossbus.filters import exact
from crossbus.topology import Subscription, Topic, Topology


@case("basic/send-and-receive", "what is published is received, and the receipt names it")
async def send_and_receive(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    inbox = t.inbox(bus, topic, "receiver")
    events = t.events(3)
    async with t.consuming(bus):
        receipts = [await bus.publish(topic, event) for event in events]
        await t.once(inbox, events)
    for receipt, event in zip(receipts, events, strict=True):
        assert receipt.event_id == event.id, f"the receipt of event {event.id!r} names {receipt.event_id!r}"
        assert receipt.topic == topic, f"the receipt of topic {topic!r} names {receipt.topic!r}"
        assert receipt.message_id, f"the receipt of event {event.id!r} has no message id of the provider"
    assert len({receipt.message_id for receipt in receipts}) == 3, "three events share a message id"
    for delivery in inbox.deliveries:
        assert (delivery.topic, delivery.subscription) == (topic, "receiver"), (
            f"a delivery of {topic}/receiver says that it is of {delivery.topic}/{delivery.subscription}"
        )
    by_id = {event.id: event for event in inbox.events}
    same_events(events, [by_id[event.id] for event in events])


@case(
    "basic/existing-resources",
    "an existing topic and subscription are used as they are",
    starred=True,
    requires={"provision", "filter"},
)
async def existing_resources(t: Trial) -> None:
    topic = t.topic()
    owner = t.bus()
    wanted = exact(type="com.example.wanted")
    owner.subscribe(topic, "adopted", filter=wanted, lease=t.lease(30))
    async with owner:
        await owner.provision()
    # Declares another lease than the owner did: it must leave what the owner made as it is.
    user = t.bus(provision="never")
    inbox = t.inbox(user, topic, "adopted", filter=wanted, lease=t.lease(45))
    yes, no = t.events(3, type="com.example.wanted"), t.events(3, type="com.example.other")
    async with t.consuming(user):
        await user.publish_many(topic, [e.replace(id=f"{e.id}-no") for e in no] + yes)
        await t.once(inbox, yes)
    async with owner:
        changes = await owner.provision(dry_run=True)
    assert not changes, f"a bus that may create nothing changed what existed; to repair: {changes[0]}"


@case(
    "basic/provisioning-off",
    "with provisioning off, what is missing is NotFound, and nothing is created",
    starred=True,
    requires={"provision"},
)
async def provisioning_off(t: Trial) -> None:
    topic = t.topic()
    bus = t.bus(provision="never")
    bus.subscribe(topic, "missing")
    await _not_found(bus.open(), f"opening with {topic}/missing declared, which is not there")
    assert not bus.is_open, "a bus whose opening failed says that it is open"
    publisher = t.bus(provision="never")
    publisher.topic(topic)
    await _not_found(publisher.open(), f"opening with topic {topic} declared, which is not there")
    adapter = await t.adapter()
    declared = Topic(topic)
    looked = await adapter.inspect(Topology((declared,), (Subscription(topic=declared, name="missing"),)))
    states = {finding.name: finding.state for finding in looked}
    assert set(states.values()) == {"missing"}, f"with provisioning off, opening created something: {states}"


@case("basic/two-subscriptions", "two subscriptions of a topic each get all events")
async def two_subscriptions(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    first, second = t.inbox(bus, topic, "first"), t.inbox(bus, topic, "second")
    events = t.events(20)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.once(first, events)
        await t.once(second, events)


@case("basic/competing-consumers", "the consumers of one subscription share its events")
async def competing_consumers(t: Trial) -> None:
    topic = t.topic()
    buses = [t.bus() for _ in range(3)]

    async def work(delivery: Delivery) -> None:
        await t.elapse(1.0)

    inboxes = [t.inbox(bus, topic, "shared", work, concurrency=2) for bus in buses]
    events = t.events(t.size(100, least=30))
    async with t.consuming(*buses):
        await buses[0].publish_many(topic, events)
        wanted = {event.id for event in events}
        await t.until(
            lambda: wanted <= {id for inbox in inboxes for id in inbox.done},
            lambda: (
                f"three consumers handled {len({id for i in inboxes for id in i.done})} of {len(wanted)} events"
            ),
            within=300,
        )
        await t.elapse(1.0)
    done = [id for inbox in inboxes for id in inbox.done]
    t.duplicates(f"{topic}/shared", len(done) - len(set(done)))
    counts = [len(inbox) for inbox in inboxes]
    assert min(counts) > 0, f"one of three consumers was given nothing while the others worked: {counts}"


@case("basic/topics-do-not-mix", "what is published to one topic does not come out of another")
async def topics_do_not_mix(t: Trial) -> None:
    bus, one, other = t.bus(), t.topic(), t.topic()
    first, second = t.inbox(bus, one, "same-name"), t.inbox(bus, other, "same-name")
    events = t.events(20)
    async with t.consuming(bus):
        await bus.publish_many(one, events[:10])
        await bus.publish_many(other, events[10:])
        await t.once(first, events[:10])
        await t.once(second, events[10:])


@case("basic/many-topics", "20 topics with 100 events each at once")
async def many_topics(t: Trial) -> None:
    bus = t.bus()
    each = t.size(100)
    topics = [t.topic() for _ in range(t.size(20, least=5))]
    inboxes = [t.inbox(bus, topic, "many", lease=t.lease(60)) for topic in topics]
    events = [[e.replace(id=f"{e.id}-{n}") for e in t.events(each)] for n in range(len(topics))]
    async with t.consuming(bus):
        await asyncio.gather(
            *(bus.publish_many(topic, own) for topic, own in zip(topics, events, strict=True))
        )
        for inbox, own in zip(inboxes, events, strict=True):
            await t.once(inbox, own, within=120, quiet=0.1)


@case("basic/load", "5,000 events, 50 publishers, 50 consumers: none lost", timeout=3)
async def load(t: Trial) -> None:
    topic = t.topic()
    people = t.size(50, least=5)
    events = t.events(t.size(5000, least=200))
    buses = [t.bus() for _ in range(people)]
    inboxes = [t.inbox(bus, topic, "load", lease=t.lease(60)) for bus in buses]
    publisher = t.bus()
    publisher.topic(topic)
    wanted = {event.id for event in events}

    def left() -> set[str]:
        return wanted.difference(*(inbox.counts for inbox in inboxes))

    async with publisher, t.consuming(*buses):
        await asyncio.gather(*(_publish_all(publisher, topic, events[n::people]) for n in range(people)))
        await t.until(
            lambda: not left(), lambda: f"{len(left())} of {len(wanted)} events were lost", within=300
        )
        await t.elapse(1.0)
    strangers = {id for inbox in inboxes for id in inbox.counts} - wanted
    assert not strangers, f"events came that nobody published: {sorted(strangers)[:3]}"
    t.duplicates(f"{topic}/load", sum(len(inbox) for inbox in inboxes) - len(wanted))


@case("basic/unknown-topic", "publishing to a topic that is not there is NotFound")
async def unknown_topic(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    bus.topic(topic)
    missing = t.topic()
    async with bus:
        await _not_found(bus.publish(missing, t.events(1)[0]), f"publishing to the unknown topic {missing}")


@case("basic/unknown-subscription", "consuming a subscription that is not there is NotFound")
async def unknown_subscription(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    bus.topic(topic)
    async with bus:
        pass
    adapter = await t.adapter()
    missing = Subscription(topic=Topic(topic), name="missing")

    async def consume() -> None:
        receiver = await t.receiver(adapter, missing)
        await receiver.receive(1, t.capabilities.receive_wait[0])

    await _not_found(consume(), f"consuming the unknown subscription {missing}")


async def _publish_all(bus: Bus, topic: str, events: Sequence[Event]) -> None:
    for event in events:
        await bus.publish(topic, event)


async def _not_found(call: Awaitable[object], what: str) -> None:
    try:
        await call
    except NotFound:
        return
    except Exception as error:
        raise AssertionError(
            f"{what} raised {type(error).__name__} ({error}); it should raise NotFound"
        ) from error
    raise AssertionError(f"{what} went well; it should raise NotFound")
