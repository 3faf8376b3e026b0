"""Watching an adapter: what the cases that look at the wire stand on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from crossbus.adapter import Adapter, LeaseOutcome, Received, Receiver, SendOutcome, Settlement, Wire
from crossbus.topology import Subscription, Topic
from crossbus.wrapping import WrappedAdapter, WrappedReceiver

__all__ = ["Watch", "WatchedReceiver", "WrappedAdapter", "WrappedReceiver"]


SendHook = Callable[[Topic, Wire], SendOutcome | None]
"""Answers for a wire in the provider's place; None to let it through."""
SettleHook = Callable[[Subscription, Settlement], LeaseOutcome | None]
"""Answers for a settlement in the provider's place; None to let it through."""


class Watch(WrappedAdapter):
    """Notes what crosses the wire, and lets a case answer in the provider's place.

    Further arguments are capabilities that it declares narrower than the adapter's own.
    """

    def __init__(
        self,
        inner: Adapter,
        *,
        on_send: SendHook | None = None,
        on_settle: SettleHook | None = None,
        **narrower: Any,
    ) -> None:
        super().__init__(inner)
        self.capabilities = dataclasses.replace(inner.capabilities, **narrower)
        self.on_send = on_send
        self.on_settle = on_settle
        self.requests: list[tuple[Topic, list[Wire]]] = []
        """Every request of `send`, those of dead letters included."""
        self.outcomes: list[list[SendOutcome]] = []
        self.log: list[str] = []
        """``send TOPIC`` and ``ack``, ``give back`` in the order in which they were done."""
        self.received: list[Received] = []
        self.in_hand: set[Any] = set()
        self.peak = 0
        """The most deliveries that were in hand at once."""
        self.windows: list[int] = []
        """The windows that receivers were opened with."""

    def sizes(self, topic: str) -> list[int]:
        """Return the number of events of each request to a topic."""
        return [len(wires) for to, wires in self.requests if to.name == topic]

    def resent(self) -> int:
        """Return how many wires were sent again although the provider had taken them."""
        taken: set[int] = set()
        again = 0
        for (_, wires), outcomes in zip(self.requests, self.outcomes, strict=True):
            again += sum(id(wire) in taken for wire in wires)
            if not outcomes:
                continue  # it failed as a whole, or is under way
            taken.update(
                id(wire) for wire, outcome in zip(wires, outcomes, strict=True) if outcome.code is None
            )
        return again

    async def send(self, topic: Topic, wires: Sequence[Wire]) -> Sequence[SendOutcome]:
        """Send what the case does not answer for."""
        self.requests.append((topic, list(wires)))
        outcomes: list[SendOutcome] = []
        self.outcomes.append(outcomes)  # in the order of the requests, which need not end in it
        answers = [self.on_send(topic, wire) if self.on_send else None for wire in wires]
        passed = [wire for wire, answer in zip(wires, answers, strict=True) if answer is None]
        sent = iter(await self.inner.send(topic, passed) if passed else ())
        outcomes += [next(sent) if answer is None else answer for answer in answers]
        self.log.append(f"send {topic.name}")
        return outcomes

    async def open_receiver(self, subscription: Subscription, window: int) -> Receiver:
        """Open a receiver that is watched too."""
        self.windows.append(window)
        return WatchedReceiver(await self.inner.open_receiver(subscription, window), self, subscription)


class WatchedReceiver(WrappedReceiver):
    """The receiver of a `Watch`."""

    def __init__(self, inner: Receiver, watch: Watch, subscription: Subscription) -> None:
        super().__init__(inner)
        self.watch = watch
        self.subscription = subscription

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """Receive, and count what is in hand."""
        found = await self.inner.receive(max, wait)
        watch = self.watch
        watch.received.extend(found)
        watch.in_hand.update(received.lease for received in found)
        if len(watch.in_hand) > watch.peak:  # `max` is a parameter here
            watch.peak = len(watch.in_hand)
        return found

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """Settle what the case does not answer for."""
        watch = self.watch
        answers = [
            watch.on_settle(self.subscription, one) if watch.on_settle else None for one in settlements
        ]
        passed = [one for one, answer in zip(settlements, answers, strict=True) if answer is None]
        for one in passed:
            watch.log.append("ack" if one.delay is None else "give back")
        done = iter(await self.inner.settle(passed) if passed else ())
        watch.in_hand.difference_update(one.lease for one in settlements)
        return [next(done) if answer is None else answer for answer in answers]
