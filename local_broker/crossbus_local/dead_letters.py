"""Dead letters: records that consumers wrote, and messages that the backstop moved."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from crossbus.adapter import DeadLetterQueue, LeaseOutcome, PutBack, Received, SendOutcome, Wire
from crossbus.errors import ErrorCode, NotFound
from crossbus_local.records import DeadRecord, Message

if TYPE_CHECKING:
    from crossbus_local.adapter import LocalAdapter
    from crossbus_local.queue import Queue

__all__ = ["AT_ONCE", "DeadLetter", "LocalDeadLetters", "not_found", "outcomes", "put_back_answers"]

AT_ONCE: Final = 500
"""How many records are put back, or removed, in one step."""


class DeadLetter:
    """The records of one dead letter, oldest first. Part of the engine, and under its lock."""

    __slots__ = ("_last", "records")

    def __init__(self) -> None:
        self.records: dict[int, DeadRecord] = {}
        self._last = 0

    def add(self, message: Message, attempts: int) -> int:
        """Add a message; returns the token by which it can be deleted."""
        self._last += 1
        self.records[self._last] = DeadRecord(message, attempts)
        return self._last

    def put(self, messages: Sequence[Message]) -> None:
        """Add records that a consumer wrote: all of them or, if they cannot be written down, none."""
        for message in messages:
            self.add(message, 0)

    def browse(self, most: int, after: int = 0, room: float = float("inf")) -> list[Received]:
        """Return up to `most` records whose token is above `after`, no more once they have `room` bytes."""
        found: list[Received] = []
        for token, record in self._after(after):
            if len(found) >= most or room <= 0:
                break
            found.append(_as_received(token, record))
            room -= len(record.message.body)
        return found

    def _after(self, token: int) -> Iterator[tuple[int, DeadRecord]]:
        """Give the records above a token. Tokens follow each other, so that no page has to pass all before it."""
        if token <= 0:
            yield from self.records.items()
            return
        for next in range(token + 1, self._last + 1):
            record = self.records.get(next)
            if record is not None:
                yield next, record

    def delete(self, tokens: Iterable[int]) -> list[LeaseOutcome]:
        """Remove records."""
        return [LeaseOutcome.OK if self.records.pop(token, None) else LeaseOutcome.LOST for token in tokens]

    def put_back(self, tokens: Sequence[int], messages: Sequence[Message], queue: Queue) -> None:
        """Put messages into a queue in the place of the records of these tokens, which are there."""
        queue.put(messages)
        for token in tokens:
            del self.records[token]


def _as_received(token: int, record: DeadRecord) -> Received:
    message = record.message
    return Received(
        lease=token,
        body=message.body,
        attributes=message.attributes,
        message_id=str(message.sequence),
        attempt=record.attempts or None,
        lease_seconds=float("inf"),
        key=message.key,
        published=message.published,
    )


def outcomes(first: int, count: int) -> list[SendOutcome]:
    """Say that messages were published, whose sequence numbers follow each other."""
    if count == 1:
        return [SendOutcome(str(first))]
    return [SendOutcome(str(number)) for number in range(first, first + count)]


def not_found(error: NotFound, count: int) -> list[SendOutcome]:
    """Say that messages were not published, for want of a place."""
    return [SendOutcome(code=ErrorCode.NOT_FOUND, message=str(error))] * count


class LocalDeadLetters(DeadLetterQueue):
    """The dead letter of one subscription, as the contract has it."""

    batch = AT_ONCE

    def __init__(self, adapter: LocalAdapter, name: str, topic: str, subscription: str) -> None:
        self._adapter = adapter
        self._name = name
        self._home = topic, subscription

    async def browse(self, limit: int) -> Sequence[Received]:
        """Return up to `limit` records, oldest first."""
        return self._adapter.engine.browse(self._name, limit)

    async def pages(self, size: int = 1000) -> AsyncGenerator[Sequence[Received], None]:
        """Give all records, oldest first."""
        page = self._adapter.engine.browse(self._name, size)
        while page:
            after = page[-1].lease
            yield page
            page = self._adapter.engine.browse(self._name, size, after=after)

    async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Put events into this subscription, at its end."""
        try:
            return outcomes(self._adapter.engine.put(*self._home, wires), len(wires))
        except NotFound as error:
            return not_found(error, len(wires))

    async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
        """Remove records."""
        return self._adapter.engine.delete_records(self._name, leases)

    async def put_back(self, records: Sequence[tuple[Any, Wire]]) -> Sequence[PutBack]:
        """Put events back and remove their records, in one step: nothing twice, whoever else does the same."""
        try:
            first, there = self._adapter.engine.put_back(self._name, *self._home, records)
        except NotFound as error:
            return [PutBack(sent) for sent in not_found(error, len(records))]
        return put_back_answers(first, there)


def put_back_answers(first: int, there: Sequence[bool]) -> list[PutBack]:
    """Say which were put back: those whose records were there, with sequence numbers that follow each other."""
    found: list[PutBack] = []
    for was_there in there:
        found.append(PutBack(SendOutcome(str(first))) if was_there else PutBack(None, LeaseOutcome.LOST))
        first += was_there
    return found
