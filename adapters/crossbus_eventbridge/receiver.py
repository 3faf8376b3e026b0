"""`EventBridgeReceiver`: deliveries from one SQS queue, under visibility timeouts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from crossbus.adapter import LeaseOutcome, Received, Receiver, Settlement
from crossbus_eventbridge.connection import Connection
from crossbus_eventbridge.limits import BATCH
from crossbus_eventbridge.polling import Polling, attributes_of
from crossbus_eventbridge.settling import Lease, settle_leases

__all__ = ["EventBridgeReceiver"]


class EventBridgeReceiver(Receiver):
    """Takes deliveries from one queue.

    While little comes, one long poll waits. As soon as one brings a whole batch, two run beside each other, then
    four, and so on to `pollers`; they wait for nothing, and when they bring less, there are fewer of them again.
    """

    def __init__(
        self, connection: Connection, url: str, name: str, lease: float, wait: int, pollers: int
    ) -> None:
        self._connection = connection
        self._url = url
        self._name = name
        self._lease = math.ceil(lease)
        self._longest = wait
        self._pollers = pollers
        self._speed = 1
        self._polling = Polling(connection, url, name)

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """Return up to `max` deliveries, as soon as there is one, or none after `wait` seconds.

        If it is cancelled, its polls go on without it, and what they bring is given back at once.
        """
        count = min(self._speed, math.ceil(max / BATCH))
        if count > 1:
            found = await self._polling.poll(_shares(max, count), 0, self._lease)
            self._adapt(len(found), count)
            if found:
                return self._received(found)
        found = await self._polling.poll([min(max, BATCH)], min(math.ceil(wait), self._longest), self._lease)
        if len(found) == BATCH:
            self._speed = min(2, self._pollers)
        return self._received(found)

    def _adapt(self, found: int, count: int) -> None:
        if found == count * BATCH:
            self._speed = min(self._speed * 2, self._pollers)
        elif found <= count * BATCH // 2:
            self._speed = max(1, self._speed // 2)

    def _received(self, messages: Sequence[dict[str, Any]]) -> list[Received]:
        now = time.monotonic()
        received = []
        for message in messages:
            system = message.get("Attributes", {})
            received.append(
                Received(
                    Lease(message["ReceiptHandle"], now, now + self._lease),
                    message["Body"].encode("utf-8", "surrogatepass"),
                    attributes_of(message),
                    message["MessageId"],
                    attempt=int(system.get("ApproximateReceiveCount", 1)),
                    lease_seconds=float(self._lease),
                    key=system.get("MessageGroupId"),
                    published=int(system["SentTimestamp"]) / 1000 if "SentTimestamp" in system else None,
                    trace_header=system.get("AWSTraceHeader"),
                )
            )
        return received

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """Delete messages, or make them visible after their delay: in requests of ten, beside each other."""
        return await settle_leases(self._connection, self._url, self._name, settlements)

    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        """Make leases last `seconds` from now, but not beyond 12 hours from the receipt."""
        return await settle_leases(
            self._connection,
            self._url,
            self._name,
            [Settlement(lease, seconds) for lease in leases],
            extend=True,
        )

    async def close(self) -> None:
        """Let those who wait in `receive` return. Polls that are under way give back what they bring."""
        await self._polling.close()


def _shares(most: int, count: int) -> list[int]:
    """Divide so many messages among polls: whole batches first."""
    return [min(BATCH, most - index * BATCH) for index in range(count)]
