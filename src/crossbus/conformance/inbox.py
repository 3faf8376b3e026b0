"""`Inbox`: what the handler of one subscription was given."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from typing import Any

from crossbus.clock import Clock
from crossbus.delivery import Delivery
from crossbus.event import Event

__all__ = ["Inbox"]


class Inbox:
    """Notes every delivery that a handler is given, and when; then does what the case wants done."""

    def __init__(
        self, name: str, clock: Clock, do: Callable[[Delivery], Awaitable[object] | object] | None = None
    ) -> None:
        self.name = name
        self.do = do
        """What the handler does after noting; may be changed while consuming."""
        self.deliveries: list[Delivery] = []
        self.times: list[float] = []
        self.counts: Counter[str] = Counter()
        """How often each event id was handed out."""
        self.running = 0
        self.peak = 0
        """The most handlers that ran at once."""
        self.done: list[str] = []
        """The ids whose handler returned, in that order."""
        self._clock = clock

    def handle_for(self, handle: Any) -> None:
        """Become the handler of a subscription."""

        async def conformance_handler(delivery: Delivery) -> None:
            await self._handle(delivery)

        handle(conformance_handler)

    async def _handle(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.times.append(self._clock.monotonic())
        self.counts[delivery.event.id] += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            if self.do is not None:
                result = self.do(delivery)
                if inspect.isawaitable(result):
                    await result
            self.done.append(delivery.event.id)
        finally:
            self.running -= 1

    def __len__(self) -> int:
        return len(self.deliveries)

    @property
    def events(self) -> list[Event]:
        """The events, in the order in which the handler was called."""
        return [delivery.event for delivery in self.deliveries]

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        return [delivery.event.id for delivery in self.deliveries]

    @property
    def numbers(self) -> list[int]:
        """Their numbers, where the data is ``{"number": n}``."""
        return [delivery.event.data["number"] for delivery in self.deliveries]

    def has(self, ids: Iterable[str]) -> bool:
        """True if each of these was handed out."""
        return all(id in self.counts for id in ids)

    def attempts(self, id: str) -> list[int | None]:
        """Return the attempt numbers with which an event was handed out."""
        return [delivery.attempt for delivery in self.deliveries if delivery.event.id == id]

    def gaps(self, id: str) -> list[float]:
        """Return the seconds between one delivery of an event's first message and its next."""
        found = [
            (d.message_id, at) for d, at in zip(self.deliveries, self.times, strict=True) if d.event.id == id
        ]
        times = [at for message_id, at in found if message_id == found[0][0]]
        return [later - earlier for earlier, later in pairwise(times)]

    def missing_text(self, ids: Iterable[str], times: int = 1) -> str:
        """Say which of these have not come."""
        wanted = list(ids)
        missing = [id for id in wanted if self.counts.get(id, 0) < times]
        often = "" if times == 1 else f" {times} times"
        return (
            f"{self.name} should be given {len(wanted)} events{often}; {len(missing)} are missing, "
            f"such as {missing[:3]} ({len(self.deliveries)} deliveries came)"
        )
