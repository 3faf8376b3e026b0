"""What differs between the two EventBridges: the adapter has one of these, and SQS is the same under both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from crossbus.adapter import Change, Compilation, Finding, ReplayFrom, SendOutcome, Wire
from crossbus.capabilities import Capabilities
from crossbus.checks import Check
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.topology import Subscription, Topic, Topology

if TYPE_CHECKING:
    from crossbus_eventbridge.adapter import EventBridgeAdapter

__all__ = ["EventBridgeApi"]


class EventBridgeApi(ABC):
    """One of AWS's two APIs, for one adapter. What each method does is said in `crossbus.adapter.Adapter`."""

    capabilities: ClassVar[Capabilities]
    permissions: ClassVar[Mapping[str, str]]
    checks: ClassVar[Mapping[str, Check]]

    def __init__(self, adapter: EventBridgeAdapter) -> None:
        self.adapter = adapter

    @abstractmethod
    def opened(self) -> None:
        """The adapter was opened: begin to know nothing."""

    @abstractmethod
    def encode(self, topic: Topic, event: Event) -> Wire:
        """Make the entry of an event."""

    @abstractmethod
    async def send(self, topic: Topic, wires: Sequence[Wire]) -> list[SendOutcome]:
        """Publish entries to the bus of a topic, in one request."""

    @abstractmethod
    def compile(self, filter: Filter) -> Compilation:
        """Divide a filter."""

    @abstractmethod
    def exported(self, declared: Topic | Subscription) -> dict[str, Any]:
        """Return what another tool has to know to create it. Needs no connection."""

    @abstractmethod
    async def inspect(self, topology: Topology) -> list[Finding]:
        """Look at all that is declared."""

    @abstractmethod
    async def plan(self, topology: Topology, *, prune: bool) -> list[Change]:
        """Say what is to be done. Each payload is a callable that does it, and may be called twice."""

    @abstractmethod
    async def replay(self, subscription: Subscription, start: ReplayFrom) -> None:
        """Start a replay."""

    @abstractmethod
    async def targets(self, topic: Topic) -> list[str]:
        """Return the ARNs of the queues that the bus of a topic delivers to."""

    @abstractmethod
    def temporary(self, topic: Topic, filter: Filter | None) -> AbstractAsyncContextManager[Subscription]:
        """Make a subscription that is gone when the block ends."""

    @abstractmethod
    async def remove_temporary(self, subscription: Subscription) -> None:
        """Remove what `temporary` made in a process that died."""
