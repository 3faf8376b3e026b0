"""Making, changing and deleting: each step may be done twice, and touches only what it is told to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from crossbus.errors import Conflict, ErrorCode, NotFound, provider_error
from crossbus.names import template_of
from crossbus_eventbridge import policies
from crossbus_eventbridge.filters import pattern_of, text_of
from crossbus_eventbridge.naming import Queue
from crossbus_eventbridge.settings import dead_attributes, queue_attributes
from crossbus_eventbridge.standing import Look, Rule

if TYPE_CHECKING:
    from crossbus.topology import Subscription, Topic
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = [
    "EXPIRES",
    "MADE",
    "attributes_of",
    "delete_bus",
    "delete_queue",
    "delete_queue_named",
    "delete_rule",
    "delete_rule_named",
    "pattern_text",
    "put",
    "put_archive",
    "put_bus",
    "put_dead_queue",
    "put_queue",
    "put_rule",
    "put_temporary",
    "tags_of",
    "temporary_tags",
]

MADE: Final = "crossbus:names"
"""The tag of what crossbus made. Its value is the profile's name template, filled in but for the name."""
EXPIRES: Final = "crossbus:expires"
"""The tag of what is temporary: when it may be pruned, in seconds since the epoch."""
TARGET: Final = "crossbus"
TEMPORARY_SECONDS: Final = 86_400


def tags_of(adapter: EventBridgeAdapter) -> dict[str, str]:
    """Return the tags by which pruning knows what this profile made."""
    template = template_of(adapter.profile)
    return {MADE: template.replace("{name}", "@")}  # AWS allows few signs in a tag


def temporary_tags(adapter: EventBridgeAdapter) -> dict[str, str]:
    """Return the tags of what is temporary."""
    return {**tags_of(adapter), EXPIRES: str(int(adapter.clock.time()) + TEMPORARY_SECONDS)}


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


# --- buses ------------------------------------------------------------------------------------------------------


async def put_bus(adapter: EventBridgeAdapter, topic: Topic) -> None:
    """Make a bus."""
    name = adapter.names.bus(topic)
    with contextlib.suppress(Conflict):
        await adapter.connection.call(
            "events_control", "CreateEventBus", name, Name=name, Tags=_tag_list(tags_of(adapter))
        )


async def put_archive(adapter: EventBridgeAdapter, topic: Topic, days: int) -> None:
    """Make the archive of a bus, or change how long it keeps events."""
    bus = adapter.names.bus(topic)
    arn = await Look(adapter).bus(topic)
    name = adapter.names.archive(bus)
    try:
        await adapter.connection.call(
            "events_control",
            "CreateArchive",
            f"of bus {bus}",
            ArchiveName=name,
            EventSourceArn=arn,
            RetentionDays=days,
            Description="made by crossbus, for replays",
        )
    except Conflict:
        await adapter.connection.call(
            "events_control", "UpdateArchive", name, ArchiveName=name, RetentionDays=days
        )


async def delete_bus(adapter: EventBridgeAdapter, name: str) -> None:
    """Delete a bus, with its archive of ours. Its rules must be gone."""
    with contextlib.suppress(NotFound):
        await adapter.connection.call(
            "events_control", "DeleteArchive", name, ArchiveName=adapter.names.archive(name)
        )
    await adapter.connection.call("events_control", "DeleteEventBus", name, Name=name)


# --- queues -----------------------------------------------------------------------------------------------------


async def put_queue(adapter: EventBridgeAdapter, subscription: Subscription) -> None:
    """Make the queue of a subscription, or change its attributes. Its dead letter must be there."""
    dead = adapter.names.dead_queue(subscription.dead_letter)
    attributes = queue_attributes(subscription, await _arn(adapter, dead))
    await put(adapter, adapter.names.queue(subscription), attributes, tags_of(adapter))


async def put_dead_queue(adapter: EventBridgeAdapter, subscription: Subscription) -> None:
    """Make the queue of a dead letter, or change its attributes."""
    queue = adapter.names.dead_queue(subscription.dead_letter)
    await put(adapter, queue, dead_attributes(subscription), tags_of(adapter))


async def put(
    adapter: EventBridgeAdapter, queue: Queue, attributes: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    """Make a queue, or change its attributes."""
    fifo = {"FifoQueue": "true"} if queue.is_fifo else {}  # only when it is made
    if await Look(adapter).queue(queue) is not None:
        url = await adapter.queues.url(queue)
        await adapter.connection.call(
            "sqs_control", "SetQueueAttributes", f"of queue {queue.name}", QueueUrl=url, Attributes=attributes
        )
        return
    await adapter.connection.call(
        "sqs_control",
        "CreateQueue",
        queue.name,
        QueueName=queue.name,
        Attributes={**attributes, **fifo},
        tags=tags,
    )
    adapter.queues.forget(queue)


async def _arn(adapter: EventBridgeAdapter, queue: Queue) -> str:
    return (await attributes_of(adapter, queue))["QueueArn"]


async def attributes_of(adapter: EventBridgeAdapter, queue: Queue) -> dict[str, str]:
    """Return the attributes of a queue. Raises `NotFound` if it is not there."""
    found = await Look(adapter).queue(queue)
    if found is None:
        raise provider_error(ErrorCode.NOT_FOUND, f"eventbridge: queue {queue.name} is not there")
    return found


async def delete_queue(adapter: EventBridgeAdapter, subscription: Subscription) -> None:
    """Delete the queue of a subscription with what waits in it."""
    await delete_queue_named(adapter, adapter.names.queue(subscription))


async def delete_queue_named(adapter: EventBridgeAdapter, queue: Queue) -> None:
    """Delete a queue with what waits in it. Harmless if it is not there."""
    with contextlib.suppress(NotFound):
        url = await adapter.queues.url(queue)
        await adapter.connection.call("sqs_control", "DeleteQueue", queue.name, QueueUrl=url)
    adapter.queues.forget(queue)


# --- rules ------------------------------------------------------------------------------------------------------


def pattern_text(adapter: EventBridgeAdapter, subscription: Subscription) -> str:
    """Return the pattern that a subscription's rule is to have."""
    topic = subscription.topic
    return text_of(pattern_of(subscription, topic.name if adapter.names.is_shared(topic) else None))


async def put_rule(adapter: EventBridgeAdapter, subscription: Subscription) -> None:
    """Make a rule, or change it; let it send into both queues; and only then give it its target."""
    queue = await attributes_of(adapter, adapter.names.queue(subscription))
    dead_queue = adapter.names.dead_queue(subscription.dead_letter)
    dead = await attributes_of(adapter, dead_queue)
    rule_arn = await _put_rule(adapter, subscription, tags_of(adapter))
    await _let_send(adapter, adapter.names.queue(subscription), queue, rule_arn)
    if not subscription.dead_letter.external:
        await _let_send(adapter, dead_queue, dead, rule_arn)
    await _put_target(adapter, subscription, queue["QueueArn"], dead["QueueArn"])


async def _put_rule(
    adapter: EventBridgeAdapter, subscription: Subscription, tags: Mapping[str, str] | None
) -> str:
    name, bus = adapter.names.rule(subscription), adapter.names.bus(subscription.topic)
    request: dict[str, Any] = {
        "Name": name,
        "EventBusName": bus,
        "EventPattern": pattern_text(adapter, subscription),
        "State": "ENABLED",
    }
    if await Look(adapter).rule_named(name, bus) is None:
        # A rule that is there keeps its tags: PutRule refuses to change them.
        request["Description"] = f"crossbus: subscription {subscription}"
        request["Tags"] = _tag_list(tags or {})
    answer = await adapter.connection.call("events_control", "PutRule", f"{name} on bus {bus}", **request)
    return str(answer["RuleArn"])


async def _let_send(
    adapter: EventBridgeAdapter, queue: Queue, attributes: Mapping[str, str], rule_arn: str
) -> None:
    policy = attributes.get("Policy")
    if policies.allows(policy, attributes["QueueArn"], rule_arn):
        return
    await adapter.connection.call(
        "sqs_control",
        "SetQueueAttributes",
        f"of queue {queue.name}",
        QueueUrl=await adapter.queues.url(queue),
        Attributes={"Policy": policies.with_statement(policy, attributes["QueueArn"], rule_arn)},
    )


async def _put_target(
    adapter: EventBridgeAdapter, subscription: Subscription, queue_arn: str, dead_arn: str | None
) -> None:
    name, bus = adapter.names.rule(subscription), adapter.names.bus(subscription.topic)
    target: dict[str, Any] = {"Id": TARGET, "Arn": queue_arn}
    if dead_arn is not None:
        target["DeadLetterConfig"] = {"Arn": dead_arn}
    answer = await adapter.connection.call(
        "events_control", "PutTargets", f"of rule {name}", Rule=name, EventBusName=bus, Targets=[target]
    )
    for failed in answer.get("FailedEntries", ()):
        raise provider_error(
            ErrorCode.INVALID_REQUEST,
            f"eventbridge: rule {name} refused its target: {failed.get('ErrorCode')}: {failed.get('ErrorMessage')}",
        )


async def delete_rule(adapter: EventBridgeAdapter, subscription: Subscription) -> None:
    """Delete the rule of a subscription."""
    found = await Look(adapter).rule(subscription)
    if found is not None:
        await delete_rule_named(adapter, found, adapter.names.bus(subscription.topic))


async def delete_rule_named(adapter: EventBridgeAdapter, rule: Rule, bus: str) -> None:
    """Delete a rule, with its targets. Harmless if it is not there."""
    targets = await Look(adapter).target_ids(rule.name, bus)
    with contextlib.suppress(NotFound):
        if targets:
            await adapter.connection.call(
                "events_control", "RemoveTargets", rule.name, Rule=rule.name, EventBusName=bus, Ids=targets
            )
        await adapter.connection.call(
            "events_control", "DeleteRule", rule.name, Name=rule.name, EventBusName=bus
        )


async def put_temporary(adapter: EventBridgeAdapter, subscription: Subscription) -> None:
    """Make the rule and the queue of a temporary subscription: no dead letter, and tags that say when it ends."""
    tags = temporary_tags(adapter)
    queue = adapter.names.queue(subscription)
    attributes = queue_attributes(subscription, "")
    del attributes["RedrivePolicy"]
    rule_arn = await _put_rule(adapter, subscription, tags)
    await put(adapter, queue, attributes, tags)
    has = await attributes_of(adapter, queue)
    await _let_send(adapter, queue, has, rule_arn)
    await _put_target(adapter, subscription, has["QueueArn"], None)
