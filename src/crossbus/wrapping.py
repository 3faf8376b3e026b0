"""Wrapping an adapter: what the fault injector, the cases that watch the wire, and the bus of a test stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from crossbus.adapter import (
    Adapter,
    Backlog,
    Change,
    Compilation,
    DeadLetterQueue,
    Description,
    Finding,
    LeaseOutcome,
    Received,
    Receiver,
    ReplayFrom,
    SendOutcome,
    Settlement,
    Wire,
)
from crossbus.checks import Result
from crossbus.errors import ErrorCode
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.topology import Subscription, Topic, Topology

__all__ = ["WrappedAdapter", "WrappedReceiver"]


class WrappedReceiver(Receiver):
    """Passes everything on to another receiver."""

    def __init__(self, inner: Receiver) -> None:
        self.inner = inner

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """As the inner receiver."""
        return await self.inner.receive(max, wait)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """As the inner receiver."""
        return await self.inner.settle(settlements)

    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        """As the inner receiver."""
        return await self.inner.extend(leases, seconds)

    async def close(self) -> None:
        """As the inner receiver."""
        await self.inner.close()


class WrappedAdapter(Adapter):
    """Passes everything on to another adapter. Override what shall differ."""

    name = "wrapped"

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner.profile, clock=inner.clock)
        self.inner = inner
        self.name = inner.name  # type: ignore[misc]  # an instance speaks in the name of what it wraps
        self.capabilities = inner.capabilities
        self.permissions = inner.permissions
        self.checks = inner.checks

    @property
    def is_local(self) -> bool:
        """As the inner adapter."""
        return self.inner.is_local

    async def open(self) -> None:
        """As the inner adapter."""
        await self.inner.open()

    async def close(self) -> None:
        """As the inner adapter."""
        await self.inner.close()

    def describe(self) -> Description:
        """As the inner adapter."""
        return self.inner.describe()

    def error_code(self, error: BaseException) -> tuple[ErrorCode, bool] | None:
        """As the inner adapter."""
        return self.inner.error_code(error)

    def encode(self, topic: Topic, event: Event) -> Wire:
        """As the inner adapter."""
        return self.inner.encode(topic, event)

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """As the inner adapter."""
        return await self.inner.send(topic, wires)

    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        """As the inner adapter."""
        return await self.inner.open_receiver(subscription, window)

    def decode(self, received: Received) -> Event:
        """As the inner adapter."""
        return self.inner.decode(received)

    def compile(self, filter: Filter) -> Compilation:
        """As the inner adapter."""
        return self.inner.compile(filter)

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        """As the inner adapter."""
        return await self.inner.inspect(topology)

    async def diagnose(self, topology: Topology) -> Sequence[Result]:
        """As the inner adapter."""
        return await self.inner.diagnose(topology)

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """As the inner adapter."""
        return await self.inner.plan(topology, prune=prune)

    async def provision(self, changes: Sequence[Change]) -> None:
        """As the inner adapter."""
        await self.inner.provision(changes)

    async def generations(self, subscription: Subscription) -> Sequence[str]:
        """As the inner adapter."""
        return await self.inner.generations(subscription)

    def exported(
        self, declared: Topic | Subscription, previous: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any] | None:
        """As the inner adapter."""
        return self.inner.exported(declared, previous)

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        """As the inner adapter."""
        return self.inner.dead_letters(subscription)

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int | None:
        """As the inner adapter."""
        return await self.inner.replay(subscription, start)

    async def backlog(self, subscription: Subscription) -> Backlog:
        """As the inner adapter."""
        return await self.inner.backlog(subscription)

    def temporary_subscription(
        self, topic: Topic, filter: Filter | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """As the inner adapter."""
        return self.inner.temporary_subscription(topic, filter)

    async def remove_temporary(self, subscription: Subscription) -> None:
        """As the inner adapter."""
        await self.inner.remove_temporary(subscription)

    async def send_foreign(self, topic: Topic, body: bytes, attributes: Mapping[str, Any]) -> None:
        """As the inner adapter."""
        await self.inner.send_foreign(topic, body, attributes)

    def push_decoder(self, subscription: Subscription) -> Any:
        """As the inner adapter."""
        return self.inner.push_decoder(subscription)
