"""Retry and dead letter: failing events are tried again, then given up in sight, and nothing else is given up."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from crossbus.adapter import Adapter, LeaseOutcome, SendOutcome, Settlement, Wire
from crossbus.conformance.cases import case
from crossbus.conformance.compare import same_event
from crossbus.conformance.interrupted import in_a_row
from crossbus.conformance.trial import Trial
from crossbus.conformance.wrap import Watch
from crossbus.delivery import Delivery
from crossbus.errors import ErrorCode
from crossbus.outcomes import Reject, Retry
from crossbus.topology import RetryPolicy, Subscription, Topic

SOON = RetryPolicy(first_delay=0.1, max_delay=0.1, jitter=False)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@case("retry/attempts", "attempts are counted", requires={"attempts"})
async def attempts(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    event = t.events(1)[0]

    async def fail_thrice(delivery: Delivery) -> None:
        if inbox.counts[event.id] <= 3:
            raise Retry(after=0.1)

    inbox = t.inbox(bus, topic, "counted", fail_thrice)
    async with t.consuming(bus):
        await bus.publish(topic, event)
        await t.arrive(inbox, [event], times=4)
    if t.capabilities.duplicates:
        by_message: dict[str, list[int]] = {}
        for delivery in inbox.deliveries:
            by_message.setdefault(delivery.message_id, []).append(delivery.attempt or 0)
        for found in by_message.values():
            assert found == sorted(set(found)) and found[0] == 1, f"the attempts of one message are {found}"
    else:
        found = [attempt or 0 for attempt in inbox.attempts(event.id)]
        assert found == [1, 2, 3, 4], f"the attempts of an event that failed three times are {found}"


@case(
    "retry/back-off",
    "the delay between attempts grows as the policy says",
    requires={"retry_delay", "attempts"},
)
async def back_off(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    event = t.events(1)[0]
    policy = RetryPolicy(attempts=5, first_delay=0.5, factor=2, jitter=False)

    async def fail(delivery: Delivery) -> None:
        if delivery.attempt != 5:
            raise RuntimeError("failing by intent")

    inbox = t.inbox(bus, topic, "backed-off", fail, retry=policy)
    async with t.consuming(bus):
        await bus.publish(topic, event)
        await t.until(
            lambda: inbox.done, "an event that fails four times was not handled at its fifth attempt"
        )
    deliveries = [
        (d.attempt or 0, at)
        for d, at in zip(inbox.deliveries, inbox.times, strict=True)
        if d.message_id == inbox.deliveries[0].message_id and (d.attempt or 0) <= 5
        # After the fifth it was acknowledged: what comes then is a duplicate, which has no delay.
    ]
    for (attempt, earlier), (_, later) in pairwise(deliveries):
        due, gap = policy.delay(attempt), later - earlier
        assert gap >= due * 0.9, (
            f"after attempt {attempt} the event came again after {gap:.2f} s; {due:g} s is due"
        )
        assert gap <= due + 30 * t.harness.patience, (
            f"after attempt {attempt} it took {gap:.1f} s; {due:g} s is due"
        )


@case(
    "retry/dead-letter",
    "after the last attempt: the dead letter, with reason, original bytes and trace",
    starred=True,
    requires={"dead_letters", "attempts"},
)
async def dead_letter(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    event = t.events(1, extensions={"traceparent": TRACEPARENT, "tenant": "t-1"}, subject="o-1")[0]

    async def fail(delivery: Delivery) -> None:
        raise ValueError("out of stock")

    inbox = t.inbox(bus, topic, "failing", fail, retry=RetryPolicy(attempts=3, first_delay=0.1, jitter=False))
    async with t.consuming(bus):
        await bus.publish(topic, event)
        (letter,) = await t.dead(bus, topic, "failing", 1)
        handled = len(inbox)
        await t.elapse(5.0)
    assert letter.attempts == 3, f"the record says {letter.attempts} attempts; the policy allows 3"
    assert handled >= 3, (
        f"the handler was called {handled} times before the event was given up; the policy allows 3"
    )
    t.duplicates(inbox.name, len(inbox) - 3)
    assert letter.reason == "failed", f"the reason of an event that failed too often is {letter.reason!r}"
    assert "ValueError" in (letter.error or "") and "out of stock" in (letter.error or ""), (
        f"the record names the error {letter.error!r}, not the handler's ValueError: out of stock"
    )
    assert (letter.topic, letter.subscription) == (topic, "failing"), (
        f"the record of {topic}/failing names {letter.topic}/{letter.subscription}"
    )
    assert letter.event is not None, "the dead letter of a valid event does not hold it as an event"
    same_event(event, letter.event)
    assert letter.event.data_bytes == event.data_bytes, (
        f"the original bytes {event.data_bytes!r} are kept as {letter.event.data_bytes!r}"
    )
    assert letter.traceparent == TRACEPARENT, (
        f"the record's traceparent is {letter.traceparent!r}, not the original's"
    )
    assert letter.last_time is not None, "the record does not say when the event was given up"


@case(
    "retry/reject",
    "`Reject` goes to the dead letter on attempt 1, with its reason",
    requires={"dead_letters"},
)
async def reject(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = t.events(3)

    async def refuse_one(delivery: Delivery) -> None:
        if delivery.event.id == events[1].id:
            raise Reject("no such customer")

    inbox = t.inbox(bus, topic, "rejecting", refuse_one)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        (letter,) = await t.dead(bus, topic, "rejecting", 1)
        await t.arrive(inbox, events)
        await t.elapse(3.0)
    t.check_once(inbox, [event.id for event in events])
    assert letter.reason == "no such customer", (
        f"the reason of Reject('no such customer') is {letter.reason!r}"
    )
    assert letter.event is not None and letter.event.id == events[1].id, (
        "another event than the rejected one is dead"
    )
    if t.capabilities.has("attempts") and not t.capabilities.duplicates:
        assert letter.attempts == 1, (
            f"the record of an event rejected at once says {letter.attempts} attempts"
        )


@case(
    "retry/undecodable",
    "what cannot be decoded goes to the dead letter on attempt 1",
    requires={"dead_letters", "foreign"},
)
async def undecodable(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    inbox = t.inbox(bus, topic, "tolerant")
    body = b'{"specversion": "1.0", "id": "cut off'
    async with t.consuming(bus):
        await t.send_raw(bus, topic, body)
        (letter,) = await t.dead(bus, topic, "tolerant", 1)
        await t.elapse(3.0)
        letters = await bus.dead_letters(topic, "tolerant").list()
    t.distinct(f"the dead letter of {inbox.name}", letters, 1)
    assert not inbox.deliveries, "a handler was given what cannot be decoded"
    assert letter.reason == "undecodable", f"the reason of bytes that are no event is {letter.reason!r}"
    assert letter.body == body, f"the original bytes {body!r} are kept as {letter.body!r}"
    if t.capabilities.has("attempts") and not t.capabilities.duplicates:
        assert letter.attempts == 1, f"undecodable bytes were tried {letter.attempts} times"


@case("retry/shutdown", "shutdown never dead-letters", starred=True, requires={"dead_letters", "attempts"})
async def shutdown(t: Trial) -> None:
    topic = t.topic()
    events = t.events(4)
    once = RetryPolicy(attempts=1)
    started = asyncio.Event()

    async def stubborn(delivery: Delivery) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # What a library does that turns a cancellation into an error of its own.
            if delivery.event.data["number"] % 2:
                raise ConnectionError("the connection was closed") from None
            raise

    for number in range(3):
        started.clear()
        bus = t.bus(drain_limit=0.1)
        t.inbox(bus, topic, "stopped", stubborn, retry=once, concurrency=4)
        async with t.consuming(bus):
            if number == 0:
                await bus.publish_many(topic, events)
            await t.until(
                started.is_set, "a consumer that began again was given nothing", within=60 + t.lease(60)
            )
            await t.elapse(0.5)
    last = t.bus()
    inbox = t.inbox(last, topic, "stopped", retry=once)
    async with t.consuming(last):
        letters = await last.dead_letters(topic, "stopped").list()
        assert not letters, (
            f"{len(letters)} events are in the dead letter because their consumer was shut down: {letters[0].reason} "
            f"({letters[0].error})"
        )
        await t.arrive(inbox, events, within=60 + t.lease(60))


@case(
    "retry/redrive",
    "redrive puts an event back into its subscription, with its id, and clears the dead letter",
    starred=True,
    requires={"dead_letters", "redeliver"},
)
async def redrive(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    events = t.events(3, subject="o-1", extensions={"tenant": "t-1"})
    broken = True

    async def refuse(delivery: Delivery) -> None:
        if broken:
            raise Reject("broken")

    inbox = t.inbox(bus, topic, "redriven", refuse)
    async with t.consuming(bus):
        await bus.publish_many(topic, events)
        await t.dead(bus, topic, "redriven", 3)
        await t.elapse(2.0)
        letters = list(await bus.dead_letters(topic, "redriven").list())
        broken = False
        one = next(
            letter for letter in letters if letter.event is not None and letter.event.id == events[0].id
        )
        before = dict(inbox.counts)
        count = await bus.dead_letters(topic, "redriven").redrive([one.id])
        assert count == 1, f"redriving one dead letter says {count}"
        await t.arrive(inbox, events[:1], times=before[events[0].id] + 1)
        await t.elapse(1.0)
        others = {event.id for event in events[1:]}
        assert all(inbox.counts[id] == before[id] for id in others) or t.capabilities.duplicates, (
            "redriving one dead letter brought back others"
        )
        count = await bus.dead_letters(topic, "redriven").redrive()
        assert count == len(letters) - 1, f"redriving the other {len(letters) - 1} dead letters says {count}"
        await t.until(lambda: len(set(inbox.done)) == 3, "redriven events did not reach the handler again")
        left = await bus.dead_letters(topic, "redriven").list()
    assert not left, f"{len(left)} dead letters remain after all were redriven"
    redriven = {delivery.event.id: delivery for delivery in inbox.deliveries}
    for event in events:
        delivery = redriven[event.id]
        assert delivery.topic == topic, f"a redriven event came from topic {delivery.topic!r}, not {topic!r}"
        same_event(event, delivery.event)


@case(
    "retry/list-filter-purge",
    "dead letters can be listed, filtered and purged",
    starred=True,
    requires={"dead_letters"},
)
async def list_filter_purge(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    red = t.events(3, type="com.example.red")
    blue = [event.replace(id=f"{event.id}-blue") for event in t.events(3, type="com.example.blue")]

    async def refuse(delivery: Delivery) -> None:
        raise Reject(f"number {delivery.event.data['number']}")

    t.inbox(bus, topic, "listed", refuse)
    async with t.consuming(bus):
        await bus.publish_many(topic, red + blue)
        await t.dead(bus, topic, "listed", 6)
        await t.elapse(2.0)
        dead = bus.dead_letters(topic, "listed")
        everything = await dead.list()
        ids = [letter.id for letter in everything]
        assert len(set(ids)) == len(ids), "two dead letters share an id"
        assert [letter.id for letter in await dead.list()] == ids, (
            "listing dead letters twice gives two answers"
        )
        reds = t.distinct("the list of one type", await dead.list(type="com.example.red"), 3)
        assert {letter.event.id for letter in reds if letter.event} == {event.id for event in red}, (
            "the list of one type holds another"
        )
        t.distinct("the list of one reason", await dead.list(reason="number 1"), 2)
        assert len(await dead.list(limit=2)) == 2, "list(limit=2) of six dead letters did not return two"
        assert not await dead.list(type="com.example.green"), (
            "the list of a type that is not there holds something"
        )
        assert await dead.purge([ids[0]]) == 1, "purging one dead letter did not say 1"
        left = [letter.id for letter in await dead.list()]
        assert left == ids[1:], f"purging one of {len(ids)} dead letters left {len(left)}"
        assert await dead.purge() == len(ids) - 1, "purging the others did not say how many"
        assert not await dead.list(), "purged dead letters are still there"


@case(
    "retry/record-before-ack",
    "the record is written before the ack: a crash between them duplicates, never loses",
    starred=True,
    requires={"dead_letters"},
)
async def record_before_ack(t: Trial) -> None:
    topic = t.topic()
    event = t.events(1)[0]

    def crash(subscription: Subscription, settlement: Settlement) -> LeaseOutcome | None:
        # The consumer dies after the record was written: its ack never reaches the provider.
        return LeaseOutcome.LOST if settlement.delay is None else None

    async def refuse(delivery: Delivery) -> None:
        raise Reject("poison")

    dying = t.bus(wrap=lambda adapter: Watch(adapter, on_settle=crash), drain_limit=1)
    inbox = t.inbox(dying, topic, "poisoned", refuse, lease=t.lease())
    async with t.consuming(dying):
        await dying.publish(topic, event)
        await t.dead(dying, topic, "poisoned", 1)
        await t.until(lambda: inbox.deliveries, "a poison event did not reach its handler")

    # When the record cannot be written, the event is not acknowledged either.
    def no_record(to: Topic, wire: Wire) -> SendOutcome | None:
        refused = SendOutcome(code=ErrorCode.PERMISSION_DENIED, message="not allowed (put in by the kit)")
        return refused if to.kind == "dead_letter" else None

    unrecorded: list[Watch] = []

    def forbid(adapter: Adapter) -> Adapter:
        unrecorded.append(Watch(adapter, on_send=no_record))
        return unrecorded[-1]

    forbidden = t.bus(wrap=forbid)
    second = t.inbox(forbidden, topic, "poisoned", refuse, lease=t.lease(), retry=SOON)
    async with t.consuming(forbidden):
        await t.arrive(second, [event], within=60 + t.lease() * 2)
        await t.arrive(second, [event], times=2)
    assert "ack" not in unrecorded[0].log, (
        "an event was acknowledged although its dead-letter record was refused"
    )

    healthy = t.bus()
    third = t.inbox(healthy, topic, "poisoned", lease=t.lease())
    async with t.consuming(healthy):
        await t.arrive(third, [event], within=60 + t.lease() * 2)
        letters = await healthy.dead_letters(topic, "poisoned").list()
    assert letters, "the record that was written before the crash is gone"


@case(
    "retry/consumers-in-a-row",
    "20 consumers killed or drained in a row with the event in hand dead-letter nothing",
    starred=True,
    requires={"dead_letters"},
)
async def consumers_in_a_row(t: Trial) -> None:
    topic = t.topic()
    event = t.events(1)[0]
    rounds, options = in_a_row(t)
    (subscription,) = await t.provide((topic, "unlucky"), **options)
    publisher = t.bus()
    publisher.topic(topic)
    async with publisher:
        await publisher.publish(topic, event)
    for number in range(rounds):
        if number % 2:
            adapter = await t.adapter()
            receiver = await t.receiver(adapter, subscription)
            await t.take(receiver, 1, within=60 + t.lease() * 2)
            await receiver.close()  # as a process that was killed: nothing is settled
            await adapter.close()
        else:
            bus = t.bus(drain_limit=0.05)
            inbox = t.inbox(bus, topic, "unlucky", _hang, **options)
            async with t.consuming(bus):
                await t.arrive(inbox, [event], within=60 + t.lease() * 2)
    last = t.bus()
    lucky = t.inbox(last, topic, "unlucky", **options)
    async with t.consuming(last):
        await t.arrive(lucky, [event], within=60 + t.lease() * 2)
        letters = await last.dead_letters(topic, "unlucky").list()
    assert not letters, (
        f"after {rounds} consumers were killed or drained, the event is in the dead letter: {letters[0].reason}"
    )


@case(
    "retry/backstop",
    "what the provider's backstop moved is listed, with reason `backstop`",
    starred=True,
    requires={"dead_letters", "backstop", "backstop_listed"},
)
async def backstop(t: Trial) -> None:
    topic = t.topic()
    event = t.events(1)[0]
    bounds = t.capabilities.backstop
    assert bounds is not None, (
        "the adapter has the capability `backstop`, but its Capabilities.backstop is None"
    )
    receives = max(3, bounds[0])
    (subscription,) = await t.provide((topic, "crashing"), lease=t.lease(), backstop=receives)
    adapter = await t.adapter()
    await t.send(adapter, subscription.topic, [event])
    receiver = await t.receiver(adapter, subscription)
    back = t.capabilities.retry_delays.floor(0.0)
    for _ in range(receives):
        (received,) = await t.take(receiver, 1, within=60 + t.lease() * 2)
        await receiver.settle([Settlement(received.lease, back)])
    await t.nothing(
        receiver, t.lease() * 2, f"it was received {receives} times already, which is its backstop"
    )
    bus = t.bus()
    bus.subscribe(topic, "crashing", lease=t.lease(), backstop=receives)
    async with bus:
        (letter,) = await t.dead(bus, topic, "crashing", 1)
    assert letter.reason == "backstop", f"the reason of what the backstop moved is {letter.reason!r}"
    assert letter.event is not None, "what the backstop moved is not listed as the event that it is"
    same_event(event, letter.event)


@case(
    "retry/redrive-one-subscription",
    "redrive reaches only the subscription named",
    starred=True,
    requires={"dead_letters", "redeliver"},
)
async def redrive_one_subscription(t: Trial) -> None:
    bus, topic = t.bus(), t.topic()
    event = t.events(1)[0]

    async def refuse_once(delivery: Delivery) -> None:
        if not letters:
            raise Reject("broken")

    letters: list[object] = []
    broken = t.inbox(bus, topic, "broken", refuse_once)
    whole = t.inbox(bus, topic, "whole")
    async with t.consuming(bus):
        await bus.publish(topic, event)
        letters.extend(await t.dead(bus, topic, "broken", 1))
        await t.arrive(whole, [event])
        await t.elapse(2.0)
        before = whole.counts[event.id]
        await bus.dead_letters(topic, "broken").redrive()
        await t.until(lambda: broken.done, "a redriven event did not reach the subscription named")
        await t.elapse(3.0)
    assert whole.counts[event.id] == before, "a redrive of one subscription reached another of the same topic"


async def _hang(delivery: Delivery) -> None:
    await asyncio.Event().wait()
