"""What of a topology Pub/Sub lacks or has otherwise, and making it so."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from crossbus.adapter import Change, Finding
from crossbus.checks import Difference
from crossbus.clock import Clock
from crossbus.errors import ErrorCode, ProviderError, provider_error
from crossbus.topology import Subscription, Topic, Topology
from crossbus_pubsub import wanted
from crossbus_pubsub.dead_letters import DEAD_LEASE
from crossbus_pubsub.grants import Grants
from crossbus_pubsub.naming import Names, short
from crossbus_pubsub.options import check_options, native_text
from crossbus_pubsub.pruning import plan_prune
from crossbus_pubsub.sources import MADE, check

if TYPE_CHECKING:
    from crossbus_pubsub.client import Client

__all__ = ["Provisioner"]

Step = Callable[[], Awaitable[None]]


class Provisioner:
    """Plans and inspects for one adapter. A change's payload is a coroutine function that carries it out."""

    def __init__(self, client: Client, names: Names, clock: Clock, *, emulator: bool) -> None:
        self._client = client
        self._names = names
        self._clock = clock
        self._grants = None if emulator else Grants(client, names)

    # --- looking ------------------------------------------------------------------------------------------------

    async def inspect(self, topology: Topology) -> list[Finding]:
        """Look at every declared topic and subscription."""
        looks = [self._look_topic(topic) for topic in topology.topics]
        looks += [self._look_subscription(one) for one in topology.subscriptions]
        return list(await asyncio.gather(*looks))

    async def _look_topic(self, topic: Topic) -> Finding:
        check_options(topic)
        name = self._names.topic(topic)
        try:
            there = await self._client.found("GetTopic", topic=name)
        except ProviderError as error:
            return Finding("topic", topic.name, name, "unknown", _unless_denied(error))
        if there is None:
            absent = Difference("topic", f"topic {short(name)} is missing")
            return Finding("topic", topic.name, name, "missing", differences=(absent,))
        return Finding("topic", topic.name, name, "ok")

    async def _look_subscription(self, declared: Subscription) -> Finding:
        check_options(declared)
        goal = wanted.subscription(self._client, self._names, declared, native_text(declared))
        name = goal.request.name
        try:
            there = await self._client.found("GetSubscription", subscription=name)
            if there is None:
                absent = Difference("subscription", f"subscription {short(name)} is missing")
                return Finding("subscription", str(declared), name, "missing", differences=(absent,))
            check(there, self._names, declared)
            differs = goal.differences(there)
            differs += await self._missing_dead_letter(declared)
        except ProviderError as error:
            return Finding("subscription", str(declared), name, "unknown", _unless_denied(error))
        return Finding.of("subscription", str(declared), name, differs)

    async def _missing_dead_letter(self, declared: Subscription) -> list[Difference]:
        topic, reader = self._names.topic(declared.dead_letter), self._names.dead_subscription(declared)
        if await self._client.found("GetTopic", topic=topic) is None:
            return [Difference("dead-letter", f"dead letter {short(topic)} is missing")]
        if await self._client.found("GetSubscription", subscription=reader) is None:
            about = f"subscription {short(reader)} of the dead letter is missing"
            return [Difference("dead-letter-subscription", about)]
        return []

    # --- planning -----------------------------------------------------------------------------------------------

    async def plan(self, topology: Topology, *, prune: bool) -> list[Change]:
        """Say what is to be done."""
        for topic in topology.topics:
            check_options(topic)
        for declared in topology.subscriptions:
            check_options(declared)
            check_options(declared.topic)
        topics = {self._names.topic(one.topic): one.topic for one in topology.subscriptions}
        topics |= {self._names.topic(one): one for one in topology.topics}
        steps = [self._plan_topic(name, topic) for name, topic in topics.items()]
        steps += [self._plan_dead_letter(one) for one in topology.subscriptions]
        steps += [self._plan_subscription(one) for one in topology.subscriptions]
        changes = [change for found in await asyncio.gather(*steps) for change in found]
        if prune:
            changes += await plan_prune(self._client, self._names, self._clock, topology, set(topics))
        return changes

    async def _plan_topic(self, name: str, topic: Topic) -> list[Change]:
        if topic.external or await self._client.found("GetTopic", topic=name) is not None:
            return []
        request = self._client.type("Topic")(name=name, labels=wanted.labels(self._names, "topic"))
        if "retention" in topic.options:
            request.message_retention_duration.seconds = round(topic.options["retention"])
        return [Change("create", "topic", name, payload=self._creating("CreateTopic", request))]

    async def _plan_dead_letter(self, declared: Subscription) -> list[Change]:
        topic = declared.dead_letter
        if topic.external:
            return []
        changes = []
        name = self._names.topic(topic)
        if await self._client.found("GetTopic", topic=name) is None:
            request = self._client.type("Topic")(name=name, labels=wanted.labels(self._names, "dead-letter"))
            changes.append(
                Change("create", "topic", name, "dead letter", self._creating("CreateTopic", request))
            )
        reader = self._names.dead_subscription(declared)
        if await self._client.found("GetSubscription", subscription=reader) is None:
            request = wanted.dead_subscription(
                self._client, self._names, declared, DEAD_LEASE, emulator=self._grants is None
            )
            changes.append(
                Change(
                    "create",
                    "subscription",
                    reader,
                    "dead letter",
                    self._creating("CreateSubscription", request),
                )
            )
        return changes

    async def _plan_subscription(self, declared: Subscription) -> list[Change]:
        if declared.external:
            return []
        goal = wanted.subscription(self._client, self._names, declared, native_text(declared))
        name = goal.request.name
        there = await self._client.found("GetSubscription", subscription=name)
        if there is None:
            detail = f"filter {goal.request.filter}" if goal.request.filter else ""
            made = functools.partial(self._make, goal.request)
            changes = [Change("create", "subscription", name, detail, made)]
        else:
            self._check_order(declared, there)
            check(there, self._names, declared if declared.resource else _lenient(declared))
            changes = [] if declared.resource else self._updates(goal, there)
        if self._grants is not None and not declared.resource:
            changes += await self._grants.plan(goal.request)
        return changes

    def _check_order(self, declared: Subscription, there: Any) -> None:
        if there.enable_message_ordering and not declared.ordered and not declared.resource:
            raise provider_error(
                ErrorCode.CONFLICT,
                f"pubsub: {there.name} has message ordering, which cannot be changed, but {declared} is not declared "
                "as ordered: declare it ordered, or use another name",
            )

    def _updates(self, goal: wanted.Wanted, there: Any) -> list[Change]:
        differs = goal.differs(there)
        if self._grants is None:  # the emulator cannot change it
            differs.pop("expiration_policy", None)
        if not differs:
            return []
        request = self._client.type("UpdateSubscriptionRequest")(subscription=goal.request)
        request.update_mask.paths.extend(differs)
        update = functools.partial(self._send, "UpdateSubscription", request)
        return [Change("update", "subscription", there.name, "; ".join(differs.values()), update)]

    # --- carrying out -------------------------------------------------------------------------------------------

    async def _send(self, method: str, request: Any) -> None:
        await self._client.send(method, request)

    def _creating(self, method: str, request: Any) -> Step:
        return functools.partial(self._create, method, request)

    async def _create(self, method: str, request: Any) -> None:
        try:
            await self._client.send(method, request)
        except ProviderError as error:
            if error.code is not ErrorCode.CONFLICT:  # made meanwhile, or by a plan carried out twice
                raise

    async def _make(self, request: Any) -> None:
        request.labels[MADE] = str(int(self._clock.time()))
        await self._create("CreateSubscription", request)


def _lenient(declared: Subscription) -> Subscription:
    """What a provisioned subscription lacks of a backstop, the update adds."""
    return declared.replace(retry=dataclasses.replace(declared.retry, attempts="unlimited"))


def _unless_denied(error: ProviderError) -> str:
    if error.code is ErrorCode.PERMISSION_DENIED:
        return str(error)
    raise error
