"""`Queues`: the URLs of queues, looked up once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossbus.errors import ConfigurationError
from crossbus_eventbridge.naming import Queue

if TYPE_CHECKING:
    from crossbus_eventbridge.connection import Connection

__all__ = ["Queues"]


class Queues:
    """Looks up queues of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._urls: dict[tuple[str, str], str] = {}

    async def url(self, queue: Queue) -> str:
        """Return the URL of a queue. Raises `NotFound` without one, `ConfigurationError` if it is elsewhere."""
        if queue.url:
            return queue.url
        region = self._connection.clients.region
        if queue.region not in ("", region):
            raise ConfigurationError(
                f"eventbridge: queue {queue.name} is in region {queue.region}, and this profile in {region}: a rule "
                "delivers within its region only; use a profile with that region for its topic"
            )
        key = queue.name, queue.account
        found = self._urls.get(key)
        if found is None:
            owner = {"QueueOwnerAWSAccountId": queue.account} if queue.account else {}
            answer = await self._connection.call(
                "sqs_control", "GetQueueUrl", f"of queue {queue.name}", QueueName=queue.name, **owner
            )
            found = self._urls[key] = answer["QueueUrl"]
        return found

    def forget(self, queue: Queue) -> None:
        """Look a queue up again when it is next needed."""
        self._urls.pop((queue.name, queue.account), None)
