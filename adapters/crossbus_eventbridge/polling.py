"""Long polls, in threads: what they bring, and what becomes of it if nobody waits for it any more.

A call of boto3 cannot be cancelled, and SQS cannot be told that nobody waits: what it hands out then would be nobody's
until its visibility timeout ends. So a poll that is given up goes on in its thread, and gives back what it brings.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from crossbus_eventbridge.errors import portable

if TYPE_CHECKING:
    from crossbus_eventbridge.connection import Connection
    from crossbus_eventbridge.session import Clients

__all__ = ["Polling", "attributes_of", "give_back"]

GRACE: Final = 0.5
"""Seconds that closing waits for polls that were given up."""
_SYSTEM: Final = ["ApproximateReceiveCount", "SentTimestamp", "AWSTraceHeader", "MessageGroupId"]
_NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}

Message = dict[str, Any]


def attributes_of(message: Message) -> Mapping[str, Any]:
    """Return what stands beside the body: the sender's message attributes, as text or bytes."""
    given = message.get("MessageAttributes")
    if not given:
        return _NO_ATTRIBUTES
    return {name: value.get("StringValue", value.get("BinaryValue", "")) for name, value in given.items()}


def give_back(clients: Clients, url: str, messages: Sequence[Message]) -> None:
    """Make messages visible at once. Blocks. What fails comes again when its visibility timeout ends."""
    for start in range(0, len(messages), 10):
        entries = [
            {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for index, message in enumerate(messages[start : start + 10])
        ]
        with contextlib.suppress(Exception):
            clients.sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)


class _Poll:
    """One ReceiveMessage."""

    def __init__(self, url: str, most: int, wait: int, lease: int) -> None:
        self.clients: Clients | None = None
        self._url = url
        self._request = {
            "QueueUrl": url,
            "MaxNumberOfMessages": most,
            "WaitTimeSeconds": wait,
            "VisibilityTimeout": lease,
            "MessageSystemAttributeNames": _SYSTEM,
            "MessageAttributeNames": ["All"],
        }
        self._lock = threading.Lock()
        self._given_up = False
        self._brought: list[Message] = []

    def run(self, clients: Clients) -> list[Message]:
        """Poll, in a thread; hand over what came, or give it back."""
        self.clients = clients
        messages: list[Message] = clients.polls.receive_message(**self._request).get("Messages", [])
        with self._lock:
            if not self._given_up:
                self._brought = messages
                return messages
        give_back(clients, self._url, messages)
        return []

    def give_up(self) -> list[Message]:
        """Nobody waits any more. Returns what was handed over already, and is still to be given back."""
        with self._lock:
            self._given_up = True
            return self._brought


class Polling:
    """The polls of one queue."""

    def __init__(self, connection: Connection, url: str, name: str) -> None:
        self._connection = connection
        self._url = url
        self._name = name
        self._given_up: set[asyncio.Future[Any]] = set()
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def poll(self, shares: Sequence[int], wait: int, lease: int) -> list[Message]:
        """Take messages with as many polls beside each other as there are shares; none once closed.

        Raises the portable error of what AWS said, if no poll brought anything.
        """
        if self._closing.done():
            return []
        polls = [_Poll(self._url, share, wait, lease) for share in shares]
        tasks = [self._connection.start_poll(poll.run) for poll in polls]
        try:
            await self._wait(tasks)
        except asyncio.CancelledError:
            self._give_up(polls, tasks)
            raise
        if any(not task.done() for task in tasks):
            self._give_up(polls, tasks)
            return []
        return await self._results(polls, tasks)

    async def _wait(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
        waiting: set[asyncio.Future[Any]] = {*tasks}
        while waiting and not self._closing.done():
            _, pending = await asyncio.wait({*waiting, self._closing}, return_when=asyncio.FIRST_COMPLETED)
            waiting = pending - {self._closing}

    async def _results(self, polls: Sequence[_Poll], tasks: Sequence[asyncio.Future[Any]]) -> list[Message]:
        found: list[Message] = []
        problem: BaseException | None = None
        for task in tasks:
            error = task.exception()
            if error is None:
                found += task.result()
            else:
                problem = error
        if problem is not None and not found:
            used = polls[0].clients
            if used is not None and await self._connection.renewed(problem, used):
                return []  # with new credentials the next one goes
            raise portable(problem, "ReceiveMessage", f"from queue {self._name}") or problem
        return found

    def _give_up(self, polls: Sequence[_Poll], tasks: Sequence[asyncio.Future[Any]]) -> None:
        for poll, task in zip(polls, tasks, strict=True):
            if brought := poll.give_up():
                assert poll.clients is not None
                task = asyncio.create_task(
                    self._connection.run(partial(give_back, poll.clients, self._url, brought)),
                    name="crossbus eventbridge give back",
                )
            self._given_up.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else will look at it

    async def close(self) -> None:
        """Let those who wait return, and wait a moment for what was taken for nobody to be given back.

        For what a drain gives back comes to the very poll that was just given up.
        """
        if not self._closing.done():
            self._closing.set_result(None)
            await asyncio.sleep(0)
        if self._given_up:
            _, left = await asyncio.wait(set(self._given_up), timeout=GRACE)
            for task in left:
                task.cancel()  # its thread goes on
