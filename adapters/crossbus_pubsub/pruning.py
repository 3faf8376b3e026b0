"""What `--prune` would delete: what crossbus made, and nobody declares any more."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from crossbus.adapter import Change
from crossbus.clock import Clock
from crossbus.errors import ErrorCode, ProviderError
from crossbus.topology import Topology
from crossbus_pubsub import wanted
from crossbus_pubsub.naming import Names
from crossbus_pubsub.options import native_text
from crossbus_pubsub.sources import made_of

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = ["plan_prune"]


async def plan_prune(
    client: Client, names: Names, clock: Clock, topology: Topology, topics: set[str]
) -> list[Change]:
    """Return the deletions, subscriptions first. What bears no label of crossbus's is never among them, nor what was
    made by another name template: it is another program's.

    A predecessor of a subscription whose filter was changed is kept until all that can be in it is older than its
    retention, for Pub/Sub does not say whether it is empty; the profile's ``prune = "force"`` says not to wait.
    """
    every = await client.listed("ListSubscriptions", "subscriptions", project=f"projects/{names.project}")
    there = {one.name: one for one in every}
    current = {names.subscription(one, native_text(one)): names.base(one) for one in topology.subscriptions}
    kept = set(current) | {names.dead_subscription(one) for one in topology.subscriptions}
    kept |= {name for one in topology.subscriptions for name in names.generations(one)}
    changes = []
    for one in every:
        if one.name in kept or not _is_of(names, one, "subscription", "dead-letter"):
            continue
        successor = next(
            (there.get(name) for name, base in current.items() if names.is_generation(one.name, base)), None
        )
        if successor is not None and not _is_over(one, successor, clock) and not _forced(names):
            kept.add(one.name)
            continue
        detail = (
            "loses what waits in it, which Pub/Sub cannot count"
            if successor is None or _forced(names)
            else ""
        )
        changes.append(_delete(client, "DeleteSubscription", "subscription", one.name, detail))
    dead = {names.topic(one.dead_letter) for one in topology.subscriptions}
    gone = {change.name for change in changes}
    left = [one for one in every if one.name not in gone]
    used = {one.topic for one in left} | {one.dead_letter_policy.dead_letter_topic for one in left}
    topics_ = await client.listed("ListTopics", "topics", project=f"projects/{names.project}")
    changes += [
        _delete(client, "DeleteTopic", "topic", topic.name, "")
        for topic in topics_
        if _is_of(names, topic, "topic", "dead-letter") and topic.name not in topics | dead | used
    ]
    return changes


def _is_of(names: Names, one: Any, *kinds: str) -> bool:
    return one.labels.get(wanted.OWNED) in kinds and one.labels.get(wanted.NAMED) == names.mark


def _is_over(one: Any, successor: Any, clock: Clock) -> bool:
    made = made_of(successor)
    return bool(made) and clock.time() > made + one.message_retention_duration.seconds


def _forced(names: Names) -> bool:
    return names.profile.parameters.get("prune") == "force"


def _delete(client: Client, method: str, kind: str, name: str, detail: str) -> Change:
    return Change("delete", kind, name, detail, functools.partial(_deleted, client, method, kind, name))


async def _deleted(client: Client, method: str, kind: str, name: str) -> None:
    try:
        fields: dict[str, Any] = {kind: name}
        await client.call(method, **fields)
    except ProviderError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
