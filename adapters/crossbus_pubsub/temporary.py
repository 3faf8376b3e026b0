"""A subscription that is gone when its block ends: for `tail` and `record`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from crossbus.errors import NotFound, ProviderError
from crossbus.event import new_id
from crossbus.filters import Filter
from crossbus.topology import RetryPolicy, Subscription, Topic
from crossbus_pubsub import filters
from crossbus_pubsub.naming import Names

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = ["remove", "temporary"]

_A_DAY: Final = 86_400
"""The shortest time after which Pub/Sub removes a subscription that nobody uses."""


@contextlib.asynccontextmanager
async def temporary(
    client: Client, names: Names, topic: Topic, filter: Filter | None
) -> AsyncIterator[Subscription]:
    """Make a subscription, and delete it. Raises `NotFound` if the topic is not there."""
    subscription = Subscription(
        topic=topic, name=f"temp-{new_id()[:12]}", filter=filter, retry=RetryPolicy(attempts="unlimited")
    )
    text = "" if filter is None else filters.compile(filter).text
    name = names.subscription(subscription, text)
    request = client.type("Subscription")(
        name=name,
        topic=names.topic(topic),
        ack_deadline_seconds=60,
        filter=text,
        labels={"crossbus": "temporary"},
    )
    request.message_retention_duration.seconds = _A_DAY
    request.expiration_policy.ttl.seconds = _A_DAY
    await client.send("CreateSubscription", request)
    try:
        yield subscription
    finally:
        with contextlib.suppress(ProviderError):  # it removes itself
            await client.call("DeleteSubscription", subscription=name)


async def remove(client: Client, names: Names, subscription: Subscription) -> None:
    """Delete the subscription that a process left which died."""
    text = "" if subscription.filter is None else filters.compile(subscription.filter).text
    with contextlib.suppress(NotFound):
        await client.call("DeleteSubscription", subscription=names.subscription(subscription, text))
