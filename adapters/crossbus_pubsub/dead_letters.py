"""Dead letters: a topic, with a subscription through which they are looked at and cleared.

Pub/Sub cannot show what waits: it can only hand it out. So records are pulled, and listed from a `Shelf`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from crossbus.adapter import DeadLetterQueue, LeaseOutcome, Looking, Received, SendOutcome, Wire
from crossbus.clock import Clock
from crossbus.errors import BusClosedError, ErrorCode, PermissionDenied, UnsupportedError
from crossbus.shelf import Shelf, without_body
from crossbus.topology import Subscription
from crossbus.wire import SUBSCRIPTION
from crossbus_pubsub.encoding import PREFIX
from crossbus_pubsub.options import native_text
from crossbus_pubsub.receiver import IDS_PER_CALL, Lease, received_of
from crossbus_pubsub.sources import Source, is_there

if TYPE_CHECKING:
    from crossbus_pubsub.adapter import PubSubAdapter
    from crossbus_pubsub.client import Client

__all__ = ["DEAD_LEASE", "PubSubDeadLetters", "PulledShelf"]

logger = logging.getLogger("crossbus")

DEAD_LEASE: Final = 60
"""Seconds of the acknowledgement deadline that `provision` gives the subscription of a dead letter."""
RENEW: Final = 20.0
"""Seconds of lease that must be left of what is on the shelf, or it is asked for anew."""
LOOK: Final = 2.0
"""Seconds that a look waits for more from the service, which may say that there is nothing when there is."""
PULL: Final = 1000
"""The most that one pull brings: https://cloud.google.com/pubsub/quotas."""


class PulledShelf(Shelf[Received]):
    """The shelf of one subscription."""

    most: ClassVar[int] = 100_000
    """Each costs an acknowledgement id of memory, and is extended."""

    def __init__(self, client: Client, name: str, clock: Clock, *, emulator: bool) -> None:
        super().__init__(name)
        self._client = client
        self._source = Source(name, DEAD_LEASE)
        self._clock = clock
        self._wait = 0.0 if emulator else LOOK

    def _received(self, held: Received) -> Received:
        return _by_id(held)

    def _age(self, held: Received) -> tuple[float, int, str]:
        return _age(held)

    async def _remove(self, ids: Sequence[str]) -> list[LeaseOutcome]:
        if not all(self._is_fresh(id) for id in ids):
            await self._pull(set(ids))
        there = [id for id in ids if id in self.held]
        acks = [self.held.pop(id).lease.ack_id for id in dict.fromkeys(there)]
        for start in range(0, len(acks), IDS_PER_CALL):
            await self._client.call(
                "Acknowledge",
                subscription=self._source.name,
                ack_ids=acks[start : start + IDS_PER_CALL],
            )
        return [LeaseOutcome.OK if id in set(there) else LeaseOutcome.LOST for id in ids]

    def _is_fresh(self, id: str) -> bool:
        kept = self.held.get(id)
        return kept is not None and kept.lease.expires > self._clock.monotonic() + RENEW / 2

    async def _fill(self, limit: int | None) -> None:
        await self._pull(None)

    async def _pull(self, wanted: set[str] | None) -> None:
        """Take out what is there; with `wanted`, no more than it takes to have those."""
        now = self._clock.monotonic()
        if any(kept.lease.expires < now + RENEW for kept in self.held.values()):
            held, self.held = list(self.held.values()), {}
            await self._put_back(held)
        while await self._take(PULL) is not None:
            if wanted is not None and wanted <= self.held.keys():
                return

    async def _take(self, most: int) -> list[str] | None:
        messages = await self._client.pull(self._source.name, min(most, PULL), self._wait)
        now = self._clock.monotonic()
        came = []
        for message in messages:
            lease = Lease(message.ack_id, self._source, now + DEAD_LEASE)
            one = received_of(message, lease, float("inf"))
            self.held[one.message_id] = one
            came.append(one.message_id)
        return came or None

    async def _keep(self) -> None:
        """Extend what would come again soon."""
        now = self._clock.monotonic()
        due = [one.lease for one in self.held.values() if one.lease.expires < now + DEAD_LEASE / 2]
        await self._modify(due, DEAD_LEASE)

    def _bare(self, held: Received) -> Received:
        return without_body(held)

    async def _put_back(self, held: Sequence[Received]) -> None:
        await self._modify([one.lease for one in held], 0)

    async def _modify(self, leases: Sequence[Lease], seconds: int) -> None:
        for start in range(0, len(leases), IDS_PER_CALL):
            part = leases[start : start + IDS_PER_CALL]
            now = self._clock.monotonic()
            await self._client.call(
                "ModifyAckDeadline",
                subscription=self._source.name,
                ack_ids=[lease.ack_id for lease in part],
                ack_deadline_seconds=seconds,
            )
            for lease in part:
                lease.expires = now + seconds


def _age(one: Received) -> tuple[float, int, str]:
    number = int(one.message_id) if one.message_id.isdigit() else 0
    return one.published or 0.0, number, one.message_id


class PubSubDeadLetters(DeadLetterQueue):
    """The dead letter of one subscription, as the contract has it."""

    looking = Looking(DEAD_LEASE, PulledShelf.most)
    batch = 100

    def __init__(self, adapter: PubSubAdapter, shelf: PulledShelf, subscription: Subscription) -> None:
        self._adapter = adapter
        self._shelf = shelf
        self._subscription = subscription
        self._is_there = False
        self._checked = False

    async def browse(self, limit: int) -> Sequence[Received]:
        """Return up to `limit` records, oldest first."""
        await self._check_uncounted()
        return await self._shelf.look(limit)

    async def pages(self, size: int = 1000) -> AsyncGenerator[Sequence[Received], None]:
        """Give records in the order in which Pub/Sub hands them out, which is none."""
        await self._check_uncounted()
        async with contextlib.aclosing(self._shelf.pages(size)) as pages:
            async for page in pages:
                yield page

    async def _check_uncounted(self) -> None:
        """Refuse to look through an adopted subscription that moves away what was delivered too often."""
        adopted = self._subscription.dead_letter_resource or self._subscription.options.get(
            "dead_letter_subscription"
        )
        if not adopted or self._checked:
            return
        name = self._adapter.names.dead_subscription(self._subscription)
        try:
            there = await self._adapter.client.call("GetSubscription", subscription=name)
        except PermissionDenied as error:
            logger.warning("cannot see whether looking into dead letters moves them, going on: %s", error)
        else:
            if there.dead_letter_policy.dead_letter_topic:
                raise UnsupportedError(
                    f"dead letters of {self._subscription}: {name} has a dead-letter policy of its own, after "
                    f"{there.dead_letter_policy.max_delivery_attempts} deliveries, and Pub/Sub shows a message only by "
                    "delivering it: looking would move records away; take the policy off the subscription",
                    capability="dead_letters",
                )
        self._checked = True

    async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish copies that are addressed to this subscription. Others of crossbus drop them."""
        if self._adapter._client is None:
            raise BusClosedError("pubsub: the adapter is not open; open the bus first")
        if not self._is_there:  # or they would be published for nobody, and their records removed
            there = await is_there(
                self._adapter.client, self._adapter.names, self._subscription, native_text(self._subscription)
            )
            if not there:
                gone = f"pubsub: there is no subscription {self._subscription} to put it back into"
                return [SendOutcome(code=ErrorCode.NOT_FOUND, message=gone)] * len(wires)
            self._is_there = True
        address = {f"{PREFIX}{SUBSCRIPTION}": str(self._subscription)}
        copies = [Wire(wire.body, {**wire.attributes, **address}, wire.size, wire.key) for wire in wires]
        return await self._adapter.send(self._subscription.topic, copies)

    async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
        """Remove records."""
        return await self._shelf.remove(list(leases))


def _by_id(one: Received) -> Received:
    """Return a record whose lease is the id of its message: an acknowledgement id changes with each look."""
    return Received(
        lease=one.message_id,
        body=one.body,
        attributes=one.attributes,
        message_id=one.message_id,
        attempt=one.attempt,
        lease_seconds=one.lease_seconds,
        key=one.key,
        published=one.published,
    )
