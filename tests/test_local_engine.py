"""The engine of the local broker: leases, delays, order, backstop, replay; and a model that it is compared with."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from crossbus.adapter import LeaseOutcome, Received, ReplayFrom, Settlement, Wire
from crossbus.codecs import encode_json
from crossbus.errors import InvalidRequest, NotFound
from crossbus.event import Event
from crossbus.filters import exact, prefix
from crossbus.testing import Clock
from crossbus_local.engine import Engine
from crossbus_local.queue import Queue, QueueSettings
from crossbus_local.records import NO_ATTRIBUTES, LocalWire
from crossbus_local.storage import Storage

OK, LOST = LeaseOutcome.OK, LeaseOutcome.LOST


class Hands:
    """A clock that is moved by hand, without a loop."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now

    call_at = Clock.call_at


def made(
    *, history: int = 100, storage: Storage | None = None, **settings: object
) -> tuple[Engine, Queue, Hands]:
    clock = Hands()
    engine = Engine(clock, history=history, storage=storage)  # type: ignore[arg-type]
    engine.create_topic("orders")
    engine.create_dead_letter("dead")
    engine.put_subscription("orders", "billing", QueueSettings(dead_letter="dead", **settings))  # type: ignore[arg-type]
    return engine, engine.find("orders", "billing"), clock


def wire(body: object = "x", key: str | None = None) -> Wire:
    return Wire(str(body).encode(), NO_ATTRIBUTES, 1, key)


def event_wire(type: str = "a", id: str = "1") -> LocalWire:
    event = Event(type=type, source="/s", id=id, time=None)
    body = encode_json(event)
    return LocalWire(body, NO_ATTRIBUTES, len(body), None, event)


def take(engine: Engine, queue: Queue, most: int = 100, lease: float = 10.0) -> list[Received]:
    return engine.receive(queue, most, lease)[0]


def bodies(taken: list[Received]) -> list[str]:
    return [one.body.decode() for one in taken]


def ack(engine: Engine, queue: Queue, *taken: Received) -> list[LeaseOutcome]:
    return engine.settle(queue, [Settlement(one.lease) for one in taken])


def back(engine: Engine, queue: Queue, one: Received, delay: float = 0.0) -> LeaseOutcome:
    return engine.settle(queue, [Settlement(one.lease, delay)])[0]


# --- publishing and receiving ---------------------------------------------------------------------------------------


def test_messages_come_in_order_of_publishing() -> None:
    engine, queue, _ = made()
    engine.publish("orders", [wire(n) for n in range(5)])
    assert bodies(take(engine, queue, 3)) == ["0", "1", "2"]
    assert bodies(take(engine, queue, 3)) == ["3", "4"]
    assert take(engine, queue, 3) == []


def test_message_ids_follow_the_number_that_publish_returns() -> None:
    engine, queue, _ = made()
    first = engine.publish("orders", [wire(), wire()])
    assert engine.publish("orders", [wire()]) == first + 2
    assert [one.message_id for one in take(engine, queue)] == [str(first + n) for n in range(3)]


def test_message_ids_of_a_later_broker_are_others() -> None:
    engine, _, clock = made()
    first = engine.publish("orders", [wire()] * 1000)
    clock.now = 1.0
    later = Engine(clock)  # type: ignore[arg-type]
    later.create_topic("orders")
    assert later.publish("orders", [wire()]) > first + 999


def test_unknown_names_are_not_found_and_the_nearest_is_named() -> None:
    engine, _, _ = made()
    with pytest.raises(NotFound, match=r"'ordrs' is not there \(did you mean 'orders'\?\)"):
        engine.publish("ordrs", [wire()])
    with pytest.raises(NotFound, match=r"orders/biling is not there \(did you mean 'billing'\?\)"):
        engine.find("orders", "biling")
    with pytest.raises(NotFound, match="dead letter 'ded'"):
        engine.publish_dead("ded", [wire()])


def test_a_topic_without_subscriptions_drops_counts_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine, _, _ = made()
    engine.create_topic("empty")
    with caplog.at_level(logging.WARNING, "crossbus.local"):
        engine.publish("empty", [wire(), wire()])
        engine.publish("empty", [wire()])
    assert engine.topics()["empty"].dropped == 3
    assert len(caplog.records) == 1
    assert "topic empty has no subscription" in caplog.text


def test_only_matching_events_enter_a_queue() -> None:
    engine, queue, _ = made(filter=exact(type="a"))
    engine.put_subscription("orders", "all", QueueSettings())
    engine.publish("orders", [event_wire("a", "1"), event_wire("b", "2"), event_wire("a", "3")])
    assert engine.backlog("orders", "billing").waiting == 2
    assert engine.backlog("orders", "all").waiting == 3
    assert len(take(engine, queue)) == 2
    assert engine.topics()["orders"].dropped == 0


def test_events_that_no_filter_matches_are_counted_as_dropped_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine, _, _ = made(filter=exact(type="a"))
    engine.publish("orders", [event_wire("b"), event_wire("a")])
    assert engine.topics()["orders"].dropped == 1
    assert caplog.text == ""


def test_a_wire_without_its_event_is_filtered_by_what_its_body_says() -> None:
    engine, queue, _ = made(filter=exact(type="a"))
    plain = [Wire(one.body, NO_ATTRIBUTES, 1) for one in (event_wire("a"), event_wire("b"))]
    engine.publish("orders", [*plain, wire("no event at all")])
    assert bodies(take(engine, queue)) == [plain[0].body.decode()]


def test_a_changed_filter_keeps_what_waits_and_holds_for_what_comes() -> None:
    engine, queue, _ = made(filter=exact(type="a"))
    engine.publish("orders", [event_wire("a", "1")])
    engine.put_subscription("orders", "billing", QueueSettings(filter=prefix(type="b"), dead_letter="dead"))
    engine.publish("orders", [event_wire("a", "2"), event_wire("bb", "3")])
    assert engine.find("orders", "billing") is queue
    assert bodies(take(engine, queue)) == [
        event_wire("a", "1").body.decode(),
        event_wire("bb", "3").body.decode(),
    ]
    engine.put_subscription("orders", "billing", QueueSettings(dead_letter="dead"))
    engine.publish("orders", [event_wire("c", "4")])
    assert len(take(engine, queue)) == 1


# --- leases ---------------------------------------------------------------------------------------------------------


def test_what_is_in_hand_is_not_handed_out_again_until_its_lease_ends() -> None:
    engine, queue, clock = made()
    engine.publish("orders", [wire("a")])
    (first,) = take(engine, queue, lease=10)
    clock.now = 9.99
    assert take(engine, queue) == []
    clock.now = 10.0
    (again,) = take(engine, queue)
    assert (first.attempt, again.attempt) == (1, 2)
    assert again.message_id == first.message_id
    assert again.lease != first.lease


def test_ack_after_the_lease_ended_is_lost_even_if_nobody_has_it_yet() -> None:
    engine, queue, clock = made()
    engine.publish("orders", [wire("a")])
    (first,) = take(engine, queue, lease=10)
    clock.now = 10.0
    assert ack(engine, queue, first) == [LOST]
    (again,) = take(engine, queue)
    assert ack(engine, queue, again) == [OK]
    assert engine.backlog("orders", "billing")[:2] == (0, 0)


def test_settling_twice_is_harmless() -> None:
    engine, queue, _ = made()
    engine.publish("orders", [wire("a"), wire("b")])
    a, b = take(engine, queue)
    assert ack(engine, queue, a) == [OK]
    assert ack(engine, queue, a) == [LOST]
    assert back(engine, queue, a) is LOST
    assert engine.backlog("orders", "billing")[:2] == (0, 1)
    assert ack(engine, queue, b) == [OK]


def test_extension_counts_from_now_and_may_shorten() -> None:
    engine, queue, clock = made()
    engine.publish("orders", [wire("a"), wire("b")])
    a, b = take(engine, queue, lease=10)
    clock.now = 5.0
    assert engine.extend(queue, [a.lease], 10) == [OK]
    assert engine.extend(queue, [b.lease], 1) == [OK]
    clock.now = 6.0
    assert bodies(take(engine, queue, lease=100)) == ["b"]
    clock.now = 14.9
    assert take(engine, queue) == []
    clock.now = 15.0
    assert bodies(take(engine, queue)) == ["a"]
    assert engine.extend(queue, [a.lease, 12345], 10) == [LOST, LOST]


def test_a_batch_has_one_end_but_its_members_live_on_their_own() -> None:
    engine, queue, clock = made()
    engine.publish("orders", [wire(n) for n in range(4)])
    taken = take(engine, queue, lease=10)
    ack(engine, queue, taken[1])
    engine.extend(queue, [taken[2].lease], 30)
    clock.now = 10.0
    assert bodies(take(engine, queue, lease=1000)) == ["0", "3"]
    clock.now = 30.0
    assert bodies(take(engine, queue)) == ["2"]


def test_ends_of_settled_leases_do_not_pile_up() -> None:
    engine, queue, clock = made()
    engine.publish("orders", [wire("held")])
    take(engine, queue, lease=10)
    for _ in range(5000):
        engine.publish("orders", [wire()])
        ack(engine, queue, *take(engine, queue, lease=60))
    assert len(queue._deadlines) < 100
    clock.now = 10.0
    assert bodies(take(engine, queue)) == ["held"]


def test_tokens_of_a_subscription_that_was_made_again_do_not_meet() -> None:
    engine, queue, _ = made()
    engine.publish("orders", [wire("old")])
    (old,) = take(engine, queue)
    engine.delete_subscription("orders", "billing")
    engine.put_subscription("orders", "billing", QueueSettings())
    again = engine.find("orders", "billing")
    engine.publish("orders", [wire("new")])
    take(engine, again)
    assert ack(engine, again, old) == [LOST]
    assert ack(engine, queue, old) == [LOST]
    with pytest.raises(NotFound):
        take(engine, queue)


# --- giving back ----------------------------------------------------------------------------------------------------


def test_given_back_comes_after_its_delay() -> None:
    engine, queue, clock = made()
    engine.publish("orders", [wire("a"), wire("b")])
    a, b = take(engine, queue)
    back(engine, queue, a, 5)
    back(engine, queue, b, 3)
    assert take(engine, queue) == []
    assert queue.next_due() == 3.0
    assert engine.backlog("orders", "billing").waiting == 2
    clock.now = 3.0
    assert bodies(take(engine, queue)) == ["b"]
    clock.now = 5.0
    assert [(one.body, one.attempt) for one in take(engine, queue)] == [(b"a", 2)]


def test_neither_the_returned_nor_the_new_can_starve_the_other() -> None:
    engine, queue, _ = made()
    engine.publish("orders", [wire("bad")])
    engine.publish("orders", [wire(f"good {n}") for n in range(5)])
    seen: list[str] = []
    for _ in range(11):
        (one,) = take(engine, queue, 1)
        seen += bodies([one])
        if one.body == b"bad":
            back(engine, queue, one)
        else:
            ack(engine, queue, one)
    counts = Counter(seen)
    assert counts["bad"] == 6
    assert len(counts) == 6


# --- the backstop ---------------------------------------------------------------------------------------------------


def test_the_backstop_moves_a_message_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    engine, queue, clock = made(backstop=3)
    engine.publish("orders", [wire("poison", key="k")])
    for attempt in range(1, 4):
        assert engine.dead_letters() == {"dead": 0}
        (one,) = take(engine, queue, lease=10)
        assert one.attempt == attempt
        clock.now += 10
    assert take(engine, queue) == []
    (record,) = engine.browse("dead", 10)
    assert (record.body, record.message_id, record.attempt, record.key) == (b"poison", one.message_id, 3, "k")
    assert engine.backlog("orders", "billing") == (0, 0, None, 1)
    assert "received 3 times" in caplog.text


def test_the_backstop_lets_the_next_of_the_key_go() -> None:
    engine, queue, _ = made(backstop=2, ordered=True)
    engine.publish("orders", [wire("1", "k"), wire("2", "k")])
    for _ in range(2):
        (one,) = take(engine, queue)
        back(engine, queue, one, 0)
    assert bodies(take(engine, queue)) == ["2"]


def test_an_ack_at_the_last_receive_moves_nothing() -> None:
    engine, queue, _ = made(backstop=1)
    engine.publish("orders", [wire()])
    ack(engine, queue, *take(engine, queue))
    assert engine.dead_letters() == {"dead": 0}


# --- dead letters ---------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_oldest_first_and_deleted_by_token() -> None:
    engine, _, _ = made()
    engine.publish_dead("dead", [wire(n) for n in range(3)])
    records = engine.browse("dead", 2)
    assert bodies(records) == ["0", "1"]
    assert bodies(engine.browse("dead", 10)) == ["0", "1", "2"]
    assert engine.delete_records("dead", [records[0].lease, records[0].lease, 99]) == [OK, LOST, LOST]
    assert bodies(engine.browse("dead", 10)) == ["1", "2"]


def test_pages_of_dead_letters_go_on_behind_what_was_removed() -> None:
    engine, _, _ = made()
    engine.publish_dead("dead", [wire(n) for n in range(9)])
    first = engine.browse("dead", 3)
    engine.delete_records("dead", [one.lease for one in engine.browse("dead", 5)])
    second = engine.browse("dead", 2, after=first[-1].lease)
    assert bodies(second) == ["5", "6"]
    assert bodies(engine.browse("dead", 9, after=second[-1].lease)) == ["7", "8"]
    assert engine.browse("dead", 9, after=99) == []
    engine.publish_dead("dead", [wire("late")])
    assert bodies(engine.browse("dead", 9, after=second[-1].lease + 2)) == ["late"]


def test_dead_letters_are_put_back_in_one_step_and_by_one_alone() -> None:
    engine, queue, _ = made()
    engine.publish_dead("dead", [wire(n) for n in range(4)])
    zero, one, two, three = (each.lease for each in engine.browse("dead", 10))
    engine.delete_records("dead", [one])
    records = [(zero, wire("a")), (one, wire("b")), (two, wire("c")), (two, wire("again")), (99, wire("d"))]
    first, there = engine.put_back("dead", "orders", "billing", records)
    assert there == [True, False, True, False, False]
    taken = take(engine, queue)
    assert bodies(taken) == ["a", "c"]
    assert [each.message_id for each in taken] == [str(first), str(first + 1)]
    assert [each.lease for each in engine.browse("dead", 10)] == [three]
    assert engine.put_back("dead", "orders", "billing", records)[1] == [False] * 5
    for names in (("none", "orders", "billing"), ("dead", "orders", "none"), ("dead", "none", "billing")):
        with pytest.raises(NotFound):
            engine.put_back(*names, [(three, wire("x"))])
    assert [each.lease for each in engine.browse("dead", 10)] == [three]


def test_put_reaches_one_subscription_whatever_its_filter() -> None:
    engine, queue, _ = made(filter=exact(type="never"))
    engine.put_subscription("orders", "all", QueueSettings())
    engine.put("orders", "billing", [wire("again")])
    assert bodies(take(engine, queue)) == ["again"]
    assert engine.backlog("orders", "all").waiting == 0


# --- order ----------------------------------------------------------------------------------------------------------


def test_one_delivery_of_a_key_at_a_time() -> None:
    engine, queue, _ = made(ordered=True)
    engine.publish("orders", [wire("a1", "a"), wire("a2", "a"), wire("b1", "b"), wire("free"), wire("free")])
    taken = take(engine, queue)
    assert sorted(bodies(taken)) == ["a1", "b1", "free", "free"]
    a1 = next(one for one in taken if one.body == b"a1")
    ack(engine, queue, a1)
    assert bodies(take(engine, queue)) == ["a2"]


def test_a_retry_holds_its_key_and_only_its_key() -> None:
    engine, queue, clock = made(ordered=True)
    engine.publish("orders", [wire("a1", "a"), wire("a2", "a"), wire("b1", "b"), wire("b2", "b")])
    a1, b1 = take(engine, queue)
    back(engine, queue, a1, 5)
    ack(engine, queue, b1)
    (b2,) = take(engine, queue)
    assert b2.body == b"b2"
    clock.now = 5.0
    (again,) = take(engine, queue)
    assert (again.body, again.attempt) == (b"a1", 2)
    assert take(engine, queue) == []
    ack(engine, queue, again)
    assert bodies(take(engine, queue)) == ["a2"]


def test_a_lost_lease_delivers_the_same_one_first() -> None:
    engine, queue, clock = made(ordered=True)
    engine.publish("orders", [wire("a1", "a"), wire("a2", "a")])
    take(engine, queue, lease=10)
    clock.now = 10.0
    (again,) = take(engine, queue)
    assert again.body == b"a1"


def test_a_key_is_forgotten_when_it_is_done() -> None:
    engine, queue, _ = made(ordered=True)
    engine.publish("orders", [wire(n, f"k{n}") for n in range(50)])
    ack(engine, queue, *take(engine, queue))
    assert queue._lines == {}
    assert queue.waiting == 0


@pytest.mark.parametrize("ordered", [True, False])
def test_changing_order_loses_nothing_and_ends_leases(ordered: bool) -> None:
    engine, queue, _ = made(ordered=not ordered)
    engine.publish("orders", [wire(f"{n}", f"k{n % 3}") for n in range(12)])
    taken = take(engine, queue, 3)
    delayed = take(engine, queue, 1)
    for one in delayed:
        back(engine, queue, one, 100)
    engine.put_subscription("orders", "billing", QueueSettings(ordered=ordered, dead_letter="dead"))
    assert set(ack(engine, queue, *taken)) <= {LOST}
    assert queue.waiting == 12
    seen: list[str] = []
    while got := take(engine, queue):
        if ordered:
            assert len({one.key for one in got}) == len(got)
        seen += bodies(got)
        ack(engine, queue, *got)
    assert sorted(seen, key=int) == [str(n) for n in range(12)]
    if ordered:
        for key in range(3):
            assert [n for n in seen if int(n) % 3 == key] == [str(n) for n in range(key, 12, 3)]


# --- retention and backlog ------------------------------------------------------------------------------------------


def test_retention_drops_what_is_too_old_and_counts_it() -> None:
    engine, queue, clock = made(retention=60, ordered=True)
    engine.publish("orders", [wire("free"), wire("a1", "a"), wire("a2", "a"), wire("b1", "b")])
    b1 = next(one for one in take(engine, queue) if one.body == b"b1")
    back(engine, queue, b1, 1000)
    clock.now = 61.0
    engine.publish("orders", [wire("a3", "a"), wire("late")])
    assert engine.backlog("orders", "billing").waiting == 2
    assert sorted(bodies(take(engine, queue))) == ["a3", "late"]
    assert queue.expired == 4


def test_backlog_is_exact() -> None:
    engine, queue, clock = made(ordered=True)
    engine.publish("orders", [wire("1", "k"), wire("2", "k"), wire("3")])
    clock.now = 7.0
    engine.publish("orders", [wire("4")])
    assert engine.backlog("orders", "billing") == (4, 0, 7.0, 0)
    taken = take(engine, queue, 2)
    assert engine.backlog("orders", "billing")[:2] == (2, 2)
    ack(engine, queue, *taken)
    clock.now = 8.0
    assert engine.backlog("orders", "billing") == (2, 0, 8.0, 0)
    ack(engine, queue, *take(engine, queue))
    assert engine.backlog("orders", "billing") == (0, 0, None, 0)


# --- replay ---------------------------------------------------------------------------------------------------------


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(1_700_000_000.0, UTC) + timedelta(seconds=seconds)


def test_replay_from_a_position_reaches_one_subscription_in_order_filtered() -> None:
    engine, queue, _ = made(filter=exact(type="a"))
    engine.put_subscription("orders", "other", QueueSettings())
    first = engine.publish(
        "orders", [event_wire(type, id) for type, id in [("a", "1"), ("b", "2"), ("a", "3")]]
    )
    ack(engine, queue, *take(engine, queue))
    other = engine.find("orders", "other")
    ack(engine, other, *take(engine, other))
    assert engine.replay("orders", "billing", ReplayFrom(position=str(first))) == 2
    again = take(engine, queue)
    assert [one.message_id for one in again] == [str(first), str(first + 2)]
    assert len({one.attributes["crossbusreplay"] for one in again}) == 1
    assert take(engine, other) == []
    engine.replay("orders", "billing", ReplayFrom(position=str(first + 1)))
    (later,) = take(engine, queue)
    assert later.message_id == str(first + 2)
    assert later.attributes["crossbusreplay"] != again[0].attributes["crossbusreplay"]


def test_replay_from_a_time_takes_that_instant_and_what_follows() -> None:
    engine, queue, clock = made()
    for second in range(3):
        clock.now = float(second)
        engine.publish("orders", [wire(second)])
    ack(engine, queue, *take(engine, queue))
    assert engine.replay("orders", "billing", ReplayFrom(time=at(1))) == 2
    assert bodies(take(engine, queue)) == ["1", "2"]
    assert engine.replay("orders", "billing", ReplayFrom(time=at(-100))) == 3
    assert engine.replay("orders", "billing", ReplayFrom(time=at(100))) == 0


def test_replay_beyond_the_history_is_refused() -> None:
    engine, _, _ = made(history=2)
    first = engine.publish("orders", [wire(n) for n in range(3)])
    with pytest.raises(InvalidRequest, match="keeps the last 2 events"):
        engine.replay("orders", "billing", ReplayFrom(position=str(first)))
    with pytest.raises(InvalidRequest, match="history no longer reaches"):
        engine.replay("orders", "billing", ReplayFrom(time=at(-1)))
    assert engine.replay("orders", "billing", ReplayFrom(position=str(first + 1))) == 2


@pytest.mark.parametrize("position", ["", "abc", "-1", "99999999999999999999", "²"])
def test_what_is_no_position_is_refused(position: str) -> None:
    engine, _, _ = made()
    engine.publish("orders", [wire()])
    with pytest.raises(InvalidRequest, match="is no position of it"):
        engine.replay("orders", "billing", ReplayFrom(position=position))


def test_a_replay_of_ordered_events_keeps_their_order() -> None:
    engine, queue, _ = made(ordered=True)
    engine.publish("orders", [wire(n, "k") for n in range(3)])
    engine.replay("orders", "billing", ReplayFrom(time=at(0)))
    seen: list[str] = []
    while got := take(engine, queue):
        seen += bodies(got)
        ack(engine, queue, *got)
    assert seen == ["0", "1", "2", "0", "1", "2"]


# --- waiters --------------------------------------------------------------------------------------------------------


class Bell:
    def __init__(self, *, gone: bool = False) -> None:
        self.called = False
        self.rung = 0
        self.gone = gone

    def wake(self) -> bool:
        self.rung += 1
        return not self.gone


def test_each_message_wakes_one_and_those_woken_share() -> None:
    engine, queue, _ = made()
    bells = [Bell() for _ in range(3)]
    for bell in bells:
        assert engine.receive(queue, 100, 10.0, bell)[0] == []
    engine.publish("orders", [wire(n) for n in range(9)])
    assert [bell.rung for bell in bells] == [1, 1, 1]
    counts = []
    for bell in bells:
        engine.leave(queue, bell)
        counts.append(len(take(engine, queue)))
    assert counts == [3, 3, 3]


def test_a_wake_that_is_not_used_is_passed_on() -> None:
    engine, queue, _ = made()
    first, second = Bell(), Bell()
    engine.receive(queue, 1, 10.0, first)
    engine.receive(queue, 1, 10.0, second)
    engine.publish("orders", [wire()])
    assert (first.rung, second.rung) == (1, 0)
    engine.leave(queue, first, pass_on=True)
    assert second.rung == 1


def test_one_whose_loop_is_gone_does_not_swallow_a_wake() -> None:
    engine, queue, _ = made()
    gone, there = Bell(gone=True), Bell()
    engine.receive(queue, 1, 10.0, gone)
    engine.receive(queue, 1, 10.0, there)
    engine.publish("orders", [wire()])
    assert there.rung == 1
    engine.leave(queue, gone)
    engine.leave(queue, there)
    assert queue._called == 0


def test_one_who_leaves_something_wakes_the_next() -> None:
    engine, queue, _ = made(ordered=True)
    engine.publish("orders", [wire(n, key) for n, key in enumerate("abab")])
    in_hand = take(engine, queue)
    first, second = Bell(), Bell()
    engine.receive(queue, 1, 10.0, first)
    engine.receive(queue, 1, 10.0, second)
    ack(engine, queue, *in_hand)
    assert (first.rung, second.rung) == (1, 0)
    engine.leave(queue, first)
    assert len(take(engine, queue, 1)) == 1
    assert second.rung == 1


def test_who_waits_learns_of_a_lease_that_was_shortened() -> None:
    engine, queue, _ = made()
    engine.publish("orders", [wire()])
    (one,) = take(engine, queue, lease=100)
    bell = Bell()
    assert engine.receive(queue, 1, 10.0, bell)[1] == 100.0
    engine.extend(queue, [one.lease], 5)
    assert bell.rung == 1
    engine.leave(queue, bell)
    assert engine.receive(queue, 1, 10.0, bell)[1] == 5.0


def test_who_waits_is_told_when_something_is_due() -> None:
    engine, queue, _ = made()
    engine.publish("orders", [wire()])
    take(engine, queue, lease=7)
    assert engine.receive(queue, 1, 10.0, Bell())[1] == 7.0


# --- the model ------------------------------------------------------------------------------------------------------


class EngineModel(RuleBasedStateMachine):
    """Drives an engine and a plain model of it, and compares.

    The model knows for each message where it is: waiting, delayed until, in hand until, done or dead.
    """

    leases = Bundle("leases")
    ORDERED = False
    BACKSTOP = 4

    def __init__(self) -> None:
        super().__init__()
        self.engine, self.queue, self.clock = self.made()
        self.published: list[tuple[str, str | None]] = []
        self.state: dict[str, tuple[str, float]] = {}
        self.attempts: Counter[str] = Counter()
        self.holder: dict[int, str] = {}  # live leases: token to body

    def made(self) -> tuple[Engine, Queue, Hands]:
        return made(ordered=self.ORDERED, backstop=self.BACKSTOP)

    def settle_time(self) -> None:
        for token, body in list(self.holder.items()):
            if self.state[body][1] <= self.clock.now:
                del self.holder[token]
                self.returned(body, 0.0)
        for body, (where, until) in self.state.items():
            if where == "delayed" and until <= self.clock.now:
                self.state[body] = "waiting", 0.0

    def returned(self, body: str, delay: float) -> None:
        if self.attempts[body] >= self.BACKSTOP:
            self.state[body] = "dead", 0.0
        elif delay > 0:
            self.state[body] = "delayed", self.clock.now + delay
        else:
            self.state[body] = "waiting", 0.0

    @rule(keys=st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=6))
    def publish(self, keys: list[str | None]) -> None:
        new = [(str(len(self.published) + n), key) for n, key in enumerate(keys)]
        self.engine.publish("orders", [wire(body, key) for body, key in new])
        self.published += new
        for body, _ in new:
            self.state[body] = "waiting", 0.0

    @rule(target=leases, most=st.integers(1, 5), lease=st.sampled_from([1.0, 5.0, 20.0]))
    def receive(self, most: int, lease: float) -> object:
        self.settle_time()
        can = self.deliverable()
        taken = take(self.engine, self.queue, most, lease)
        assert len(taken) == min(most, len(can))
        for one in taken:
            body = one.body.decode()
            assert body in can
            assert one.lease not in self.holder
            self.attempts[body] += 1
            assert one.attempt == self.attempts[body]
            self.state[body] = "in hand", self.clock.now + lease
            self.holder[one.lease] = body
        return multiple(*(one.lease for one in taken))

    def deliverable(self) -> set[str]:
        waiting = {body for body, (where, _) in self.state.items() if where == "waiting"}
        if not self.ORDERED:
            return waiting
        first: dict[str, str] = {}
        for body, key in self.published:
            if key is not None and self.state[body][0] not in ("done", "dead"):
                first.setdefault(key, body)
        return {
            body for body, key in self.published if body in waiting and first.get(key or "", body) == body
        }

    @rule(token=leases)
    def ack(self, token: int) -> None:
        self.settle_time()
        (outcome,) = self.engine.settle(self.queue, [Settlement(token)])
        body = self.holder.pop(token, None)
        assert outcome is (LOST if body is None else OK)
        if body is not None:
            self.state[body] = "done", 0.0

    @rule(token=consumes(leases), delay=st.sampled_from([0.0, 0.5, 3.0, 30.0]))
    def retry(self, token: int, delay: float) -> None:
        self.settle_time()
        (outcome,) = self.engine.settle(self.queue, [Settlement(token, delay)])
        body = self.holder.pop(token, None)
        assert outcome is (LOST if body is None else OK)
        if body is not None:
            self.returned(body, delay)

    @rule(token=leases, seconds=st.sampled_from([0.5, 5.0, 40.0]))
    def extend(self, token: int, seconds: float) -> None:
        self.settle_time()
        (outcome,) = self.engine.extend(self.queue, [token], seconds)
        body = self.holder.get(token)
        assert outcome is (LOST if body is None else OK)
        if body is not None:
            self.state[body] = "in hand", self.clock.now + seconds

    @rule(seconds=st.sampled_from([0.25, 1.0, 4.0, 25.0]))
    def advance(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def compact(self) -> None:
        self.queue._deadlines.extend([(self.clock.now + 1000.0, 1, 1)] * 100)
        self.queue._forget_old_deadlines()

    @invariant()
    def counts_agree(self) -> None:
        self.settle_time()
        backlog = self.engine.backlog("orders", "billing")
        where = Counter(state for state, _ in self.state.values())
        assert backlog.waiting == where["waiting"] + where["delayed"]
        assert backlog.in_hand == where["in hand"] == len(self.holder)
        assert backlog.dead == where["dead"]

    @invariant()
    def a_wait_would_end_in_time(self) -> None:
        ends = [until for where, until in self.state.values() if where in ("delayed", "in hand")]
        assert self.queue.next_due() <= min(ends, default=float("inf"))

    def teardown(self) -> None:
        """Whatever happened, every message ends once: received and acknowledged, or dead."""
        for _ in range(200):
            self.clock.now += 100.0
            self.settle_time()
            ack(self.engine, self.queue, *(got := take(self.engine, self.queue)))
            for one in got:
                assert self.state[one.body.decode()][0] == "waiting"
                self.state[one.body.decode()] = "done", 0.0
        dead = {one.body.decode() for one in self.engine.browse("dead", 10_000)}
        assert {body for body, (where, _) in self.state.items() if where == "dead"} == dead
        assert {where for where, _ in self.state.values()} <= {"done", "dead"}


class OrderedEngineModel(EngineModel):
    ORDERED = True


_few = hypothesis_settings(max_examples=40, stateful_step_count=40, deadline=None)
TestModel = EngineModel.TestCase
TestModel.settings = _few
TestOrderedModel = OrderedEngineModel.TestCase
TestOrderedModel.settings = _few


def test_bytes_that_are_no_text_pass_a_filter_in_event_grids_words() -> None:
    engine, queue, _ = made()
    words = '{"filters":[{"key":"data.total","operatorType":"NumberGreaterThan","value":1}]}'
    engine.put_subscription("orders", "native", QueueSettings(dead_letter="dead", eventgrid_filter=words))
    broken = Wire(b'{"data":{"total":"\xff"}}', NO_ATTRIBUTES, 1)
    first = engine.publish("orders", [broken, wire("y")])
    assert [one.message_id for one in engine.receive(queue, 10, 60)[0]] == [str(first), str(first + 1)]
    assert engine.backlog("orders", "native").waiting == 0


def test_a_paused_subscription_hands_out_nothing_until_it_is_resumed() -> None:
    engine, queue, clock = made()
    engine.publish("orders", [wire("a"), wire("b")])
    (first,) = take(engine, queue, 1)
    assert engine.pause_subscription("orders", "billing", True)
    assert not engine.pause_subscription("orders", "billing", True)
    assert take(engine, queue) == []
    back(engine, queue, first, 5)
    engine.publish("orders", [wire("c")])
    clock.now = 10.0
    assert take(engine, queue) == []
    assert engine.topics()["orders"].queues["billing"].settings.paused
    assert engine.backlog("orders", "billing").waiting == 3
    assert engine.pause_subscription("orders", "billing", False)
    assert sorted(bodies(take(engine, queue))) == ["a", "b", "c"]
    with pytest.raises(NotFound, match="'billing'"):
        engine.pause_subscription("orders", "bilking", True)


def test_declaring_a_subscription_again_neither_resumes_nor_pauses_it() -> None:
    engine, queue, _ = made()
    engine.pause_subscription("orders", "billing", True)
    engine.put_subscription("orders", "billing", QueueSettings(dead_letter="dead"))
    engine.put_subscription("orders", "billing", QueueSettings(dead_letter="dead", filter=exact(type="a")))
    assert queue.settings.paused
    engine.pause_subscription("orders", "billing", False)
    engine.put_subscription("orders", "billing", QueueSettings(dead_letter="dead", paused=True))
    engine.put_subscription("orders", "fresh", QueueSettings(paused=True))
    assert not queue.settings.paused
    assert not engine.find("orders", "fresh").settings.paused


def test_who_waits_is_woken_by_resuming_and_not_before() -> None:
    class Waiting:
        called = False

        def __init__(self) -> None:
            self.woken = 0

        def wake(self) -> bool:
            self.woken += 1
            return True

    engine, queue, _ = made()
    engine.pause_subscription("orders", "billing", True)
    waiters = [Waiting(), Waiting()]
    for waiter in waiters:
        engine.receive(queue, 1, 60.0, waiter)
    engine.publish("orders", [wire("a"), wire("b")])
    engine.leave(queue, waiters[0], pass_on=True)
    engine.receive(queue, 1, 60.0, waiters[0])
    assert [waiter.woken for waiter in waiters] == [0, 0]
    engine.pause_subscription("orders", "billing", False)
    assert [waiter.woken for waiter in waiters] == [1, 1]
