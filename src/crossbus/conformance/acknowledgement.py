"""Acknowledgement: what is not acknowledged comes again, and what is does not."""

from __future__ import annotations

import asyncio

from crossbus.adapter import LeaseOutcome, Settlement
from crossbus.conformance.cases import case
from crossbus.conformance.trial import Trial
from crossbus.delivery import Delivery
from crossbus.outcomes import Retry


@case("acknowledgement/retry-comes-again", "an event whose handler failed comes again, the others do not")
async def retry_comes_again(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = t.events(20)
    failing = {events[3].id, events[7].id}

    async def fail_once(delivery: Delivery) -> None:
        id = delivery.event.id
        if id in failing and inbox.counts[id] == 1:
            raise Retry(after=0) if id == events[3].id else ValueError("failing once")

    inbox = t.inbox(bus, topic, "retried", fail_once)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.arrive(inbox, [event for event in events if event.id in failing], times=2)
        await t.arrive(inbox, events)
        await t.elapse(2.0)
    again = {id for id, count in inbox.counts.items() if count > 1}
    t.duplicates(inbox.name, len(again - failing))
    assert set(inbox.done) == {event.id for event in events}, "not every event was handled in the end"


@case(
    "acknowledgement/retry-with-delay",
    "a retry with a delay comes after the delay, and not before",
    requires={"retry_delay"},
)
async def retry_with_delay(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    delays = {0: 0.0, 1: 2.0, 2: 5.0}
    events = t.events(len(delays))

    delayed: dict[str, str] = {}

    async def delay(delivery: Delivery) -> None:
        if delivery.event.id not in delayed:
            delayed[delivery.event.id] = delivery.message_id
            raise Retry(after=delays[delivery.event.data["number"]])

    inbox = t.inbox(bus, topic, "delayed", delay)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.until(
            lambda: all(inbox.gaps(event.id) for event in events), "not every delayed event came again"
        )
    for event, wanted in zip(events, delays.values(), strict=True):
        gap = inbox.gaps(event.id)[0]
        assert gap >= wanted * 0.9, f"a retry after {wanted:g} s came after {gap:.2f} s already"
        assert gap <= wanted + 30 * t.harness.patience, (
            f"a retry after {wanted:g} s came after {gap:.1f} s only"
        )


@case("acknowledgement/double-ack", "acknowledging twice is harmless")
async def double_ack(t: Trial) -> None:
    topic = t.topic()
    (subscription,) = await t.provide((topic, "twice"), lease=t.lease())
    adapter = await t.adapter()
    receiver = await t.receiver(adapter, subscription)
    await t.send(adapter, subscription.topic, t.events(3))
    received = await t.take(receiver, 3)
    leases = [one.lease for one in received]
    first = await receiver.settle([Settlement(lease) for lease in leases[:2]])
    assert list(first) == [LeaseOutcome.OK] * 2, (
        f"acknowledging two deliveries in time answered {list(first)}"
    )
    second = await receiver.settle([Settlement(lease) for lease in leases])
    assert len(second) == 3, f"settling three deliveries gave {len(second)} answers"
    assert LeaseOutcome.FAILED not in second, f"acknowledging again answered {list(second)}"
    assert second[2] is LeaseOutcome.OK, f"an ack beside two repeated ones answered {second[2]}"
    await t.nothing(receiver, t.lease() * 2, "it was acknowledged")

    bus = t.bus()
    bus.subscribe(topic, "twice", lease=t.lease())
    async with bus:
        await bus.publish(topic, t.events(1)[0])
        async with bus.deliveries(topic, "twice") as deliveries:
            delivery = await t.within(anext(deliveries), "a delivery of the pull form")
            await delivery.ack()
            await delivery.ack()


@case(
    "acknowledgement/ack-then-retry", "giving back what was acknowledged is harmless: it stays acknowledged"
)
async def ack_then_retry(t: Trial) -> None:
    topic = t.topic()
    (subscription,) = await t.provide((topic, "then-retry"), lease=t.lease())
    adapter = await t.adapter()
    receiver = await t.receiver(adapter, subscription)
    await t.send(adapter, subscription.topic, t.events(2))
    received = await t.take(receiver, 2)
    await receiver.settle([Settlement(one.lease) for one in received])
    back = t.capabilities.retry_delays.floor(0.0)
    outcomes = await receiver.settle([Settlement(one.lease, back) for one in received])
    assert len(outcomes) == 2, f"giving back two deliveries gave {len(outcomes)} answers"
    assert LeaseOutcome.FAILED not in outcomes, f"giving back what was acknowledged answered {list(outcomes)}"
    await t.nothing(receiver, t.lease() * 2, "it was acknowledged before it was given back")


@case(
    "acknowledgement/ack-after-lease",
    "an ack after the lease ended is reported, not raised, and takes the event from nobody",
    starred=True,
)
async def ack_after_lease(t: Trial) -> None:
    topic = t.topic()
    (subscription,) = await t.provide((topic, "late"), lease=t.lease())
    adapter = await t.adapter()
    receiver, other = await t.receiver(adapter, subscription), await t.receiver(adapter, subscription)
    await t.send(adapter, subscription.topic, t.events(1))
    (late,) = await t.take(receiver, 1)
    await t.elapse(late.lease_seconds * 1.1)
    (again,) = await t.take(other, 1, within=30 + t.lease())
    (outcome,) = await receiver.settle([Settlement(late.lease)])
    assert isinstance(outcome, LeaseOutcome), f"a late ack answered {outcome!r}"
    assert outcome is not LeaseOutcome.FAILED, (
        "a late ack answered FAILED, which asks for another try; LOST is due"
    )
    if outcome is LeaseOutcome.LOST:
        (kept,) = await other.settle([Settlement(again.lease)])
        assert kept is LeaseOutcome.OK, (
            f"a late ack took the event from who had it: its own ack answered {kept}"
        )
    await t.nothing(other, t.lease() * 2, f"its ack was answered with {outcome}")


@case(
    "acknowledgement/cancelled-handler",
    "a handler that was cancelled, by its timeout or by closing, has not acknowledged",
    starred=True,
)
async def cancelled_handler(t: Trial) -> None:
    topic = t.topic()
    event = t.events(1)[0]
    cancelled: list[str] = []

    async def hang_twice(delivery: Delivery) -> None:
        if len(cancelled) < 2:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(delivery.event.id)

    first = t.bus(drain_limit=0.2)
    inbox = t.inbox(first, topic, "cancelled", hang_twice, timeout=2.0)
    async with t.consuming(first):
        await first.publish(topic, event)
        # Once cancelled by its timeout; the second time, by closing.
        await t.arrive(inbox, [event], times=2)
    assert len(cancelled) >= 2, "closing a bus did not cancel the handler that ran beyond the drain limit"
    second = t.bus()
    later = t.inbox(second, topic, "cancelled")
    async with t.consuming(second):
        await t.arrive(later, [event], within=60 + t.lease(60))
        if t.capabilities.has("dead_letters"):
            letters = await second.dead_letters(topic, "cancelled").list()
            assert not letters, f"a cancelled handler's event is in the dead letter: {letters[0].reason}"


@case("acknowledgement/ack-during-drain", "an ack that falls into the drain lands", starred=True)
async def ack_during_drain(t: Trial) -> None:
    topic = t.topic()
    events = t.events(5)

    async def work(delivery: Delivery) -> None:
        await t.elapse(2.0)

    bus = t.bus()
    inbox = t.inbox(bus, topic, "drained", work, lease=t.lease())
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.arrive(inbox, events)
    assert len(set(inbox.done)) == 5, (
        f"closing cut off {5 - len(set(inbox.done))} of 5 handlers within the drain limit"
    )
    after = t.bus()
    again = t.inbox(after, topic, "drained", lease=t.lease())
    async with t.consuming(after):
        await t.elapse(t.lease() * 2)
    t.duplicates(f"{topic}/drained after the drain", len(again), example=next(iter(again.ids), ""))
