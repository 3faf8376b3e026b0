"""Settling and extending leases: in batches of ten, with an answer for each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from crossbus.adapter import LeaseOutcome, Settlement
from crossbus_eventbridge.errors import lease_outcome
from crossbus_eventbridge.limits import BATCH, LONGEST_LEASE

if TYPE_CHECKING:
    from crossbus_eventbridge.connection import Connection, Service

__all__ = ["Lease", "settle_leases"]

_OK, _LOST, _FAILED = LeaseOutcome.OK, LeaseOutcome.LOST, LeaseOutcome.FAILED
_DELETE: Final = "DeleteMessageBatch"
_CHANGE: Final = "ChangeMessageVisibilityBatch"


class Lease:
    """A receipt handle, and how long it is good for; times are monotonic."""

    __slots__ = ("acked", "expires", "handle", "received")

    def __init__(self, handle: str, received: float, expires: float) -> None:
        self.handle = handle
        self.received = received
        self.expires = expires
        self.acked = False

    def left(self, now: float) -> int:
        """Return how many seconds the visibility may still be put off: 12 hours from the receipt are the most."""
        return max(0, math.floor(self.received + LONGEST_LEASE - now) - 1)


async def settle_leases(
    connection: Connection,
    url: str,
    name: str,
    settlements: Sequence[Settlement],
    *,
    extend: bool = False,
    service: Service = "sqs",
) -> list[LeaseOutcome]:
    """Settle, or extend, each lease. Raises only if no request had an answer.

    `service` is ``sqs_control`` where nobody tries again what failed, so that botocore has to.
    """
    outcomes: list[LeaseOutcome] = [_FAILED] * len(settlements)
    deletes: list[int] = []
    changes: list[int] = []
    now = time.monotonic()
    for index, (lease, delay) in enumerate(settlements):
        if lease.acked:
            outcomes[index] = _LOST if extend else _OK
        elif delay is None:
            deletes.append(index)
        elif lease.expires <= now:
            outcomes[index] = _LOST  # it may be another's by now: nothing is done to it
        else:
            changes.append(index)
    requests = [(_DELETE, deletes[n : n + BATCH]) for n in range(0, len(deletes), BATCH)]
    requests += [(_CHANGE, changes[n : n + BATCH]) for n in range(0, len(changes), BATCH)]
    if not requests:
        return outcomes
    answers = await asyncio.gather(
        *(
            _request(connection, service, url, name, operation, settlements, part)
            for operation, part in requests
        ),
        return_exceptions=True,
    )
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if failed and len(failed) == len(answers):
        raise failed[0]
    for (operation, part), answer in zip(requests, answers, strict=True):
        if not isinstance(answer, BaseException):
            _note(operation, part, answer, settlements, outcomes, extend)
    return outcomes


async def _request(
    connection: Connection,
    service: Service,
    url: str,
    name: str,
    operation: str,
    settlements: Sequence[Settlement],
    part: Sequence[int],
) -> dict[str, Any]:
    now = time.monotonic()
    entries = []
    for index in part:
        lease, delay = settlements[index]
        entry: dict[str, Any] = {"Id": str(index), "ReceiptHandle": lease.handle}
        if delay is not None:
            entry["VisibilityTimeout"] = min(math.ceil(delay), lease.left(now))
        entries.append(entry)
    return await connection.call(service, operation, f"in queue {name}", QueueUrl=url, Entries=entries)


def _note(
    operation: str,
    part: Sequence[int],
    answer: dict[str, Any],
    settlements: Sequence[Settlement],
    outcomes: list[LeaseOutcome],
    extend: bool,
) -> None:
    now = time.monotonic()
    for entry in answer.get("Failed", ()):
        outcomes[int(entry["Id"])] = lease_outcome(entry)
    for entry in answer.get("Successful", ()):
        lease, delay = settlements[int(entry["Id"])]
        outcomes[int(entry["Id"])] = _OK
        if operation == _DELETE:
            lease.acked = True
        else:
            lease.expires = now + min(delay or 0.0, lease.left(now)) if extend else 0.0
