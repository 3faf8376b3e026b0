"""Reading what a broker's SQLite file holds into memory."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any

from crossbus.errors import DeclarationError
from crossbus.wire import REPLAY
from crossbus_local.records import NO_ATTRIBUTES, Copy, Message
from crossbus_local.settings_json import settings_from_json
from crossbus_local.sqlite_changes import Changes, StoredMessage, decode_attributes
from crossbus_local.sqlite_file import damaged
from crossbus_local.sqlite_parts import StoredDeadLetter, StoredQueue
from crossbus_local.storage import Bury, Found, FoundTopic

if TYPE_CHECKING:
    from crossbus_local.sqlite_storage import SqliteStorage

__all__ = ["Loading"]


class Loading:
    """One reading of a file. `changes` is what is to be written of it, `row` the last id that was given."""

    def __init__(
        self, storage: SqliteStorage, connection: sqlite3.Connection, history: int, bury: Bury
    ) -> None:
        self._storage = storage
        self._connection = connection
        self._cursors: list[sqlite3.Cursor] = []
        self._length = history
        self._bury = bury
        self._messages: dict[int, StoredMessage] = {}
        self._replays: dict[str, dict[str, Any]] = {}
        self._topics: dict[int, FoundTopic] = {}
        self._kept_from: dict[int, int] = {}
        self._queues: dict[int, StoredQueue] = {}
        self.changes = Changes()
        self.found = Found()
        self.row = 0

    def run(self) -> None:
        """Read all. Raises `ConfigurationError` for what does not fit together, and `sqlite3.Error`."""
        try:
            self._run()
        finally:
            for cursor in self._cursors:
                cursor.close()  # one that was not read to its end would keep the file open

    def _read(self, query: str) -> sqlite3.Cursor:
        self._cursors.append(self._connection.execute(query))
        return self._cursors[-1]

    def _run(self) -> None:
        numbers = dict(self._read("SELECT name, value FROM numbers"))
        self.found.sequence, self.found.serial = numbers["sequence"], numbers["serial"]
        self.row = numbers["row"]
        self._storage.identity = f"{numbers['identity']:x}"
        self._load_topics()
        self._load_subscriptions()
        self._load_messages()
        self._load_waiting()
        self._load_dead_letters()
        self._tidy()

    def _load_topics(self) -> None:
        rows = self._read("SELECT id, name, published, dropped, kept_from FROM topics ORDER BY id")
        for row, name, published, dropped, kept_from in rows:
            self._storage.topic_rows[name] = row
            self._kept_from[row] = kept_from
            self._topics[row] = FoundTopic(name, deque(), published, dropped)
        self.found.topics = list(self._topics.values())

    def _load_subscriptions(self) -> None:
        for row, topic, name, text in self._read(
            "SELECT id, topic, name, settings FROM subscriptions ORDER BY id"
        ):
            try:
                settings = settings_from_json(json.loads(text))
                home = self._topics[topic]
            except (ValueError, KeyError, DeclarationError) as error:
                raise damaged(self._storage.path, f"subscription {name}: {error}") from error
            self.found.serial += 1
            queue = StoredQueue(self._storage, row, name, settings, self._bury, self.found.serial)
            self._queues[row] = queue
            home.queues.append(queue)

    def _load_messages(self) -> None:
        keys: dict[str | None, str | None] = {}
        rows = self._read(
            "SELECT sequence, topic, published, key, attributes, body FROM messages ORDER BY sequence"
        )
        for sequence, topic, published, key, attributes, body in rows:
            known = NO_ATTRIBUTES if attributes is None else decode_attributes(attributes)
            message = StoredMessage(sequence, body, published, keys.setdefault(key, key), known, 0, True)
            self._messages[sequence] = message
            if sequence >= self._kept_from.get(topic, sequence + 1):
                message.holders = 1
                self._topics[topic].history.append(message)
        for row, home in self._topics.items():
            self._trim(row, home)

    def _trim(self, row: int, home: FoundTopic) -> None:
        """Let go of what a shorter history than last time does not keep."""
        while len(home.history) > self._length:
            message = home.history.popleft()
            assert isinstance(message, StoredMessage)
            self.changes.hold(message, -1)
            values = message.sequence + 1, row
            self.changes.first.append(("UPDATE topics SET kept_from = ? WHERE id = ?", values))
        home.history = deque(home.history, maxlen=self._length)

    def _load_waiting(self) -> None:
        clock = self._storage.clock
        now, wall = clock.monotonic(), clock.time()
        columns = "subscription, place, message, attempts, due, token, replay"
        rows = self._read(f"SELECT {columns} FROM waiting ORDER BY subscription, place")  # noqa: S608
        for subscription, place, sequence, attempts, due, token, replay in rows:
            message = self._message(sequence, place, replay)
            queue = self._queues.get(subscription)
            if queue is None:
                raise damaged(
                    self._storage.path, f"a message of subscription {subscription}, which is not there"
                )
            ends = None if due is None else now + (due - wall)
            if token is not None and not self._storage.keep_leases:
                ends = now
            queue.restore(message, attempts, ends, token, now)

    def _load_dead_letters(self) -> None:
        rows = {}
        for row, name, last in self._read("SELECT id, name, last FROM dead_letters ORDER BY id"):
            rows[row] = self.found.dead_letters[name] = StoredDeadLetter(self._storage, row, last)
        records = self._read(
            "SELECT dead_letter, token, message, attempts, place, replay FROM dead ORDER BY 1, 2"
        )
        for row, token, sequence, attempts, place, replay in records:
            if row not in rows:
                raise damaged(self._storage.path, f"a record of dead letter {row}, which is not there")
            rows[row].restore(token, self._message(sequence, place, replay), attempts)

    def _message(self, sequence: int, place: int, replay: str | None) -> Message:
        original = self._messages.get(sequence)
        if original is None:
            raise damaged(self._storage.path, f"message {sequence} is not there")
        original.holders += 1
        if replay is None:
            return original
        attributes = self._replays.setdefault(replay, {REPLAY: replay})
        if original.attributes:
            attributes = {**original.attributes, **attributes}
        return Copy(sequence, original.body, original.published, original.key, attributes, place, original)

    def _tidy(self) -> None:
        for message in self._messages.values():
            if message.holders == 0:
                self.changes.hold(message, 0)
