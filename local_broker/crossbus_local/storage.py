"""Where the engine's topics, queues and dead letters are kept: the seam under it.

The engine works on what is in memory, always under its lock. A storage gives it the histories, queues and dead letters
to work on. One that outlives the process finds them again, and gives subclasses that write down what is done to them,
before it is done: what cannot be written raises `Unavailable`, and nothing has happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from crossbus.clock import Clock
from crossbus.event import new_id
from crossbus_local.dead_letters import DeadLetter
from crossbus_local.queue import Queue, QueueSettings
from crossbus_local.records import Entry, Message

__all__ = ["Bury", "Found", "FoundTopic", "MemoryStorage", "Storage"]

Bury = Callable[[Queue, Entry], None]
"""What a queue calls to have a message moved into its dead letter."""


@dataclass(slots=True)
class FoundTopic:
    """A topic that a storage kept."""

    name: str
    history: deque[Message]
    published: int
    dropped: int
    queues: list[Queue] = field(default_factory=list)


@dataclass(slots=True)
class Found:
    """What a storage kept from an earlier run."""

    sequence: int = 0
    """No message id of an earlier run is higher."""
    serial: int = 0
    """No `serial` of a queue was higher."""
    topics: list[FoundTopic] = field(default_factory=list)
    dead_letters: dict[str, DeadLetter] = field(default_factory=dict)


class Storage(Protocol):
    """What the engine stands on. Called under the engine's lock; times are the clock's."""

    identity: str
    """Another one for each broker that there ever was; the same as long as leases that were given out hold.

    There when it was loaded."""
    durable: bool
    """True if it outlives the process, so that `publish` is to be called."""
    message: type[Message]
    """What the engine is to make of what is published."""

    def load(self, clock: Clock, history: int, bury: Bury) -> Found:
        """Return what was kept: the last `history` messages of each topic, and all that waits. Called once, first."""
        ...

    def close(self) -> None:
        """Let go of what it is kept in."""
        ...

    def history(self, topic: str, length: int) -> deque[Message]:
        """Make a topic; return what holds its last `length` messages."""
        ...

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
        """Make the queue of a subscription with what it is to hold: both, or neither.

        `serial` is higher for each; a temporary one does not outlive the run.
        """
        ...

    def dead_letter(self, name: str, *, later: bool = False) -> DeadLetter:
        """Make a dead letter. With `later` it must not fail, and is written down with what comes next."""
        ...

    def publish(
        self,
        topic: str,
        history: deque[Message],
        routed: Sequence[tuple[Message, Sequence[Queue]]],
        published: int,
        dropped: int,
    ) -> None:
        """Write down messages and the queues they go to, and the topic's counts after it. Changes none of them."""
        ...

    def delete_topic(self, topic: str, history: Iterable[Message], queues: Iterable[Queue]) -> None:
        """Forget a topic, its history and its queues."""
        ...

    def delete_queue(self, queue: Queue) -> None:
        """Forget a queue and what is in it."""
        ...

    def delete_dead_letter(self, name: str, dead: DeadLetter) -> None:
        """Forget a dead letter and its records."""
        ...


class MemoryStorage:
    """Keeps everything in memory, for as long as the engine lives: there is nothing to write down."""

    durable = False
    message = Message

    def __init__(self) -> None:
        self.identity = new_id()

    def load(self, clock: Clock, history: int, bury: Bury) -> Found:
        """Return nothing: there was no earlier run."""
        return Found()

    def close(self) -> None:
        """Do nothing."""

    def history(self, topic: str, length: int) -> deque[Message]:
        """Return an empty history."""
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
        """Return a queue that holds this."""
        queue = Queue(name, settings, bury, serial)
        queue.put(holding)
        return queue

    def dead_letter(self, name: str, *, later: bool = False) -> DeadLetter:
        """Return an empty dead letter."""
        return DeadLetter()

    def publish(
        self,
        topic: str,
        history: deque[Message],
        routed: Sequence[tuple[Message, Sequence[Queue]]],
        published: int,
        dropped: int,
    ) -> None:
        """Do nothing."""

    def delete_topic(self, topic: str, history: Iterable[Message], queues: Iterable[Queue]) -> None:
        """Do nothing."""

    def delete_queue(self, queue: Queue) -> None:
        """Do nothing."""

    def delete_dead_letter(self, name: str, dead: DeadLetter) -> None:
        """Do nothing."""
