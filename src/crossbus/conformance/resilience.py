"""Resilience: the provider, the network, the credentials and other consumers fail; nothing is lost."""

from __future__ import annotations

from crossbus.adapter import Adapter, SendOutcome, Wire
from crossbus.conformance import network, processes  # noqa: F401 (their cases)
from crossbus.conformance.cases import case
from crossbus.conformance.interrupted import interrupted
from crossbus.conformance.trial import Trial
from crossbus.conformance.wrap import Watch
from crossbus.deduplicate import Deduplicate, MemoryStore
from crossbus.delivery import Delivery
from crossbus.errors import ErrorCode
from crossbus.event import Event
from crossbus.topology import Topic
from crossbus.wire import WIRE, WIRE_VERSION


@case(
    "resilience/provider-restarts",
    "the provider restarts at one third and at two thirds, in order: none lost",
    requires={"restarts"},
    timeout=5,
    exclusive=True,
)
async def provider_restarts(t: Trial) -> None:
    await interrupted(t, lambda: t.harness.restart(t.id, "terminate"))


@case(
    "resilience/provider-killed",
    "the provider is killed at one third and at two thirds, and starts again: none lost that it had taken",
    requires={"restarts"},
    timeout=5,
    exclusive=True,
)
async def provider_killed(t: Trial) -> None:
    await interrupted(t, lambda: t.harness.restart(t.id, "kill"))


@case("resilience/throttled", "throttled, then fine: published once, and in the end")
async def throttled(t: Trial) -> None:
    left = 3

    def throttle(to: Topic, wire: Wire) -> SendOutcome | None:
        nonlocal left
        if left == 0:
            return None
        left -= 1
        return SendOutcome(code=ErrorCode.THROTTLED, message="throttled (put in by the kit)", retryable=True)

    watches: list[Watch] = []

    def wrap(adapter: Adapter) -> Adapter:
        watches.append(Watch(adapter, on_send=throttle))
        return watches[-1]

    bus, topic = t.bus(wrap=wrap), t.topic()
    inbox = t.inbox(bus, topic, "throttled")
    events = t.events(5)
    async with t.consuming(bus):
        await bus.publish(topic, events[0])
        assert left == 0, "a publish that was throttled was not tried again until it went"
        left = 2
        await bus.publish_many(topic, events[1:])
        await t.once(inbox, events)
    assert watches[0].resent() == 0, "an event was sent again although the provider had taken it"


@case(
    "resilience/credentials-rotate",
    "credentials expire and rotate while running: none lost",
    starred=True,
    requires={"credentials"},
    timeout=5,
    exclusive=True,
)
async def credentials_rotate(t: Trial) -> None:
    await interrupted(t, lambda: t.harness.expire_credentials(t.id))


@case(
    "resilience/next-wire-version",
    "a wire form of the next version is given back, not dead-lettered",
    starred=True,
    requires={"dead_letters"},
)
async def next_wire_version(t: Trial) -> None:
    watches: list[Watch] = []

    def wrap(adapter: Adapter) -> Adapter:
        watches.append(Watch(adapter))
        return watches[-1]

    bus, topic = t.bus(wrap=wrap), t.topic()
    inbox = t.inbox(bus, topic, "older", lease=t.lease(30))
    newer = t.events(1)[0].replace(id=f"{t.id}-newer", extensions={WIRE: WIRE_VERSION + 1})
    plain = t.events(1)[0]
    async with t.consuming(bus):
        await t.send_wire(bus, topic, newer)
        await bus.publish(topic, plain)
        await t.once(inbox, [plain], quiet=5.0)
        letters = await bus.dead_letters(topic, "older").list()
        assert not letters, f"a wire form of the next version is in the dead letter: {letters[0].reason}"
        assert "give back" in watches[0].log, "a wire form of the next version was not given back"
    # It is still there, for a release that can read it.
    adapter = await t.adapter()
    receiver = await t.receiver(adapter, bus.topology.subscriptions[0])
    (kept,) = await t.take(receiver, 1, within=600)
    assert adapter.decode(kept).id == newer.id, "another event than that of the next version was left"


@case("resilience/duplicates-dropped", "duplicates can be dropped by (source, id)", starred=True)
async def duplicates_dropped(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    event = t.events(1)[0]
    other_source = event.replace(source="/conformance/other")
    other_id = event.replace(id=f"{t.id}-other")
    failed: list[Event] = []

    async def fail_once(delivery: Delivery) -> None:
        # A duplicate is one of an event that was handled: a failure must not use up its one time.
        if not failed:
            failed.append(delivery.event)
            raise RuntimeError("failing once")

    inbox = t.inbox(bus, topic, "suppressed", fail_once, middleware=[Deduplicate(MemoryStore())])
    async with t.consuming(bus):
        await bus.publish(topic, event)
        await t.until(
            lambda: event.id in inbox.done, "an event that failed once was taken for its own duplicate"
        )
        for _ in range(3):
            await bus.publish(topic, event)
        await bus.publish(topic, other_source)
        await bus.publish(topic, other_id)
        await t.until(
            lambda: other_id.id in inbox.done and inbox.done.count(event.id) >= 2,
            "an event with another source, or another id, was dropped as a duplicate",
        )
        await t.elapse(3.0)
    handled = sorted((event.id, event.source) for event in inbox.events)
    handled.remove((failed[0].id, failed[0].source))
    wanted = sorted((e.id, e.source) for e in (event, other_source, other_id))
    assert handled == wanted, f"with duplicates dropped, the handler was given {handled} instead of {wanted}"
