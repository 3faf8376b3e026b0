"""Dead letters: records in a namespace topic of their own, with one subscription to read them by.

Pull delivery has no way to look at an event without taking it, so they are listed from a `Shelf`. Each look costs a
receive, and Event Grid drops what was received 10 times. A record that was received often is therefore published anew,
and only then acknowledged: a stop in between leaves two, never none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from crossbus.adapter import DeadLetterQueue, LeaseOutcome, Looking, Received, SendOutcome, Wire
from crossbus.errors import ErrorCode, NotFound, ProviderError
from crossbus.shelf import Shelf, without_body
from crossbus.wire import SUBSCRIPTION
from crossbus_eventgrid.limits import MAX_RECEIVES
from crossbus_eventgrid.polling import Polling, Taken, settle_tokens
from crossbus_eventgrid.rest import Place

if TYPE_CHECKING:
    from crossbus.topology import Subscription
    from crossbus_eventgrid.adapter import EventGridAdapter

__all__ = ["DEAD_SUBSCRIPTION", "EventGridDeadLetters", "TopicShelf"]

logger = logging.getLogger("crossbus")

DEAD_SUBSCRIPTION: Final = "dead-letters"
"""The name of the subscription of a dead-letter topic."""
RENEW_AT: Final = MAX_RECEIVES // 2
"""A record that was received so often is published anew."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NO_ATTRIBUTES: dict[str, Any] = {}


class _Sorting(msgspec.Struct):
    time: str = ""


@dataclass(slots=True, eq=False)
class _Held:
    """A record under lock; under several, if a crash had it written twice."""

    received: Received
    order: tuple[str, str]
    tokens: list[str]
    since: float


class TopicShelf(Shelf[_Held]):
    """The shelf of one dead-letter topic."""

    most: ClassVar[int] = 10_000
    """The locks of all are renewed, a hundred a request."""

    def __init__(self, adapter: EventGridAdapter, topic: str) -> None:
        super().__init__(topic)
        self._adapter = adapter
        self._place = Place.subscription(topic, DEAD_SUBSCRIPTION)
        self._polling = Polling(adapter.rest, self._place)
        limits = adapter.capabilities
        self._wait = max(1, int(limits.receive_wait[0]))
        self._batch = limits.receive_batch
        self._lock_seconds = limits.lease.minimum
        self._patience = 1.0 if adapter.is_local else 3.0

    def _received(self, held: _Held) -> Received:
        return held.received

    def _age(self, held: _Held) -> tuple[str, str]:
        return held.order

    async def _put_back(self, held: Sequence[_Held]) -> None:
        # Or a poll of ours that was given up takes it again, and hides it from everybody.
        await self._polling.quiet()
        tokens = [token for one in held for token in one.tokens]
        await settle_tokens(self._adapter.rest, self._place, "release", tokens, {"releaseDelayInSeconds": 0})

    async def close(self) -> None:
        """Give back all that is held, and what a poll still brings, at once."""
        await super().close()
        await self._polling.close()

    async def _remove(self, ids: Sequence[str]) -> list[LeaseOutcome]:
        outcomes: dict[str, LeaseOutcome] = {}
        for _ in range(2):  # again for those whose locks ended meanwhile
            left = [id for id in ids if outcomes.get(id, LeaseOutcome.LOST) is LeaseOutcome.LOST]
            if any(id not in self.held for id in left):
                await self._fill(None)
            for id in left:
                if id in self.held:
                    outcomes[id] = await self._acknowledge(self.held.pop(id))
            if all(id in outcomes and outcomes[id] is not LeaseOutcome.LOST for id in ids):
                break
        return [outcomes.get(id, LeaseOutcome.LOST) for id in ids]

    async def _acknowledge(self, held: _Held) -> LeaseOutcome:
        outcomes = await settle_tokens(self._adapter.rest, self._place, "acknowledge", held.tokens)
        for outcome in (LeaseOutcome.FAILED, LeaseOutcome.LOST):
            if outcome in outcomes:
                return outcome
        return LeaseOutcome.OK

    # --- taking -------------------------------------------------------------------------------------------------

    async def _fill(self, limit: int | None) -> None:
        """Take records until there are so many, or no more come."""
        await self._keep()
        while limit is None or len(self.held) < limit:
            most = self._batch if limit is None else limit - len(self.held)
            if await self._take(most) is None:
                return

    async def _take(self, most: int) -> list[str] | None:
        taken = await self._polling.poll(min(most, self._batch), self._wait, self._patience)
        if not taken:
            return None
        return [self._hold(one) for one in taken if one.attempt < RENEW_AT or not await self._renew(one)]

    def _bare(self, held: _Held) -> _Held:
        held.received = without_body(held.received)
        return held

    def _hold(self, one: Taken) -> str:
        now = asyncio.get_running_loop().time()
        held = self.held.get(one.message_id)
        if held is not None:
            held.tokens.append(one.token)
            return one.message_id
        received = Received(
            one.message_id,
            one.body,
            _NO_ATTRIBUTES,
            one.message_id,
            attempt=one.attempt,
            lease_seconds=float("inf"),
        )
        self.held[one.message_id] = _Held(received, (_time_of(one.body), one.message_id), [one.token], now)
        return one.message_id

    async def _renew(self, one: Taken) -> bool:
        """Publish a record anew that was received often. False if that fails: it is held as it is."""
        (outcome,) = await self._adapter.publish(
            self.name, [Wire(one.body, _NO_ATTRIBUTES, len(one.body) + 1)]
        )
        if outcome.code is not None:
            logger.warning(
                "a dead letter in %s was received %d times and could not be published anew: %s",
                self.name,
                one.attempt,
                outcome.message,
            )
            return False
        await settle_tokens(self._adapter.rest, self._place, "acknowledge", [one.token])
        return True

    async def _keep(self) -> None:
        """Renew the locks of what is held for long; forget what is lost."""
        now = asyncio.get_running_loop().time()
        old = {
            token: id
            for id, held in self.held.items()
            if now - held.since > self._lock_seconds / 2
            for token in held.tokens
        }
        if not old:
            return
        outcomes = await settle_tokens(self._adapter.rest, self._place, "renewLock", list(old))
        for (token, id), outcome in zip(old.items(), outcomes, strict=True):
            held = self.held.get(id)
            if held is None:
                continue
            if outcome is LeaseOutcome.OK:
                held.since = now
            else:
                held.tokens.remove(token)
                if not held.tokens:
                    del self.held[id]


class EventGridDeadLetters(DeadLetterQueue):
    """The dead letter of one subscription, as the contract has it."""

    def __init__(self, adapter: EventGridAdapter, subscription: Subscription) -> None:
        self._adapter = adapter
        self._subscription = subscription
        self._shelf = adapter.shelf(adapter.topic_name(subscription.dead_letter))
        self._home_seen = False
        self.looking = Looking(adapter.capabilities.lease.minimum, TopicShelf.most)

    async def browse(self, limit: int) -> Sequence[Received]:
        """Return up to `limit` records, oldest first: of those that came, for Event Grid keeps no order."""
        return await self._shelf.look(limit)

    async def pages(self, size: int = 1000) -> AsyncGenerator[Sequence[Received], None]:
        """Give records in the order in which Event Grid hands them out, which is none."""
        async with contextlib.aclosing(self._shelf.pages(size)) as pages:
            async for page in pages:
                yield page

    async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish events again to the topic, each addressed to this subscription; crossbus drops it on others."""
        address = _encode(str(self._subscription))
        addressed = [_addressed(wire, address) for wire in wires]
        good = [wire for wire in addressed if wire is not None]
        # Or they would be published for nobody, and their records removed.
        if good and not await self._has_home():
            gone = f"eventgrid: there is no subscription {self._subscription} to put it back into"
            return [SendOutcome(code=ErrorCode.NOT_FOUND, message=gone)] * len(wires)
        sent = iter(
            await self._adapter.publish(self._adapter.topic_name(self._subscription.topic), good)
            if good
            else ()
        )
        return [_NO_EVENT if wire is None else next(sent) for wire in addressed]

    async def _has_home(self) -> bool:
        """Return whether the subscription is there; True if we may not ask: by releasing a lock that is nobody's."""
        if not self._home_seen:
            place = self._adapter.place(self._subscription)
            try:
                await settle_tokens(self._adapter.rest, place, "release", ["none"])
            except NotFound:
                return False
            except ProviderError:
                return True
            self._home_seen = True
        return True

    async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
        """Remove records."""
        return await self._shelf.remove(leases)


_NO_EVENT: Final = SendOutcome(
    code=ErrorCode.INVALID_REQUEST,
    message="it is no JSON object, and Event Grid takes CloudEvents only; purge it, or publish it elsewhere by hand",
)


def _addressed(wire: Wire, address: bytes) -> Wire | None:
    """Return the wire with our extension that names one subscription; None if it is no event in JSON."""
    try:
        members = _members(wire.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    members[SUBSCRIPTION] = msgspec.Raw(address)
    body = _encode(members)
    return Wire(body, wire.attributes, len(body) + 1)


def _time_of(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Sorting).time
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
