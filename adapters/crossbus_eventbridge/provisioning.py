"""What of a topology AWS lacks, has otherwise, or has too much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from crossbus.adapter import Change, Finding
from crossbus.checks import Difference, texts
from crossbus.errors import ConfigurationError, PermissionDenied
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventbridge import making, policies
from crossbus_eventbridge.limits import TARGETS
from crossbus_eventbridge.naming import Arn, Queue
from crossbus_eventbridge.pruning import plan_prune
from crossbus_eventbridge.standing import Look, Rule, SeenQueues

if TYPE_CHECKING:
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["inspect", "plan", "put_change", "queue_change"]

_AT_ONCE = 8


# --- inspect ----------------------------------------------------------------------------------------------------


async def inspect(adapter: EventBridgeAdapter, topology: Topology) -> list[Finding]:
    """Look at every declared topic and subscription."""
    room = asyncio.Semaphore(_AT_ONCE)
    looks = [_inspect_topic(adapter, topic, room) for topic in topology.topics]
    looks += [_inspect_subscription(adapter, one, room) for one in topology.subscriptions]
    return list(await asyncio.gather(*looks))


async def _inspect_topic(adapter: EventBridgeAdapter, topic: Topic, room: asyncio.Semaphore) -> Finding:
    bus = adapter.names.bus(topic)
    async with room:
        try:
            there = await Look(adapter).bus(topic)
            archived = (
                adapter.options.archive is None
                or topic.external
                or await Look(adapter).archive(bus) is not None
            )
        except PermissionDenied as error:
            return Finding("topic", topic.name, bus, "unknown", str(error))
    if there is None:
        absent = Difference("bus", f"bus {bus} is missing")
        return Finding("topic", topic.name, bus, "missing", differences=(absent,))
    lacks = Difference("archive", "it has no archive, so that nothing can be replayed")
    return Finding.of("topic", topic.name, bus, [] if archived else [lacks])


async def _inspect_subscription(
    adapter: EventBridgeAdapter, subscription: Subscription, room: asyncio.Semaphore
) -> Finding:
    queue = adapter.names.queue(subscription)
    name = str(subscription)
    async with room:
        try:
            seen = await _see(adapter, subscription)
        except PermissionDenied as error:
            return Finding("subscription", name, queue.name, "unknown", str(error))
    if seen.queue is None:
        absent = Difference("queue", f"queue {queue.name} is missing")
        return Finding("subscription", name, f"queue {queue.name}", "missing", differences=(absent,))
    if seen.rule is None:
        bus = adapter.names.bus(subscription.topic)
        rule = f"rule {adapter.names.rule(subscription)} of bus {bus}"
        looked = (
            f"a rule of bus {bus} with the target {seen.queue['QueueArn']}" if subscription.external else rule
        )
        absent = Difference("rule", f"{looked} is missing")
        return Finding("subscription", name, looked, "missing", differences=(absent,))
    differs = seen.dangers() if subscription.external else [*seen.dangers(), *seen.differences()]
    return Finding.of("subscription", name, queue.name, differs)


class _Seen(SeenQueues):
    """What there is of one subscription."""

    rule: Rule | None = None

    def rule_differences(self) -> list[Difference]:
        """What of the rule is otherwise than declared, its targets apart."""
        rule = self.rule
        assert rule is not None
        found = []
        wanted = making.pattern_text(self.adapter, self.subscription)
        if not _same_pattern(rule.pattern, wanted):
            about = f"rule {rule.name} has the pattern {rule.pattern}, declared {wanted}"
            found.append(Difference("pattern", about))
        if not rule.enabled:
            found.append(Difference("rule-enabled", f"rule {rule.name} is disabled"))
        return found

    def target_differences(self) -> list[Difference]:
        """What of the way from the rule to the queues is missing."""
        rule = self.rule
        if rule is None or self.queue is None:
            return []
        if self.queue["QueueArn"] not in rule.targets and len(rule.targets) >= TARGETS:
            about = f"rule {rule.name} has {len(rule.targets)} targets, and queue {self.queue_name} is none of them"
            return [Difference("targets-limit", about)]
        if self.queue["QueueArn"] not in rule.targets:
            return [Difference("target", f"rule {rule.name} does not deliver to queue {self.queue_name}")]
        if self.dead is None or rule.targets[self.queue["QueueArn"]] is not None:
            return []
        lacks = f"rule {rule.name} has no dead letter for what it cannot deliver"
        return [Difference("target-dead-letter", lacks)]

    def policy_differences(self) -> list[Difference]:
        """Which queues do not let the rule send."""
        rule = self.rule
        if rule is None:
            return []
        found = []
        for name, queue in ((self.queue_name, self.queue), (self.dead_name, self.dead)):
            if queue is None or (queue is self.dead and self.subscription.dead_letter.external):
                continue
            if not policies.allows(queue.get("Policy"), queue["QueueArn"], rule.arn):
                found.append(
                    Difference(
                        "queue-policy",
                        f"the policy of queue {name} does not let rule {rule.name} send, so that EventBridge drops its "
                        "events in silence",
                    )
                )
        return found

    def dangers(self) -> list[Difference]:
        """What loses events, whoever made it."""
        return [*self.queue_dangers(), *self.policy_differences()]

    def differences(self) -> list[Difference]:
        return [
            *self.rule_differences(),
            *self.target_differences(),
            *self.queue_differences(),
            *self.dead_differences(),
        ]


async def _see(adapter: EventBridgeAdapter, subscription: Subscription) -> _Seen:
    look = Look(adapter)
    seen = _Seen(adapter, subscription)
    seen.queue, seen.dead = await asyncio.gather(
        look.queue(adapter.names.queue(subscription)),
        look.queue(adapter.names.dead_queue(subscription.dead_letter)),
    )
    seen.rule = await look.rule_to(subscription, (seen.queue or {}).get("QueueArn", ""))
    return seen


def _same_pattern(one: str, other: str) -> bool:
    import json

    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return one == other


# --- plan -------------------------------------------------------------------------------------------------------


async def plan(adapter: EventBridgeAdapter, topology: Topology, *, prune: bool) -> list[Change]:
    """Say what is to be done. Every payload is a callable that does it, and may be called twice."""
    topics = {adapter.names.bus(one.topic): one.topic for one in topology.subscriptions}
    topics |= {adapter.names.bus(topic): topic for topic in topology.topics}
    changes: list[Change] = []
    for planned in await asyncio.gather(*(_plan_topic(adapter, bus, topic) for bus, topic in topics.items())):
        changes += planned
    room = asyncio.Semaphore(_AT_ONCE)
    for changed in await asyncio.gather(
        *(_plan_subscription(adapter, one, room) for one in topology.subscriptions)
    ):
        changes += changed
    if prune:
        changes += await plan_prune(adapter, topology, set(topics))
    return changes


async def _plan_topic(adapter: EventBridgeAdapter, bus: str, topic: Topic) -> list[Change]:
    if topic.external:
        return []
    changes = []
    look = Look(adapter)
    there = await look.bus(topic)
    if there is None and Arn.parse(bus) is None:
        changes.append(Change("create", "bus", bus, payload=partial(making.put_bus, adapter, topic)))
    days = adapter.options.archive
    if days is not None:
        kept = None if there is None else await look.archive(bus)
        if kept != days:
            action = "create" if kept is None else "update"
            detail = "keeps events for ever" if days == 0 else f"keeps events for {days} days"
            put = partial(making.put_archive, adapter, topic, days)
            changes.append(Change(action, "archive", adapter.names.archive(bus), detail, put))  # type: ignore[arg-type]
    return changes


async def _plan_subscription(
    adapter: EventBridgeAdapter, subscription: Subscription, room: asyncio.Semaphore
) -> Sequence[Change]:
    async with room:
        seen = await _see(adapter, subscription)
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
    is_new = seen.queue is None
    queue = adapter.names.queue(subscription)
    changes += await queue_change(
        adapter, subscription, queue, seen.queue, seen.queue_differences(), put_queue
    )
    pattern = making.pattern_text(adapter, subscription)
    put_rule = partial(making.put_rule, adapter, subscription)
    if seen.rule is None:
        changes.append(
            Change("create", "rule", adapter.names.rule(subscription), f"pattern {pattern}", put_rule)
        )
        return changes
    differs = texts([*seen.rule_differences(), *seen.target_differences(), *seen.policy_differences()])
    if is_new or seen.dead is None:
        differs.append("its queues are new")
    changes += put_change("rule", seen.rule.name, False, differs, put_rule)
    return changes


async def queue_change(
    adapter: EventBridgeAdapter,
    subscription: Subscription,
    queue: Queue,
    has: object | None,
    differs: Sequence[Difference],
    payload: object,
) -> list[Change]:
    """Return the step for a queue, as `put_change`. Raises `ConfigurationError` if it is another account's.

    AWS lets no account make or change the queues of another one; made in ours it would be another queue.
    """
    said = texts(differs)
    changes = put_change("queue", queue.name, has is None, said, payload)
    if changes and queue.account and queue.account != (own := await adapter.connection.account()):
        raise ConfigurationError(
            f"subscription {subscription}: queue {queue.name} belongs to account {queue.account} and "
            f"{'is not there' if has is None else 'differs (' + '; '.join(said) + ')'}; crossbus makes and changes "
            f"queues of its own account {own} only: see to it there, and set external = true"
        )
    return changes


def put_change(kind: str, name: str, is_new: bool, differs: Sequence[str], payload: object) -> list[Change]:
    """Return the step that makes what is new, or changes what differs; none if it is as it should be."""
    if is_new:
        return [Change("create", kind, name, payload=payload)]
    return [Change("update", kind, name, "; ".join(differs), payload)] if differs else []
