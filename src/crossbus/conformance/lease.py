"""Lease: a delivery is one consumer's while its lease holds, and comes again when it ends."""

from __future__ import annotations

from crossbus.adapter import LeaseOutcome, Settlement
from crossbus.conformance.cases import case
from crossbus.conformance.trial import Trial
from crossbus.delivery import Delivery


@case("lease/expiry", "a delivery whose lease ends comes again, and not before")
async def expiry(t: Trial) -> None:
    (subscription,) = await t.provide((t.topic(), "expiring"), lease=t.lease())
    adapter = await t.adapter()
    receiver, other = await t.receiver(adapter, subscription), await t.receiver(adapter, subscription)
    await t.send(adapter, subscription.topic, t.events(1))
    (first,) = await t.take(receiver, 1)
    assert first.lease_seconds <= t.lease() * 1.5, (
        f"the subscription has leases of {t.lease():g} s, but a delivery says {first.lease_seconds:g} s"
    )
    await t.nothing(other, first.lease_seconds * 0.6, "another consumer has a lease on it")
    (again,) = await t.take(other, 1, within=30 + t.lease())
    assert again.message_id == first.message_id, (
        f"message {first.message_id!r} came again under another message id, {again.message_id!r}"
    )
    assert again.body == first.body, "a message came again with another body"
    if t.capabilities.has("attempts"):
        assert (first.attempt, again.attempt) == (1, 2), (
            f"the attempts of a message that came twice are {first.attempt} and {again.attempt}, not 1 and 2"
        )
    (outcome,) = await other.settle([Settlement(again.lease)])
    assert outcome is LeaseOutcome.OK, f"the ack of the second delivery answered {outcome}"


@case("lease/extension", "an extended lease holds", requires={"extend_lease"})
async def extension(t: Trial) -> None:
    lease = t.lease(6)  # long enough that a busy machine is not late by what is left of it
    (subscription,) = await t.provide((t.topic(), "extended"), lease=lease)
    adapter = await t.adapter()
    receiver, other = await t.receiver(adapter, subscription), await t.receiver(adapter, subscription)
    await t.send(adapter, subscription.topic, t.events(1))
    (held,) = await t.take(receiver, 1)
    for _ in range(4):
        (outcome,) = await receiver.extend([held.lease], lease)
        assert outcome is LeaseOutcome.OK, f"extending a lease in time answered {outcome}"
        await t.nothing(other, lease * 0.4, "its lease was extended")
    (outcome,) = await receiver.settle([Settlement(held.lease)])
    assert outcome is LeaseOutcome.OK, f"the ack after extending answered {outcome}"
    await t.nothing(other, lease * 1.1, "it was acknowledged under an extended lease")


@case(
    "lease/long-handler",
    "a handler longer than the lease keeps it: no second consumer gets the event",
    starred=True,
    requires={"extend_lease"},
)
async def long_handler(t: Trial) -> None:
    topic = t.topic()
    lease = t.lease()
    events = t.events(3)

    async def long(delivery: Delivery) -> None:
        await t.elapse(lease * 4)

    buses = [t.bus() for _ in range(2)]
    inboxes = [t.inbox(bus, topic, "long", long, lease=lease, concurrency=3) for bus in buses]
    async with t.consuming(*buses):
        await buses[0].publish_many(topic, events)
        wanted = {event.id for event in events}
        await t.until(
            lambda: wanted <= {*inboxes[0].done, *inboxes[1].done},
            "a handler that takes four times the lease did not end with its event",
            within=60 + lease * 10,
        )
        await t.elapse(lease * 1.5)
    taken = inboxes[0].ids + inboxes[1].ids
    t.duplicates(
        f"{topic}/long (handlers of {lease * 4:g} s, leases of {lease:g} s)", len(taken) - len(set(taken))
    )
    if not t.capabilities.duplicates:
        attempts = {delivery.attempt for inbox in inboxes for delivery in inbox.deliveries}
        assert attempts <= {1, None}, f"events with one handler were handed out at attempts {attempts}"


@case(
    "lease/buffered",
    "deliveries that are buffered and not started keep their lease",
    starred=True,
    requires={"extend_lease"},
)
async def buffered(t: Trial) -> None:
    topic = t.topic()
    lease = t.lease()
    events = t.events(5)
    bus, rival = t.bus(), t.bus()
    bus.subscribe(topic, "buffered", lease=lease)
    rival_inbox = t.inbox(rival, topic, "buffered", lease=lease)
    async with bus:
        await bus.publish_many(topic, events)
        async with bus.deliveries(topic, "buffered", max=5) as deliveries:
            first = await t.within(anext(deliveries), "the first of five deliveries")
            taken = [first]
            # What was fetched and not asked for yet waits in the buffer, for longer than the lease.
            await t.elapse(1.0)
            health = bus.health().subscriptions[f"{topic}/buffered"]
            async with t.consuming(rival):
                await t.elapse(lease * 3)
                taken += [
                    await t.within(anext(deliveries), "a buffered delivery")
                    for _ in range(health.in_hand - 1)
                ]
                for delivery in taken:
                    outcome = await delivery.ack()
                    assert outcome is not LeaseOutcome.LOST or t.capabilities.duplicates, (
                        f"the lease of {delivery.event.id!r}, buffered for {lease * 3:g} s, was lost"
                    )
                await t.elapse(lease * 2)
    mine = {delivery.event.id for delivery in taken}
    t.duplicates(f"{topic}/buffered", len(mine & set(rival_inbox.ids)))
    missing = {event.id for event in events} - mine - set(rival_inbox.ids)
    assert not missing, f"{len(missing)} of five buffered events were handled by nobody"
