"""What crossbus made and nobody declares any more. What has no tag of ours is never touched."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from crossbus.adapter import Change
from crossbus.errors import NotFound
from crossbus.topology import Topology
from crossbus_eventbridge import making
from crossbus_eventbridge.naming import Queue, bus_name
from crossbus_eventbridge.standing import Look, Rule, pages

if TYPE_CHECKING:
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["made_here", "plan_prune", "prune_queues"]

_COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


async def plan_prune(adapter: EventBridgeAdapter, topology: Topology, buses: set[str]) -> list[Change]:
    """Return deletions: rules, then queues, then buses with their archives.

    `buses` are those of declared topics. Of what is temporary, what has outlived its time is among them.
    """
    names = adapter.names
    rules = {(bus_name(names.bus(one.topic)), names.rule(one)) for one in topology.subscriptions}
    return [
        *await _prune_rules(adapter, rules),
        *await prune_queues(adapter, topology),
        *await _prune_buses(adapter, {bus_name(bus) for bus in buses}),
    ]


async def _prune_rules(adapter: EventBridgeAdapter, declared: set[tuple[str, str]]) -> list[Change]:
    changes = []
    for bus in await pages(adapter, "events_control", "ListEventBuses", "EventBuses"):
        try:
            found = await pages(adapter, "events_control", "ListRules", "Rules", EventBusName=bus["Name"])
        except NotFound:
            continue  # gone since it was listed
        ours = [
            one for one in found if not one.get("ManagedBy") and (bus["Name"], one["Name"]) not in declared
        ]
        made = await asyncio.gather(*(_is_ours(adapter, one["Arn"]) for one in ours))
        for one, is_made in zip(ours, made, strict=True):
            if is_made:
                rule = Rule(one["Name"], one["Arn"], one.get("EventPattern", ""), True, {})
                undo = partial(making.delete_rule_named, adapter, rule, bus["Name"])
                changes.append(Change("delete", "rule", one["Name"], payload=undo))
    return changes


async def prune_queues(adapter: EventBridgeAdapter, topology: Topology) -> list[Change]:
    """Return the deletions of queues."""
    names = adapter.names
    declared = {names.queue(one).name for one in topology.subscriptions}
    declared |= {names.dead_queue(one.dead_letter).name for one in topology.subscriptions}
    prefix = making.tags_of(adapter)[making.MADE].partition("@")[0]
    narrowed = {"QueueNamePrefix": prefix} if prefix else {}
    urls = await pages(adapter, "sqs_control", "ListQueues", "QueueUrls", MaxResults=1000, **narrowed)
    queues = [Queue(url.rpartition("/")[2], "", url) for url in urls]
    queues = sorted(queue for queue in queues if queue.name not in declared)
    made = await asyncio.gather(*(_is_our_queue(adapter, queue) for queue in queues))
    changes = []
    for queue in (queue for queue, is_made in zip(queues, made, strict=True) if is_made):
        attributes = await Look(adapter).queue(queue)
        if attributes is not None:
            count = sum(int(attributes.get(name, 0)) for name in _COUNTS)
            detail = f"loses about {count} message{'' if count == 1 else 's'}" if count else ""
            undo = partial(making.delete_queue_named, adapter, queue)
            changes.append(Change("delete", "queue", queue.name, detail, undo))
    return changes


async def _prune_buses(adapter: EventBridgeAdapter, declared: set[str]) -> list[Change]:
    changes = []
    for bus in await pages(adapter, "events_control", "ListEventBuses", "EventBuses"):
        name = bus["Name"]
        if name != "default" and name not in declared and await _is_ours(adapter, bus["Arn"]):
            undo = partial(making.delete_bus, adapter, name)
            changes.append(Change("delete", "bus", name, payload=undo))
    return changes


async def _is_ours(adapter: EventBridgeAdapter, arn: str) -> bool:
    try:
        answer = await adapter.connection.call("events_control", "ListTagsForResource", arn, ResourceARN=arn)
    except NotFound:
        return False  # gone since it was listed
    return made_here(adapter, {one["Key"]: one["Value"] for one in answer.get("Tags", ())})


async def _is_our_queue(adapter: EventBridgeAdapter, queue: Queue) -> bool:
    try:
        answer = await adapter.connection.call(
            "sqs_control", "ListQueueTags", f"of queue {queue.name}", QueueUrl=queue.url
        )
    except NotFound:
        return False  # gone since it was listed
    return made_here(adapter, answer.get("Tags", {}))


def made_here(adapter: EventBridgeAdapter, tags: dict[str, str]) -> bool:
    """True if tags say that this profile made it, and, of what is temporary, that its time is over."""
    if tags.get(making.MADE) != making.tags_of(adapter)[making.MADE]:
        return False
    expires = tags.get(making.EXPIRES, "0")
    return int(expires) < adapter.clock.time() if expires.isdigit() else False
