"""The broker in a file against models: closed, killed, opened again, with a disk that fails, at any point."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.test_local_engine import EngineModel, Hands, event_wire, made, take, wire

from crossbus.adapter import Received, ReplayFrom, Settlement
from crossbus.errors import InvalidRequest, NotFound, Unavailable
from crossbus.filters import exact
from crossbus_local.engine import Engine
from crossbus_local.queue import Queue, QueueSettings
from crossbus_local.records import place_of
from crossbus_local.sqlite_parts import StoredQueue
from crossbus_local.sqlite_storage import SqliteStorage

HISTORY = 8


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class File:
    """A broker in a file that can end in two ways, and whose disk can fail."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="crossbus-"))
        self.count = 0

    @property
    def path(self) -> str:
        return str(self.folder / f"{self.count}.db")

    def storage(self) -> SqliteStorage:
        return SqliteStorage(self.path, keep_leases=True)

    def end(self, engine: Engine, *, killed: bool) -> None:
        """Have the engine end. Killed, the files are from then on what they were at that moment."""
        if killed:
            before = self.path
            self.count += 1
            for suffix in ("", "-wal"):
                if Path(before + suffix).exists():
                    shutil.copy(before + suffix, self.path + suffix)
        engine.close()

    def fails(self, engine: Engine, call: Callable[[], object]) -> None:
        """Do something while nothing can be written."""
        connection = engine._storage._connection  # type: ignore[attr-defined]
        connection.execute("PRAGMA query_only = ON")
        with pytest.raises(Unavailable, match="could not be written"):
            call()
        connection.execute("PRAGMA query_only = OFF")

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def check_file(engine: Engine) -> None:
    """The file holds what is in memory, and nothing else: so a restart at this point would find it."""
    storage = engine._storage
    assert isinstance(storage, SqliteStorage)
    storage.try_to_write()
    assert storage._connection is not None
    rows = storage._connection.execute
    waiting, history, held = {}, set(), set()
    for topic in engine._topics.values():
        history |= {message.sequence for message in topic.history}
        for queue in topic.queues.values():
            assert isinstance(queue, StoredQueue)
            tokens = {id(entry): token for token, entry in queue._leases.items()}
            for entry in queue._entries():
                waiting[queue.row, place_of(entry.message)] = tokens.get(id(entry)), entry.message.sequence
    for row, place, token, sequence in rows("SELECT subscription, place, token, message FROM waiting"):
        held.add(sequence)
        assert waiting.pop((row, place)) in [(token, sequence), (None, sequence)]
    assert not waiting
    dead = {record.message.sequence for dead in engine._dead.values() for record in dead.records.values()}
    assert {sequence for (sequence,) in rows("SELECT message FROM dead")} == dead
    assert {sequence for (sequence,) in rows("SELECT sequence FROM messages")} == history | held | dead
    kept = "SELECT sequence FROM messages JOIN topics ON topic = topics.id WHERE sequence >= kept_from"
    assert {sequence for (sequence,) in rows(kept)} == history


class StoredEngineModel(EngineModel):
    """The model that the engine in memory is compared with; restarts and failures change nothing in it."""

    BACKSTOP = 2

    def made(self) -> tuple[Engine, Queue, Hands]:
        self.file = File()
        return made(storage=self.file.storage(), ordered=self.ORDERED, backstop=self.BACKSTOP)

    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        self.file.end(self.engine, killed=killed)
        self.engine = Engine(self.clock, history=100, storage=self.file.storage())  # type: ignore[arg-type]
        self.queue = self.engine.find("orders", "billing")

    @rule(key=st.sampled_from([None, "a"]))
    def publish_fails(self, key: str | None) -> None:
        self.file.fails(
            self.engine, lambda: self.engine.publish("orders", [wire("no", key), wire("no", key)])
        )

    @rule(lease=st.sampled_from([1.0, 5.0]))
    def receive_fails(self, lease: float) -> None:
        self.settle_time()
        if self.deliverable():
            self.file.fails(self.engine, lambda: take(self.engine, self.queue, 3, lease))

    @rule(delay=st.sampled_from([None, 0.0, 3.0]))
    def settle_fails(self, delay: float | None) -> None:
        self.settle_time()
        tokens = [
            token
            for token, body in self.holder.items()
            if delay is None or self.attempts[body] < self.BACKSTOP  # else written later, and cannot fail
        ]
        if tokens:
            settlements = [Settlement(token, delay) for token in tokens]
            self.file.fails(self.engine, lambda: self.engine.settle(self.queue, settlements))

    @rule()
    def extend_fails(self) -> None:
        self.settle_time()
        if self.holder:
            self.file.fails(self.engine, lambda: self.engine.extend(self.queue, list(self.holder), 60.0))

    @invariant()
    def file_agrees(self) -> None:
        check_file(self.engine)

    def teardown(self) -> None:
        self.restart(killed=True)
        super().teardown()
        self.restart(killed=False)
        assert self.engine.backlog("orders", "billing")[:2] == (0, 0)
        dead = {one.body.decode() for one in self.engine.browse("dead", 10_000)}
        assert dead == {body for body, (where, _) in self.state.items() if where == "dead"}
        self.engine.close()
        self.file.remove()


class StoredOrderedEngineModel(StoredEngineModel):
    ORDERED = True


NAMES = st.sampled_from(["one", "two"])
TOPICS = st.sampled_from(["orders", "orders", "orders", "invoices"])


class BothModel(RuleBasedStateMachine):
    """The same is done to a broker in memory and to one in a file, and everything that can be seen is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Hands()
        self.file = File()
        self.memory = Engine(self.clock, history=HISTORY)  # type: ignore[arg-type]
        self.stored = self.opened()
        self.number = 0
        self.leases: dict[int, int] = {}
        """Of a lease in memory, its twin in the file."""
        for topic in ("orders", "invoices"):
            for name in ("one", "two"):
                self.put_subscription(
                    topic, name, ordered=name == "two", type=None, backstop=2, retention=None
                )

    def opened(self) -> Engine:
        return Engine(self.clock, history=HISTORY, storage=self.file.storage())  # type: ignore[arg-type]

    def both(self, call: Callable[[Engine], Any]) -> tuple[Any, Any]:
        found = []
        for engine in (self.memory, self.stored):
            try:
                found.append(call(engine))
            except (NotFound, InvalidRequest) as error:
                found.append(type(error))
        return found[0], found[1]

    def same(self, call: Callable[[Engine], Any]) -> None:
        memory, stored = self.both(call)
        assert memory == stored

    # --- what is done ---------------------------------------------------------------------------------------------

    @rule(topic=TOPICS)
    def delete_topic(self, topic: str) -> None:
        self.same(lambda engine: engine.delete_topic(topic))

    @rule(
        topic=TOPICS,
        name=NAMES,
        ordered=st.booleans(),
        type=st.sampled_from([None, "a"]),
        backstop=st.sampled_from([2, 100]),
        retention=st.sampled_from([None, 40.0]),
    )
    def put_subscription(
        self, topic: str, name: str, ordered: bool, type: str | None, backstop: int, retention: float | None
    ) -> None:
        settings = QueueSettings(
            filter=None if type is None else exact(type=type),
            ordered=ordered,
            backstop=backstop,
            retention=retention,
            dead_letter=f"{topic}-{name}",
        )
        self.same(lambda engine: engine.create_topic(topic))
        self.same(lambda engine: engine.put_subscription(topic, name, settings))

    @rule(topic=TOPICS, name=NAMES)
    def delete_subscription(self, topic: str, name: str) -> None:
        self.same(lambda engine: engine.delete_subscription(topic, name))

    @rule(
        topic=TOPICS,
        types=st.lists(st.sampled_from("ab"), min_size=1, max_size=12),
        key=st.sampled_from([None, "k"]),
    )
    def publish(self, topic: str, types: list[str], key: str | None) -> None:
        wires = []
        for type in types:
            self.number += 1
            made = event_wire(type, str(self.number))
            made.key = key
            wires.append(made)
        self.both(lambda engine: engine.publish(topic, wires))

    @rule(topic=TOPICS, name=NAMES)
    def put(self, topic: str, name: str) -> None:
        self.number += 1
        self.both(lambda engine: engine.put(topic, name, [wire(f"put {self.number}", "k")] * 2))

    @rule(topic=TOPICS, name=NAMES, back=st.sampled_from([0.0, 10.0, 1000.0]))
    def replay(self, topic: str, name: str, back: float) -> None:
        start = ReplayFrom(time=datetime.fromtimestamp(self.clock.time() - back, UTC))
        self.same(lambda engine: engine.replay(topic, name, start))

    @rule(topic=TOPICS, name=NAMES, lease=st.sampled_from([5.0, 30.0]))
    def receive(self, topic: str, name: str, lease: float) -> None:
        memory, stored = self.both(lambda engine: take(engine, engine.find(topic, name), 1000, lease))
        if isinstance(memory, type):
            assert memory is stored
            return
        assert sorted(map(self.seen, memory)) == sorted(map(self.seen, stored))
        twins = sorted(memory, key=self.seen), sorted(stored, key=self.seen)
        self.leases.update({one.lease: other.lease for one, other in zip(*twins, strict=True)})

    @staticmethod
    def seen(one: Received) -> tuple[Any, ...]:
        return one.body, "crossbusreplay" in one.attributes, one.attempt or 0, one.key or "", one.published

    @rule(topic=TOPICS, name=NAMES, part=st.floats(0, 1), delay=st.sampled_from([None, 0.0, 7.0]))
    def settle(self, topic: str, name: str, part: float, delay: float | None) -> None:
        tokens = list(self.leases)[: round(len(self.leases) * part)]

        def settle(engine: Engine) -> list[Any]:
            mine = tokens if engine is self.memory else [self.leases[token] for token in tokens]
            return engine.settle(engine.find(topic, name), [Settlement(token, delay) for token in mine])

        self.same(settle)

    @rule(topic=TOPICS, name=NAMES)
    def dead(self, topic: str, name: str) -> None:
        def publish(engine: Engine) -> None:
            engine.create_dead_letter(f"{topic}-{name}")
            engine.publish_dead(f"{topic}-{name}", [wire(1), wire(2)])

        self.both(publish)

    @rule(topic=TOPICS, name=NAMES)
    def delete_records(self, topic: str, name: str) -> None:
        def delete(engine: Engine) -> list[Any]:
            records = engine.browse(f"{topic}-{name}", 2)
            return engine.delete_records(f"{topic}-{name}", [one.lease for one in records] + [77])

        self.same(delete)

    @rule(topic=TOPICS, name=NAMES, body=st.integers(0, 99))
    def put_back(self, topic: str, name: str, body: int) -> None:
        def back(engine: Engine) -> list[bool]:
            records = engine.browse(f"{topic}-{name}", 2)
            wires = [(one.lease, wire(f"back-{body}")) for one in records] + [(77, wire("none"))]
            return engine.put_back(f"{topic}-{name}", topic, name, wires)[1]

        self.same(back)

    @rule(topic=TOPICS, name=NAMES)
    def delete_dead_letter(self, topic: str, name: str) -> None:
        self.same(lambda engine: engine.delete_dead_letter(f"{topic}-{name}"))

    @rule(seconds=st.sampled_from([1.0, 6.0, 35.0]))
    def advance(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        self.file.end(self.stored, killed=killed)
        self.stored = self.opened()

    # --- what is seen ---------------------------------------------------------------------------------------------

    @invariant()
    def backlogs_agree(self) -> None:
        for topic in ("orders", "invoices"):
            for name in ("one", "two"):
                self.same(lambda engine, at=(topic, name): engine.backlog(*at)[:2])  # type: ignore[misc]

    @invariant()
    def names_and_counts_agree(self) -> None:
        self.same(lambda engine: engine.topics())
        self.same(lambda engine: engine.dead_letters())

    @invariant()
    def records_agree(self) -> None:
        for name in self.memory.dead_letters():
            memory, stored = self.both(lambda engine, name=name: engine.browse(name, 1000))  # type: ignore[misc]
            assert [one.lease for one in memory] == [one.lease for one in stored]
            assert sorted(map(self.seen, memory)) == sorted(map(self.seen, stored))

    @invariant()
    def file_agrees(self) -> None:
        check_file(self.stored)

    @invariant()
    def histories_agree(self) -> None:
        for name, topic in self.memory._topics.items():
            twin = self.stored._topics[name].history
            assert [m.body for m in topic.history] == [m.body for m in twin]
            assert twin.maxlen == HISTORY

    def teardown(self) -> None:
        self.stored.close()
        self.file.remove()


_few = hypothesis_settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStoredModel = StoredEngineModel.TestCase
TestStoredModel.settings = _few
TestStoredOrderedModel = StoredOrderedEngineModel.TestCase
TestStoredOrderedModel.settings = _few
TestBoth = BothModel.TestCase
TestBoth.settings = _few
