"""Publishing: entries into a bus, and records into the queue of a dead letter; an outcome for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from crossbus.adapter import SendOutcome, Wire
from crossbus.errors import ErrorCode, NotFound, PermissionDenied, ProviderError, Throttled, Unauthenticated
from crossbus.event import new_id
from crossbus_eventbridge.errors import code_of_text
from crossbus_eventbridge.naming import FIFO

if TYPE_CHECKING:
    from crossbus_eventbridge.connection import Connection, Service
    from crossbus_eventbridge.queues import Queues

__all__ = ["NO_ANSWER", "BusChecks", "outcome_of", "put_entries", "send_messages"]

logger = logging.getLogger("crossbus")

NO_ANSWER: Final = SendOutcome(
    code=ErrorCode.UNKNOWN, message="AWS did not say what became of it", retryable=True
)


async def put_entries(connection: Connection, bus: str, wires: Sequence[Wire]) -> list[SendOutcome]:
    """Publish one request of entries to a bus."""
    entries = [
        {**wire.attributes, "Detail": wire.body.decode("utf-8"), "EventBusName": bus} for wire in wires
    ]
    answer = await connection.call("events", "PutEvents", f"on bus {bus}", Entries=entries)
    found = [outcome_of(entry, bus) for entry in answer.get("Entries", ())]
    return found + [NO_ANSWER] * (len(wires) - len(found))


def outcome_of(entry: dict[str, Any], bus: str) -> SendOutcome:
    """Return what became of one entry of a request, of either API."""
    code = entry.get("ErrorCode")
    if not code:
        return SendOutcome(entry.get("EventId", ""))
    known, retryable = code_of_text(code)
    return SendOutcome(
        "", known, f"eventbridge: bus {bus} refused it: {code}: {entry.get('ErrorMessage', '')}", retryable
    )


async def send_messages(
    connection: Connection, queues: Queues, queue: Any, wires: Sequence[Wire], service: Service = "sqs"
) -> list[SendOutcome]:
    """Put messages into a queue: one request for every ten of them. One that failed does not keep the others back.

    `service` is ``sqs_control`` where nobody tries again what failed, so that botocore has to.
    """
    url = await queues.url(queue)
    outcomes = await asyncio.gather(
        *(_send_ten(connection, service, url, queue.name, part) for part in _parts(wires))
    )
    return [outcome for part in outcomes for outcome in part]


def _parts(wires: Sequence[Wire]) -> list[list[Wire]]:
    """Divide messages by the limits of one request: ten, and 1 MiB together."""
    from crossbus_eventbridge.limits import BATCH, MESSAGE_BYTES

    parts: list[list[Wire]] = []
    size = 0
    for wire in wires:
        if not parts or len(parts[-1]) == BATCH or size + wire.size > MESSAGE_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(wire)
        size += wire.size
    return parts


async def _send_ten(
    connection: Connection, service: Service, url: str, name: str, wires: Sequence[Wire]
) -> list[SendOutcome]:
    entries = [
        {"Id": str(index), "MessageBody": wire.body.decode("utf-8", "replace"), **_fifo(name, wire)}
        for index, wire in enumerate(wires)
    ]
    try:
        answer = await connection.call(
            service, "SendMessageBatch", f"to queue {name}", QueueUrl=url, Entries=entries
        )
    except ProviderError as error:
        return [SendOutcome("", error.code, str(error), error.retryable, error)] * len(wires)
    outcomes = [NO_ANSWER] * len(wires)
    for entry in answer.get("Successful", ()):
        outcomes[int(entry["Id"])] = SendOutcome(entry.get("MessageId", ""))
    for entry in answer.get("Failed", ()):
        code, retryable = code_of_text(entry.get("Code", ""))
        retryable = retryable or not entry.get("SenderFault", True)
        text = f"eventbridge: queue {name} refused it: {entry.get('Code')}: {entry.get('Message', '')}"
        outcomes[int(entry["Id"])] = SendOutcome("", code, text, retryable)
    return outcomes


def _fifo(name: str, wire: Wire) -> dict[str, str]:
    """Return what a FIFO queue needs beside a message. By its token it knows a wire that is sent again."""
    if not name.endswith(FIFO):
        return {}
    token = wire.attributes.get("DeduplicationId") or new_id()
    return {"MessageGroupId": wire.attributes.get("EventGroupId", token), "MessageDeduplicationId": token}


class BusChecks:
    """Looks, before the first event, whether a bus is there: EventBridge reports success for a bus that is not.

    What a permission or throttling forbids to see is one warning.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: set[str] = set()
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def check(self, bus: str) -> None:
        """Raise `NotFound` if the bus is not there. Asked once for each bus that is."""
        if bus in self._known:
            return
        task = self._under_way.get(bus)
        if task is None:
            task = self._under_way[bus] = asyncio.create_task(
                self._look(bus), name=f"crossbus look for {bus}"
            )
            task.add_done_callback(lambda _: self._under_way.pop(bus, None))
        await asyncio.shield(task)

    async def _look(self, bus: str) -> None:
        try:
            await self._connection.call("events", "DescribeEventBus", bus, Name=bus)
        except (NotFound, Unauthenticated):
            raise
        except (PermissionDenied, Throttled) as error:
            logger.warning(
                "cannot see whether bus %s is there, and EventBridge reports success for one that is not: %s "
                "(verify=false ends this look)",
                bus,
                error,
            )
        self._known.add(bus)
