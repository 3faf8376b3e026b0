"""Dead letters: records in an SQS queue, and what the redrive policy, or EventBridge itself, moved into it.

SQS has no way to look at a message without receiving it, so they are listed from a `Shelf`. A process that dies with
records on it hides them for 30 seconds, and for 120 if it was looking by pages. Nobody tries again what an operator
asks for, so botocore does.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from crossbus.adapter import DeadLetterQueue, LeaseOutcome, Looking, Received, SendOutcome, Settlement, Wire
from crossbus.errors import NotFound, PermissionDenied, UnsupportedError
from crossbus.shelf import Shelf, without_body
from crossbus_eventbridge.encoding import DataWire, encode_message
from crossbus_eventbridge.limits import BATCH
from crossbus_eventbridge.polling import attributes_of
from crossbus_eventbridge.publishing import send_messages
from crossbus_eventbridge.settling import Lease, settle_leases

if TYPE_CHECKING:
    from crossbus.topology import Subscription
    from crossbus_eventbridge.adapter import EventBridgeAdapter
    from crossbus_eventbridge.connection import Connection

__all__ = ["EventBridgeDeadLetters", "QueueShelf"]

logger = logging.getLogger("crossbus")

HIDE: Final = 30
"""Seconds that a received record is hidden for, unless it is given back before."""
HIDE_PAGED: Final = 120
"""The same of a look by pages, which may be long: SQS extends ten at a time, which would take longer than the look."""
_GIVEN_BACK: Final = 1000
"""How many are given back at once: ten a request, in parallel."""


class _Held:
    """A record that was received, and how to settle it."""

    __slots__ = ("lease", "received")

    def __init__(self, received: Received, lease: Lease) -> None:
        self.received = received
        self.lease = lease


class QueueShelf(Shelf[_Held]):
    """The shelf of one queue."""

    most: ClassVar[int] = 100_000
    """SQS hands out no more than 120,000 that are not settled:
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html"""

    def __init__(self, connection: Connection, url: str, name: str) -> None:
        super().__init__(name)
        self._connection = connection
        self._url = url
        # A short poll asks only some of the servers of AWS; on this machine there is one.
        self._wait = 0 if connection.is_local else 2

    def _received(self, held: _Held) -> Received:
        return held.received

    def _age(self, held: _Held) -> tuple[float, str]:
        return held.received.published or 0.0, held.received.message_id

    async def _remove(self, ids: Sequence[str]) -> list[LeaseOutcome]:
        self._forget_expired()
        if any(id not in self.held for id in ids):
            await self._fill(None)
        known = [id for id in ids if id in self.held]
        outcomes = dict(
            zip(known, await self._settle([self.held[id].lease for id in known], None), strict=True)
        )
        for id, outcome in outcomes.items():
            if outcome is LeaseOutcome.OK:
                del self.held[id]
        return [outcomes.get(id, LeaseOutcome.LOST) for id in ids]

    async def _put_back(self, held: Sequence[_Held]) -> None:
        for start in range(0, len(held), _GIVEN_BACK):
            await self._settle([one.lease for one in held[start : start + _GIVEN_BACK]], 0.0)

    async def _settle(self, leases: Sequence[Lease], delay: float | None) -> list[LeaseOutcome]:
        settlements = [Settlement(lease, delay) for lease in leases]
        return await settle_leases(self._connection, self._url, self.name, settlements, service="sqs_control")

    async def _fill(self, limit: int | None) -> None:
        """Receive until nothing more comes. Oldest first is a promise, and SQS has no order: so all are received."""
        self._forget_expired()
        while await self._receive(BATCH, HIDE):
            await self._extend()

    async def _take(self, most: int) -> list[str] | None:
        return await self._receive(min(most, BATCH), HIDE_PAGED) or None

    async def _keep(self) -> None:
        self._forget_expired()

    def _bare(self, held: _Held) -> _Held:
        held.received = without_body(held.received)
        return held

    async def _receive(self, most: int, hide: int) -> list[str]:
        """Take up to so many records, hidden from others for so many seconds. Returns their ids."""
        answer = await self._connection.call(
            "sqs_control",
            "ReceiveMessage",
            f"from queue {self.name}",
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            VisibilityTimeout=hide,
            WaitTimeSeconds=self._wait,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            MessageAttributeNames=["All"],
        )
        return [self._hold(message, hide) for message in answer.get("Messages", ())]

    def _hold(self, message: dict[str, Any], hide: int) -> str:
        now = time.monotonic()
        id, system = message["MessageId"], message.get("Attributes", {})
        received = Received(
            id,
            message["Body"].encode("utf-8", "surrogatepass"),
            attributes_of(message),
            id,
            attempt=int(system.get("ApproximateReceiveCount", 1)),
            lease_seconds=float("inf"),
            published=int(system["SentTimestamp"]) / 1000 if "SentTimestamp" in system else None,
        )
        self.held[id] = _Held(received, Lease(message["ReceiptHandle"], now, now + hide))
        return str(id)

    async def _extend(self) -> None:
        """Extend what has been held for long."""
        now = time.monotonic()
        due = [held.lease for held in self.held.values() if held.lease.expires - now < HIDE / 2]
        if due:
            await settle_leases(
                self._connection,
                self._url,
                self.name,
                [Settlement(lease, HIDE) for lease in due],
                extend=True,
                service="sqs_control",
            )

    def _forget_expired(self) -> None:
        now = time.monotonic()
        self.held = {id: held for id, held in self.held.items() if held.lease.expires > now}


class EventBridgeDeadLetters(DeadLetterQueue):
    """The dead letter of one subscription, as the contract has it."""

    looking = Looking(HIDE_PAGED, QueueShelf.most)

    def __init__(self, adapter: EventBridgeAdapter, subscription: Subscription) -> None:
        self._adapter = adapter
        self._subscription = subscription
        self._queue = adapter.names.dead_queue(subscription.dead_letter)
        self._checked = False

    async def _shelf(self) -> QueueShelf:
        url = await self._adapter.queues.url(self._queue)
        if self._subscription.dead_letter_resource is not None and not self._checked:
            await self._check_uncounted(url)
            self._checked = True
        return self._adapter.shelf(self._queue.name, url)

    async def _check_uncounted(self, url: str) -> None:
        """Refuse to look into a queue that moves away what was received too often: a look is a receive."""
        try:
            answer = await self._adapter.connection.call(
                "sqs_control",
                "GetQueueAttributes",
                f"of queue {self._queue.name}",
                QueueUrl=url,
                AttributeNames=["RedrivePolicy"],
            )
        except PermissionDenied as error:
            logger.warning("cannot see whether looking into dead letters moves them, going on: %s", error)
            return
        policy = answer.get("Attributes", {}).get("RedrivePolicy")
        if policy:
            raise UnsupportedError(
                f"dead letters of {self._subscription}: queue {self._queue.name} has a redrive policy of its own "
                f"({policy}), and SQS shows a message only by handing it out, which counts towards it: looking would "
                "move records away; take the policy off the queue",
                capability="dead_letters",
            )

    async def browse(self, limit: int) -> Sequence[Received]:
        """Return up to `limit` records, oldest first: by when they came into the queue."""
        return await (await self._shelf()).look(limit)

    async def pages(self, size: int = 1000) -> AsyncGenerator[Sequence[Received], None]:
        """Give records in the order in which SQS hands them out, which is none."""
        async with contextlib.aclosing((await self._shelf()).pages(size)) as pages:
            async for page in pages:
                yield page

    async def redeliver(self, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Put events into the subscription's queue, past the bus: no other subscription sees them."""
        whole = [
            encode_message(wire.event) if isinstance(wire, DataWire) and wire.event is not None else wire
            for wire in wires
        ]
        queue = self._adapter.names.queue(self._subscription)
        return await send_messages(
            self._adapter.connection, self._adapter.queues, queue, whole, "sqs_control"
        )

    async def delete(self, leases: Sequence[Any]) -> Sequence[LeaseOutcome]:
        """Remove records."""
        try:
            return await (await self._shelf()).remove(leases)
        except NotFound:
            return [LeaseOutcome.LOST] * len(leases)
