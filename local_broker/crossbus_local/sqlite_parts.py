"""The queue and the dead letter of a broker in a SQLite file: as in memory, but written down before it happens.

Acknowledging, giving back, extending and putting in are written first and then done. Handing out is done first, for
only then it is known what is handed out, and undone if it cannot be written. What happens by itself, the backstop and
the end of a retention, is written with what comes next: it would happen again after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappush
from typing import TYPE_CHECKING

from crossbus.adapter import LeaseOutcome, Received, Settlement
from crossbus_local.dead_letters import DeadLetter
from crossbus_local.queue import Queue, QueueSettings
from crossbus_local.records import DeadRecord, Entry, Line, Message, place_of
from crossbus_local.settings_json import canonical, settings_to_json
from crossbus_local.sqlite_changes import Changes

if TYPE_CHECKING:
    from crossbus_local.sqlite_storage import SqliteStorage
    from crossbus_local.storage import Bury

__all__ = ["StoredDeadLetter", "StoredQueue"]


class StoredQueue(Queue):
    """A queue whose messages have rows in the table `waiting`."""

    __slots__ = ("_storage", "row")

    def __init__(
        self, storage: SqliteStorage, row: int, name: str, settings: QueueSettings, bury: Bury, serial: int
    ) -> None:
        super().__init__(name, settings, bury, serial)
        self._storage = storage
        self.row = row

    def put(self, messages: Sequence[Message]) -> None:
        """Put messages at the end, if they can be written down."""
        changes = Changes()
        for message in messages:
            changes.put(self.row, message)
        self._storage.write(changes)
        super().put(messages)

    def take(
        self, most: int, lease: float, now: float, wall: float, room: float = float("inf")
    ) -> list[Received]:
        """Hand out up to `most` messages, if that can be written down."""
        taken = super().take(most, lease, now, wall, room)
        changes = Changes()
        if taken:
            due, row, leases = self._storage.clock.time() + lease, self.row, self._leases
            changes.updated = [
                (leases[one.lease].attempts, due, one.lease, row, place_of(leases[one.lease].message))
                for one in taken
            ]
        try:
            self._storage.write(changes)
        except BaseException:
            super().untake([one.lease for one in taken])
            raise
        return taken

    def untake(self, tokens: Iterable[int]) -> None:
        """Put deliveries back where they were; written down as soon as that can be."""
        tokens = list(tokens)
        for token in tokens:
            entry = self._leases.get(token)
            if entry is not None:
                place = place_of(entry.message)
                self._storage.pending.updated.append((entry.attempts - 1, None, None, self.row, place))
        super().untake(tokens)
        self._storage.try_to_write()

    def settle(self, settlements: Iterable[Settlement], now: float) -> list[LeaseOutcome]:
        """Acknowledge or give back, if that can be written down."""
        settlements = list(settlements)
        self.mature(now)
        self._storage.write(self._settled(settlements))
        outcomes = super().settle(settlements, now)
        self._storage.try_to_write()  # what the backstop has moved
        return outcomes

    def reject(self, tokens: Iterable[int], dead: DeadLetter | None, now: float) -> list[LeaseOutcome]:
        """Move what is in hand into a dead letter, or drop it, if that can be written down."""
        tokens = list(tokens)
        rejected = self._rejected(tokens, now)
        settlements = [Settlement(token) for token in tokens]
        changes = self._settled(settlements)
        if isinstance(dead, StoredDeadLetter):
            for token, entry in enumerate(rejected, dead.last + 1):
                changes.bury(dead.row, token, entry.message, entry.attempts)
        self._storage.write(changes)
        if isinstance(dead, StoredDeadLetter):
            for entry in rejected:
                dead.written(entry.message, entry.attempts)
        return super().settle(settlements, now)

    def _settled(self, settlements: list[Settlement]) -> Changes:
        changes, wall, seen = Changes(), self._storage.clock.time(), set()
        for token, delay in settlements:
            entry = self._leases.get(token)
            if entry is None or token in seen:
                continue
            seen.add(token)
            if delay is None:
                changes.gone(self.row, entry.message)
            elif entry.attempts < self.settings.backstop:
                due = wall + delay if delay > 0 else None
                changes.updated.append((entry.attempts, due, None, self.row, place_of(entry.message)))
        return changes

    def extend(self, tokens: Iterable[int], seconds: float, now: float) -> list[LeaseOutcome]:
        """Make leases last `seconds` from now, if that can be written down."""
        tokens = list(tokens)
        self.mature(now)
        due = self._storage.clock.time() + seconds
        changes = Changes()
        for token in tokens:
            entry = self._leases.get(token)
            if entry is not None:
                changes.updated.append((entry.attempts, due, token, self.row, place_of(entry.message)))
        self._storage.write(changes)
        return super().extend(tokens, seconds, now)

    def change(self, settings: QueueSettings) -> None:
        """Take other settings, if that can be written down."""
        changes = Changes()
        text = canonical(settings_to_json(settings))
        changes.first.append(("UPDATE subscriptions SET settings = ? WHERE id = ?", (text, self.row)))
        if settings.ordered != self.settings.ordered:
            changes.first.append(
                ("UPDATE waiting SET due = NULL, token = NULL WHERE subscription = ?", (self.row,))
            )
        self._storage.write(changes)
        super().change(settings)

    def _left(self, message: Message) -> None:
        self._storage.pending.gone(self.row, message)

    def messages(self) -> list[Message]:
        """Return all that is in it."""
        return [entry.message for entry in self._entries()]

    def restore(
        self, message: Message, attempts: int, ends: float | None, token: int | None, now: float
    ) -> None:
        """Put in a message as its row tells. Called in the order of their places.

        `ends` is when its lease or its delay ends, by the clock's `monotonic`.
        """
        line, key = None, message.key
        if self.settings.ordered and key is not None:
            if key in self._lines:
                self._line_up(message, key)
                return
            line = self._lines[key] = Line(key)
        entry = Entry(message, attempts, 0.0 if ends is None else ends, line)
        if token is not None:
            self._leases[token] = entry
            heappush(self._deadlines, (entry.expires, token, 1))
        elif ends is not None and ends > now:
            self._tie += 1
            heappush(self._delayed, (ends, self._tie, entry))
        elif attempts or line:
            self._ready.append(entry)
        else:
            self._fresh.append(message)


class StoredDeadLetter(DeadLetter):
    """A dead letter whose records have rows in the table `dead`."""

    __slots__ = ("_storage", "row")

    def __init__(self, storage: SqliteStorage, row: int, last: int = 0) -> None:
        super().__init__()
        self._storage = storage
        self._last = last
        self.row = row

    @property
    def last(self) -> int:
        """The token of the last record that was ever in it."""
        return self._last

    def written(self, message: Message, attempts: int) -> None:
        """Add a message that is written down already."""
        super().add(message, attempts)

    def add(self, message: Message, attempts: int) -> int:
        """Add a message that the backstop moved; written down with what comes next."""
        token = super().add(message, attempts)
        self._storage.pending.bury(self.row, token, message, attempts)
        return token

    def put(self, messages: Sequence[Message]) -> None:
        """Add records that a consumer wrote, if they can be written down."""
        changes = Changes()
        for token, message in enumerate(messages, self._last + 1):
            changes.bury(self.row, token, message, 0)
        self._storage.write(changes)
        for message in messages:
            self.written(message, 0)

    def delete(self, tokens: Iterable[int]) -> list[LeaseOutcome]:
        """Remove records, if that can be written down."""
        tokens = list(tokens)
        changes = Changes()
        for token in dict.fromkeys(tokens):
            if token in self.records:
                changes.unbury(self.row, token, self.records[token].message)
        self._storage.write(changes)
        return super().delete(tokens)

    def put_back(self, tokens: Sequence[int], messages: Sequence[Message], queue: Queue) -> None:
        """Put messages into a queue in the place of records, if that can be written down: both or neither."""
        changes = Changes()
        for token in tokens:
            changes.unbury(self.row, token, self.records[token].message)
        if isinstance(queue, StoredQueue):
            for message in messages:
                changes.put(queue.row, message)
        self._storage.write(changes)
        Queue.put(queue, messages)  # it is written down already
        for token in tokens:
            del self.records[token]

    def restore(self, token: int, message: Message, attempts: int) -> None:
        """Put in a record as its row tells."""
        self.records[token] = DeadRecord(message, attempts)
