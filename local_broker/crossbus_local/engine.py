"""`Engine`: the broker itself. Topics with their history, queues, and dead letters, behind one lock.

It knows the contract's words but no event loop: every method returns at once and may be called from any thread. The
asyncio adapter stands on it, and so can a server. Names are the broker's own; what they are called in a program is
the adapter's affair.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from crossbus.adapter import Backlog, LeaseOutcome, Received, ReplayFrom, Settlement, Wire
from crossbus.clock import Clock
from crossbus.errors import NotFound, nearest
from crossbus.event import new_id
from crossbus.wire import REPLAY
from crossbus_local.dead_letters import DeadLetter
from crossbus_local.eventgrid_filter import compile_filter
from crossbus_local.info import QueueInfo, TopicInfo
from crossbus_local.queue import Queue, QueueSettings, Waiter
from crossbus_local.records import Copy, Entry, Message
from crossbus_local.storage import MemoryStorage, Storage
from crossbus_local.topics import LocalTopic, event_of, first_of

__all__ = ["DEFAULT_HISTORY", "Engine", "QueueInfo", "TopicInfo"]

DEFAULT_HISTORY: Final = 10_000
"""How many events of each topic are kept for replay."""

_log = logging.getLogger("crossbus.local")


class Engine:
    """The broker. See the module's text.

    Args:
        clock: Leases, delays and retention are measured by it.
        history: How many events of each topic are kept for replay.
        storage: Where all is kept, and what an earlier run left is found. Default: in memory.
    """

    def __init__(
        self, clock: Clock, *, history: int = DEFAULT_HISTORY, storage: Storage | None = None
    ) -> None:
        self.clock = clock
        self.history = history
        self._storage = storage or MemoryStorage()
        self._durable = self._storage.durable
        self._make = self._storage.message
        self._lock = threading.Lock()
        kept = self._storage.load(clock, history, self._bury)
        self.identity = self._storage.identity
        """Another one for each broker. With a token of this one it makes a lease that no other broker gives out."""
        self._topics = {topic.name: LocalTopic.found(topic) for topic in kept.topics}
        self._dead = kept.dead_letters
        # Message ids of one run must not be those of an earlier one: ids of events may be made of them.
        self._sequence = max(kept.sequence, int(clock.time() * 1_000_000))
        self._serial = kept.serial

    def close(self) -> None:
        """Let go of what the storage is kept in. A closed engine with a durable storage refuses what it would write."""
        with self._lock:
            self._storage.close()

    # --- topics, subscriptions and dead letters ---------------------------------------------------------------

    def topics(self) -> dict[str, TopicInfo]:
        """Return what there is, by name."""
        with self._lock:
            return {
                name: TopicInfo(
                    topic.published,
                    topic.dropped,
                    {
                        queue.name: QueueInfo(queue.settings, queue.waiting, queue.in_hand, queue.temporary)
                        for queue in topic.queues.values()
                    },
                )
                for name, topic in self._topics.items()
            }

    def dead_letters(self) -> dict[str, int]:
        """Return the dead letters by name, and how many records each holds."""
        with self._lock:
            return {name: len(dead.records) for name, dead in self._dead.items()}

    def create_topic(self, name: str) -> None:
        """Make a topic; one that is there stays as it is."""
        with self._lock:
            if name not in self._topics:
                self._topics[name] = LocalTopic(name, self._storage.history(name, self.history))

    def delete_topic(self, name: str) -> None:
        """Delete a topic, its history and its subscriptions."""
        with self._lock:
            topic = self._topics.get(name)
            if topic is None:
                return
            self._storage.delete_topic(name, topic.history, topic.queues.values())
            del self._topics[name]
            for queue in topic.queues.values():
                queue.end()

    def put_subscription(
        self, topic: str, name: str, settings: QueueSettings, *, temporary: bool = False, first: bool = False
    ) -> None:
        """Make a subscription, or change the settings of one that is there. Events that wait in it stay.

        With `first`, the first subscription of a topic begins with what was published before it was there, as far as
        the history has it: nobody else got it.

        Raises `NotFound` if the topic is not there, and `DeclarationError` for an `eventgrid_filter` that is none.
        """
        if settings.eventgrid_filter is not None:
            compile_filter(settings.eventgrid_filter)
        with self._lock:
            home = self._topic(topic)
            queue = home.queues.get(name)
            missed = (
                [m for m in home.history if m.sequence >= home.alone_since]
                if first and not home.queues
                else []
            )
            # Who declares it says nothing of that, and does not resume it.
            settings = replace(settings, paused=queue is not None and queue.settings.paused)
            if queue is None:
                self._serial += 1
                queue = home.queues[name] = self._storage.queue(
                    topic, name, settings, self._bury, self._serial, temporary=temporary, holding=missed
                )
                queue.temporary = temporary
            elif queue.settings != settings:
                queue.change(settings)
            home.route(queue)
            home.dropped -= len(missed)

    def pause_subscription(self, topic: str, name: str, paused: bool) -> bool:
        """Hand out nothing of a subscription, to nobody, or go on; what is in hand stays there. True if that is new.

        It is kept with the subscription. Raises `NotFound` if that is not there.
        """
        with self._lock:
            queue = self._queue(topic, name)
            if queue.settings.paused == paused:
                return False
            queue.change(replace(queue.settings, paused=paused))
            queue.wake_all()
            return True

    def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a subscription and all that waits in it."""
        with self._lock:
            home = self._topics.get(topic)
            queue = home.queues.get(name) if home else None
            if home and queue:
                self._storage.delete_queue(queue)
                del home.queues[name]
                home.unroute(queue)
                home.alone_since = home.alone_since if home.queues else self._sequence + 1
                queue.end()

    def create_dead_letter(self, name: str) -> None:
        """Make a dead letter; one that is there stays as it is."""
        with self._lock:
            self._made_dead_letter(name)

    def _made_dead_letter(self, name: str, *, later: bool = False) -> DeadLetter:
        if name not in self._dead:
            self._dead[name] = self._storage.dead_letter(name, later=later)
        return self._dead[name]

    def delete_dead_letter(self, name: str) -> None:
        """Delete a dead letter and its records."""
        with self._lock:
            dead = self._dead.get(name)
            if dead is not None:
                self._storage.delete_dead_letter(name, dead)
                del self._dead[name]

    def _topic(self, name: str) -> LocalTopic:
        topic = self._topics.get(name)
        if topic is None:
            raise NotFound(
                f"topic {name!r} is not there ({nearest(name, self._topics)}); declare it, and opening the bus "
                "creates it"
            )
        return topic

    def _queue(self, topic: str, name: str) -> Queue:
        home = self._topic(topic)
        queue = home.queues.get(name)
        if queue is None:
            raise NotFound(
                f"subscription {topic}/{name} is not there ({nearest(name, home.queues)}); declare it, and opening the "
                "bus creates it"
            )
        return queue

    def _dead_letter(self, name: str) -> DeadLetter:
        dead = self._dead.get(name)
        if dead is None:
            raise NotFound(
                f"dead letter {name!r} is not there ({nearest(name, self._dead)}); declare its subscription, and "
                "opening the bus creates both"
            )
        return dead

    # --- publishing -------------------------------------------------------------------------------------------

    def publish(self, topic: str, wires: Sequence[Wire]) -> int:
        """Put messages into every subscription whose filter matches.

        Returns the sequence number of the first; those of the others follow it. Raises `NotFound` if the topic is not
        there, and `Unavailable` if they cannot be stored; then none was delivered.
        """
        with self._lock:
            home = self._topics.get(topic) or self._topic(topic)
            if self._durable:
                return self._write_and_publish(home, wires)
            published = self.clock.time()
            first = sequence = self._sequence + 1
            self._sequence += len(wires)
            keep, everything, selective = home.history.append, home.all, home.selective
            for wire in wires:
                message = Message(sequence, wire.body, published, wire.key, wire.attributes)
                sequence += 1
                keep(message)
                for queue in everything:
                    queue.add(message)
                if selective:
                    matching = home.filtered.matching(event_of(wire))
                    if matching and home.native:
                        matching = home.natively(matching, wire.body)
                    for queue in matching:
                        queue.add(message)
                    if not matching and not everything:
                        home.dropped += 1
                elif not everything:
                    self._nobody(home)
            home.published += len(wires)
            return first

    def _write_and_publish(self, home: LocalTopic, wires: Sequence[Wire]) -> int:
        """As above, in two steps: nothing enters a queue before all is written down."""
        first = self._sequence + 1
        routed = [(m, home.takers(wire)) for m, wire in zip(self._messages(wires), wires, strict=True)]
        nowhere = sum(not queues for _, queues in routed)
        published = home.published + len(routed)
        self._storage.publish(home.name, home.history, routed, published, home.dropped + nowhere)
        home.published = published
        for message, queues in routed:
            home.history.append(message)
            for queue in queues:
                queue.add(message)
        if nowhere and not home.queues:
            self._nobody(home, nowhere)
        else:
            home.dropped += nowhere
        return first

    def _nobody(self, topic: LocalTopic, count: int = 1) -> None:
        topic.dropped += count
        if not topic.warned:
            topic.warned = True
            _log.warning(
                "topic %s has no subscription yet: nobody receives what is published to it", topic.name
            )

    def put(self, topic: str, name: str, wires: Sequence[Wire]) -> int:
        """Put messages into one subscription, whatever its filter. They do not enter the topic's history.

        Returns the first sequence number. Raises `NotFound` if the subscription is not there.
        """
        with self._lock:
            queue = self._queue(topic, name)
            first = self._sequence + 1
            queue.put(self._messages(wires))
            return first

    def _messages(self, wires: Sequence[Wire]) -> list[Message]:
        published = self.clock.time()
        first = self._sequence + 1
        self._sequence += len(wires)
        make = self._make
        return [
            make(sequence, wire.body, published, wire.key, wire.attributes)
            for sequence, wire in enumerate(wires, first)
        ]

    # --- consuming --------------------------------------------------------------------------------------------

    def find(self, topic: str, name: str) -> Queue:
        """Return a subscription's queue, for `receive` and what follows. Raises `NotFound`."""
        with self._lock:
            return self._queue(topic, name)

    def receive(
        self,
        queue: Queue,
        most: int,
        lease: float,
        waiter: Waiter | None = None,
        room: float = float("inf"),
    ) -> tuple[list[Received], float]:
        """Hand out up to `most` deliveries under leases of `lease` seconds, no more once they have `room` bytes.

        If there are none, and a `waiter` is given, it will be woken when there may be some; the second thing
        returned is when that may be without anybody's doing, by the clock's `monotonic`. The waiter must `leave`.

        Raises `NotFound` if the subscription was deleted, and `Unavailable` if what is handed out cannot be stored.
        """
        with self._lock:
            if queue.deleted:
                raise NotFound(f"subscription {queue.name!r} was deleted; opening the bus anew creates it")
            wall = 0.0 if queue.settings.retention is None else self.clock.time()
            taken = queue.take(most, lease, self.clock.monotonic(), wall, room)
            if taken or waiter is None:
                return taken, 0.0
            queue.wait(waiter)
            return taken, queue.next_due()

    def leave(self, queue: Queue, waiter: Waiter, *, pass_on: bool = False) -> None:
        """The waiter waits no more. With `pass_on` it also takes nothing, so that the next one is to be woken."""
        with self._lock:
            queue.leave(waiter)
            if pass_on:
                queue.pass_on()

    def settle(self, queue: Queue, settlements: Iterable[Settlement]) -> list[LeaseOutcome]:
        """Acknowledge deliveries, or give them back."""
        with self._lock:
            return queue.settle(settlements, self.clock.monotonic())

    def reject(self, queue: Queue, tokens: Iterable[int]) -> list[LeaseOutcome]:
        """Move deliveries into the subscription's dead letter as they are, or drop them if it names none."""
        with self._lock:
            name = queue.settings.dead_letter
            dead = self._made_dead_letter(name, later=True) if name else None
            return queue.reject(tokens, dead, self.clock.monotonic())

    def untake(self, queue: Queue, tokens: Iterable[int]) -> None:
        """Put deliveries back that reached nobody: they come again at once, and it costs them no attempt."""
        with self._lock:
            queue.untake(tokens)

    def extend(self, queue: Queue, tokens: Iterable[int], seconds: float) -> list[LeaseOutcome]:
        """Make leases last `seconds` from now."""
        with self._lock:
            return queue.extend(tokens, seconds, self.clock.monotonic())

    def backlog(self, topic: str, name: str) -> Backlog:
        """Count what waits."""
        with self._lock:
            queue = self._queue(topic, name)
            wall = self.clock.time()
            queue.mature(self.clock.monotonic())
            queue.drop_expired(wall)
            oldest = queue.oldest()
            dead = self._dead.get(queue.settings.dead_letter)
            return Backlog(
                waiting=queue.waiting,
                in_hand=queue.in_hand,
                oldest_age=None if oldest is None else max(0.0, wall - oldest),
                dead=len(dead.records) if dead else 0,
            )

    # --- dead letters -----------------------------------------------------------------------------------------

    def _bury(self, queue: Queue, entry: Entry) -> None:
        name = queue.settings.dead_letter
        _log.warning(
            "subscription %s: message %s was received %d times and never acknowledged; the backstop moves it to %s",
            queue.name,
            entry.message.sequence,
            entry.attempts,
            name,
        )
        self._made_dead_letter(name, later=True).add(entry.message, entry.attempts)

    def publish_dead(self, name: str, wires: Sequence[Wire]) -> int:
        """Put records into a dead letter.

        Returns the first sequence number. Raises `NotFound` if the dead letter is not there.
        """
        with self._lock:
            dead = self._dead_letter(name)
            first = self._sequence + 1
            dead.put(self._messages(wires))
            return first

    def browse(self, name: str, most: int, *, after: int = 0, room: float = float("inf")) -> list[Received]:
        """Return up to `most` records of a dead letter, oldest first, no more once they have `room` bytes. They stay.

        `after` is the lease of the last record of the page before.
        """
        with self._lock:
            return self._dead_letter(name).browse(most, after, room)

    def delete_records(self, name: str, tokens: Iterable[int]) -> list[LeaseOutcome]:
        """Remove records; `LOST` for one that is gone already."""
        with self._lock:
            return self._dead_letter(name).delete(tokens)

    def put_back(
        self, name: str, topic: str, subscription: str, records: Sequence[tuple[int, Wire]]
    ) -> tuple[int, list[bool]]:
        """Put messages into a subscription in the place of records of a dead letter, all in one step.

        Of a record that is not there nothing is done. Returns the first sequence number, and which were there; raises
        `NotFound` if the subscription or the dead letter is not.
        """
        with self._lock:
            dead, queue = self._dead_letter(name), self._queue(topic, subscription)
            there, taken = [], {}
            for token, wire in records:
                there.append(token in dead.records and token not in taken)
                if there[-1]:
                    taken[token] = wire
            first = self._sequence + 1
            if taken:
                dead.put_back(list(taken), self._messages(list(taken.values())), queue)
            return first, there

    # --- replay -----------------------------------------------------------------------------------------------

    def replay(self, topic: str, name: str, start: ReplayFrom) -> int:
        """Put events of the topic's history into one subscription again, if its filter matches them.

        Each carries the id of the replay as the attribute `crossbusreplay`. Returns how many they are.

        Raises `NotFound`, or `InvalidRequest` for a start that the history does not reach.
        """
        with self._lock:
            queue = self._queue(topic, name)
            home = self._topics[topic]
            past = list(home.history)[first_of(home, start) :]
            attributes = {REPLAY: new_id()}
            again = [self._copy(message, attributes) for message in past if home.takes(queue, message.body)]
            queue.put(again)
            return len(again)

    def _copy(self, message: Message, attributes: dict[str, str]) -> Copy:
        self._sequence += 1
        return Copy(
            message.sequence,
            message.body,
            message.published,
            message.key,
            {**message.attributes, **attributes} if message.attributes else attributes,
            self._sequence,
            message,
        )
