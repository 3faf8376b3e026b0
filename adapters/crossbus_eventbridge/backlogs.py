"""How much waits in a queue. SQS counts about, and tells the age of the oldest message to CloudWatch only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crossbus.adapter import Backlog
from crossbus.errors import ProviderError
from crossbus_eventbridge.naming import Queue

if TYPE_CHECKING:
    from crossbus.topology import Subscription
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["backlog"]

_WAITING: Final = "ApproximateNumberOfMessages"
_DELAYED: Final = "ApproximateNumberOfMessagesDelayed"
_IN_HAND: Final = "ApproximateNumberOfMessagesNotVisible"


async def backlog(adapter: EventBridgeAdapter, subscription: Subscription) -> Backlog:
    """Count a subscription's queue and its dead letter. Raises `NotFound` if the queue is not there."""
    counts = await _counts(adapter, adapter.names.queue(subscription))
    try:
        dead = await _counts(adapter, adapter.names.dead_queue(subscription.dead_letter))
    except ProviderError:
        dead = {}
    return Backlog(
        waiting=counts[_WAITING] + counts[_DELAYED],
        in_hand=counts[_IN_HAND],
        dead=dead[_WAITING] + dead[_DELAYED] + dead[_IN_HAND] if dead else None,
    )


async def _counts(adapter: EventBridgeAdapter, queue: Queue) -> dict[str, int]:
    url = await adapter.queues.url(queue)
    answer = await adapter.connection.call(
        "sqs_control",
        "GetQueueAttributes",
        f"of queue {queue.name}",
        QueueUrl=url,
        AttributeNames=[_WAITING, _DELAYED, _IN_HAND],
    )
    return {name: int(value) for name, value in answer["Attributes"].items()}
