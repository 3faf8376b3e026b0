"""Flow: how much is in hand, who waits for whom, and stopping without losing."""

from __future__ import annotations

import asyncio

from crossbus.adapter import Adapter
from crossbus.conformance.cases import case
from crossbus.conformance.trial import Trial
from crossbus.conformance.wrap import Watch
from crossbus.delivery import Delivery
from crossbus.outcomes import Reject
from crossbus.topology import Breaker


@case("flow/concurrency", "no more handlers run at once than the subscription allows, and no fewer")
async def concurrency(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = t.events(30)

    async def work(delivery: Delivery) -> None:
        await t.elapse(0.5)

    inbox = t.inbox(bus, topic, "capped", work, concurrency=3)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.once(inbox, events)
    assert inbox.peak <= 3, f"{inbox.peak} handlers ran at once; concurrency is 3"
    assert inbox.peak == 3, f"only {inbox.peak} handlers ran at once with 30 events waiting; concurrency is 3"


@case("flow/slow-subscription", "a slow subscription does not slow another")
async def slow_subscription(t: Trial) -> None:
    bus, topic = t.bus(drain_limit=0.2), t.topic()
    events = t.events(50)

    async def slow(delivery: Delivery) -> None:
        await t.elapse(3600)

    slow_inbox = t.inbox(bus, topic, "slow", slow, concurrency=2, timeout=100_000)
    fast_inbox = t.inbox(bus, topic, "fast")
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.arrive(fast_inbox, events)
        assert not slow_inbox.done, "the slow subscription ended before the fast one: the case proves nothing"
    t.check_once(fast_inbox, [event.id for event in events])


@case("flow/back-pressure", "back-pressure stops fetching: what nobody can handle stays with the provider")
async def back_pressure(t: Trial) -> None:
    watch, held = await _blocked(t, t.size(3000, least=300))
    assert held <= watch.windows[0], (
        f"{held} deliveries are in hand; the window asked for was {watch.windows[0]}"
    )


@case(
    "flow/bounded-memory",
    "memory is bounded with 100,000 events waiting",
    starred=True,
    timeout=3,
)
async def bounded_memory(t: Trial) -> None:
    waiting = t.size(100_000, least=2000)
    watch, held = await _blocked(t, waiting)
    bound = min(2000, waiting // 2)
    assert held <= bound, f"with {waiting} events waiting and 2 handlers, {held} are held in memory"
    taken = sum(len(received.body) for received in watch.received)
    assert taken <= 64_000_000, f"{taken} bytes of waiting events are held in memory"


async def _blocked(t: Trial, waiting: int) -> tuple[Watch, int]:
    """Have handlers that never end, and see how much is fetched for them."""
    topic = t.topic()
    await t.provide((topic, "blocked"), lease=t.lease(60))
    publisher = t.bus()
    publisher.topic(topic)
    async with publisher:
        await publisher.publish_many(topic, iter(t.events(waiting)))
    watches: list[Watch] = []

    def wrap(adapter: Adapter) -> Adapter:
        watches.append(Watch(adapter))
        return watches[-1]

    async def block(delivery: Delivery) -> None:
        await asyncio.Event().wait()

    bus = t.bus(wrap=wrap, drain_limit=0.2)
    inbox = t.inbox(bus, topic, "blocked", block, concurrency=2, lease=t.lease(60))
    async with t.consuming(bus):
        await t.until(
            lambda: inbox.running == 2, "two handlers of a subscription with events waiting did not start"
        )
        await t.elapse(3.0)
        before = len(watches[0].in_hand)
        await t.elapse(5.0)
        held = len(watches[0].in_hand)
        assert held <= before, f"fetching went on although nothing is handled: {before} in hand, then {held}"
        assert held < waiting, f"all {waiting} waiting events were fetched for two handlers that do not end"
    return watches[0], watches[0].peak


@case("flow/pause-and-resume", "a paused subscription is given nothing; resumed, it goes on")
async def pause_and_resume(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    before, during = t.events(3), [event.replace(id=f"{event.id}-paused") for event in t.events(5)]
    inbox = t.inbox(bus, topic, "paused")
    beside = t.inbox(bus, topic, "beside")
    async with t.consuming(bus):
        await bus.publish_many(topic, before)
        await t.arrive(inbox, before)
        await bus.pause(topic, "paused")
        await bus.publish_many(topic, during)
        await t.arrive(beside, during)
        await t.elapse(3.0)
        paused = {event.id for event in during}
        assert not paused & inbox.counts.keys(), "a handler of a paused subscription was given an event"
        await bus.resume(topic, "paused")
        await t.once(inbox, [*before, *during], within=60 + t.lease(60))


@case(
    "flow/breaker",
    "a breaker that opened empties nothing into the dead letter",
    starred=True,
    requires={"dead_letters"},
)
async def breaker(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = t.events(t.size(100, least=40))
    broken = True

    async def refuse(delivery: Delivery) -> None:
        if broken:
            raise Reject("the database is gone")

    inbox = t.inbox(bus, topic, "broken", refuse, breaker=Breaker(rejected=5, of=10), concurrency=3)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.until(
            lambda: bus.health().subscriptions[f"{topic}/broken"].state == "paused",
            "a breaker of 5 rejected of 10 did not pause a subscription that rejects everything",
        )
        await t.elapse(5.0)  # what was being written when it opened
        dead = len(await bus.dead_letters(topic, "broken").list())
        await t.elapse(10.0)
        later = len(await bus.dead_letters(topic, "broken").list())
        assert later == dead, f"after the breaker opened, the dead letter went from {dead} to {later}"
        assert dead <= 10, f"{dead} events were dead-lettered before a breaker of 5 rejected of 10 opened"
        broken = False
        await bus.resume(topic, "broken")
        letters = await bus.dead_letters(topic, "broken").list()
        gone = {letter.event.id for letter in letters if letter.event is not None}
        rest = {event.id for event in events} - gone
        await t.until(
            lambda: rest <= set(inbox.done),
            lambda: f"{len(rest - set(inbox.done))} events were not handled after the breaker was closed",
            within=60 + t.lease(60),
        )
