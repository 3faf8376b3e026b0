"""`Queue`: the messages of one subscription, with their leases, delays and ordering keys.

A plain data structure: no lock, no clock, no event loop. The engine calls it under its lock and tells it the time.

Where a message can be:

* `fresh`: never received, not first of an ordering key. Just the `Message`, so that waiting costs 8 bytes;
* behind the first of its ordering key, in a `Line`;
* `ready`: an `Entry` that may be received now: given back, or the first of its key;
* `delayed`: an `Entry` that was given back with a delay;
* `leases`: an `Entry` in hand.

Nothing is ever looked for: ends of leases and delays lie in heaps, keys that may go on are put into `ready`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from crossbus.adapter import LeaseOutcome, Received, Settlement
from crossbus.filters import Filter
from crossbus_local.records import Entry, Line, Message, place_of

if TYPE_CHECKING:
    from crossbus_local.dead_letters import DeadLetter

__all__ = ["DEFAULT_BACKSTOP", "Queue", "QueueSettings", "Waiter"]

DEFAULT_BACKSTOP: Final = 100
"""After how many receives a message is moved into the dead letter, if the subscription does not say."""

_OK = LeaseOutcome.OK
_LOST = LeaseOutcome.LOST


class Waiter(Protocol):
    """Who waits for messages of a queue."""

    called: bool
    """Set by the queue once it has woken the waiter."""

    def wake(self) -> bool:
        """Have it receive again, soon; callable from any thread. False if it is gone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What a subscription's queue is like. Times are in seconds."""

    filter: Filter | None = None
    ordered: bool = False
    backstop: int = DEFAULT_BACKSTOP
    retention: float | None = None
    """How long a message is kept; None for as long as the broker lives."""
    dead_letter: str = ""
    """The name of the dead letter that the backstop moves messages into."""
    lease: float = 60.0
    """How long a lease lasts, for a protocol in which the receiver does not say."""
    eventgrid_filter: str | None = None
    """A filter in Event Grid's own words, as canonical JSON text. An event must match both filters."""
    paused: bool = field(default=False, compare=False)
    """True while it hands out nothing. It is kept with the settings, but no part of what a program declares."""


class Queue:
    """The messages of one subscription. See the module's text."""

    __slots__ = (
        "_behind",
        "_bury",
        "_called",
        "_deadlines",
        "_delayed",
        "_fresh",
        "_leases",
        "_lines",
        "_ready",
        "_ready_next",
        "_tie",
        "_token",
        "_waiters",
        "deleted",
        "expired",
        "name",
        "settings",
        "temporary",
    )

    def __init__(
        self, name: str, settings: QueueSettings, bury: Callable[[Queue, Entry], None], serial: int = 0
    ) -> None:
        self.name = name
        self.settings = settings
        self.temporary = False
        self.deleted = False
        self.expired = 0
        """How many messages were dropped because their retention was over."""
        self._bury = bury
        self._fresh: deque[Message] = deque()
        self._ready: deque[Entry] = deque()
        self._delayed: list[tuple[float, int, Entry]] = []
        self._leases: dict[int, Entry] = {}
        # Ends of leases: (when, first token, how many tokens). An item may be out of date, never missing.
        self._deadlines: list[tuple[float, int, int]] = []
        self._lines: dict[str, Line] = {}
        self._behind = 0
        self._waiters: deque[Waiter] = deque()
        self._called = 0
        self._ready_next = False
        # Tokens of a queue that was deleted and made again must not meet.
        self._token = serial << 40
        self._tie = 0

    # --- messages come in -------------------------------------------------------------------------------------

    def add(self, message: Message) -> None:
        """Put a message at the end, and wake one who waits."""
        if message.key is None or not self.settings.ordered:
            self._fresh.append(message)
        else:
            self._line_up(message, message.key)
        if self._waiters:
            self.call_one()

    def put(self, messages: Sequence[Message]) -> None:
        """Put messages at the end: all of them or, if they cannot be written down, none."""
        for message in messages:
            self.add(message)

    def _line_up(self, message: Message, key: str) -> None:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key)
            self._ready.append(Entry(message, 0, 0.0, line))
            return
        if line.behind is None:
            line.behind = deque()
        line.behind.append(message)
        self._behind += 1

    # --- deliveries go out ------------------------------------------------------------------------------------

    def take(
        self, most: int, lease: float, now: float, wall: float, room: float = float("inf")
    ) -> list[Received]:
        """Hand out up to `most` messages under leases of `lease` seconds, no more once they have `room` bytes."""
        deadlines = self._deadlines
        if self._delayed or (deadlines and deadlines[0][0] <= now):
            self.mature(now)
        if self.settings.paused:
            return []
        if self._called:
            most = min(most, self._share())
        first = token = self._token
        expires = now + lease
        oldest = None if self.settings.retention is None else wall - self.settings.retention
        fresh, ready, leases = self._fresh, self._ready, self._leases
        taken: list[Received] = []
        while most > 0:
            # In turn, so that neither what failed nor what is new can starve the other.
            if ready and (self._ready_next or not fresh):
                self._ready_next = False
                entry = ready.popleft()
                message = entry.message
            elif fresh:
                self._ready_next = True
                message = fresh.popleft()
                entry = Entry(message, 0, 0.0, None)
            else:
                break
            if oldest is not None and message.published < oldest:
                self._expire(message)
                self._release(entry)
                continue
            entry.attempts = attempts = entry.attempts + 1
            entry.expires = expires
            leases[token] = entry
            taken.append(
                Received(
                    token,
                    message.body,
                    message.attributes,
                    str(message.sequence),
                    attempts,
                    lease,
                    message.key,
                    message.published,
                )
            )
            token += 1
            most -= 1
            room -= len(message.body)
            if room <= 0:
                break
        if token != first:
            self._token = token
            heappush(deadlines, (expires, first, token - first))
            if len(deadlines) > 64:
                self._forget_old_deadlines()
        if self._waiters and (fresh or ready):
            self.call_one()
        return taken

    def mature(self, now: float) -> None:
        """Make ready whose delay is over, and what was in hand under a lease that has ended."""
        deadlines, delayed, leases = self._deadlines, self._delayed, self._leases
        while deadlines and deadlines[0][0] <= now:
            _, first, count = heappop(deadlines)
            for token in range(first, first + count):
                entry = leases.get(token)
                if entry is not None and entry.expires <= now:
                    del leases[token]
                    self._give_back(entry, 0.0, now)
        while delayed and delayed[0][0] <= now:
            self._ready.append(heappop(delayed)[2])

    def next_due(self) -> float:
        """Return when `mature` may next have something to do; infinity for never."""
        lease = self._deadlines[0][0] if self._deadlines else float("inf")
        return min(lease, self._delayed[0][0]) if self._delayed else lease

    def _share(self) -> int:
        """What one of several receivers that were woken together may take: an even part."""
        return -(-(len(self._fresh) + len(self._ready)) // (self._called + 1))

    def _forget_old_deadlines(self) -> None:
        # Settled leases leave theirs behind. Swept when they are the greater part: constant work for each lease.
        if len(self._deadlines) > 64 + 2 * len(self._leases):
            self._deadlines = [(entry.expires, token, 1) for token, entry in self._leases.items()]
            heapify(self._deadlines)

    # --- deliveries come to an end ----------------------------------------------------------------------------

    def settle(self, settlements: Iterable[Settlement], now: float) -> list[LeaseOutcome]:
        """Acknowledge or give back; `LOST` where the lease has ended or was settled already."""
        if self._deadlines and self._deadlines[0][0] <= now:
            self.mature(now)
        leases = self._leases
        outcomes: list[LeaseOutcome] = []
        for token, delay in settlements:
            entry = leases.pop(token, None)
            if entry is None:
                outcomes.append(_LOST)
                continue
            if delay is not None:
                self._give_back(entry, delay, now)
            elif entry.line is not None:
                self._release(entry)
            outcomes.append(_OK)
        if self._waiters and (self._ready or self._delayed):
            # Also for a delay: who waits has yet to learn when it ends.
            self.call_one()
        return outcomes

    def reject(self, tokens: Iterable[int], dead: DeadLetter | None, now: float) -> list[LeaseOutcome]:
        """Move what is in hand into a dead letter, or drop it if there is none."""
        tokens = list(tokens)
        if dead is not None:
            for entry in self._rejected(tokens, now):
                dead.add(entry.message, entry.attempts)
        return self.settle([Settlement(token) for token in tokens], now)

    def _rejected(self, tokens: list[int], now: float) -> list[Entry]:
        self.mature(now)
        return [self._leases[token] for token in dict.fromkeys(tokens) if token in self._leases]

    def held(self, token: int) -> Entry | None:
        """Return what is in hand under a lease; None if the lease has ended."""
        return self._leases.get(token)

    def extend(self, tokens: Iterable[int], seconds: float, now: float) -> list[LeaseOutcome]:
        """Make leases last `seconds` from now."""
        self.mature(now)
        expires = now + seconds
        outcomes: list[LeaseOutcome] = []
        for token in tokens:
            entry = self._leases.get(token)
            if entry is None:
                outcomes.append(_LOST)
                continue
            entry.expires = expires
            heappush(self._deadlines, (expires, token, 1))
            outcomes.append(_OK)
        self._forget_old_deadlines()
        if self._waiters:
            self.call_one()
        return outcomes

    def untake(self, tokens: Iterable[int]) -> None:
        """Put deliveries back where they were, as if they had not been taken: nobody has seen them."""
        entries = [entry for token in tokens if (entry := self._leases.pop(token, None)) is not None]
        for entry in reversed(entries):
            entry.attempts -= 1
            if entry.attempts or entry.line is not None:
                self._ready.appendleft(entry)
            else:
                self._fresh.appendleft(entry.message)
        if entries and self._waiters:
            self.call_one()

    def _give_back(self, entry: Entry, delay: float, now: float) -> None:
        if entry.attempts >= self.settings.backstop:
            self._bury(self, entry)
            self._left(entry.message)
            self._release(entry)
        elif delay > 0:
            self._tie += 1
            heappush(self._delayed, (now + delay, self._tie, entry))
        else:
            self._ready.append(entry)

    def _left(self, message: Message) -> None:
        """Note that a message is gone without having been acknowledged: buried, or too old."""

    def _expire(self, message: Message) -> None:
        self.expired += 1
        self._left(message)

    def _release(self, entry: Entry) -> None:
        """Let the next of the key go; the entry itself is gone."""
        line = entry.line
        if line is None:
            return
        if line.behind:
            self._behind -= 1
            self._ready.append(Entry(line.behind.popleft(), 0, 0.0, line))
        else:
            del self._lines[line.key]

    # --- who waits --------------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter) -> None:
        """Wake this one, after those who wait already, when something may be there."""
        self._waiters.append(waiter)

    def call_one(self) -> None:
        """Wake the one who waits longest."""
        if self.settings.paused and not self.deleted:
            return  # it would find nothing, and wake the next
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.wake():
                waiter.called = True
                self._called += 1
                return

    def wake_all(self) -> None:
        """Wake all who wait: it was resumed."""
        for _ in range(len(self._waiters)):
            self.call_one()

    def end(self) -> None:
        """The queue is deleted: who waits learns of it, and what is in hand is lost."""
        self.deleted = True
        self._leases.clear()
        while self._waiters:
            self.call_one()

    def leave(self, waiter: Waiter) -> None:
        """The waiter waits no more: it was woken, gave up, or was cancelled."""
        if waiter.called:
            waiter.called = False
            self._called -= 1
        elif waiter in self._waiters:
            self._waiters.remove(waiter)

    def pass_on(self) -> None:
        """Wake the next, in the place of one that was woken and took nothing."""
        if self._fresh or self._ready:
            self.call_one()

    # --- to look at, and to change ----------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many messages are not in hand."""
        return len(self._fresh) + len(self._ready) + len(self._delayed) + self._behind

    @property
    def in_hand(self) -> int:
        """How many messages are under a lease."""
        return len(self._leases)

    def oldest(self) -> float | None:
        """Return when the oldest waiting message was published."""
        return min((message.published for message in self._waiting_messages()), default=None)

    def _waiting_messages(self) -> Iterator[Message]:
        entries = chain(self._ready, (entry for _, _, entry in self._delayed))
        behind = chain.from_iterable(line.behind for line in self._lines.values() if line.behind)
        # Fresh ones are in order, as far as the clock is; the first stands for all.
        return chain(list(self._fresh)[:1], behind, (entry.message for entry in entries))

    def drop_expired(self, wall: float) -> None:
        """Drop what is older than the retention."""
        if self.settings.retention is None:
            return
        oldest = wall - self.settings.retention
        while self._fresh and self._fresh[0].published < oldest:
            self._expire(self._fresh.popleft())
        for line in self._lines.values():
            while line.behind and line.behind[0].published < oldest:
                self._behind -= 1
                self._expire(line.behind.popleft())
        self._delayed = [item for item in self._delayed if self._keep(item[2], oldest)]
        heapify(self._delayed)
        for _ in range(len(self._ready)):
            entry = self._ready.popleft()
            if self._keep(entry, oldest):
                self._ready.append(entry)

    def _keep(self, entry: Entry, oldest: float) -> bool:
        if entry.message.published >= oldest:
            return True
        self._expire(entry.message)
        self._release(entry)
        return False

    def change(self, settings: QueueSettings) -> None:
        """Take other settings. What waits stays.

        Where `ordered` changes, what is in hand comes again, for the promise of order begins anew.
        """
        if settings.ordered == self.settings.ordered:
            self.settings = settings
            return
        kept = sorted(self._entries(), key=lambda entry: place_of(entry.message))
        self.settings = settings
        self._fresh.clear()
        self._ready.clear()
        self._delayed.clear()
        self._leases.clear()
        self._deadlines.clear()
        self._lines.clear()
        self._behind = 0
        for entry in kept:
            if entry.attempts == 0:
                self.add(entry.message)
                continue
            key = entry.message.key
            if settings.ordered and key is not None and key in self._lines:
                self._line_up(entry.message, key)
                continue
            entry.line = None
            if settings.ordered and key is not None:
                entry.line = self._lines[key] = Line(key)
            self._ready.append(entry)
        self.pass_on()

    def _entries(self) -> Sequence[Entry]:
        waiting = chain(
            self._fresh, chain.from_iterable(line.behind for line in self._lines.values() if line.behind)
        )
        return [
            *self._ready,
            *(entry for _, _, entry in self._delayed),
            *self._leases.values(),
            *(Entry(message, 0, 0.0, None) for message in waiting),
        ]
