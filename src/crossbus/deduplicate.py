"""Duplicate suppression: a middleware that handles an event of one (source, id) once, and the stores it remembers in.

Every provider delivers at least once, and every publisher that retries may publish twice: duplicates are normal. The
middleware claims an event in a store before it is handled and confirms it after; what it finds confirmed is
acknowledged without handling. A crash in between leaves the claim to end by itself, and the event is handled again:
suppressing duplicates never loses an event.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from crossbus.clock import Clock, SystemClock
from crossbus.delivery import Delivery
from crossbus.errors import ConfigurationError
from crossbus.outcomes import NotYet

__all__ = ["Claim", "Deduplicate", "DuplicateStore", "MemoryStore", "TransactionalStore"]

logger = logging.getLogger("crossbus")

T = TypeVar("T")

_encode: Final = msgspec.json.Encoder().encode

Claim = Literal["new", "in_progress", "done"]
"""What a store answers to a claim: it is ours now; somebody else has it; it was confirmed."""

PRUNE_EVERY: Final = 100
"""After so many claims a store on disk looks through a part of its entries for what has expired."""
PRUNE_PART: Final = 1000
"""How many it looks through then. No index by time: it would double the size, and the cost of a check."""
STORE_FAILED_DELAY: Final = 5.0


class DuplicateStore(Protocol):
    """Where `Deduplicate` remembers. An own one (Redis, a database) needs these three methods, each atomic.

    Keys are text; times to live are in seconds. An entry that has outlived its time is as good as absent.
    """

    async def claim(self, key: str, *, ttl: float) -> Claim:
        """Claim a key for `ttl` seconds: "new" if it was free, else "in_progress" (claimed) or "done" (confirmed)."""
        ...

    async def confirm(self, key: str, *, ttl: float) -> None:
        """Remember for `ttl` seconds that the key is done, whoever claimed it."""
        ...

    async def release(self, key: str) -> None:
        """Forget a claim. What is confirmed stays so."""
        ...


@runtime_checkable
class TransactionalStore(DuplicateStore, Protocol):
    """A store that can confirm within a transaction of the user's, on a connection to the same database."""

    async def confirm_within(self, connection: Any, key: str, *, ttl: float) -> bool:
        """Confirm a key that this store claimed; False if the claim is this store's no more."""
        ...

    def confirm_within_sync(self, connection: Any, key: str, *, ttl: float) -> bool:
        """Do the same on a connection of a program without asyncio."""
        ...

    def settled(self, key: str) -> None:
        """Know of a claim no more: its handler has returned, and had confirmed it within a transaction."""
        ...


class Deduplicate:
    """A handle middleware that suppresses duplicates of one (source, id) in one subscription.

    ::

        bus = Bus(handle_middleware=[Deduplicate(SQLiteStore("handled.db"))])

    An event is claimed, handled, and confirmed. If the handler fails, is cancelled, or rejects the event, the claim
    is released: a retry, and a redrive from the dead letter, are handled. So is a replay. A duplicate that comes
    while the first is being handled is given back for later, whatever its attempt: that is no failure. The same
    happens while the store does not answer.

    Put it outermost but for what shall also see duplicates. A handler of ``list[Event]`` is given those events of
    its batch that are none.

    Args:
        store: Where to remember: `MemoryStore`, `SQLiteStore`, `PostgresStore`, or your own.
        ttl: Seconds for which a handled event is remembered. Default: one day.
        claim_ttl: Seconds after which a claim ends that was neither confirmed nor released, because the process
            crashed. It must be longer than handling takes. Default: 900, the default timeout of a handler.
    """

    def __init__(self, store: DuplicateStore, *, ttl: float = 86400.0, claim_ttl: float = 900.0) -> None:
        for name, value in (("ttl", ttl), ("claim_ttl", claim_ttl)):
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise ConfigurationError(
                    f"Deduplicate({name}={value!r}): it must be a number of seconds above 0"
                )
        self._store = store
        self._ttl = float(ttl)
        self._claim_ttl = float(claim_ttl)
        self._memory = store if type(store) is MemoryStore else None
        self._confirmed_within: set[str] = set()
        self.dropped = 0
        """How many duplicates were acknowledged without handling."""

    async def __call__(self, delivery: Delivery, call_next: Callable[[Delivery], Awaitable[Any]]) -> Any:
        """Handle a delivery, unless its event was handled before."""
        if (memory := self._memory) is not None:
            # Without a task for each call of the store: what never waits cannot be cancelled half-way.
            key = _key(delivery)
            claim = memory.claim_now(key, self._claim_ttl)
            if claim != "new":
                return self._duplicate(claim, key, delivery)
            try:
                answer = await call_next(delivery)
            except BaseException:
                memory.release_now(key)
                raise
            memory.confirm_now(key, self._ttl)
            return answer
        key = _key(delivery)
        claim = await self._claim(key, delivery)
        if claim != "new":
            return self._duplicate(claim, key, delivery)
        try:
            answer = await call_next(delivery)
        except BaseException:
            self._confirmed_within.discard(key)
            await self._quietly(self._store.release(key), "release", key)
            raise
        if key in self._confirmed_within:
            self._confirmed_within.discard(key)
            self._transactional().settled(key)
            return answer
        # Its failure is no failure of the handler. The claim stays until it ends, and then a duplicate is handled.
        await self._quietly(self._store.confirm(key, ttl=self._ttl), "confirm", key)
        return answer

    def _duplicate(self, claim: Claim, key: str, delivery: Delivery) -> None:
        if claim == "in_progress":
            raise NotYet(
                min(self._claim_ttl, 5.0 * 2 ** min(delivery.attempt or 1, 10)),
                reason="the same event is being handled",
            )
        self.dropped += 1
        delivery.count_duplicate()
        logger.debug("%s: a duplicate was dropped: %s", delivery.subscription, key)

    async def confirm(self, delivery: Delivery, connection: Any) -> None:
        """Confirm an event within a transaction of the handler's, so that its effect and the memory of it are one.

        Call it in the handler, in the transaction that holds what the handler does, on an open psycopg
        `AsyncConnection` to the database of the store. If that transaction commits, the event was handled; if it
        rolls back, it was not. That is exactly once, in that database.

        Raises:
            ConfigurationError: the store cannot do that (`PostgresStore` can), or no transaction is open.
            NotYet: the claim had ended, and another consumer may be handling the event. Let it leave your
                transaction, so that this is rolled back; the event comes again.
        """
        store, key = self._transactional(), _key(delivery)
        self._within(key, await store.confirm_within(connection, key, ttl=self._ttl))

    def confirm_sync(self, delivery: Delivery, connection: Any) -> None:
        """Do what `confirm` does, in a handler that is a plain function, on a psycopg `Connection`."""
        store, key = self._transactional(), _key(delivery)
        self._within(key, store.confirm_within_sync(connection, key, ttl=self._ttl))

    def _transactional(self) -> TransactionalStore:
        if isinstance(self._store, TransactionalStore):
            return self._store
        raise ConfigurationError(
            f"{type(self._store).__name__} cannot confirm within a transaction of yours; PostgresStore can, on the "
            "database that the handler writes to"
        )

    def _within(self, key: str, ours: bool) -> None:
        if not ours:
            raise NotYet(STORE_FAILED_DELAY, reason="its claim ended while it was handled")
        self._confirmed_within.add(key)

    async def _claim(self, key: str, delivery: Delivery) -> Claim:
        claiming = asyncio.ensure_future(self._store.claim(key, ttl=self._claim_ttl))
        try:
            return await _through(claiming)
        except asyncio.CancelledError:
            if not claiming.cancelled() and claiming.exception() is None and claiming.result() == "new":
                await self._quietly(self._store.release(key), "release", key)
            raise
        except Exception as error:
            logger.error("the duplicate store failed, %s waits: %s: %s", key, type(error).__name__, error)
            raise NotYet(STORE_FAILED_DELAY, reason=f"the duplicate store failed: {error}") from error

    async def _quietly(self, call: Coroutine[Any, Any, None], what: str, key: str) -> None:
        try:
            await _through(asyncio.ensure_future(call))
        except Exception as error:
            logger.warning("the duplicate store cannot %s %s: %s: %s", what, key, type(error).__name__, error)


def _key(delivery: Delivery) -> str:
    """Return what makes an event the same: also per subscription, and anew for each replay."""
    event = delivery.event
    where = f"{delivery.topic}/{delivery.subscription}"
    parts = [where, event.source, event.id]
    if delivery.replay is not None:
        parts.append(delivery.replay)
    return _encode(parts).decode()


async def _through(task: asyncio.Future[T]) -> T:
    """Await what must not be left half-done: when cancelled, wait for its end first."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        raise


class MemoryStore:
    """Remembers in memory: for one process, until it ends. Two consumers in two processes do not see each other.

    Args:
        limit: How many handled events are remembered at most; beyond that the oldest are forgotten. About 300 bytes
            each. Default: 100,000.
        clock: What times to live are measured by.
    """

    def __init__(self, *, limit: int = 100_000, clock: Clock | None = None) -> None:
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ConfigurationError(f"MemoryStore(limit={limit!r}): it must be a whole number from 1")
        self._limit = limit
        self._clock = clock or SystemClock()
        self._monotonic = self._clock.monotonic
        self._claimed: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._order: deque[tuple[str, float]] = deque()
        """The same in the order of confirmation. Not by the dict: to find its first is slow once many were removed."""
        self._lock = threading.Lock()  # a bus may run in another thread's loop

    async def claim(self, key: str, *, ttl: float) -> Claim:
        """Claim a key."""
        return self.claim_now(key, ttl)

    async def confirm(self, key: str, *, ttl: float) -> None:
        """Remember that a key is done."""
        self.confirm_now(key, ttl)

    async def release(self, key: str) -> None:
        """Forget a claim."""
        self.release_now(key)

    def claim_now(self, key: str, ttl: float) -> Claim:
        """Claim a key, in any thread."""
        now = self._monotonic()
        with self._lock:
            if self._done.get(key, now) > now:
                return "done"
            if self._claimed.get(key, now) > now:
                return "in_progress"
            self._claimed[key] = now + ttl
            return "new"

    def confirm_now(self, key: str, ttl: float) -> None:
        """Remember that a key is done, in any thread."""
        now = self._monotonic()
        ends = now + ttl
        done, order = self._done, self._order
        with self._lock:
            self._claimed.pop(key, None)
            done[key] = ends
            order.append((key, ends))
            while len(order) > self._limit or order[0][1] <= now:
                oldest, ended = order.popleft()
                if done.get(oldest) == ended:  # else it was confirmed once more
                    del done[oldest]

    def release_now(self, key: str) -> None:
        """Forget a claim, in any thread."""
        with self._lock:
            self._claimed.pop(key, None)

    def __len__(self) -> int:
        return len(self._done) + len(self._claimed)
