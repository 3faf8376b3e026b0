"""`PrivateBroker`: the in-memory broker of one test, on which every declared topic and subscription can live."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from crossbus.adapter import (
    Backlog,
    Change,
    DeadLetterQueue,
    Finding,
    LeaseOutcome,
    Received,
    Receiver,
    ReplayFrom,
    SendOutcome,
    Settlement,
    Wire,
)
from crossbus.event import Event
from crossbus.filters import Filter
from crossbus.profiles import Profile
from crossbus.registry import adapter_class
from crossbus.testing.clock import Clock
from crossbus.topology import Subscription, Topic, Topology
from crossbus.wire import take_own
from crossbus.wrapping import WrappedAdapter, WrappedReceiver

__all__ = ["PrivateBroker"]


class PrivateBroker(WrappedAdapter):
    """A ``local:`` broker that nobody else sees. It notes what is published, and whether anything goes on.

    What a declaration says of a provider's own resources means nothing here: topics and subscriptions have their
    logical names, and those that are external are created like all others.
    """

    def __init__(self, clock: Clock) -> None:
        profile = Profile(name="test", origin="crossbus.testing")
        super().__init__(adapter_class("local", profile.origin)(profile, clock=clock))
        self.published: list[tuple[str, Event]] = []
        """What was published, by topic, in order."""
        self.receivers: dict[tuple[str, str], PrivateReceiver] = {}
        self.activity = 0
        """Counts all that happens on the wire."""

    @property
    def is_local(self) -> bool:
        """True: the Bus creates what is declared."""
        return True

    # --- publishing ---------------------------------------------------------------------------------------------

    def encode(self, topic: Topic, event: Event) -> Wire:
        """As the local broker."""
        return self.inner.encode(_plain_topic(topic), event)

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Publish, and note what was published."""
        self.activity += 1
        outcomes = await self.inner.send(_plain_topic(topic), wires)
        if topic.kind == "topic":
            for wire, outcome in zip(wires, outcomes, strict=True):
                if outcome.code is None:
                    self.published.append((topic.name, self._event_of(wire)))
        return outcomes

    def _event_of(self, wire: Wire) -> Event:
        event = self.inner.decode(Received(None, wire.body, wire.attributes, ""))
        return take_own(event)[0]

    # --- consuming ----------------------------------------------------------------------------------------------

    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        """Open a receiver that says whether anything waits."""
        inner = await self.inner.open_receiver(_plain(subscription), window)
        receiver = self.receivers[subscription.key] = PrivateReceiver(inner, self)
        return receiver

    # --- looking after ------------------------------------------------------------------------------------------

    async def inspect(self, topology: Topology) -> Sequence[Finding]:
        """As the local broker."""
        return await self.inner.inspect(_plain_topology(topology))

    async def plan(self, topology: Topology, *, prune: bool = False) -> Sequence[Change]:
        """As the local broker, what is external included."""
        return await self.inner.plan(_plain_topology(topology), prune=prune)

    def dead_letters(self, subscription: Subscription) -> DeadLetterQueue:
        """As the local broker."""
        self.activity += 1  # whoever asks may be about to redrive
        return self.inner.dead_letters(_plain(subscription))

    async def replay(self, subscription: Subscription, start: ReplayFrom) -> int | None:
        """As the local broker."""
        self.activity += 1
        return await self.inner.replay(_plain(subscription), start)

    async def backlog(self, subscription: Subscription) -> Backlog:
        """As the local broker."""
        return await self.inner.backlog(_plain(subscription))

    def temporary_subscription(
        self, topic: Topic, filter: Filter | None = None
    ) -> AbstractAsyncContextManager[Subscription]:
        """As the local broker."""
        return self.inner.temporary_subscription(_plain_topic(topic), filter)

    def delayed(self) -> list[tuple[float, tuple[str, str]]]:
        """Return what waits for a retry: when each is due by the clock, and its subscription."""
        now = self.clock.monotonic()
        return sorted(
            (due, key)
            for key, receiver in self.receivers.items()
            for due in receiver.delayed.values()
            if due > now
        )


class PrivateReceiver(WrappedReceiver):
    """A receiver that tells when it has found nothing and waits."""

    def __init__(self, inner: Receiver, broker: PrivateBroker) -> None:
        super().__init__(inner)
        self.broker = broker
        self.waits = False
        """True while it waits for something to come: nothing is there that is due."""
        self.delayed: dict[str, float] = {}
        """By message id, when what was given back is due again."""
        self._looked = False
        self._ids: dict[Any, str] = {}

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """As the inner receiver, but without an end: a long poll that ends would be one more thing to wait for."""
        self.broker.activity += 1
        found = await self.inner.receive(max, 0)
        if not found and self._looked:
            self.waits = True
            try:
                found = await self.inner.receive(max, float("inf"))
            finally:
                self.waits = False
                self.broker.activity += 1
        self._looked = True
        for received in found:
            self.delayed.pop(received.message_id, None)
            self._ids[received.lease] = received.message_id
        return found

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """As the inner receiver, noting what comes again later."""
        self.broker.activity += 1
        outcomes = await self.inner.settle(settlements)
        for settlement, outcome in zip(settlements, outcomes, strict=True):
            message_id = self._ids.pop(settlement.lease, None)
            if outcome is LeaseOutcome.OK and settlement.delay and message_id is not None:
                self.delayed[message_id] = self.broker.clock.monotonic() + settlement.delay
        return outcomes


def _plain_topic(topic: Topic) -> Topic:
    if topic.resource is None and not topic.external and not topic.options:
        return topic
    return replace(topic, resource=None, external=False, options={})


def _plain(subscription: Subscription) -> Subscription:
    changes: dict[str, Any] = {}
    if subscription.external:
        # Its real resource does not hold the filter either: what it does not match is the portable layer's matter.
        changes = {"external": False, "native_filter": {}}
        if subscription.on_mismatch is not None:
            changes["filter"] = None
    return subscription.replace(
        topic=_plain_topic(subscription.topic), resource=None, dead_letter_resource=None, **changes
    )


def _plain_topology(topology: Topology) -> Topology:
    return Topology(
        tuple(_plain_topic(topic) for topic in topology.topics),
        tuple(_plain(subscription) for subscription in topology.subscriptions),
    )
