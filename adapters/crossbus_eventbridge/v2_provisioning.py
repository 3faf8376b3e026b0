"""What of a topology a Custom Event Bus lacks, has otherwise, or has too much."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from crossbus.adapter import Change, Finding
from crossbus.checks import Difference, texts
from crossbus.errors import PermissionDenied
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventbridge import making, v2_making
from crossbus_eventbridge.naming import Arn
from crossbus_eventbridge.provisioning import put_change, queue_change
from crossbus_eventbridge.pruning import made_here, prune_queues
from crossbus_eventbridge.standing import Look, SeenQueues, pages
from crossbus_eventbridge.v2_making import Subscriber, Subscribers, wanted

if TYPE_CHECKING:
    from crossbus_eventbridge.adapter import EventBridgeAdapter
    from crossbus_eventbridge.v2_buses import Buses

__all__ = ["inspect", "plan"]

_AT_ONCE = 8


class _Seen(SeenQueues):
    """What there is of one subscription."""

    subscriber: Subscriber | None = None

    def subscriber_differences(self) -> list[Difference]:
        """What of the subscriber is otherwise than `provision` would have it."""
        found = self.subscriber
        if found is None or self.queue is None or self.dead is None:
            return []
        if self.adapter.options.delivery_role is None:
            return []  # who does not provision does not say it, and cannot be told what differs
        want = wanted(self.adapter, self.subscription, self.queue["QueueArn"], self.dead["QueueArn"])
        has = found.settings
        return [
            Difference(
                "subscriber-settings",
                f"subscriber {found.name} has another {name}: {_shown(has.get(name))}, declared {_shown(value)}",
            )
            for name, value in want.items()
            if name != "State" and _comparable(has.get(name)) != _comparable(value)
        ]

    def dangers(self) -> list[Difference]:
        """What loses events, or keeps them from coming, whoever made it."""
        assert self.queue is not None
        assert self.subscriber is not None
        name, has = self.subscriber.name, self.subscriber.settings
        said = []
        if has.get("Revoked"):
            said.append(
                f"subscriber {name} was revoked by the owner of the bus, for good: nothing comes any more"
            )
        if has.get("State") == "STOPPED":
            said.append(f"subscriber {name} is stopped")
        if self.subscriber.target != self.queue["QueueArn"]:
            said.append(f"subscriber {name} does not deliver to queue {self.queue_name}")
        if self.subscription.ordered and has.get("Type") != "FIFO":
            said.append(f"subscriber {name} is {has.get('Type')}, and keeps no order")
        if has.get("Transformer", {}).get("Type", "RAW") != "RAW":
            said.append(f"subscriber {name} transforms what it delivers; crossbus reads RAW")
        return [
            *(Difference("subscriber-delivers", text) for text in said),
            *self.queue_dangers(by_role=True),
        ]

    def differences(self) -> list[Difference]:
        return [*self.subscriber_differences(), *self.queue_differences(), *self.dead_differences()]


def _comparable(value: Any) -> Any:
    """Return a setting such that two ways to write one are equal: a pattern is JSON, nothing is an empty one."""
    if isinstance(value, dict):
        return {key: _comparable(one) for key, one in value.items() if key != "Language"} or None
    if isinstance(value, list):
        return [_comparable(one) for one in value]
    if isinstance(value, str) and value.startswith("{") and not value.startswith("{%"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if value else "none"


async def _see(adapter: EventBridgeAdapter, buses: Buses, subscription: Subscription) -> _Seen:
    look = Look(adapter)
    seen = _Seen(adapter, subscription)
    seen.queue, seen.dead = await asyncio.gather(
        look.queue(adapter.names.queue(subscription)),
        look.queue(adapter.names.dead_queue(subscription.dead_letter)),
    )
    arn = (seen.queue or {}).get("QueueArn", "")
    seen.subscriber = await Subscribers(adapter, buses).of(subscription, arn)
    return seen


# --- inspect ----------------------------------------------------------------------------------------------------


async def inspect(adapter: EventBridgeAdapter, buses: Buses, topology: Topology) -> list[Finding]:
    """Look at every declared topic and subscription."""
    room = asyncio.Semaphore(_AT_ONCE)
    looks = [_inspect_topic(adapter, buses, topic, room) for topic in topology.topics]
    looks += [_inspect_subscription(adapter, buses, one, room) for one in topology.subscriptions]
    return list(await asyncio.gather(*looks))


async def _inspect_topic(
    adapter: EventBridgeAdapter, buses: Buses, topic: Topic, room: asyncio.Semaphore
) -> Finding:
    bus = adapter.names.bus(topic)
    async with room:
        try:
            there = await buses.state(topic)
        except PermissionDenied as error:
            return Finding("topic", topic.name, bus, "unknown", str(error))
    if there is None:
        absent = Difference("bus", f"Custom Event Bus {bus} is missing")
        return Finding("topic", topic.name, f"Custom Event Bus {bus}", "missing", differences=(absent,))
    state = there.get("State")
    if state not in ("ACTIVE", "UPDATING", "UPDATE_FAILED"):  # in these three it takes events
        reason = there.get("StateReason", "")
        differs = Difference("bus-active", f"it is {state}, not ACTIVE {reason}".rstrip())
        return Finding.of("topic", topic.name, bus, [differs])
    return Finding("topic", topic.name, bus, "ok")


async def _inspect_subscription(
    adapter: EventBridgeAdapter, buses: Buses, subscription: Subscription, room: asyncio.Semaphore
) -> Finding:
    queue = adapter.names.queue(subscription)
    name = str(subscription)
    async with room:
        try:
            seen = await _see(adapter, buses, subscription)
        except PermissionDenied as error:
            return Finding("subscription", name, queue.name, "unknown", str(error))
    if seen.queue is None:
        absent = Difference("queue", f"queue {queue.name} is missing")
        return Finding("subscription", name, f"queue {queue.name}", "missing", differences=(absent,))
    if seen.subscriber is None:
        bus = adapter.names.bus(subscription.topic)
        looked = f"subscriber {adapter.names.subscriber(subscription)} of bus {bus}"
        if subscription.external:
            looked = f"a subscriber of bus {bus} with the target {seen.queue['QueueArn']}"
        absent = Difference("subscriber", f"{looked} is missing")
        return Finding("subscription", name, looked, "missing", differences=(absent,))
    differs = seen.dangers() if subscription.external else [*seen.dangers(), *seen.differences()]
    return Finding.of("subscription", name, queue.name, differs)


# --- plan -------------------------------------------------------------------------------------------------------


async def plan(adapter: EventBridgeAdapter, buses: Buses, topology: Topology, *, prune: bool) -> list[Change]:
    """Say what is to be done. Every payload is a callable that does it, and may be called twice."""
    topics = {adapter.names.bus(one.topic): one.topic for one in topology.subscriptions}
    topics |= {adapter.names.bus(topic): topic for topic in topology.topics}
    changes: list[Change] = []
    for bus, topic in topics.items():
        if not topic.external and Arn.parse(bus) is None and await buses.state(topic) is None:
            put = partial(v2_making.put_bus, adapter, buses, topic)
            changes.append(Change("create", "bus", bus, payload=put))
    room = asyncio.Semaphore(_AT_ONCE)
    for changed in await asyncio.gather(
        *(_plan_subscription(adapter, buses, one, room) for one in topology.subscriptions)
    ):
        changes += changed
    if prune:
        changes += await _prune(adapter, buses, topology, set(topics))
    return changes


async def _plan_subscription(
    adapter: EventBridgeAdapter, buses: Buses, subscription: Subscription, room: asyncio.Semaphore
) -> list[Change]:
    async with room:
        seen = await _see(adapter, buses, subscription)
    changes: list[Change] = []
    if not subscription.dead_letter.external:
        put_dead = partial(making.put_dead_queue, adapter, subscription)
        dead = adapter.names.dead_queue(subscription.dead_letter)
        changes += await queue_change(
            adapter, subscription, dead, seen.dead, seen.dead_differences(), put_dead
        )
    if subscription.external:
        return changes
    put_queue = partial(making.put_queue, adapter, subscription)
    queue = adapter.names.queue(subscription)
    changes += await queue_change(
        adapter, subscription, queue, seen.queue, seen.queue_differences(), put_queue
    )
    wanted(adapter, subscription, "", None)  # says what is missing before anything is made
    put = partial(Subscribers(adapter, buses).put, subscription)
    name = adapter.names.subscriber(subscription)
    differs: list[str] = []
    if seen.subscriber is not None:
        dangers = seen.dangers() if seen.queue is not None else []
        differs = texts([*dangers, *seen.subscriber_differences()])
        if seen.queue is None or seen.dead is None:
            differs.append("its queues are new")
    return [*changes, *put_change("subscriber", name, seen.subscriber is None, differs, put)]


async def _prune(
    adapter: EventBridgeAdapter, buses: Buses, topology: Topology, declared: set[str]
) -> list[Change]:
    """Return deletions of what crossbus made and nobody declares: subscribers, then queues, then buses."""
    subscribers = Subscribers(adapter, buses)
    kept = {adapter.names.subscriber(one) for one in topology.subscriptions}
    changes = []
    for one in await pages(adapter, "events_v2_control", "ListSubscribers", "Subscribers"):
        name, arn = one["Name"], one["SubscriberArn"]
        if name not in kept and made_here(adapter, await subscribers.tags(arn)):
            undo = partial(subscribers.delete, Subscriber(name, arn, {}))
            changes.append(Change("delete", "subscriber", name, payload=undo))
    changes += await prune_queues(adapter, topology)
    for bus in await pages(adapter, "events_v2_control", "ListEventBuses", "EventBuses"):
        name, arn = bus["Name"], bus["EventBusArn"]
        ours = "State" in bus and not {name, arn} & declared
        if ours and made_here(adapter, await subscribers.tags(arn)):
            undo_bus = partial(v2_making.delete_bus, adapter, arn)
            changes.append(Change("delete", "bus", name, payload=undo_bus))
    return changes
