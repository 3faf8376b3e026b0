"""Making and deleting Custom Event Buses and their subscribers: each step may be done twice."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from crossbus.clock import sleep
from crossbus.errors import ConfigurationError, Conflict, ErrorCode, NotFound, provider_error
from crossbus_eventbridge import making
from crossbus_eventbridge.filters import raw_pattern_of, text_of
from crossbus_eventbridge.settings import queue_attributes
from crossbus_eventbridge.standing import pages

if TYPE_CHECKING:
    from crossbus.topology import Subscription, Topic
    from crossbus_eventbridge.adapter import EventBridgeAdapter
    from crossbus_eventbridge.v2_buses import Buses

__all__ = ["Subscriber", "Subscribers", "delete_bus", "put_bus", "wanted"]

T = TypeVar("T")

BUS_POLL: Final = 2.0
"""Seconds between two looks at a bus that is being made, as botocore's own waiter has it; the first are sooner."""
BUS_LOOKS: Final = 64
CHANGE_TRIES: Final = 10
"""How often a change of a subscriber is tried: AWS makes one at a time on a bus, whoever asks."""
_GROUP: Final = "$events.SystemMetadata.EventGroupId"
_ID: Final = '$events.SystemMetadata."aws:EventId"'
FIFO_PARAMETERS: Final = {
    "MessageGroupId": f"{{% $exists({_GROUP}) ? {_GROUP} : {_ID} %}}",
    "MessageDeduplicationId": f"{{% {_ID} %}}",
}
"""An event without a group is a group of its own: a FIFO queue takes no message without one.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-custom-bus-target-sqs.html
"""
RETRIES: Final = {"MaxRetryAttempts": 185, "MaxEventAgeInSeconds": 86_400}
"""What EventBridge does to deliver into a queue: the most that it offers. Its own default is 5 within 300 seconds."""


# --- buses ------------------------------------------------------------------------------------------------------


async def put_bus(adapter: EventBridgeAdapter, buses: Buses, topic: Topic) -> None:
    """Make a bus, and wait until it takes events."""
    name = adapter.names.bus(topic)
    with contextlib.suppress(Conflict):
        await adapter.connection.call(
            "events_v2_control", "CreateEventBus", name, Name=name, Tags=making.tags_of(adapter)
        )
    for looked in range(BUS_LOOKS):
        there = await buses.state(topic)
        state = "" if there is None else there.get("State")
        if state == "ACTIVE":
            return
        if there is not None and str(state).endswith("_FAILED"):
            reason = there.get("StateReason", "AWS gives no reason")
            raise provider_error(
                ErrorCode.UNAVAILABLE,
                f"eventbridge: bus {name} is {state}: {reason}; delete it, and try again",
            )
        await sleep(adapter.clock, min(BUS_POLL, 0.1 * 2**looked))
    raise provider_error(
        ErrorCode.DEADLINE_EXCEEDED,
        f"eventbridge: bus {name} is not ACTIVE after two minutes; provision again later",
    )


async def delete_bus(adapter: EventBridgeAdapter, arn: str) -> None:
    """Delete a bus. Its subscribers must be gone. Harmless if it is not there."""
    with contextlib.suppress(NotFound):
        await adapter.connection.call("events_v2_control", "DeleteEventBus", arn, EventBusArn=arn)


# --- subscribers ------------------------------------------------------------------------------------------------


class Subscriber(NamedTuple):
    """A subscriber that is there."""

    name: str
    arn: str
    settings: dict[str, Any]
    """As DescribeSubscriber has them."""

    @property
    def target(self) -> str:
        """The ARN of what it delivers to."""
        return str(self.settings.get("InvokeConfiguration", {}).get("TargetArn", ""))


def wanted(
    adapter: EventBridgeAdapter, subscription: Subscription, queue_arn: str, dead_arn: str | None
) -> dict[str, Any]:
    """Return the settings of a subscriber that can be changed, as both CreateSubscriber and UpdateSubscriber take them.

    Raises `ConfigurationError` without a delivery role.
    """
    topic = subscription.topic
    role = adapter.options.delivery_role
    if role is None:
        raise ConfigurationError(
            f"{adapter.options.origin}: to provision with api=v2, set delivery_role to the ARN of a role that trusts "
            "events.amazonaws.com and may sqs:SendMessage to the queues: EventBridge takes it on to deliver"
        )
    invoke: dict[str, Any] = {"TargetArn": queue_arn, "RoleArn": role}
    if subscription.ordered:
        invoke["SqsParameters"] = FIFO_PARAMETERS
    pattern = raw_pattern_of(subscription, topic.name if adapter.names.is_shared(topic) else None)
    settings: dict[str, Any] = {
        "InvokeConfiguration": invoke,
        "FilterConfiguration": {}
        if pattern is None
        else {"Filters": [{"Scope": "DATA", "Pattern": text_of(pattern)}]},
        "Transformer": {"Type": "RAW"},
        "RetryPolicy": RETRIES,
        "State": "RUNNING",
    }
    if dead_arn is not None:
        settings["OnFailureConfiguration"] = {"Arn": dead_arn}
    return settings


class Subscribers:
    """The subscribers of an adapter's buses."""

    def __init__(self, adapter: EventBridgeAdapter, buses: Buses) -> None:
        self._adapter = adapter
        self._buses = buses

    async def _call(self, operation: str, what: str, **request: Any) -> dict[str, Any]:
        return await self._adapter.connection.call("events_v2_control", operation, what, **request)

    async def _changed(self, change: Callable[[], Awaitable[T]]) -> T:
        """Make a change, again while AWS is busy with another one on the same bus."""
        for tried in range(1, CHANGE_TRIES):
            try:
                return await change()
            except Conflict as error:
                if not error.retryable:
                    raise
                await sleep(self._adapter.clock, min(0.1 * 2**tried, 5.0))
        return await change()

    async def on(self, topic: Topic) -> list[dict[str, Any]]:
        """Return the summaries of all subscribers of a topic's bus. Raises `NotFound` if it is not there."""
        bus = await self._buses.arn(topic)
        return await pages(
            self._adapter, "events_v2_control", "ListSubscribers", "Subscribers", EventBusArn=bus
        )

    async def of(self, subscription: Subscription, queue_arn: str = "") -> Subscriber | None:
        """Return the subscriber of a subscription; where that is not ours, whichever delivers to its queue."""
        try:
            listed = await self.on(subscription.topic)
        except NotFound:
            return None
        name = self._adapter.names.subscriber(subscription)
        found = [one for one in listed if one["Name"] == name]
        if not found and subscription.external and queue_arn:
            found = [one for one in listed if one.get("TargetArn") == queue_arn]
        return await self.described(found[0]["Name"], found[0]["SubscriberArn"]) if found else None

    async def described(self, name: str, arn: str) -> Subscriber | None:
        """Return a subscriber by its ARN."""
        try:
            return Subscriber(name, arn, await self._call("DescribeSubscriber", name, SubscriberArn=arn))
        except NotFound:
            return None

    async def put(self, subscription: Subscription) -> None:
        """Make a subscriber, or change it. Its queues must be there."""
        names = self._adapter.names
        queue = await making.attributes_of(self._adapter, names.queue(subscription))
        dead = await making.attributes_of(self._adapter, names.dead_queue(subscription.dead_letter))
        await self._put(subscription, queue["QueueArn"], dead["QueueArn"], making.tags_of(self._adapter))

    async def _put(
        self, subscription: Subscription, queue_arn: str, dead_arn: str | None, tags: dict[str, str]
    ) -> None:
        settings = wanted(self._adapter, subscription, queue_arn, dead_arn)
        name, bus = self._adapter.names.subscriber(subscription), await self._buses.arn(subscription.topic)
        found = await self.of(subscription)
        if found is not None and (
            found.target != queue_arn or found.settings.get("Type") != _type(subscription)
        ):
            await self.delete(found)  # AWS changes neither of the two in place
            found = None
        if found is not None:
            invoke = {
                key: value for key, value in settings["InvokeConfiguration"].items() if key != "TargetArn"
            }
            changes = {**settings, "InvokeConfiguration": invoke}
            await self._changed(
                lambda: self._call("UpdateSubscriber", name, SubscriberArn=found.arn, **changes)
            )
            return
        if not settings["FilterConfiguration"]:
            del settings["FilterConfiguration"]  # which CreateSubscriber does not take empty
        await self._changed(
            lambda: self._call(
                "CreateSubscriber",
                name,
                Name=name,
                EventBusArn=bus,
                Type=_type(subscription),
                StartingPosition="LATEST",
                Description=f"crossbus: subscription {subscription}",
                Tags=tags,
                **settings,
            )
        )

    async def put_temporary(self, adapter: EventBridgeAdapter, subscription: Subscription) -> None:
        """Make the queue and the subscriber of a temporary subscription, without a dead letter."""
        tags = making.temporary_tags(adapter)
        queue = adapter.names.queue(subscription)
        attributes = queue_attributes(subscription, "")
        del attributes["RedrivePolicy"]
        await self._buses.arn(subscription.topic)
        await making.put(adapter, queue, attributes, tags)
        has = await making.attributes_of(adapter, queue)
        await self._put(subscription, has["QueueArn"], None, tags)

    async def delete(self, subscriber: Subscriber) -> None:
        """Delete a subscriber. Harmless if it is not there."""
        with contextlib.suppress(NotFound):
            await self._changed(
                lambda: self._call("DeleteSubscriber", subscriber.name, SubscriberArn=subscriber.arn)
            )

    async def delete_of(self, adapter: EventBridgeAdapter, subscription: Subscription) -> None:
        """Delete the subscriber of a subscription."""
        found = await self.of(subscription)
        if found is not None:
            await self.delete(found)

    async def tags(self, arn: str) -> dict[str, str]:
        """Return the tags of a subscriber or bus; none if it is gone."""
        try:
            answer = await self._call("ListTagsForResource", arn, ResourceArn=arn)
        except NotFound:
            return {}
        found: dict[str, str] = answer.get("Tags", {})
        return found


def _type(subscription: Subscription) -> str:
    return "FIFO" if subscription.ordered else "UNORDERED"
