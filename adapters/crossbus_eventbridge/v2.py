"""`V2Api`: the newer EventBridge, AWS's "Custom Event Bus", with subscribers instead of rules. Experimental.

The event is published as it is, with PutRawEvents; a subscriber delivers it to an SQS queue as it was. The order of an
event group is that of a FIFO subscriber, and of the FIFO queue under it.

Sources: the service model `eventbridgev2` of botocore;
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-custom-bus.html.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final

from crossbus.adapter import Change, Compilation, Finding, ReplayFrom, SendOutcome, Wire
from crossbus.capabilities import Capabilities
from crossbus.checks import Check
from crossbus.errors import DeclarationError, NotFound, UnsupportedError
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventbridge import checks, encoding, filters, making, v2_making, v2_provisioning
from crossbus_eventbridge.api import EventBridgeApi
from crossbus_eventbridge.limits import V2
from crossbus_eventbridge.naming import is_queue
from crossbus_eventbridge.options import wire_of
from crossbus_eventbridge.publishing import NO_ANSWER, outcome_of
from crossbus_eventbridge.temporary import TEMPORARY_QUEUE, remove, temporary
from crossbus_eventbridge.v2_buses import Buses

__all__ = ["EXPERIMENTAL", "V2Api"]

logger = logging.getLogger("crossbus")

EXPERIMENTAL: Final = (
    "eventbridge: api=v2 is experimental: tested against botocore's model of the service, never on AWS"
)


class V2Api(EventBridgeApi):
    """The API `eventbridgev2`, of 2025."""

    capabilities: ClassVar[Capabilities] = V2
    checks: ClassVar[Mapping[str, Check]] = checks.V2
    permissions: ClassVar[Mapping[str, str]] = {
        "temporary_subscriptions": "events:ListEventBuses, events:ListSubscribers, events:DescribeSubscriber, "
        "events:CreateSubscriber, events:DeleteSubscriber, events:TagResource, iam:PassRole on the delivery role, and "
        f"{TEMPORARY_QUEUE}",
    }

    @property
    def buses(self) -> Buses:
        """The buses of the connection. There once the adapter was opened."""
        return self._buses

    def opened(self) -> None:
        """Begin to know nothing of the buses, and say that this is an experiment."""
        self._buses = Buses(self.adapter)
        logger.warning(EXPERIMENTAL)

    def encode(self, topic: Topic, event: Event) -> Wire:
        """Make the entry of an event. Raises `DeclarationError` for a wire of the other API."""
        if wire_of(topic) != "cloudevent":
            raise DeclarationError(
                f"topic {topic.name!r}: wire={wire_of(topic)!r} belongs to api=classic; with api=v2 an event is "
                "carried whole: leave the wire out"
            )
        return encoding.encode_raw(event, topic.name if self.adapter.names.is_shared(topic) else None)

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> list[SendOutcome]:
        """Publish one request of entries."""
        arn = await self.buses.arn(topic)
        entries: list[dict[str, Any]] = [
            {"Data": wire.body, "SystemMetadata": dict(wire.attributes)} for wire in wires
        ]
        try:
            answer = await self.adapter.connection.call(
                "events_v2", "PutRawEvents", f"on bus {arn}", EventBusArn=arn, Entries=entries
            )
        except NotFound:
            self.buses.forget(topic)  # one that is made anew has another ARN
            raise
        found = [outcome_of(entry, arn) for entry in answer.get("Entries", ())]
        return found + [NO_ANSWER] * (len(wires) - len(found))

    def compile(self, filter: Filter) -> Compilation:
        """Bring a filter into the form of an event pattern."""
        native, text, residual = filters.compile_filter(filter)
        if native is None:
            return Compilation(native, text, residual)
        raw = filters.raw_of(native)
        return Compilation(raw, filters.text_of(raw), residual)

    def exported(self, declared: Topic | Subscription) -> dict[str, Any]:
        """Refuse: no tool but crossbus creates these yet."""
        what = f"topic {declared.name!r}" if isinstance(declared, Topic) else f"subscription {declared}"
        raise UnsupportedError(
            f"{what}: terraform's provider has no resource for a bus of api=v2: create it with crossbus provision, or "
            "export with a profile of api=classic",
            capability="provision",
        )

    async def inspect(self, topology: Topology) -> list[Finding]:
        """Look at all that is declared."""
        return await v2_provisioning.inspect(self.adapter, self.buses, topology)

    async def plan(self, topology: Topology, *, prune: bool) -> list[Change]:
        """Say what is to be done."""
        return await v2_provisioning.plan(self.adapter, self.buses, topology, prune=prune)

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> None:
        """Refuse: there is no capability for it."""
        self.capabilities.require("replay_time", self.adapter.name, f"a replay to {subscription}")

    async def targets(self, topic: Topic) -> list[str]:
        """Return the ARNs of the queues that the subscribers of a bus deliver to."""
        found = await v2_making.Subscribers(self.adapter, self.buses).on(topic)
        return [one["TargetArn"] for one in found if is_queue(one.get("TargetArn", ""))]

    def temporary(self, topic: Topic, filter: Filter | None) -> AbstractAsyncContextManager[Subscription]:
        """Make a subscriber and a queue for the time of the block."""
        subscribers = v2_making.Subscribers(self.adapter, self.buses)
        undo = (subscribers.delete_of, making.delete_queue)
        return temporary(self.adapter, topic, filter, subscribers.put_temporary, undo)

    async def remove_temporary(self, subscription: Subscription) -> None:
        """Delete the subscriber and the queue."""
        subscribers = v2_making.Subscribers(self.adapter, self.buses)
        await remove(self.adapter, subscription, (subscribers.delete_of, making.delete_queue))
