"""`Classic`: buses with rules and targets, AWS's "Custom Event Bus - Classic"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from crossbus.adapter import Change, Compilation, Finding, ReplayFrom, SendOutcome, Wire
from crossbus.capabilities import Capabilities
from crossbus.checks import Check
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.topology import Subscription, Topic, Topology
from crossbus_eventbridge import checks, encoding, exporting, filters, making, provisioning, replays
from crossbus_eventbridge.api import EventBridgeApi
from crossbus_eventbridge.limits import EVENTBRIDGE
from crossbus_eventbridge.naming import is_queue
from crossbus_eventbridge.options import wire_of
from crossbus_eventbridge.publishing import BusChecks, put_entries
from crossbus_eventbridge.standing import Look
from crossbus_eventbridge.temporary import TEMPORARY_QUEUE, remove, temporary

if TYPE_CHECKING:
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["Classic"]

_UNDO: Final = (making.delete_rule, making.delete_queue)
"""The steps that delete a temporary subscription."""


class Classic(EventBridgeApi):
    """The API `events`, of 2015."""

    capabilities: ClassVar[Capabilities] = EVENTBRIDGE
    checks: ClassVar[Mapping[str, Check]] = checks.CLASSIC
    permissions: ClassVar[Mapping[str, str]] = {
        "temporary_subscriptions": "events:PutRule, events:PutTargets, events:TagResource, events:ListTargetsByRule, "
        f"events:RemoveTargets and events:DeleteRule on the bus, and {TEMPORARY_QUEUE}",
    }

    def __init__(self, adapter: EventBridgeAdapter) -> None:
        super().__init__(adapter)
        self._checks: BusChecks | None = None

    def opened(self) -> None:
        """Begin to know nothing of the buses."""
        self._checks = BusChecks(self.adapter.connection)

    def encode(self, topic: Topic, event: Event) -> Wire:
        """Make the entry of an event."""
        shared = topic.name if self.adapter.names.is_shared(topic) else None
        return encoding.encode(event, shared, data_only=wire_of(topic) == "detail-data")

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> list[SendOutcome]:
        """Publish one request of entries."""
        bus = self.adapter.names.bus(topic)
        if self._checks is not None and self.adapter.options.verify:
            await self._checks.check(bus)
        return await put_entries(self.adapter.connection, bus, wires)

    def compile(self, filter: Filter) -> Compilation:
        """Bring a filter into the form of an event pattern."""
        return filters.compile_filter(filter)

    def exported(self, declared: Topic | Subscription) -> dict[str, Any]:
        """Return names, pattern and settings."""
        return exporting.exported(self.adapter, declared)

    async def inspect(self, topology: Topology) -> list[Finding]:
        """Look at all that is declared."""
        self._check(topology)
        return await provisioning.inspect(self.adapter, topology)

    async def plan(self, topology: Topology, *, prune: bool) -> list[Change]:
        """Say what is to be done."""
        self._check(topology)
        return await provisioning.plan(self.adapter, topology, prune=prune)

    def _check(self, topology: Topology) -> None:
        """Say what cannot be before anything is asked or made."""
        for one in topology.subscriptions:
            if not one.external:
                self.exported(one)

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> None:
        """Start a replay of the archive of the bus."""
        await replays.replay(self.adapter, subscription, start)

    async def targets(self, topic: Topic) -> list[str]:
        """Return the ARNs of the queues that the rules of a bus deliver to."""
        look, bus = Look(self.adapter), self.adapter.names.bus(topic)
        found = [await look.rule_named(name, bus) for name in await look.rules(bus)]
        return [arn for rule in found if rule is not None for arn in rule.targets if is_queue(arn)]

    def temporary(self, topic: Topic, filter: Filter | None) -> AbstractAsyncContextManager[Subscription]:
        """Make a rule and a queue for the time of the block."""
        return temporary(self.adapter, topic, filter, making.put_temporary, _UNDO)

    async def remove_temporary(self, subscription: Subscription) -> None:
        """Delete the rule and the queue."""
        await remove(self.adapter, subscription, _UNDO)
