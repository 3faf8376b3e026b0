"""The broker in a file: what a restart finds, what a file may be, a disk that is full, a process that forks."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.test_local_engine import (
    LOST,
    OK,
    Hands,
    ack,
    at,
    back,
    bodies,
    event_wire,
    take,
    wire,
)

from crossbus.adapter import ReplayFrom, Settlement, Wire
from crossbus.clock import SystemClock
from crossbus.errors import BusClosedError, ConfigurationError, InvalidRequest, NotFound, Unavailable
from crossbus.filters import exact
from crossbus_local import sqlite_file
from crossbus_local.engine import Engine
from crossbus_local.queue import Queue, QueueSettings
from crossbus_local.sqlite_storage import SqliteStorage

_brokers: list[Broker] = []


class Broker:
    """An engine in a file, with one topic and one subscription, that can be started again."""

    def __init__(
        self, path: Path, *, history: int = 100, keep_leases: bool = False, **settings: object
    ) -> None:
        _brokers.append(self)
        self.path = str(path)
        self.clock = Hands()
        self.keep_leases = keep_leases
        self.engine = self.start(history)
        self.engine.create_topic("orders")
        self.engine.create_dead_letter("dead")
        self.engine.put_subscription(
            "orders",
            "billing",
            QueueSettings(dead_letter="dead", **settings),  # type: ignore[arg-type]
        )

    def start(self, history: int) -> Engine:
        storage = SqliteStorage(self.path, keep_leases=self.keep_leases)
        return Engine(self.clock, history=history, storage=storage)  # type: ignore[arg-type]

    def restart(self, *, history: int | None = None) -> None:
        self.engine.close()
        self.engine = self.start(self.engine.history if history is None else history)

    @property
    def queue(self) -> Queue:
        return self.engine.find("orders", "billing")

    def rows(self, table: str) -> int:
        connection = self.engine._storage._connection  # type: ignore[attr-defined]
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _brokers:
        _brokers.pop().engine.close()


# --- what a restart finds -------------------------------------------------------------------------------------------


def test_messages_come_as_they_were_put_in(path: Path) -> None:
    broker = Broker(path)
    attributes = {"who": "knows", "n": 1, "raw": b"\x00\xff", "list": [1, None]}
    first = broker.engine.publish("orders", [Wire(b"\xff", attributes, 1, "k\N{SNOWMAN}"), wire("b")])
    broker.clock.now = 5.0
    broker.restart()
    one, two = take(broker.engine, broker.queue)
    assert (one.body, dict(one.attributes), one.key) == (b"\xff", attributes, "k\N{SNOWMAN}")
    assert (one.message_id, one.published, one.attempt) == (str(first), 1_700_000_000.0, 1)
    assert (two.body, dict(two.attributes), two.key) == (b"b", {}, None)


def test_what_was_acknowledged_does_not_come_again_and_leaves_nothing_behind(path: Path) -> None:
    broker = Broker(path, history=0)
    broker.engine.publish("orders", [wire(n) for n in range(3)])
    a, b, _ = take(broker.engine, broker.queue)
    assert ack(broker.engine, broker.queue, a, b) == [OK, OK]
    broker.restart()
    assert bodies(take(broker.engine, broker.queue)) == ["2"]
    assert (broker.rows("messages"), broker.rows("waiting")) == (1, 1)


def test_attempts_and_delays_go_on(path: Path) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire("delayed"), wire("back"), wire("fresh")])
    delayed, again = take(broker.engine, broker.queue, 2)
    back(broker.engine, broker.queue, delayed, 30)
    back(broker.engine, broker.queue, again)
    broker.clock.now = 20.0
    broker.restart()
    taken = take(broker.engine, broker.queue, lease=1000)
    assert {(one.body, one.attempt) for one in taken} == {(b"back", 2), (b"fresh", 1)}
    broker.clock.now = 29.9
    assert take(broker.engine, broker.queue) == []
    broker.clock.now = 30.0
    (last,) = take(broker.engine, broker.queue)
    assert (last.body, last.attempt) == (b"delayed", 2)


def test_a_delay_goes_by_the_time_of_day_and_not_by_a_clock_that_begins_anew(path: Path) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire()])
    back(broker.engine, broker.queue, *take(broker.engine, broker.queue), 30)
    broker.engine.close()
    rebooted = Hands()
    rebooted.time = lambda: 1_700_000_010.0 + rebooted.now  # type: ignore[method-assign]
    broker.clock = rebooted
    broker.engine = broker.start(100)
    rebooted.now = 19.9
    assert take(broker.engine, broker.queue) == []
    rebooted.now = 20.0
    assert len(take(broker.engine, broker.queue)) == 1


def test_in_one_process_what_was_in_hand_comes_again_at_once(path: Path) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire()])
    (before,) = take(broker.engine, broker.queue, lease=600)
    broker.restart()
    assert ack(broker.engine, broker.queue, before) == [LOST]
    (again,) = take(broker.engine, broker.queue)
    assert again.attempt == 2
    assert again.lease != before.lease


def test_in_a_server_what_was_in_hand_stays_in_hand_until_its_lease_ends(path: Path) -> None:
    broker = Broker(path, keep_leases=True)
    broker.engine.publish("orders", [wire("acked"), wire("extended"), wire("left")])
    acked, extended, left = take(broker.engine, broker.queue, lease=10)
    assert broker.engine.extend(broker.queue, [extended.lease], 50) == [OK]
    broker.clock.now = 5.0
    broker.restart()
    assert broker.engine.backlog("orders", "billing")[:2] == (0, 3)
    assert ack(broker.engine, broker.queue, acked) == [OK]
    broker.clock.now = 10.0
    (again,) = take(broker.engine, broker.queue, lease=600)
    assert (again.body, again.attempt) == (left.body, 2)
    broker.restart()
    assert ack(broker.engine, broker.queue, left) == [LOST]
    broker.clock.now = 50.0
    assert bodies(take(broker.engine, broker.queue)) == ["extended"]


def test_tokens_of_one_run_are_never_those_of_another(path: Path) -> None:
    broker = Broker(path)
    tokens: set[object] = set()
    for _ in range(3):
        broker.engine.publish("orders", [wire()] * 5)
        tokens |= {one.lease for one in take(broker.engine, broker.queue)}
        broker.restart()
    assert len(tokens) == 5 + 10 + 15


def test_the_order_of_a_key_goes_on(path: Path) -> None:
    broker = Broker(path, ordered=True)
    broker.engine.publish("orders", [wire(f"{key}{n}", key) for n in range(3) for key in "ab"])
    one, two = take(broker.engine, broker.queue)
    ack(broker.engine, broker.queue, one)
    back(broker.engine, broker.queue, two, 5)
    seen: list[str] = []
    for second in range(20):
        broker.clock.now = float(second)
        broker.restart()
        got = take(broker.engine, broker.queue)
        assert len({one.key for one in got}) == len(got)
        seen += bodies(got)
        ack(broker.engine, broker.queue, *got)
    assert [body for body in seen if body[0] == "a"] == ["a1", "a2"]
    assert [body for body in seen if body[0] == "b"] == ["b0", "b1", "b2"]


def test_changing_order_ends_delays_and_leases_in_the_file_too(path: Path) -> None:
    broker = Broker(path, keep_leases=True)
    broker.engine.publish("orders", [wire("1", "k"), wire("2", "k")])
    delayed, held = take(broker.engine, broker.queue, lease=600)
    back(broker.engine, broker.queue, delayed, 600)
    broker.engine.put_subscription("orders", "billing", QueueSettings(ordered=True, dead_letter="dead"))
    broker.restart()
    assert ack(broker.engine, broker.queue, held) == [LOST]
    one = take(broker.engine, broker.queue)
    assert bodies(one) == ["1"]
    ack(broker.engine, broker.queue, *one)
    assert bodies(take(broker.engine, broker.queue)) == ["2"]


def test_what_is_replayed_stands_behind_what_waits_whatever_changes(path: Path) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire(n, "k") for n in range(2)])
    ack(broker.engine, broker.queue, *take(broker.engine, broker.queue, 1))
    broker.engine.replay("orders", "billing", ReplayFrom(time=at(0)))
    broker.restart()
    broker.engine.put_subscription("orders", "billing", QueueSettings(ordered=True, dead_letter="dead"))
    seen = []
    while got := take(broker.engine, broker.queue):
        seen += [(one.body, "crossbusreplay" in one.attributes) for one in got]
        ack(broker.engine, broker.queue, *got)
    assert seen == [(b"1", False), (b"0", True), (b"1", True)]


def test_settling_a_lease_twice_in_one_call_is_harmless(path: Path) -> None:
    broker = Broker(path, history=0)
    broker.engine.publish("orders", [wire("a"), wire("b")])
    a, b = take(broker.engine, broker.queue)
    assert ack(broker.engine, broker.queue, a, a, b, a) == [OK, LOST, OK, LOST]
    settlements = [Settlement(a.lease, 3.0), Settlement(a.lease)]
    assert broker.engine.settle(broker.queue, settlements) == [LOST, LOST]
    assert broker.rows("messages") == 0


def test_what_reached_nobody_costs_no_attempt_after_a_restart_either(path: Path) -> None:
    broker = Broker(path, keep_leases=True)
    broker.engine.publish("orders", [wire("a"), wire("b")])
    taken = take(broker.engine, broker.queue, lease=600)
    broker.engine.untake(broker.queue, [taken[0].lease, 12345])
    broker.restart()
    assert [(one.body, one.attempt) for one in take(broker.engine, broker.queue)] == [(b"a", 1)]
    assert ack(broker.engine, broker.queue, *taken) == [LOST, OK]


def test_what_is_rejected_is_in_the_dead_letter_once(path: Path) -> None:
    broker = Broker(path, history=0)
    broker.engine.publish("orders", [wire("a"), wire("b")])
    a, b = (one.lease for one in take(broker.engine, broker.queue))
    connection = broker.engine._storage._connection  # type: ignore[attr-defined]
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable):
        broker.engine.reject(broker.queue, [a, b])
    connection.execute("PRAGMA query_only = OFF")
    assert broker.engine.dead_letters() == {"dead": 0}
    assert broker.engine.reject(broker.queue, [a, a, b, 12345]) == [OK, LOST, OK, LOST]
    before = broker.engine.browse("dead", 10)
    assert [(one.body, one.attempt) for one in before] == [(b"a", 1), (b"b", 1)]
    broker.restart()
    assert broker.engine.browse("dead", 10) == before
    assert broker.engine.backlog("orders", "billing") == (0, 0, None, 2)
    broker.engine.put_subscription("orders", "billing", QueueSettings())
    broker.engine.publish("orders", [wire("dropped")])
    (dropped,) = take(broker.engine, broker.queue)
    assert broker.engine.reject(broker.queue, [dropped.lease]) == [OK]
    assert (broker.rows("waiting"), broker.rows("messages")) == (0, 2)


def test_dead_letters_are_found_again(path: Path) -> None:
    broker = Broker(path, backstop=1)
    broker.engine.publish("orders", [wire("lost")])
    broker.engine.publish_dead("dead", [wire("record"), wire("removed")])
    removed = broker.engine.browse("dead", 10)[-1]
    broker.engine.delete_records("dead", [removed.lease])
    back(broker.engine, broker.queue, *take(broker.engine, broker.queue))
    before = broker.engine.browse("dead", 10)
    assert [(one.body, one.attempt) for one in before] == [(b"record", None), (b"lost", 1)]
    broker.restart()
    assert broker.engine.browse("dead", 10) == before
    broker.engine.publish_dead("dead", [wire("new")])
    assert broker.engine.browse("dead", 10)[-1].lease > max(removed.lease, before[-1].lease)
    assert broker.engine.delete_records("dead", [one.lease for one in before]) == [OK, OK]
    broker.restart()
    assert bodies(broker.engine.browse("dead", 10)) == ["new"]


def test_what_is_put_back_is_found_in_one_place(path: Path) -> None:
    broker = Broker(path)
    broker.engine.publish_dead("dead", [wire(n) for n in range(3)])
    zero, one, _ = (each.lease for each in broker.engine.browse("dead", 10))
    _, there = broker.engine.put_back("dead", "orders", "billing", [(zero, wire("a")), (one, wire("b"))])
    assert there == [True, True]
    assert (broker.rows("waiting"), broker.rows("dead"), broker.rows("messages")) == (2, 1, 3)
    broker.restart()
    assert bodies(broker.engine.browse("dead", 10)) == ["2"]
    assert bodies(take(broker.engine, broker.queue)) == ["a", "b"]


def test_the_backstop_counts_what_a_crash_interrupted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(path, backstop=3)
    broker.engine.publish("orders", [wire()])
    for attempt in (1, 2, 3):
        (one,) = take(broker.engine, broker.queue)
        assert one.attempt == attempt
        broker.restart()
    assert take(broker.engine, broker.queue) == []
    assert "received 3 times" in caplog.text
    broker.restart()
    assert broker.engine.backlog("orders", "billing") == (0, 0, None, 1)


def test_the_backstop_makes_a_dead_letter_that_nobody_declared(path: Path) -> None:
    broker = Broker(path)
    settings = QueueSettings(backstop=1, dead_letter="made-late")
    broker.engine.put_subscription("orders", "billing", settings)
    broker.engine.publish("orders", [wire("x")])
    take(broker.engine, broker.queue, lease=1)
    broker.clock.now = 2.0
    assert take(broker.engine, broker.queue) == []
    broker.restart()
    assert bodies(broker.engine.browse("made-late", 10)) == ["x"]


def test_history_and_positions_stay_good(path: Path) -> None:
    broker = Broker(path, history=3)
    first = broker.engine.publish("orders", [wire(n) for n in range(2)])
    ack(broker.engine, broker.queue, *take(broker.engine, broker.queue))
    broker.restart()
    later = broker.engine.publish("orders", [wire(n) for n in (2, 3)])
    assert later > first + 1
    broker.restart()
    replay = broker.engine.replay
    assert replay("orders", "billing", ReplayFrom(position=str(first + 1))) == 3
    with pytest.raises(InvalidRequest, match="keeps the last 3 events"):
        replay("orders", "billing", ReplayFrom(position=str(first)))
    with pytest.raises(InvalidRequest, match="is no position"):
        replay("orders", "billing", ReplayFrom(position=str(later + 5)))
    broker.restart()
    again = take(broker.engine, broker.queue)
    assert [(one.body, one.message_id) for one in again if "crossbusreplay" in one.attributes] == [
        (b"1", str(first + 1)),
        (b"2", str(later)),
        (b"3", str(later + 1)),
    ]


@pytest.mark.parametrize(("history", "kept"), [(2, ["3", "4"]), (0, []), (50, ["0", "1", "2", "3", "4"])])
def test_the_length_of_the_history_is_that_of_this_run(path: Path, history: int, kept: list[str]) -> None:
    broker = Broker(path, history=5)
    broker.engine.publish("orders", [wire(n) for n in range(5)])
    broker.restart(history=history)
    assert [message.body.decode() for message in broker.engine._topics["orders"].history] == kept
    assert bodies(take(broker.engine, broker.queue)) == ["0", "1", "2", "3", "4"]
    broker.engine.delete_subscription("orders", "billing")
    assert broker.rows("messages") == len(kept)


def test_a_history_made_longer_does_not_reach_what_it_had_let_go(path: Path) -> None:
    broker = Broker(path, history=2)
    first = broker.engine.publish("orders", [wire(n) for n in range(4)])  # all four still wait
    broker.restart(history=10)
    with pytest.raises(InvalidRequest, match="no longer reaches"):
        broker.engine.replay("orders", "billing", ReplayFrom(position=str(first)))


def test_settings_and_counts_are_found_and_temporary_subscriptions_are_not(path: Path) -> None:
    broker = Broker(path)
    wanted = QueueSettings(
        filter=exact(type="a"), retention=60.0, lease=7.0, eventgrid_filter='{"includedEventTypes":["a"]}'
    )
    broker.engine.put_subscription("orders", "filtered", wanted)
    broker.engine.put_subscription("orders", "temp", QueueSettings(), temporary=True)
    broker.engine.create_topic("unheard")
    broker.engine.publish("unheard", [wire()])
    broker.engine.publish("orders", [event_wire("a"), event_wire("b")])
    assert len(take(broker.engine, broker.engine.find("orders", "temp"))) == 2
    before = broker.engine.topics()
    broker.restart()
    after = broker.engine.topics()
    del before["orders"].queues["temp"]
    assert after == before
    assert after["orders"].queues["filtered"].settings == wanted
    assert after["unheard"].dropped == 1
    broker.engine.publish("orders", [event_wire("a"), event_wire("b")])
    assert broker.engine.backlog("orders", "filtered").waiting == 2


def test_what_is_deleted_stays_deleted(path: Path) -> None:
    broker = Broker(path)
    broker.engine.put_subscription("orders", "other", QueueSettings())
    broker.engine.publish("orders", [wire("x")])
    broker.engine.publish_dead("dead", [wire("y")])
    broker.engine.delete_subscription("orders", "billing")
    broker.engine.delete_dead_letter("dead")
    broker.restart()
    with pytest.raises(NotFound):
        broker.engine.find("orders", "billing")
    assert broker.engine.dead_letters() == {}
    assert len(take(broker.engine, broker.engine.find("orders", "other"))) == 1
    broker.engine.delete_topic("orders")
    broker.restart()
    assert broker.engine.topics() == {}
    assert [broker.rows(table) for table in ("messages", "waiting", "dead", "subscriptions")] == [0] * 4


def test_what_is_too_old_is_dropped_from_the_file_too(path: Path) -> None:
    broker = Broker(path, history=0, retention=60)
    broker.engine.publish("orders", [wire("old")])
    broker.clock.now = 61.0
    broker.restart()
    assert broker.rows("waiting") == 1
    assert take(broker.engine, broker.queue) == []
    assert (broker.rows("waiting"), broker.rows("messages")) == (0, 0)


def test_message_ids_go_up_even_if_the_time_of_day_went_back(path: Path) -> None:
    broker = Broker(path, history=0)
    before = broker.engine.publish("orders", [wire()])
    ack(broker.engine, broker.queue, *take(broker.engine, broker.queue))
    broker.clock.now = -1_000_000.0
    broker.restart()
    assert broker.engine.publish("orders", [wire()]) > before


def test_threads_lose_and_double_nothing(path: Path) -> None:
    broker = Broker(path)
    broker.engine.close()
    engine = Engine(SystemClock(), storage=SqliteStorage(str(path)))
    queue = engine.find("orders", "billing")
    seen: Counter[bytes] = Counter()
    errors: list[BaseException] = []

    def publish(number: int) -> None:
        for n in range(100):
            engine.publish("orders", [wire(f"{number}-{n}"), wire(f"{number}-{n}b")])

    def consume() -> None:
        while seen.total() < 600:
            taken = engine.receive(queue, 7, 60.0)[0]
            assert set(engine.settle(queue, [Settlement(one.lease) for one in taken])) <= {OK}
            seen.update(one.body for one in taken)

    def thread(work: object, *args: int) -> None:
        try:
            work(*args)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread, args=(publish, n)) for n in range(3)]
    threads += [threading.Thread(target=thread, args=(consume,)) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert not errors
    assert len(seen) == seen.total() == 600
    engine.close()
    broker.engine = broker.start(100)
    assert broker.engine.backlog("orders", "billing")[:2] == (0, 0)
    broker.engine.close()


# --- what cannot be written -----------------------------------------------------------------------------------------


def test_what_cannot_be_written_has_not_happened(path: Path) -> None:
    broker = Broker(path, history=2, keep_leases=True)
    engine, queue = broker.engine, broker.queue
    engine.put_subscription("orders", "temp", QueueSettings(), temporary=True)
    engine.publish("orders", [wire(n) for n in range(3)])
    engine.publish_dead("dead", [wire("dead")])
    (held,) = take(engine, queue, 1)
    before = engine.topics(), engine.browse("dead", 9), list(engine._topics["orders"].history)
    connection = engine._storage._connection  # type: ignore[attr-defined]
    connection.execute("PRAGMA query_only = ON")
    for call in (
        lambda: engine.publish("orders", [wire("no")]),
        lambda: engine.put("orders", "billing", [wire("no")]),
        lambda: engine.publish_dead("dead", [wire("no")]),
        lambda: engine.replay("orders", "billing", ReplayFrom(time=at(0))),
        lambda: engine.delete_records("dead", [1]),
        lambda: take(engine, queue),
        lambda: ack(engine, queue, held),
        lambda: back(engine, queue, held, 5.0),
        lambda: engine.extend(queue, [held.lease], 60),
        lambda: engine.create_topic("more"),
        lambda: engine.create_dead_letter("more"),
        lambda: engine.put_subscription("orders", "more", QueueSettings()),
        lambda: engine.put_subscription("orders", "billing", QueueSettings(ordered=True)),
        lambda: engine.delete_topic("orders"),
        lambda: engine.delete_subscription("orders", "billing"),
        lambda: engine.delete_dead_letter("dead"),
    ):
        with pytest.raises(Unavailable, match=r"events\.db could not be written: ") as caught:
            call()
        assert caught.value.retryable
        assert before == (engine.topics(), engine.browse("dead", 9), list(engine._topics["orders"].history))
    connection.execute("PRAGMA query_only = OFF")
    assert ack(engine, queue, held) == [OK]
    assert [(one.body, one.attempt) for one in take(engine, queue)] == [(b"1", 1), (b"2", 1)]
    assert len(take(engine, engine.find("orders", "temp"))) == 3


def test_what_the_backstop_moves_while_nothing_can_be_written_is_written_later(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(path, backstop=1)
    broker.engine.publish("orders", [wire("x")])
    taken = take(broker.engine, broker.queue)
    connection = broker.engine._storage._connection  # type: ignore[attr-defined]
    connection.execute("PRAGMA query_only = ON")
    assert back(broker.engine, broker.queue, *taken) is OK
    assert "could not be written" in caplog.text
    assert bodies(broker.engine.browse("dead", 10)) == ["x"]
    connection.execute("PRAGMA query_only = OFF")
    broker.engine.create_topic("any")
    broker.restart()
    assert bodies(broker.engine.browse("dead", 10)) == ["x"]
    assert broker.engine.backlog("orders", "billing").waiting == 0


def test_attributes_that_cannot_be_stored_are_refused_and_nothing_is_half_done(path: Path) -> None:
    broker = Broker(path)
    with pytest.raises(TypeError):
        broker.engine.publish("orders", [wire("fine"), Wire(b"x", {"what": object()}, 1)])
    assert broker.engine.backlog("orders", "billing").waiting == 0
    broker.engine.publish("orders", [wire("next")])
    broker.restart()
    assert bodies(take(broker.engine, broker.queue)) == ["next"]


FULL = """
import resource, sys
from crossbus.adapter import Settlement
from tests.test_local_engine import ack, bodies, take, wire
from tests.test_local_sqlite import Broker
from crossbus.errors import Unavailable

broker = Broker(sys.argv[1], history=0)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
published = []
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, unlimited[1]))
for n in range(1000):
    try:
        broker.engine.publish("orders", [wire(f"{n}".ljust(2000))])
    except Unavailable as error:
        print(error)
        break
    published.append(str(n))
else:
    sys.exit("the disk was never full")
refused = n
for _ in range(20):
    try:
        broker.engine.publish("orders", [wire("no".ljust(2000))] * 20)
    except Unavailable:
        pass
    else:
        sys.exit("published to a full disk")
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
broker.engine.publish("orders", [wire("after")])
here = [body.strip() for body in bodies(take(broker.engine, broker.queue, 10_000))]
assert here == [*published, "after"], here
broker.restart()
there = [body.strip() for body in bodies(take(broker.engine, broker.queue, 10_000))]
assert there == [*published, "after"], there
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_a_full_disk_refuses_and_later_all_is_as_it_was_answered(path: Path) -> None:
    done = python(FULL, str(path))
    assert done.returncode == 0, done.stderr
    assert "events.db could not be written: " in done.stdout


FULL_AT_OPENING = """
import resource, sys
from crossbus.clock import SystemClock
from crossbus.errors import ConfigurationError
from crossbus_local.engine import Engine
from crossbus_local.sqlite_storage import SqliteStorage
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Engine(SystemClock(), storage=SqliteStorage(sys.argv[1]))
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_a_disk_that_is_full_at_opening_is_said_then(path: Path) -> None:
    Broker(path).engine.close()
    done = python(FULL_AT_OPENING, str(path))
    assert done.returncode == 0, done.stderr
    assert "events.db cannot be opened and written (" in done.stdout
    assert "the space on the disk" in done.stdout


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- whose file it is -----------------------------------------------------------------------------------------------

HOLD = """
import sys
from crossbus_local.sqlite_storage import SqliteStorage
storage = SqliteStorage(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_file_has_one_process_and_is_free_when_that_is_killed(path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        message = rf"events\.db is in use by another process.*crossbus serve --path {path}"
        with pytest.raises(ConfigurationError, match=message):
            SqliteStorage(str(path))
        holder.kill()
        holder.wait()
        SqliteStorage(str(path)).close()


FORK = """
import os, signal, sys
from tests.test_local_engine import wire
from tests.test_local_sqlite import Broker
from crossbus.errors import BusClosedError, ConfigurationError
from crossbus_local.sqlite_storage import SqliteStorage

broker = Broker(sys.argv[1])
broker.engine.publish("orders", [wire(n) for n in range(10)])
if not (child := os.fork()):
    for call in (lambda: broker.engine.publish("orders", [wire("no")]), broker.engine.close):
        try:
            call()
        except BusClosedError as error:
            assert "open in the process that this one was forked from" in str(error)
    try:
        SqliteStorage(sys.argv[1])
    except ConfigurationError as error:
        assert "in use" in str(error)
    del broker
    sys.exit(7)  # the interpreter ends in full, and takes all objects with it
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
broker.engine.publish("orders", [wire(n) for n in range(10, 20)])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_a_forked_child_leaves_the_file_to_its_parent(path: Path) -> None:
    done = python(FORK, str(path))
    assert done.returncode == -9, done.stderr
    broker = Broker(path)
    assert bodies(take(broker.engine, broker.queue)) == [str(n) for n in range(20)]
    broker.engine.close()


def test_a_closed_broker_refuses_and_closing_twice_is_harmless(path: Path) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire("x")])
    broker.engine.close()
    broker.engine.close()
    with pytest.raises(BusClosedError, match=r"events\.db is closed"):
        broker.engine.publish("orders", [wire("y")])
    with pytest.raises(BusClosedError):
        take(broker.engine, broker.queue)
    assert not path.with_name("events.db-wal").exists()


# --- what a file may be ---------------------------------------------------------------------------------------------


def refused(path: Path | str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        Engine(SystemClock(), storage=SqliteStorage(str(path)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_database_is_refused_untouched(path: Path) -> None:
    path.write_text("orders,billing\n" * 1000)
    before = path.read_bytes()
    refused(path, "is no SQLite database; give the path of a new file")
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["events.db"]


def test_a_database_of_another_program_is_refused_untouched(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE topics (mine TEXT)")
    other.close()
    before = path.read_bytes()
    refused(path, "is the database of another program")
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["events.db"]


def test_a_file_of_a_newer_version_is_refused_untouched(path: Path) -> None:
    Broker(path).engine.close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = path.read_bytes()
    refused(path, r"newer crossbus \(its schema is version 99, this one knows 1\); upgrade crossbus")
    assert path.read_bytes() == before


def test_an_older_file_is_brought_to_this_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire("kept")])
    broker.engine.close()
    step = "ALTER TABLE topics ADD COLUMN colour TEXT; UPDATE topics SET colour = 'red';"
    monkeypatch.setattr(sqlite_file, "_STEPS", (*sqlite_file._STEPS, step))
    monkeypatch.setattr(sqlite_file, "VERSION", 2)
    connection = sqlite_file.open_file(str(path))
    assert connection.execute("SELECT name, colour FROM topics").fetchall() == [("orders", "red")]
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()
    again = sqlite_file.open_file(str(path))
    assert again.execute("SELECT count(*) FROM messages").fetchone() == (1,)
    again.close()


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Broker(path).engine.close()
    monkeypatch.setattr(
        sqlite_file, "_STEPS", (*sqlite_file._STEPS, "DROP TABLE waiting; SELECT * FROM nothing;")
    )
    monkeypatch.setattr(sqlite_file, "VERSION", 2)
    refused(path, "cannot be opened and written")
    monkeypatch.undo()
    broker = Broker(path)
    assert broker.rows("waiting") == 0
    broker.engine.close()


@pytest.mark.parametrize("where", ["page", "row"])
def test_a_damaged_file_is_refused(path: Path, where: str) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire(f"{n}".ljust(1000)) for n in range(100)])
    broker.engine.close()
    if where == "page":
        content = bytearray(path.read_bytes())
        for page in range(12, len(content) // 4096):
            content[page * 4096 : page * 4096 + 8] = b"\xff" * 8
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM messages WHERE sequence = (SELECT min(sequence) FROM messages)")
        connection.close()
    refused(path, "is damaged .*restore it from a copy")
    refused(path, "is damaged")  # and not: in use


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE subscriptions SET settings = '{\"ordred\": true}'",
        "UPDATE subscriptions SET settings = 'x'",
        "UPDATE messages SET attributes = x'c1'",
        "DELETE FROM topics",
        "DELETE FROM subscriptions",
        "DELETE FROM dead_letters",
        "DELETE FROM numbers",
        "DROP TABLE dead",
    ],
)
def test_what_does_not_fit_together_is_refused(path: Path, statement: str) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire()])
    broker.engine.publish_dead("dead", [wire()])
    broker.engine.close()
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    refused(path, "is damaged")


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "not-there" / "events.db", "its directory is not there; make it first")
    refused(tmp_path, "is a directory; give the path of a file")
    monkeypatch.chdir(tmp_path)
    storage = SqliteStorage("events.db")
    storage.close()
    assert storage.path == str(tmp_path / "events.db")
    assert not (tmp_path / "not-there").exists()


READ_ONLY = """
import os, sys
from crossbus.clock import SystemClock
from crossbus.errors import ConfigurationError
from crossbus_local.engine import Engine
from crossbus_local.sqlite_storage import SqliteStorage
if os.getuid() == 0:
    os.setuid(65534)  # for root nothing is read-only
try:
    Engine(SystemClock(), storage=SqliteStorage(sys.argv[1]))
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has other permissions")
@pytest.mark.parametrize(("file", "folder"), [(0o444, 0o777), (0o444, 0o555), (0o666, 0o555), (0o000, 0o777)])
def test_a_file_that_cannot_be_written_is_refused(file: int, folder: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="crossbus-"))  # where others may look, too
    path = home / "events.db"
    Broker(path).engine.close()
    before = path.read_bytes()
    path.chmod(file)
    home.chmod(folder)
    try:
        done = python(READ_ONLY, str(path))
        assert done.returncode == 0, done.stderr
        assert f"{path} cannot be opened and written (" in done.stdout
        assert "check its permissions" in done.stdout
    finally:
        home.chmod(0o755)
        path.chmod(0o644)
        assert path.read_bytes() == before
        shutil.rmtree(home)


def test_nothing_is_logged_of_what_an_event_holds(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        broker = Broker(path)
        broker.engine.publish("orders", [wire("secret")])
        broker.engine.close()
    assert "secret" not in caplog.text


def test_the_first_subscription_is_there_with_what_it_begins_with_or_not_at_all(path: Path) -> None:
    broker = Broker(path)
    broker.engine.create_topic("early")
    broker.engine.publish("early", [wire("a"), wire("b")])
    connection = broker.engine._storage._connection  # type: ignore[attr-defined]
    connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON waiting BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    with pytest.raises(Unavailable, match="full"):
        broker.engine.put_subscription("early", "late", QueueSettings(), first=True)
    connection.execute("DROP TRIGGER full")
    broker.engine.put_subscription("early", "late", QueueSettings(), first=True)
    broker.restart()
    assert bodies(take(broker.engine, broker.engine.find("early", "late"))) == ["a", "b"]


def test_a_pause_outlives_a_restart(path: Path) -> None:
    broker = Broker(path)
    broker.engine.publish("orders", [wire("a")])
    broker.engine.pause_subscription("orders", "billing", True)
    broker.restart()
    assert take(broker.engine, broker.queue) == []
    broker.engine.pause_subscription("orders", "billing", False)
    broker.restart()
    assert bodies(take(broker.engine, broker.queue)) == ["a"]
