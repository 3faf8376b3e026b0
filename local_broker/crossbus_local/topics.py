"""`LocalTopic`: a topic of the engine, and where a replay of it begins."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Final

from crossbus.adapter import ReplayFrom, Wire
from crossbus.codecs import decode_json
from crossbus.errors import DecodeError, InvalidRequest
from crossbus.event import Event, unchecked
from crossbus.filter_index import FilterIndex
from crossbus_local.eventgrid_filter import Predicate, compile_filter, decoded
from crossbus_local.queue import Queue
from crossbus_local.records import LocalWire, Message
from crossbus_local.storage import FoundTopic

__all__ = ["LocalTopic", "event_of", "first_of"]

_BLANK: Final = unchecked(id="", source=None, type="")
"""What filters see of a message that is no CloudEvent: no attribute at all."""


class LocalTopic:
    """A topic of the engine: its history, its queues, and which of them an event goes to. Under the engine's lock."""

    __slots__ = (
        "all",
        "alone_since",
        "dropped",
        "filtered",
        "history",
        "name",
        "native",
        "published",
        "queues",
        "selective",
        "warned",
    )

    def __init__(self, name: str, history: deque[Message]) -> None:
        self.name = name
        self.history = history
        self.queues: dict[str, Queue] = {}
        self.all: list[Queue] = []
        """The queues without a filter."""
        self.filtered: FilterIndex[Queue] = FilterIndex()
        self.native: dict[Queue, Predicate] = {}
        """The filters in Event Grid's own words, of the queues that have one."""
        self.selective = False
        """True if any queue has a filter."""
        self.published = 0
        self.dropped = 0
        self.warned = False
        self.alone_since = 0
        """Where in the history what is published without any subscription begins, while there is none."""

    @classmethod
    def found(cls, kept: FoundTopic) -> LocalTopic:
        """Return a topic that a storage kept."""
        topic = cls(kept.name, kept.history)
        topic.published, topic.dropped = kept.published, kept.dropped
        if kept.history and kept.published > kept.dropped:
            topic.alone_since = kept.history[-1].sequence + 1
        for queue in kept.queues:
            topic.queues[queue.name] = queue
            topic.route(queue)
        return topic

    def takers(self, wire: Wire) -> list[Queue]:
        """Return the queues that an event goes to."""
        if not self.selective:
            return self.all
        matching = self.filtered.matching(event_of(wire))
        if matching and self.native:
            matching = self.natively(matching, wire.body)
        return [*self.all, *matching]

    def route(self, queue: Queue) -> None:
        """Have a queue take what its filters match, whatever they were before."""
        self.unroute(queue)
        filter, native = queue.settings.filter, queue.settings.eventgrid_filter
        if native is not None:
            self.native[queue] = compile_filter(native)
        if filter is None and native is None:
            self.all = [*self.all, queue]
        else:
            self.filtered.add(queue, filter)
            self.selective = True

    def unroute(self, queue: Queue) -> None:
        """Have a queue take nothing more."""
        self.all = [other for other in self.all if other is not queue]
        if queue in self.filtered:
            self.filtered.remove(queue)
            self.selective = len(self.filtered) > 0
        self.native.pop(queue, None)

    def takes(self, queue: Queue, body: bytes) -> bool:
        """True if the filters of one queue match."""
        filter = queue.settings.filter
        if filter is not None and not filter.matches(_event_in(body)):
            return False
        return queue not in self.native or self.native[queue](decoded(body))

    def natively(self, queues: list[Queue], body: bytes) -> list[Queue]:
        """Return those of the queues whose filters in Event Grid's own words match, too."""
        event = decoded(body)
        return [queue for queue in queues if queue not in self.native or self.native[queue](event)]


def event_of(wire: Wire) -> Event:
    """Return what the filters see of a message."""
    if isinstance(wire, LocalWire) and wire.event is not None:
        return wire.event
    return _event_in(wire.body)


def _event_in(body: bytes) -> Event:
    try:
        return decode_json(body)
    except DecodeError:
        return _BLANK


def first_of(topic: LocalTopic, start: ReplayFrom) -> int:
    """Find where in the history a replay begins."""
    history = topic.history
    if start.time is not None:
        since = start.time.timestamp()
        if _is_trimmed(topic) and (not history or since < history[0].published):
            raise _beyond(topic, start.time.isoformat())
        return next((i for i, message in enumerate(history) if message.published >= since), len(history))
    position = start.position or ""
    if position.isascii() and position.isdigit() and len(position) < 20:
        sequence = int(position)
        place = bisect_left(history, sequence, key=lambda message: message.sequence)
        if place < len(history) and history[place].sequence == sequence:
            return place
        if _is_trimmed(topic) and (not history or sequence < history[0].sequence):
            raise _beyond(topic, f"position {position}")
    raise InvalidRequest(
        f"replay of topic {topic.name}: {position[:80]!r} is no position of it; a position is the message id of one of "
        "its events"
    )


def _is_trimmed(topic: LocalTopic) -> bool:
    return topic.published > len(topic.history)


def _beyond(topic: LocalTopic, what: str) -> InvalidRequest:
    history = topic.history
    since = f"from position {history[0].sequence}" if history else "none"
    return InvalidRequest(
        f"replay of topic {topic.name} from {what}: its history no longer reaches there; it keeps the last "
        f"{history.maxlen} events ({since}); set the parameter `history` higher to keep more"
    )
