"""What there is at AWS of what is declared. Every look changes nothing; None is what is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from crossbus.checks import Difference
from crossbus.errors import NotFound
from crossbus_eventbridge.limits import LONGEST_RETENTION
from crossbus_eventbridge.naming import Queue
from crossbus_eventbridge.settings import (
    dead_attributes,
    differences,
    hazards,
    queue_attributes,
    short_lived,
)

if TYPE_CHECKING:
    from crossbus.topology import Subscription, Topic
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["Look", "Rule", "SeenQueues", "pages"]


class Rule(NamedTuple):
    """A rule that is there."""

    name: str
    arn: str
    pattern: str
    enabled: bool
    targets: Mapping[str, str | None]
    """By the ARN of each target, the ARN of the queue for what cannot be delivered."""


async def pages(
    adapter: EventBridgeAdapter, service: Any, operation: str, items: str, **request: Any
) -> list[Any]:
    """Return all items of a list, page by page."""
    found: list[Any] = []
    while True:
        answer = await adapter.connection.call(service, operation, **request)
        found += answer.get(items, ())
        token = answer.get("NextToken")
        if not token:
            return found
        request["NextToken"] = token


class Look:
    """Looks at AWS through an adapter."""

    def __init__(self, adapter: EventBridgeAdapter) -> None:
        self._adapter = adapter
        self._connection = adapter.connection

    async def bus(self, topic: Topic) -> str | None:
        """Return the ARN of a topic's bus."""
        name = self._adapter.names.bus(topic)
        found = await self._found("events_control", "DescribeEventBus", name, Name=name)
        return None if found is None else found["Arn"]

    async def queue(self, queue: Queue) -> dict[str, str] | None:
        """Return the attributes of a queue."""
        try:
            url = await self._adapter.queues.url(queue)
        except NotFound:
            return None
        found = await self._found(
            "sqs_control",
            "GetQueueAttributes",
            f"of queue {queue.name}",
            QueueUrl=url,
            AttributeNames=["All"],
        )
        if found is None:
            self._adapter.queues.forget(queue)
            return None
        attributes: dict[str, str] = found["Attributes"]
        return attributes

    async def rule(self, subscription: Subscription) -> Rule | None:
        """Return the rule that a subscription's name, or option, names."""
        return await self.rule_named(
            self._adapter.names.rule(subscription), self._adapter.names.bus(subscription.topic)
        )

    async def rule_named(self, name: str, bus: str) -> Rule | None:
        """Return a rule of a bus with its targets."""
        found = await self._found(
            "events_control", "DescribeRule", f"{name} on bus {bus}", Name=name, EventBusName=bus
        )
        if found is None:
            return None
        targets = await pages(
            self._adapter, "events_control", "ListTargetsByRule", "Targets", Rule=name, EventBusName=bus
        )
        return Rule(
            name,
            found["Arn"],
            found.get("EventPattern", ""),
            found.get("State") != "DISABLED",
            {one["Arn"]: (one.get("DeadLetterConfig") or {}).get("Arn") for one in targets},
        )

    async def rule_to(self, subscription: Subscription, queue_arn: str) -> Rule | None:
        """Return the rule of a subscription; where it is not ours, whichever delivers to its queue."""
        found = await self.rule(subscription)
        if found is not None or not subscription.external or not queue_arn:
            return found
        bus = self._adapter.names.bus(subscription.topic)
        names = await self.rules_to(queue_arn, bus)
        return await self.rule_named(names[0], bus) if names else None

    async def rules(self, bus: str) -> list[str]:
        """Return the names of all rules of a bus that are not AWS's own."""
        found = await pages(self._adapter, "events_control", "ListRules", "Rules", EventBusName=bus)
        return [one["Name"] for one in found if not one.get("ManagedBy")]

    async def rules_to(self, queue_arn: str, bus: str) -> list[str]:
        """Return the names of the rules of a bus that deliver to a queue."""
        return await pages(
            self._adapter,
            "events_control",
            "ListRuleNamesByTarget",
            "RuleNames",
            TargetArn=queue_arn,
            EventBusName=bus,
        )

    async def archive(self, bus: str) -> int | None:
        """Return for how many days the archive of a bus keeps events; 0 is for ever."""
        name = self._adapter.names.archive(bus)
        found = await self._found("events_control", "DescribeArchive", name, ArchiveName=name)
        return None if found is None else int(found.get("RetentionDays", 0))

    async def _found(self, service: Any, operation: str, what: str, **request: Any) -> dict[str, Any] | None:
        try:
            return await self._connection.call(service, operation, what, **request)
        except NotFound:
            return None

    async def target_ids(self, rule: str, bus: str) -> list[str]:
        """Return the ids of a rule's targets; none if the rule is not there."""
        try:
            found = await pages(
                self._adapter, "events_control", "ListTargetsByRule", "Targets", Rule=rule, EventBusName=bus
            )
        except NotFound:
            return []
        return [one["Id"] for one in found]


class SeenQueues:
    """The two queues of one subscription, as they are; None where there is none."""

    def __init__(self, adapter: EventBridgeAdapter, subscription: Subscription) -> None:
        self.adapter = adapter
        self.subscription = subscription
        self.queue: dict[str, str] | None = None
        self.dead: dict[str, str] | None = None

    @property
    def queue_name(self) -> str:
        """The name of the queue, as it is or would be."""
        return self.adapter.names.queue(self.subscription).name

    @property
    def dead_name(self) -> str:
        """The name of the dead letter's queue."""
        return self.adapter.names.dead_queue(self.subscription.dead_letter).name

    def queue_dangers(self, *, by_role: bool = False) -> list[Difference]:
        """What of the two queues loses events, whoever made them."""
        assert self.queue is not None
        found = hazards(self.queue_name, self.queue, by_role=by_role)
        if self.dead is None:
            return [*found, Difference("dead-letter", f"dead letter {self.dead_name} is missing")]
        found += hazards(self.dead_name, self.dead, by_role=by_role)
        longest = self.dead.get("MessageRetentionPeriod") == str(int(LONGEST_RETENTION))
        if longest or self.subscription.external or self.subscription.dead_letter.external:
            found += short_lived(self.queue_name, self.queue, self.dead_name, self.dead)
        return found

    def queue_differences(self) -> list[Difference]:
        """What of the queue is otherwise than declared."""
        if self.queue is None or self.dead is None:
            return []
        return differences(self.queue, queue_attributes(self.subscription, self.dead["QueueArn"]))

    def dead_differences(self) -> list[Difference]:
        """What of the dead letter's queue is otherwise than declared."""
        if self.dead is None:
            return []
        return differences(self.dead, dead_attributes(self.subscription), dead=True)
