"""The adapter on the emulator: leases, late and refused acknowledgements, dead letters, replay, strangers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crossbus import Bus
from crossbus.adapter import LeaseOutcome, ReplayFrom, Settlement, Wire
from crossbus.clock import SystemClock
from crossbus.delivery import Delivery, ForeignMessage
from crossbus.errors import (
    ErrorCode,
    EventTooLarge,
    InvalidEvent,
    InvalidRequest,
    NotFound,
    UnsupportedError,
)
from crossbus.event import Event
from crossbus.filters import exact
from crossbus.outcomes import Reject
from crossbus.profiles import Profile
from crossbus.testing import Clock as MovableClock
from crossbus.topology import Subscription, Topic, Topology
from crossbus_pubsub import PubSubAdapter
from crossbus_pubsub.emulator import Emulator
from crossbus_pubsub.receiver import PubSubReceiver
from crossbus_pubsub.sources import REPLAYED, Replay
from pubsub_emulator import adapter
from pubsub_guard import Guard
from support import run

_numbers = itertools.count()
ORDERS = Topic("orders")


def declared(**fields: Any) -> Subscription:
    return Subscription(topic=ORDERS, name="billing", **{"lease": 10, **fields})


def on(
    emulator: Emulator,
    test: Callable[[PubSubAdapter, PubSubReceiver], Coroutine[Any, Any, None]],
    made: PubSubAdapter | None = None,
    **fields: Any,
) -> None:
    """Run a test on an adapter and a receiver, in a project of its own."""

    async def main() -> None:
        used = made or adapter(emulator, f"adapter-{next(_numbers)}")
        await used.open()
        one = declared(**fields)
        await used.provision(await used.plan(Topology((ORDERS,), (one,))))
        receiver = await used.open_receiver(one, 100)
        try:
            await test(used, receiver)
        finally:
            await receiver.close()
            await used.close()

    run(main(), limit=90)


async def publish(made: PubSubAdapter, *ids: str, **fields: Any) -> None:
    events = [Event(type="t", source="/s", id=id, **fields) for id in ids]
    outcomes = await made.send(ORDERS, [made.encode(ORDERS, event) for event in events])
    assert all(outcome.code is None for outcome in outcomes), outcomes


async def ids(made: PubSubAdapter, receiver: PubSubReceiver, wait: float = 3) -> list[str]:
    found = []
    while received := await receiver.receive(100, wait):
        found += [made.decode(one).id for one in received]
        await receiver.settle([Settlement(one.lease) for one in received])
        wait = 0.5
    return found


# --- leases -------------------------------------------------------------------------------------------------------


def test_a_cancelled_receive_gives_back_what_comes(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        waiting = asyncio.ensure_future(receiver.receive(10, 5))
        await asyncio.sleep(0.2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await publish(made, "e-1")  # the emulator gives it to the pull that nobody waits for any more
        other = await made.open_receiver(declared(), 10)
        (received,) = await other.receive(10, 5)
        assert received.attempt in (1, 2)
        await other.close()

    on(emulator, test)


def test_closing_waits_for_the_pull_and_gives_back(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        first = await made.open_receiver(declared(), 10)
        waiting = asyncio.ensure_future(first.receive(10, 1))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        closing = asyncio.ensure_future(first.close())
        await publish(made, "e-1")
        await closing
        assert await ids(made, receiver) == ["e-1"]
        assert await first.receive(1, 5) == [], "a closed receiver takes nothing"

    on(emulator, test)


def test_settling_and_extending_answer_for_each(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        await publish(made, *"abc")
        leases = [one.lease for one in await receiver.receive(10, 3)]
        assert await receiver.extend(leases, 10.5) == [LeaseOutcome.OK] * 3
        first = await receiver.settle(
            [Settlement(leases[0]), Settlement(leases[1], 0.0), Settlement(leases[2], 5.0)]
        )
        assert first == [LeaseOutcome.OK] * 3
        assert await receiver.settle([Settlement(lease, 0.0) for lease in leases]) == [LeaseOutcome.OK] * 3
        assert await receiver.extend(leases, 10) == [LeaseOutcome.LOST] * 3, "they are settled"
        assert sorted(await ids(made, receiver, wait=8)) in (["b"], ["b", "c"])

    on(emulator, test)


def test_an_ended_lease_is_lost(emulator: Emulator) -> None:
    clock = MovableClock()
    made = PubSubAdapter(adapter(emulator, "clocked").profile, clock=clock)

    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        await publish(made, "a")
        (one,) = await receiver.receive(1, 1)
        await clock.advance(11)
        assert await receiver.extend([one.lease], 10) == [LeaseOutcome.LOST]
        assert await receiver.settle([Settlement(one.lease)]) == [LeaseOutcome.LOST]

    on(emulator, test, made)


def test_thousands_of_leases_are_settled_in_parts(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        for part in range(3):
            await publish(made, *(f"{part}-{n}" for n in range(700)))
        received: list[Any] = []
        while len(received) < 2100:
            received += await receiver.receive(1000, 3)
        outcomes = await receiver.settle([Settlement(one.lease) for one in received])
        assert outcomes == [LeaseOutcome.OK] * 2100
        assert await receiver.receive(10, 0.5) == []

    on(emulator, test)


def test_a_deleted_subscription_is_not_found_and_its_leases_lost(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        await publish(made, "a")
        (one,) = await receiver.receive(1, 3)
        await made.client.call("DeleteSubscription", subscription=made.names.base(declared()))
        assert await receiver.settle([Settlement(one.lease)]) == [LeaseOutcome.LOST]
        with pytest.raises(NotFound, match=r"bus\.provision"):
            await receiver.receive(1, 1)

    on(emulator, test)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("PERMANENT_FAILURE_INVALID_ACK_ID", LeaseOutcome.LOST),
        ("TRANSIENT_FAILURE_UNORDERED_ACK_ID", LeaseOutcome.FAILED),
    ],
)
def test_exactly_once_says_of_each_acknowledgement_whether_it_held(
    emulator: Emulator, reason: str, outcome: LeaseOutcome
) -> None:
    guard = Guard(emulator.address)
    place = Profile(target=f"once-{next(_numbers)}", parameters={"endpoint": guard.address})
    made = PubSubAdapter(place, clock=SystemClock(), credentials=guard.credentials())

    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        await publish(made, "a", "b", "c")
        received = await receiver.receive(3, 3)
        guard.refuse_acks = reason
        found = await receiver.settle([Settlement(one.lease) for one in received])
        assert found == [outcome, LeaseOutcome.OK, outcome]
        guard.refuse_acks = None
        again = await receiver.settle([Settlement(one.lease) for one in received])
        assert again == [LeaseOutcome.OK] * 3

    try:
        on(emulator, test, made, options={"exactly_once": True})
    finally:
        guard.close()


def test_calls_are_routed_by_their_resource(emulator: Emulator) -> None:
    guard = Guard(emulator.address)
    place = Profile(target="routed", parameters={"endpoint": guard.address})
    made = PubSubAdapter(place, clock=SystemClock(), credentials=guard.credentials())

    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        await publish(made, "a")
        assert await ids(made, receiver) == ["a"]
        assert ("Publish", "topic=projects%2Frouted%2Ftopics%2Forders") in guard.calls
        assert ("Pull", "subscription=projects%2Frouted%2Fsubscriptions%2Forders--billing") in guard.calls

    try:
        on(emulator, test, made)
    finally:
        guard.close()


def test_a_request_has_one_ordering_key(emulator: Emulator) -> None:
    guard = Guard(emulator.address)
    place = Profile(target=f"keyed-{next(_numbers)}", parameters={"endpoint": guard.address})
    made = PubSubAdapter(place, clock=SystemClock(), credentials=guard.credentials())

    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        keys = [None, "a", "b", "a", None, *(f"k-{n}" for n in range(120)), "b"]
        events = [
            Event(type="t", source="/s", id=f"e-{n}", extensions={} if key is None else {"partitionkey": key})
            for n, key in enumerate(keys)
        ]
        outcomes = await made.send(ORDERS, [made.encode(ORDERS, event) for event in events])
        assert all(outcome.code is None for outcome in outcomes)
        assert sum(method == "Publish" for method, _ in guard.calls) == len(set(keys))
        found: dict[str, str] = {}
        while len(found) < len(keys):
            for one in await receiver.receive(1000, 3):
                found[made.decode(one).id] = one.message_id
        assert [found[event.id] for event in events] == [outcome.message_id for outcome in outcomes]

    try:
        on(emulator, test, made, ordered=True)
    finally:
        guard.close()


# --- dead letters -------------------------------------------------------------------------------------------------


def test_looking_at_dead_letters_hides_none_for_long(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        dead = declared().dead_letter
        events = [Event(type="t", source="/s", id=f"d-{n:03}") for n in range(250)]
        await made.send(dead, [made.encode(dead, event) for event in events])
        queue = made.dead_letters(declared())
        seen = await queue.browse(1000)
        assert [made.decode(one).id for one in seen] == [event.id for event in events], "oldest first"
        assert [one.lease for one in await made.dead_letters(declared()).browse(10)] == [
            one.lease for one in seen[:10]
        ]
        await asyncio.sleep(1.5)  # back they are, for other processes
        other = PubSubAdapter(made.profile, clock=SystemClock())
        await other.open()
        theirs = other.dead_letters(declared())
        assert len(await theirs.browse(1000)) == 250
        assert await theirs.delete([seen[0].lease, "no such"]) == [LeaseOutcome.OK, LeaseOutcome.LOST]
        await other.close()
        left = await queue.browse(1000)
        assert [one.lease for one in left] == [one.lease for one in seen[1:]]
        assert await queue.delete([one.lease for one in left]) == [LeaseOutcome.OK] * 249
        assert await queue.browse(10) == []

    on(emulator, test)


def test_a_redriven_copy_of_a_foreign_message_reaches_only_its_subscription(emulator: Emulator) -> None:
    async def main() -> None:
        made = adapter(emulator, f"foreign-{next(_numbers)}")
        bus = Bus(adapter=made, provision="always")
        seen: dict[str, list[bytes]] = {"billing": [], "audit": []}
        broken = True

        def mapping(message: ForeignMessage) -> Event:
            assert not message.attributes.keys() & {"ce-crossbussub"}
            return message.event(type="foreign", source="/f", data=message.body)

        def handler(name: str) -> Callable[[Delivery], Coroutine[Any, Any, None]]:
            async def handle(delivery: Delivery) -> None:
                seen[name].append(delivery.event.data_bytes)
                if broken and name == "billing":
                    raise Reject("broken")

            return handle

        bus.subscribe("orders", "billing")(handler("billing"))
        bus.subscribe("orders", "audit", mapping=mapping)(handler("audit"))
        async with bus, bus.running():
            await made.send(ORDERS, [Wire(b"foreign", {"x": "1"}, 10)])
            async with asyncio.timeout(20):
                while not (seen["audit"] and await bus.dead_letters("orders", "billing").list()):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            (letter,) = await bus.dead_letters("orders", "billing").list()
            assert letter.reason == "undecodable"
            assert (letter.body, letter.attributes) == (b"foreign", {"x": "1"})
            await bus.dead_letters("orders", "billing").redrive()
            await asyncio.sleep(3)
            assert seen["audit"] == [b"foreign"], "the copy is for billing alone"
            assert len(await bus.dead_letters("orders", "billing").list()) == 1, (
                "undecodable, it is dead again"
            )

    run(main(), limit=60)


# --- replay -------------------------------------------------------------------------------------------------------


def test_replay_needs_that_acknowledged_events_are_kept(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        with pytest.raises(InvalidRequest, match="retain_acked = true"):
            await made.replay(declared(), ReplayFrom(time=datetime.now(UTC)))

    on(emulator, test, options={"retain_acked": False})


def test_replay_does_not_reach_beyond_the_retention(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        with pytest.raises(InvalidRequest, match="keeps events for 7 days"):
            await made.replay(declared(), ReplayFrom(time=datetime.now(UTC) - timedelta(days=8)))

    on(emulator, test)


def test_replay_from_a_snapshot(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        await publish(made, "before")
        assert await ids(made, receiver) == ["before"]
        await made.client.call(
            "CreateSnapshot", name=made.names.snapshot("monday"), subscription=made.names.base(declared())
        )
        await publish(made, "after")
        assert await ids(made, receiver) == ["after"]
        await made.replay(declared(), ReplayFrom(position="monday"))
        (again,) = await receiver.receive(10, 5)
        event = made.decode(again)
        assert event.id == "after"
        assert event.extensions["crossbusreplay"]
        with pytest.raises(NotFound):
            await made.replay(declared(), ReplayFrom(position="tuesday"))

    on(emulator, test)


def test_ordered_replay_is_refused_on_the_emulator(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        with pytest.raises(UnsupportedError, match="does not implement Seek"):
            await made.replay(declared(ordered=True), ReplayFrom(time=datetime.now(UTC)))

    on(emulator, test, ordered=True)


def test_consumers_that_begin_later_know_a_replay_by_its_label(emulator: Emulator) -> None:
    replay = Replay("r-1", 0, 4_000_000_000)
    assert Replay.read(replay.text()) == replay
    assert Replay.read("") is Replay.read("something else") is None

    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        name = made.names.base(declared()) + "-labelled"
        await made.client.call(
            "CreateSubscription",
            name=name,
            topic=made.names.topic(ORDERS),
            labels={REPLAYED: replay.text()},
            dead_letter_policy={"dead_letter_topic": made.names.topic(declared().dead_letter)},
        )
        await publish(made, "e-1")
        labelled = await made.open_receiver(declared(resource=name), 1)
        (received,) = await labelled.receive(1, 5)
        assert made.decode(received).extensions["crossbusreplay"] == "r-1"
        await labelled.close()

    on(emulator, test)


# --- temporary ----------------------------------------------------------------------------------------------------


def test_temporary_subscription(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        async with made.temporary_subscription(ORDERS, exact(type="t")) as temporary:
            await publish(made, "e-1")
            taking = await made.open_receiver(temporary, 1)
            (one,) = await taking.receive(1, 5)
            assert made.decode(one).id == "e-1"
            await taking.close()
        with pytest.raises(NotFound):
            await made.open_receiver(temporary, 1)
        with pytest.raises(NotFound):
            async with made.temporary_subscription(Topic("not-there")):
                pass

    on(emulator, test)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_bad_events_are_refused_before_the_network(emulator: Emulator) -> None:
    async def main() -> None:
        made = adapter(emulator, f"bad-{next(_numbers)}")
        bus = Bus(adapter=made, provision="always", source="/s")
        bus.topic("orders")
        async with bus:
            with pytest.raises(InvalidEvent, match="1024"):
                await bus.publish("orders", Event(type="t", subject="s" * 1025))
            with pytest.raises(EventTooLarge):
                await bus.publish("orders", Event(type="t", data=b"x" * 1_000_001))
        wide = Bus(adapter=made, provision="always", source="/s", validate="provider")
        wide.topic("orders")
        async with wide:
            with pytest.raises(EventTooLarge, match="the limit is 9,999,000") as caught:
                await wide.publish("orders", Event(type="t", data=b"x" * 10_000_001))
            assert caught.value.size > caught.value.limit
            with pytest.raises(InvalidEvent, match="1024"):
                await wide.publish("orders", Event(type="t", subject="s" * 1025))
            receipt = await wide.publish("orders", Event(type="t", data=b"x" * 9_990_000))
            assert receipt.message_id

    run(main(), limit=60)


def test_ten_megabytes_arrive(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        large = [Event(type="t", source="/s", data=b"x" * 9_900_000) for _ in range(2)]
        for event in large:
            (outcome,) = await made.send(ORDERS, [made.encode(ORDERS, event)])
            assert outcome.code is None, outcome.message
        found: list[Any] = []
        while len(found) < 2:
            found += await receiver.receive(10, 5)
        assert all(len(one.body) == 9_900_000 for one in found), "no limit of gRPC's own stands in the way"

    on(emulator, test)


def test_an_unknown_topic_names_it_and_what_to_do(emulator: Emulator) -> None:
    async def test(made: PubSubAdapter, receiver: PubSubReceiver) -> None:
        missing = Topic("refunds")
        (outcome,) = await made.send(missing, [made.encode(missing, Event(type="t", source="/s"))])
        assert outcome.code is ErrorCode.NOT_FOUND
        assert "topics/refunds" in outcome.message
        assert "bus.provision" in outcome.message

    on(emulator, test)
