"""A subscription that is gone when its block ends: for `tail` and `record`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from crossbus.errors import NotFound, ProviderError
from crossbus.event import new_id
from crossbus.filters import Filter
from crossbus.topology import RetryPolicy, Subscription, Topic

if TYPE_CHECKING:
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["TEMPORARY_QUEUE", "remove", "temporary"]

logger = logging.getLogger("crossbus")

TEMPORARY_QUEUE: Final = (
    "sqs:CreateQueue, sqs:TagQueue, sqs:SetQueueAttributes, sqs:GetQueueAttributes, sqs:GetQueueUrl, "
    "sqs:ReceiveMessage, sqs:DeleteMessage and sqs:DeleteQueue on a queue of its own"
)
"""What has to be permitted for the queue of a temporary subscription."""
_RETENTION: Final = 3600.0

Step = Callable[["EventBridgeAdapter", Subscription], Awaitable[None]]


@contextlib.asynccontextmanager
async def temporary(
    adapter: EventBridgeAdapter, topic: Topic, filter: Filter | None, put: Step, undo: Sequence[Step]
) -> AsyncIterator[Subscription]:
    """Make what it takes, and delete it. Raises `NotFound` if the bus is not there."""
    subscription = Subscription(
        topic=topic,
        name=f"temp-{new_id()[:12]}",
        filter=filter,
        retention=_RETENTION,
        retry=RetryPolicy(attempts="unlimited"),
    )
    try:
        await put(adapter, subscription)
        yield subscription
    finally:
        try:
            await remove(adapter, subscription, undo)
        except ProviderError as error:
            logger.warning("%s could not be removed, bus.provision(prune=True) will: %s", subscription, error)


async def remove(adapter: EventBridgeAdapter, subscription: Subscription, undo: Sequence[Step]) -> None:
    """Delete what one is made of, each part even if another cannot be. Raises the first error."""
    failed: ProviderError | None = None
    for step in undo:
        try:
            await step(adapter, subscription)
        except NotFound:
            pass
        except ProviderError as error:
            failed = failed or error
    if failed is not None:
        raise failed
