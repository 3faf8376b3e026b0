"""`SqliteStorage`: everything of a broker in one SQLite file, so that a restart loses nothing that was answered.

What is in memory stays the truth while the broker runs; the file is never read again. Each call of the engine is one
transaction, committed before the call returns.

A commit is handed to the operating system, not waited for until it is on the disk (`synchronous=NORMAL`): the end of
the process, of any kind, loses nothing; a power failure may lose the last moments, and leaves the file whole.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from msgspec import MsgspecError

from crossbus.clock import Clock
from crossbus.errors import BusClosedError, Unavailable
from crossbus_local.dead_letters import DeadLetter
from crossbus_local.queue import Queue, QueueSettings
from crossbus_local.records import Message
from crossbus_local.settings_json import canonical, settings_to_json
from crossbus_local.sqlite_changes import Changes, StoredMessage, stored
from crossbus_local.sqlite_file import damaged, explained, open_file
from crossbus_local.sqlite_load import Loading
from crossbus_local.sqlite_parts import StoredDeadLetter, StoredQueue
from crossbus_local.storage import Bury, Found

__all__ = ["SqliteStorage"]

_RESERVED: Final = 1_000_000
"""So many message ids are reserved at once: a restart goes on behind them, and no publish has to write its last."""

_log = logging.getLogger("crossbus.local")
_all: weakref.WeakSet[SqliteStorage] = weakref.WeakSet()


def _after_fork() -> None:
    for storage in list(_all):
        storage.leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


class SqliteStorage:
    """Keeps everything in a file. See the module's text.

    Args:
        path: The file. It is made if it is not there; its directory must be.
        keep_leases: Whether what was in hand when the broker ended stays in hand until its lease ends, its token being
            good: right for a server, whose consumers live on. Otherwise it comes again at once: right within one
            process, whose consumers have ended with it.
        synchronous: What a commit waits for: ``NORMAL``, or ``FULL`` for the disk.

    Raises:
        ConfigurationError: The file is in use, no database of crossbus, newer, damaged, or cannot be written.
    """

    durable = True
    message: type[Message] = StoredMessage

    def __init__(self, path: str, *, keep_leases: bool = False, synchronous: str = "NORMAL") -> None:
        self.path = os.path.realpath(path)
        self.identity = ""
        self.keep_leases = keep_leases
        self.pending = Changes()
        """What has happened by itself and is written with what comes next."""
        self.topic_rows: dict[str, int] = {}
        self.clock: Clock
        self._connection: sqlite3.Connection | None = open_file(self.path, synchronous=synchronous)
        self._gone = "closed"
        self._reserved = 0
        self._row = 0
        _all.add(self)

    # --- from the file, and away from it ----------------------------------------------------------------------

    def load(self, clock: Clock, history: int, bury: Bury) -> Found:
        """Read the file. Raises `ConfigurationError` if it is damaged or cannot be written; it is closed then."""
        self.clock = clock
        try:
            return self._load(history, bury)
        except (sqlite3.Error, MsgspecError, KeyError, TypeError, AttributeError) as error:
            self.close()
            raise damaged(self.path, error) from error
        except Unavailable as error:
            self.close()
            raise explained(self.path, error.__cause__) from error
        except BaseException:
            self.close()
            raise

    def _load(self, history: int, bury: Bury) -> Found:
        connection = self._open()
        loading = Loading(self, connection, history, bury)
        loading.run()
        found = loading.found
        self._reserved, self._row = found.sequence, loading.row
        # Tokens of leases are made of serials, and must not be given twice. Besides, what cannot be written shows here.
        loading.changes.first.append(_number("serial", found.serial))
        self.write(loading.changes)
        return found

    def close(self) -> None:
        """Write what is pending, and let go of the file. Idempotent."""
        if self._connection is not None:
            self.try_to_write()
            self._connection.close()
            self._connection = None

    def leave_to_parent(self) -> None:
        """Never touch the connection again: in a forked child it belongs to the parent, and must not even be closed."""
        if self._connection is not None:
            # Closing would take the log of transactions away from under the parent.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            self._connection = None
            self._gone = "open in the process that this one was forked from; open the bus after the fork"

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise BusClosedError(f"{self.path} is {self._gone}")
        return self._connection

    # --- writing ----------------------------------------------------------------------------------------------

    def write(self, changes: Changes) -> None:
        """Write changes, and what is pending before them, as one. Raises `Unavailable` if nothing could be written."""
        if self.pending:
            before = Changes()
            before.add(self.pending)
            before.add(changes)
            changes = before
        if not changes:
            return
        if changes.highest > self._reserved:
            changes.first.append(_number("sequence", changes.highest + _RESERVED))
        self._commit(changes)
        changes.written()
        if changes.highest > self._reserved:
            self._reserved = changes.highest + _RESERVED
        if self.pending:
            self.pending = Changes()

    def _commit(self, changes: Changes) -> None:
        connection = self._open()
        try:
            connection.execute("BEGIN IMMEDIATE")
            changes.execute(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back(connection)
            if isinstance(error, sqlite3.Error):
                raise Unavailable(f"{self.path} could not be written: {error}") from error
            raise

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            _log.warning("%s: rolling back failed: %s", self.path, error)

    def try_to_write(self) -> None:
        """Write what is pending; where that fails it stays pending, and after a crash it would happen again."""
        try:
            if self.pending:
                self.write(Changes())
        except Unavailable as error:
            _log.warning("%s", error)

    # --- what the engine asks for -----------------------------------------------------------------------------

    def _next_row(self, changes: Changes) -> int:
        self._row += 1
        changes.first.append(_number("row", self._row))
        return self._row

    def history(self, topic: str, length: int) -> deque[Message]:
        """Make a topic, with an empty history."""
        changes = Changes()
        row = self._next_row(changes)
        changes.first.append(("INSERT INTO topics VALUES (?, ?, 0, 0, 0)", (row, topic)))
        self.write(changes)
        self.topic_rows[topic] = row
        return deque(maxlen=length)

    def queue(
        self,
        topic: str,
        name: str,
        settings: QueueSettings,
        bury: Bury,
        serial: int,
        *,
        temporary: bool,
        holding: Sequence[Message] = (),
    ) -> Queue:
        """Make the queue of a subscription. A temporary one is in memory only."""
        changes = Changes()
        changes.first.append(_number("serial", serial))
        if temporary:
            self.write(changes)
            queue = Queue(name, settings, bury, serial)
            queue.put(holding)
            return queue
        row, home = self._next_row(changes), self.topic_rows[topic]
        values = row, home, name, canonical(settings_to_json(settings))
        changes.first.append(("INSERT INTO subscriptions VALUES (?, ?, ?, ?)", values))
        for message in holding:
            changes.put(row, message)
        self.write(changes)
        stored_queue = StoredQueue(self, row, name, settings, bury, serial)
        for message in holding:
            stored_queue.add(message)
        return stored_queue

    def dead_letter(self, name: str, *, later: bool = False) -> DeadLetter:
        """Make a dead letter."""
        changes = Changes()
        row = self._next_row(changes)
        changes.first.append(("INSERT INTO dead_letters VALUES (?, ?, 0)", (row, name)))
        if later:
            self.pending.add(changes)
        else:
            self.write(changes)
        return StoredDeadLetter(self, row)

    def publish(
        self,
        topic: str,
        history: deque[Message],
        routed: Sequence[tuple[Message, Sequence[Queue]]],
        published: int,
        dropped: int,
    ) -> None:
        """Write down messages, where they go, and what leaves the history for them."""
        if not routed:
            return
        changes, home = Changes(), self.topic_rows[topic]
        leaving = max(0, len(history) + len(routed) - (history.maxlen or 0))
        for old in islice(history, leaving):
            changes.hold(stored(old), -1)
        for number, (message, queues) in enumerate(routed, len(history)):
            rows = [queue.row for queue in queues if isinstance(queue, StoredQueue)]
            changes.publish(stored(message), home, rows, kept=number >= leaving)
        kept_from = next((m.sequence for m in islice(history, leaving, None)), 0)
        if not kept_from:
            kept_from = routed[0][0].sequence + leaving - len(history)
        statement = "UPDATE topics SET published = ?, dropped = ?, kept_from = ? WHERE id = ?"
        changes.first.append((statement, (published, dropped, kept_from, home)))
        self.write(changes)

    def delete_topic(self, topic: str, history: Iterable[Message], queues: Iterable[Queue]) -> None:
        """Forget a topic, its history and its queues."""
        changes = Changes()
        for message in history:
            changes.hold(stored(message), -1)
        for queue in queues:
            _delete_queue(changes, queue)
        changes.first.append(("DELETE FROM topics WHERE id = ?", (self.topic_rows[topic],)))
        self.write(changes)
        del self.topic_rows[topic]

    def delete_queue(self, queue: Queue) -> None:
        """Forget a queue and what is in it."""
        changes = Changes()
        _delete_queue(changes, queue)
        self.write(changes)

    def delete_dead_letter(self, name: str, dead: DeadLetter) -> None:
        """Forget a dead letter and its records."""
        assert isinstance(dead, StoredDeadLetter)
        changes = Changes()
        for token, record in dead.records.items():
            changes.unbury(dead.row, token, record.message)
        changes.first.append(("DELETE FROM dead_letters WHERE id = ?", (dead.row,)))
        self.write(changes)


def _delete_queue(changes: Changes, queue: Queue) -> None:
    if isinstance(queue, StoredQueue):
        for message in queue.messages():
            changes.hold(stored(message), -1)
        changes.first.append(("DELETE FROM waiting WHERE subscription = ?", (queue.row,)))
        changes.first.append(("DELETE FROM subscriptions WHERE id = ?", (queue.row,)))


def _number(name: str, value: int) -> tuple[str, tuple[int, str]]:
    return "UPDATE numbers SET value = max(value, ?) WHERE name = ?", (value, name)
