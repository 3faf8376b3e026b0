"""`Changes`: what one call of the engine does to a broker's SQLite file. Collected first, then written as one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

from crossbus.wire import REPLAY
from crossbus_local.records import Copy, Message, place_of

__all__ = ["Changes", "StoredMessage", "decode_attributes", "replay_of", "stored"]


class StoredMessage(Message, gc=False):
    """A message, and who needs its row."""

    holders: int = 0
    """How many there are of: the history, queues that are stored, records of dead letters."""
    written: bool = False
    """True if it has its row."""


def stored(message: Message) -> StoredMessage:
    """Return the message that has the row: for a replayed copy, that is its original."""
    found = message.original if isinstance(message, Copy) else message
    assert isinstance(found, StoredMessage)
    return found


def replay_of(message: Message) -> str | None:
    """Return which replay it is a copy of."""
    return message.attributes[REPLAY] if isinstance(message, Copy) else None


def decode_attributes(stored: bytes) -> dict[str, Any]:
    """Read attributes as they are stored."""
    return msgspec.msgpack.decode(stored, type=dict[str, Any])


class Changes:
    """Rows to be inserted, updated and deleted. Collecting changes nothing in memory; `written` does, afterwards.

    The kinds are carried out in a fixed order, which is right because a row of `waiting` is never made again.
    """

    __slots__ = ("_holds", "deleted", "first", "highest", "inserted", "updated")

    def __init__(self) -> None:
        self.first: list[tuple[str, tuple[Any, ...]]] = []
        """Statements that are carried out before all else, in this order."""
        self.inserted: list[tuple[int, int, int, str | None]] = []
        """(subscription, place, message, replay)"""
        self.updated: list[tuple[int, float | None, int | None, int, int]] = []
        """(attempts, due, token, subscription, place)"""
        self.deleted: list[tuple[int, int]] = []
        """(subscription, place)"""
        self.highest = 0
        """The highest number of the sequence that was used."""
        self._holds: dict[int, tuple[StoredMessage, int, int | None]] = {}

    def __bool__(self) -> bool:
        return bool(self.first or self.inserted or self.updated or self.deleted or self._holds)

    def hold(self, message: StoredMessage, by: int) -> None:
        """Have so many more need the message."""
        self._hold(message, by, None)

    def _hold(self, message: StoredMessage, by: int, topic: int | None) -> None:
        before = self._holds.get(message.sequence)
        if before is not None:
            by, topic = before[1] + by, before[2] or topic
        self._holds[message.sequence] = message, by, topic

    def publish(self, message: StoredMessage, topic: int, subscriptions: list[int], *, kept: bool) -> None:
        """Have a new message enter queues, and the history of its topic if it is `kept`."""
        sequence = self.highest = message.sequence
        for subscription in subscriptions:
            self.inserted.append((subscription, sequence, sequence, None))
        holders = len(subscriptions) + kept
        if holders:
            self._holds[sequence] = message, holders, topic

    def put(self, subscription: int, message: Message) -> None:
        """Have a message enter a queue."""
        original, place = stored(message), place_of(message)
        self.hold(original, 1)
        self.inserted.append((subscription, place, original.sequence, replay_of(message)))
        self.highest = max(self.highest, place)

    def gone(self, subscription: int, message: Message) -> None:
        """Have a message leave a queue."""
        self.hold(stored(message), -1)
        self.deleted.append((subscription, place_of(message)))

    def bury(self, dead_letter: int, token: int, message: Message, attempts: int) -> None:
        """Have a message enter a dead letter, whose last token this is."""
        original, place = stored(message), place_of(message)
        self.hold(original, 1)
        self.first += [
            (
                "INSERT INTO dead VALUES (?, ?, ?, ?, ?, ?)",
                (dead_letter, token, original.sequence, attempts, place, replay_of(message)),
            ),
            ("UPDATE dead_letters SET last = ? WHERE id = ?", (token, dead_letter)),
        ]
        self.highest = max(self.highest, place)

    def unbury(self, dead_letter: int, token: int, message: Message) -> None:
        """Have a message leave a dead letter."""
        self.hold(stored(message), -1)
        self.first.append(("DELETE FROM dead WHERE dead_letter = ? AND token = ?", (dead_letter, token)))

    def add(self, later: Changes) -> None:
        """Take in what comes after."""
        self.first += later.first
        self.inserted += later.inserted
        self.updated += later.updated
        self.deleted += later.deleted
        self.highest = max(self.highest, later.highest)
        for message, by, topic in later._holds.values():
            self._hold(message, by, topic)

    # --- carried out ------------------------------------------------------------------------------------------

    def execute(self, connection: sqlite3.Connection) -> None:
        """Carry them out, within a transaction that the caller begins and ends."""
        for statement, values in self.first:
            connection.execute(statement, values)
        many = connection.executemany
        if self._holds:
            many("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)", self._new())
        if self.inserted:
            many(
                "INSERT INTO waiting (subscription, place, message, replay) VALUES (?, ?, ?, ?)",
                self.inserted,
            )
        if self.updated:
            many(
                "UPDATE waiting SET attempts = ?, due = ?, token = ? WHERE subscription = ? AND place = ?",
                self.updated,
            )
        if self.deleted:
            many("DELETE FROM waiting WHERE subscription = ? AND place = ?", self.deleted)
        if self._holds:
            many("DELETE FROM messages WHERE sequence = ?", self._unneeded())

    def written(self) -> None:
        """Note in the messages what has been carried out."""
        for message, by, _ in self._holds.values():
            message.holders += by
            message.written = message.holders > 0

    def _new(self) -> Iterator[tuple[Any, ...]]:
        for message, by, topic in self._holds.values():
            if not message.written and message.holders + by > 0:
                attributes = msgspec.msgpack.encode(dict(message.attributes)) if message.attributes else None
                yield message.sequence, topic, message.published, message.key, attributes, message.body

    def _unneeded(self) -> Iterator[tuple[int]]:
        for message, by, _ in self._holds.values():
            if message.written and message.holders + by == 0:
                yield (message.sequence,)
