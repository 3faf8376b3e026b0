"""The local broker through the contract of an adapter, with real event loops and threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support import run

from crossbus.adapter import LeaseOutcome, Received, Receiver, ReplayFrom, Settlement
from crossbus.capabilities import CAPABILITIES
from crossbus.clock import Clock as ClockProtocol
from crossbus.clock import SystemClock
from crossbus.errors import BusClosedError, ConfigurationError, DecodeError, ErrorCode, NotFound
from crossbus.event import Event
from crossbus.filters import exact
from crossbus.profiles import Profile
from crossbus.testing import Clock
from crossbus.topology import Subscription, Topic, Topology
from crossbus_local import LocalAdapter, forget

ORDERS = Topic("orders")
BILLING = Subscription(topic=ORDERS, name="billing", lease=10.0)
AUDIT = Subscription(topic=ORDERS, name="audit")
ALL = Topology((ORDERS,), (BILLING, AUDIT))


@pytest.fixture(autouse=True)
def _no_shared_brokers() -> Iterator[None]:
    yield
    forget("shop")


def adapter(target: str = "", *, clock: ClockProtocol | None = None, **parameters: str) -> LocalAdapter:
    return LocalAdapter(Profile(target=target, parameters=parameters), clock=clock or SystemClock())


@asynccontextmanager
async def opened(
    topology: Topology = ALL, target: str = "", *, clock: ClockProtocol | None = None, **parameters: str
) -> AsyncIterator[LocalAdapter]:
    made = adapter(target, clock=clock, **parameters)
    await made.open()
    await made.provision(await made.plan(topology))
    try:
        yield made
    finally:
        await made.close()


def event(id: str = "1", type: str = "order.placed", **extensions: Any) -> Event:
    return Event(type=type, source="/shop", id=id, data={"n": id}, extensions=extensions or None)


async def send(local: LocalAdapter, *events: Event, topic: Topic = ORDERS) -> None:
    outcomes = await local.send(topic, [local.encode(topic, one) for one in events])
    assert all(outcome.code is None for outcome in outcomes)


async def ack(receiver: Receiver, *taken: Received) -> Sequence[LeaseOutcome]:
    return await receiver.settle([Settlement(one.lease) for one in taken])


def ids(local: LocalAdapter, taken: Sequence[Received]) -> list[str]:
    return [local.decode(one).id for one in taken]


# --- what it says of itself -----------------------------------------------------------------------------------------


def test_it_declares_every_capability_but_those_of_a_network() -> None:
    lacks = {name for name in CAPABILITIES if not LocalAdapter.capabilities.has(name)}
    assert lacks == {"push", "processes", "restarts", "network", "credentials"}
    assert adapter().is_local


def test_without_history_there_is_no_replay() -> None:
    made = adapter(history="0")
    assert not made.capabilities.has("replay_time")
    assert not made.capabilities.has("replay_position")
    assert made.capabilities.has("ordering")
    assert LocalAdapter.capabilities.has("replay_time")


@pytest.mark.parametrize("text", ["-1", "many", "", "1.5", "²"])
def test_a_history_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="whole number from 0"):
        adapter(history=text)


def test_the_broker_in_a_server_is_not_this_adapter() -> None:
    with pytest.raises(ConfigurationError, match="use local: or local:NAME"):
        LocalAdapter(Profile(scheme="local+http", target="127.0.0.1:8787"), clock=SystemClock())


# --- publishing and receiving ---------------------------------------------------------------------------------------


def test_an_event_comes_as_it_was_sent() -> None:
    async def main() -> None:
        async with opened() as local:
            sent = event(partitionkey="k", tenant="t-1")
            wire = local.encode(ORDERS, sent)
            assert wire.size == len(wire.body)
            assert wire.key == "k"
            (outcome,) = await local.send(ORDERS, [wire])
            for subscription in (BILLING, AUDIT):
                receiver = await local.open_receiver(subscription, 10)
                (taken,) = await receiver.receive(10, 1)
                assert local.decode(taken) == sent
                assert (taken.attempt, taken.message_id, taken.key) == (1, outcome.message_id, "k")
                assert taken.lease_seconds == subscription.lease
                assert await ack(receiver, taken) == [LeaseOutcome.OK]

    run(main())


def test_sending_does_not_suspend() -> None:
    async def main() -> None:
        async with opened() as local:
            coroutine = local.send(ORDERS, [local.encode(ORDERS, event())])
            with pytest.raises(StopIteration) as done:
                coroutine.send(None)
            assert len(done.value.value) == 1

    run(main())


def test_a_missing_topic_is_an_outcome_and_a_missing_subscription_an_error() -> None:
    async def main() -> None:
        async with opened() as local:
            missing = Topic("ordres")
            outcomes = await local.send(missing, [local.encode(missing, event(n)) for n in "123"])
            assert [outcome.code for outcome in outcomes] == [ErrorCode.NOT_FOUND] * 3
            assert "did you mean 'orders'" in outcomes[0].message
            assert not outcomes[0].retryable
            dead = Subscription(topic=missing, name="billing").dead_letter
            (outcome,) = await local.send(dead, [local.encode(dead, event())])
            assert outcome.code is ErrorCode.NOT_FOUND
            with pytest.raises(NotFound) as caught:
                await local.open_receiver(Subscription(topic=ORDERS, name="nobody"), 1)
            assert local.error_code(caught.value) == (ErrorCode.NOT_FOUND, False)
            assert local.error_code(ValueError()) is None

    run(main())


def test_bytes_that_are_no_event_arrive_and_decode_says_so() -> None:
    async def main() -> None:
        async with opened() as local:
            wire = local.encode(ORDERS, event())
            foreign = type(wire)(b"\xff no event", {"who": "knows"}, 9, None, None)
            await local.send(ORDERS, [foreign])
            receiver = await local.open_receiver(BILLING, 1)
            (taken,) = await receiver.receive(1, 1)
            assert (taken.body, taken.attributes) == (b"\xff no event", {"who": "knows"})
            with pytest.raises(DecodeError):
                local.decode(taken)

    run(main())


def test_closed_it_refuses_and_opened_again_it_has_what_was_there() -> None:
    async def main() -> None:
        local = adapter()
        with pytest.raises(BusClosedError, match="local: is not open"):
            await local.send(ORDERS, [])
        await local.open()
        await local.provision(await local.plan(ALL))
        await send(local, event())
        await local.close()
        await local.close()
        with pytest.raises(BusClosedError):
            await local.backlog(BILLING)
        await local.open()
        assert (await local.backlog(BILLING)).waiting == 1

    run(main())


# --- waiting --------------------------------------------------------------------------------------------------------


def test_receive_returns_at_once_when_something_comes() -> None:
    async def main() -> None:
        async with opened() as local:
            receiver = await local.open_receiver(BILLING, 10)
            waiting = asyncio.create_task(receiver.receive(10, 3600))
            await asyncio.sleep(0)
            await send(local, event("7"))
            assert ids(local, await asyncio.wait_for(waiting, 5)) == ["7"]

    run(main())


def test_receive_returns_nothing_when_its_wait_is_over() -> None:
    async def main() -> None:
        clock = Clock()
        async with opened(clock=clock) as local:
            receiver = await local.open_receiver(BILLING, 10)
            assert await receiver.receive(10, 0) == []
            waiting = asyncio.create_task(receiver.receive(10, 20))
            await clock.advance(19.9)
            assert not waiting.done()
            await clock.advance(0.1)
            assert await waiting == []

    run(main())


def test_who_waits_gets_what_becomes_due() -> None:
    async def main() -> None:
        clock = Clock()
        async with opened(clock=clock) as local:
            first, second = [await local.open_receiver(BILLING, 10) for _ in range(2)]
            await send(local, event("expires"), event("returns"))
            expires, returns = await first.receive(10, 0)
            waiting = asyncio.create_task(second.receive(10, 3600))
            await clock.advance(1)
            # Given back while the other waits already, and due before the end of the lease it knows of.
            await first.settle([Settlement(returns.lease, 3.0)])
            await clock.advance(2.9)
            assert not waiting.done()
            await clock.advance(0.2)
            assert ids(local, await waiting) == ["returns"]
            waiting = asyncio.create_task(second.receive(10, 3600))
            await clock.advance(10)
            (again,) = await waiting
            assert (again.message_id, again.attempt) == (expires.message_id, 2)

    run(main())


def test_a_cancelled_receive_loses_nothing_and_passes_its_turn_on() -> None:
    async def main() -> None:
        async with opened() as local:
            first, second = [await local.open_receiver(BILLING, 10) for _ in range(2)]
            one = asyncio.create_task(first.receive(1, 3600))
            await asyncio.sleep(0)
            two = asyncio.create_task(second.receive(1, 3600))
            await asyncio.sleep(0)
            await send(local, event("1"))
            one.cancel()  # woken already, but it has not run yet
            assert ids(local, await asyncio.wait_for(two, 5)) == ["1"]
            with pytest.raises(asyncio.CancelledError):
                await one
            assert (await local.backlog(BILLING))[:2] == (0, 1)

    run(main())


def test_cancelled_at_any_moment_every_delivery_is_returned_or_still_there() -> None:
    async def main() -> None:
        async with opened() as local:
            receiver = await local.open_receiver(BILLING, 10)
            seen: list[str] = []
            for turn in range(60):
                task = asyncio.create_task(receiver.receive(10, 3600))
                for step in range(4):
                    if step == turn % 4:
                        await send(local, event(str(turn)))
                    if step == turn % 5 % 4:
                        task.cancel()
                    await asyncio.sleep(0)
                try:
                    got = await task
                except asyncio.CancelledError:
                    continue
                seen += ids(local, got)
                await ack(receiver, *got)
            rest = await receiver.receive(100, 0)
            assert sorted(seen + ids(local, rest), key=int) == [str(n) for n in range(60)]

    run(main())


def test_close_ends_a_receive_that_waits_and_leases_run_on() -> None:
    async def main() -> None:
        clock = Clock()
        async with opened(clock=clock) as local:
            receiver = await local.open_receiver(BILLING, 10)
            await send(local, event("1"))
            await receiver.receive(10, 0)
            waiting = asyncio.create_task(receiver.receive(10, 3600))
            await asyncio.sleep(0)
            await receiver.close()
            await receiver.close()
            assert await asyncio.wait_for(waiting, 5) == []
            assert await receiver.receive(10, 3600) == []
            other = await local.open_receiver(BILLING, 10)
            assert await other.receive(10, 0) == []
            await clock.advance(10)
            assert ids(local, await other.receive(10, 0)) == ["1"]

    run(main())


def test_a_receiver_learns_that_its_subscription_is_gone_and_finds_it_again() -> None:
    async def main() -> None:
        async with opened() as local:
            receiver = await local.open_receiver(BILLING, 10)
            waiting = asyncio.create_task(receiver.receive(10, 3600))
            await asyncio.sleep(0)
            await local.provision(await local.plan(Topology((ORDERS,), ()), prune=True))
            with pytest.raises(NotFound):
                await asyncio.wait_for(waiting, 5)
            with pytest.raises(NotFound):
                await receiver.receive(10, 0)
            await local.provision(await local.plan(ALL))
            await send(local, event("1"))
            assert ids(local, await receiver.receive(10, 0)) == ["1"]

    run(main())


def test_receivers_that_compete_share() -> None:
    async def main() -> None:
        async with opened() as local:
            counts: Counter[int] = Counter()

            async def consume(number: int) -> None:
                receiver = await local.open_receiver(BILLING, 10)
                while taken := await receiver.receive(10, 0.3):
                    counts[number] += len(taken)
                    await ack(receiver, *taken)
                    await asyncio.sleep(0)

            tasks = [asyncio.create_task(consume(number)) for number in range(5)]
            for _ in range(100):
                await asyncio.sleep(0)
                await send(local, *(event(str(n)) for n in range(10)))
            await asyncio.gather(*tasks)
            assert counts.total() == 1000
            assert min(counts.values()) >= 100

    run(main())


# --- sharing by name ------------------------------------------------------------------------------------------------


def test_private_brokers_do_not_meet_and_shared_ones_do() -> None:
    async def main() -> None:
        async with opened() as one, opened() as two:
            await send(one, event())
            assert (await two.backlog(BILLING)).waiting == 0
        async with opened(target="shop") as one:
            await send(one, event())
        async with opened(target="shop") as two:
            assert (await two.backlog(BILLING)).waiting == 1
        forget("shop")
        async with opened(target="shop") as three:
            assert (await three.backlog(BILLING)).waiting == 0

    run(main())


def test_who_shares_a_broker_shares_its_clock_and_its_history() -> None:
    async def main() -> None:
        async with opened(target="shop"):
            async with opened(target="shop"):  # another SystemClock is the same time
                pass
            with pytest.raises(ConfigurationError, match="local:shop is shared and has another clock"):
                await adapter("shop", clock=Clock()).open()
            with pytest.raises(ConfigurationError, match="history=10000, not 5"):
                await adapter("shop", history="5").open()

    run(main())


def test_several_loops_in_several_threads_lose_and_double_nothing() -> None:
    publishers, consumers, each = 3, 3, 400
    total = publishers * each
    seen: Counter[str] = Counter()
    lock = threading.Lock()
    errors: list[BaseException] = []
    ordered = BILLING.replace(ordered=True, lease=600.0)
    topology = Topology((ORDERS,), (ordered,))
    in_hand: set[str] = set()
    last: dict[str, int] = {}

    async def publish(number: int) -> None:
        async with opened(topology, "shop") as local:
            for n in range(each):
                await send(local, event(f"{number}-{n}", partitionkey=str(number)))
                if n % 10 == 0:
                    await asyncio.sleep(0)

    async def consume() -> None:
        async with opened(topology, "shop") as local:
            receiver = await local.open_receiver(ordered, 5)
            while seen.total() < total:
                taken = await receiver.receive(5, 0.2)
                for one in taken:
                    got = local.decode(one)
                    key = str(got.extensions["partitionkey"])
                    with lock:
                        assert key not in in_hand
                        in_hand.add(key)
                        if one.attempt == 1:
                            assert last.get(key, -1) + 1 == int(got.id.split("-")[1])
                            last[key] = last.get(key, -1) + 1
                await asyncio.sleep(0)
                for one in taken:
                    with lock:
                        in_hand.discard(one.key or "")
                        again = one.attempt == 1 and int(one.message_id) % 7 == 0
                        if not again:
                            seen[local.decode(one).id] += 1
                    await receiver.settle([Settlement(one.lease, 0.0 if again else None)])

    def thread(work: Any) -> None:
        try:
            run(work)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread, args=(publish(n),)) for n in range(publishers)]
    threads += [threading.Thread(target=thread, args=(consume(),)) for _ in range(consumers)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert errors == []
    assert len(seen) == total
    assert set(seen.values()) == {1}


def test_one_who_waits_in_another_thread_wakes_at_once() -> None:
    got: list[str] = []
    waiting = threading.Event()

    async def consume() -> None:
        async with opened(target="shop") as local:
            receiver = await local.open_receiver(BILLING, 1)
            task = asyncio.create_task(receiver.receive(1, 3600))
            await asyncio.sleep(0)
            waiting.set()
            got.extend(ids(local, await task))

    thread = threading.Thread(target=lambda: run(consume()))
    thread.start()
    assert waiting.wait(10)

    async def publish() -> None:
        async with opened(target="shop") as local:
            await send(local, event("hello"))

    run(publish())
    thread.join(10)
    assert got == ["hello"]


def test_a_loop_that_was_closed_while_it_waited_does_not_swallow_an_event() -> None:
    async def leave() -> None:
        async with opened(target="shop") as local:
            receiver = await local.open_receiver(BILLING, 1)
            task = asyncio.ensure_future(receiver.receive(1, 3600))
            await asyncio.sleep(0)
            task.cancel()

    run(leave())

    async def go_on() -> None:
        async with opened(target="shop") as local:
            receiver = await local.open_receiver(BILLING, 1)
            task = asyncio.ensure_future(receiver.receive(1, 3600))
            await asyncio.sleep(0)
            await send(local, event("1"))
            assert ids(local, await asyncio.wait_for(task, 5)) == ["1"]

    run(go_on())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_with_no_shared_broker() -> None:
    async def prepare() -> None:
        async with opened(target="shop") as local:
            await send(local, event())

    run(prepare())
    child = os.fork()
    if child == 0:

        async def look() -> int:
            async with opened(target="shop") as local:
                return (await local.backlog(BILLING)).waiting or 0

        code = 1
        try:
            code = run(look())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- provisioning ---------------------------------------------------------------------------------------------------


def test_a_plan_creates_what_is_missing_and_is_empty_afterwards() -> None:
    async def main() -> None:
        local = adapter()
        await local.open()
        assert [finding.state for finding in await local.inspect(ALL)] == ["missing"] * 3
        plan = await local.plan(ALL)
        assert [(change.action, change.kind, change.name) for change in plan] == [
            ("create", "topic", "orders"),
            ("create", "dead letter", "orders--billing--dead"),
            ("create", "subscription", "orders/billing"),
            ("create", "dead letter", "orders--audit--dead"),
            ("create", "subscription", "orders/audit"),
        ]
        assert [finding.state for finding in await local.inspect(ALL)] == ["missing"] * 3
        await local.provision(plan)
        await send(local, event())
        await local.provision(plan)
        assert await local.plan(ALL, prune=True) == []
        assert [finding.state for finding in await local.inspect(ALL)] == ["ok"] * 3
        assert (await local.backlog(BILLING)).waiting == 1

    run(main())


def test_a_subscription_brings_its_topic() -> None:
    async def main() -> None:
        async with opened(Topology((), (BILLING,))) as local:
            await send(local, event())

    run(main())


def test_what_differs_is_seen_and_changed_in_place() -> None:
    async def main() -> None:
        async with opened() as local:
            await send(local, event("1"))
            changed = BILLING.replace(filter=exact(type="b"), backstop=7)
            topology = Topology((ORDERS,), (changed,))
            _, finding = await local.inspect(topology)
            assert finding.state == "differs"
            assert "backstop 100, declared 7" in finding.detail
            assert "filter none, declared" in finding.detail
            (change,) = await local.plan(topology)
            assert (change.action, change.name) == ("update", "orders/billing")
            await local.provision([change])
            assert await local.plan(topology) == []
            await send(local, event("2"), event("3", "b"))
            receiver = await local.open_receiver(changed, 10)
            assert ids(local, await receiver.receive(10, 0)) == ["1", "3"]

    run(main())


def test_prune_deletes_what_is_not_declared_and_says_what_is_lost() -> None:
    async def main() -> None:
        async with opened(Topology((ORDERS, Topic("old-topic")), (BILLING, AUDIT))) as local:
            await send(local, event("1"), event("2"))
            audit = await local.open_receiver(AUDIT, 10)
            await audit.receive(1, 0)
            await send(local, event("3"), topic=AUDIT.dead_letter)
            kept = Topology((ORDERS,), (BILLING,))
            assert await local.plan(kept) == []
            async with local.temporary_subscription(ORDERS) as temporary:
                plan = await local.plan(kept, prune=True)
                assert [(change.action, change.kind, change.name, change.detail) for change in plan] == [
                    ("delete", "subscription", "orders/audit", "loses 1 event waiting, 1 event in hand"),
                    ("delete", "dead letter", "orders--audit--dead", "loses 1 record"),
                    ("delete", "topic", "old-topic", ""),
                ]
                await local.provision(plan)
                await local.provision(plan)
                assert (await local.backlog(temporary)).waiting == 0
            assert await local.plan(kept, prune=True) == []
            assert (await local.backlog(BILLING)).waiting == 2

    run(main())


def test_what_is_external_is_neither_made_nor_pruned() -> None:
    async def main() -> None:
        async with opened() as local:
            there = Subscription(
                topic=Topic("mine", resource="orders", external=True),
                name="mine",
                resource="billing",
                external=True,
            )
            missing = Subscription(topic=Topic("other", external=True), name="mine", external=True)
            topology = Topology((there.topic, missing.topic), (there, missing))
            states = {finding.name: finding.state for finding in await local.inspect(topology)}
            assert states == {
                "mine": "ok",
                "other": "missing",
                "mine/mine": "differs",
                "other/mine": "missing",
            }
            plan = await local.plan(Topology((there.topic,), (there,)), prune=True)
            assert {(change.action, change.name) for change in plan} == {
                ("create", "mine--mine--dead"),
                ("delete", "orders/audit"),
                ("delete", "orders--audit--dead"),
            }
            await send(local, event("1"), topic=there.topic)
            receiver = await local.open_receiver(there, 1)
            assert ids(local, await receiver.receive(1, 0)) == ["1"]
            own = Subscription(topic=missing.topic, name="own")
            with pytest.raises(NotFound, match="'other'"):
                await local.provision(await local.plan(Topology((), (own,))))

    run(main())


# --- dead letters, replay, backlog, temporary subscriptions ---------------------------------------------------------


def test_dead_letters_are_browsed_redelivered_and_deleted() -> None:
    async def main() -> None:
        async with opened() as local:
            await send(local, event("a"), event("b"), topic=BILLING.dead_letter)
            dead = local.dead_letters(BILLING)
            records = await dead.browse(10)
            assert ids(local, records) == ["a", "b"]
            assert (await local.backlog(BILLING)).dead == 2
            (outcome,) = await dead.redeliver([local.encode(ORDERS, event("a"))])
            assert outcome.code is None
            assert await dead.delete([records[0].lease]) == [LeaseOutcome.OK]
            assert await dead.delete([records[0].lease]) == [LeaseOutcome.LOST]
            assert ids(local, await dead.browse(10)) == ["b"]
            billing, audit = [await local.open_receiver(one, 10) for one in (BILLING, AUDIT)]
            (again,) = await billing.receive(10, 0)
            assert (local.decode(again).id, again.message_id) == ("a", outcome.message_id)
            assert await audit.receive(10, 0) == []
            gone = local.dead_letters(Subscription(topic=ORDERS, name="gone"))
            with pytest.raises(NotFound):
                await gone.browse(10)
            (outcome,) = await gone.redeliver([local.encode(ORDERS, event("a"))])
            assert outcome.code is ErrorCode.NOT_FOUND

    run(main())


def test_a_replayed_event_carries_the_id_of_its_replay() -> None:
    async def main() -> None:
        async with opened() as local:
            await send(local, event("1"), event("2"))
            receiver = await local.open_receiver(BILLING, 10)
            taken = await receiver.receive(10, 0)
            await ack(receiver, *taken)
            assert await local.replay(BILLING, ReplayFrom(position=taken[1].message_id)) == 1
            (again,) = await receiver.receive(10, 0)
            assert again.message_id == taken[1].message_id
            got = local.decode(again)
            assert got.extensions["crossbusreplay"]
            assert got.without_extensions("crossbusreplay") == event("2").replace(time=got.time_text)
            assert (await local.backlog(AUDIT)).waiting == 2

    run(main())


def test_a_temporary_subscription_is_gone_when_its_block_ends() -> None:
    async def main() -> None:
        async with opened() as local:
            with pytest.raises(RuntimeError):  # noqa: PT012
                async with local.temporary_subscription(ORDERS, exact(type="b")) as temporary:
                    await send(local, event("1"), event("2", "b"))
                    receiver = await local.open_receiver(temporary, 10)
                    assert ids(local, await receiver.receive(10, 0)) == ["2"]
                    raise RuntimeError
            with pytest.raises(NotFound):
                await local.backlog(temporary)
            assert (await local.backlog(BILLING)).waiting == 2
            with pytest.raises(NotFound):
                async with local.temporary_subscription(Topic("nowhere")):
                    pass

    run(main())


def test_every_filter_is_the_brokers_own() -> None:
    native, text, residual = adapter().compile(exact(type="b"))
    assert native == exact(type="b")
    assert text == '{"exact":{"type":"b"}}'
    assert residual is None


def test_names_are_made_by_the_template_of_the_profile() -> None:
    async def main() -> None:
        profile = Profile(target="shop", names="{env}-{name}", variables={"env": "dev"})
        local = LocalAdapter(profile, clock=SystemClock())
        await local.open()
        await local.provision(await local.plan(ALL))
        await send(local, event())
        findings = await local.inspect(ALL)
        assert [finding.resource for finding in findings] == [
            "dev-orders",
            "dev-orders/billing",
            "dev-orders/audit",
        ]
        assert {finding.state for finding in findings} == {"ok"}
        async with opened(Topology(), "shop") as plain:
            mapped = BILLING.replace(topic=Topic("orders", resource="dev-orders"))
            assert (await plain.backlog(mapped)).waiting == 1
            await send(plain, event("2"), topic=mapped.topic)
            outcomes = await plain.send(ORDERS, [plain.encode(ORDERS, event())])
            assert outcomes[0].code is ErrorCode.NOT_FOUND
        assert (await local.backlog(BILLING)).waiting == 2

    run(main())


def test_a_native_filter_is_one_of_cloudevents() -> None:
    async def main() -> None:
        native = BILLING.replace(filter=exact(type="a"), native_filter={"local": [{"prefix": {"type": "b"}}]})
        async with opened(Topology((ORDERS,), (native,))) as local:
            await send(local, event("1", "a"), event("2", "bb"))
            receiver = await local.open_receiver(native, 10)
            assert ids(local, await receiver.receive(10, 0)) == ["2"]

    run(main())
