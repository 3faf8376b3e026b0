"""Cases with processes of their own: consumers that share, that are killed, and that are asked to end."""

from __future__ import annotations

import asyncio

from crossbus.conformance import letters, lifecycle, network, retry  # noqa: F401 (their cases stand before these)
from crossbus.conformance.cases import case
from crossbus.conformance.interrupted import in_a_row, nothing_dead
from crossbus.conformance.trial import Trial


@case(
    "lifecycle/sigterm-process",
    "SIGTERM of a consuming process under load: it drains, none lost, none dead-lettered",
    starred=True,
    exclusive=True,
    requires={"processes"},
    timeout=3,
)
async def sigterm_process(t: Trial) -> None:
    topic = t.topic()
    events = t.events(t.size(1000, least=60))
    lease = t.lease(10)
    await t.provide((topic, "terminated"), lease=lease)
    bus = t.bus()
    bus.topic(topic)
    done: list[str] = []
    async with bus:
        publishing = asyncio.ensure_future(bus.publish_many(topic, events))
        for _ in range(3):
            child = await t.child(topic, "terminated", work=0.2, lease=lease, concurrency=5)
            await child.until(lambda child=child: len(child.done) >= 8, "it handled no 8 events", within=120)  # type: ignore[misc]
            await child.stop()
            assert set(child.got) == set(child.done), "SIGTERM cut off handlers that ran"
            done += child.done
        await publishing
    rest = [event for event in events if event.id not in done]
    assert rest, "SIGTERM came after the load: the case proves nothing"
    after = t.bus()
    last = t.inbox(after, topic, "terminated", concurrency=50, lease=lease)
    async with t.consuming(after):
        # What it gave back comes at once: not only when its leases end.
        await t.arrive(last, rest, within=60)
        await t.elapse(lease * 1.5)  # an ack that did not land shows when its lease has ended
        await nothing_dead(t, after, topic, "terminated")
    t.duplicates(f"{topic}/terminated", len(done) - len(set(done)) + len(set(done) & last.counts.keys()))


@case(
    "resilience/killed-consumer",
    "kill -9 of a consumer: its deliveries come to another",
    requires={"processes"},
    timeout=3,
)
async def killed_consumer(t: Trial) -> None:
    topic = t.topic()
    events = t.events(10)
    await t.provide((topic, "killed"), lease=t.lease())
    publisher = t.bus()
    publisher.topic(topic)
    async with publisher:
        await publisher.publish_many(topic, events)
    child = await t.child(topic, "killed", lease=t.lease())
    await child.until(lambda: child.got, "it was given nothing", within=60)
    await child.kill()
    assert not child.done
    bus = t.bus()
    inbox = t.inbox(bus, topic, "killed", lease=t.lease())
    async with t.consuming(bus):
        await t.arrive(inbox, events, within=60 + t.lease() * 2)
        await nothing_dead(t, bus, topic, "killed")


@case(
    "resilience/competing-processes",
    "consumers in two processes share a subscription: none lost, no duplicate beyond the declared capability",
    requires={"processes"},
    timeout=3,
    exclusive=True,
)
async def competing_processes(t: Trial) -> None:
    topic = t.topic()
    events = t.events(t.size(1000, least=100))
    lease = t.lease(60)
    await t.provide((topic, "shared"), lease=lease)
    children = [await t.child(topic, "shared", work=0.05, lease=lease, concurrency=5) for _ in range(2)]
    for child in children:
        await child.until(lambda: child.ready, "it did not open its bus")  # noqa: B023
    bus = t.bus()
    bus.subscribe(topic, "shared", lease=lease)
    wanted = {event.id for event in events}

    def missing() -> set[str]:
        return wanted.difference(*(child.done for child in children))

    def missing_text() -> str:
        return f"two processes should be given {len(wanted)} events; {len(missing())} are missing"

    async with bus:
        await bus.publish_many(topic, events)
        await t.until(lambda: not missing(), missing_text, within=120)
        for child in children:
            await child.stop()
            assert child.done, "one of two processes that share a subscription was given everything"
        await nothing_dead(t, bus, topic, "shared")
    done = [id for child in children for id in child.done]
    strangers = set(done) - wanted
    assert not strangers, f"events came that nobody published: {sorted(strangers)[:3]}"
    t.duplicates(f"{topic}/shared", len(done) - len(set(done)))


@case(
    "retry/consumers-killed",
    "20 processes killed in a row with the event in hand dead-letter nothing",
    starred=True,
    requires={"processes", "dead_letters"},
    timeout=5,
    exclusive=True,
)
async def consumers_killed(t: Trial) -> None:
    topic = t.topic()
    event = t.events(1)[0]
    rounds, options = in_a_row(t)
    await t.provide((topic, "killed"), **options)
    publisher = t.bus()
    publisher.topic(topic)
    async with publisher:
        await publisher.publish(topic, event)
    next_child = await t.child(topic, "killed", lease=t.lease())
    for number in range(rounds):
        child = next_child
        await child.until(lambda: child.got, "it was not given the event", within=60 + t.lease() * 2)  # noqa: B023
        if number < rounds - 1:  # begins while the lease of the one before it ends
            next_child = await t.child(topic, "killed", lease=t.lease())
        await child.kill()
    last = t.bus()
    lucky = t.inbox(last, topic, "killed", **options)
    async with t.consuming(last):
        await t.arrive(lucky, [event], within=60 + t.lease() * 2)
        letters = await last.dead_letters(topic, "killed").list()
    assert not letters, (
        f"after {rounds} processes were killed, the event is in the dead letter: {letters[0].reason}"
    )
