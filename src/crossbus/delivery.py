"""`Delivery`: an event handed out under a lease, with its attempt number."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from crossbus.adapter import LeaseOutcome, Received
from crossbus.event import Event
from crossbus.outcomes import Retry

if TYPE_CHECKING:
    from crossbus.consuming import Consumer

__all__ = ["Delivery", "DeliveryState", "ForeignMessage"]


class DeliveryState(Enum):
    """Where a delivery stands."""

    IN_HAND = "in hand"
    HELD = "held"
    """To be given back, and held here for the part of its delay that the provider cannot hold."""
    SETTLED = "settled"
    """Acknowledged, given back, or dead-lettered."""
    LOST = "lost"
    """Its lease ended before it was settled; the event comes again."""


class Delivery:
    """An event handed out under a lease. Until it is settled, the lease is kept by itself."""

    __slots__ = (
        "_consumer",
        "_event",
        "decoded",
        "expires",
        "received",
        "released",
        "replay",
        "state",
        "trace",
        "until",
    )

    def __init__(
        self, received: Received, consumer: Consumer, expires: float, until: float = float("inf")
    ) -> None:
        self.received = received
        """What the provider handed out, as it is."""
        self.replay: str | None = None
        """The id of the replay that delivered it, or None."""
        self.state = DeliveryState.IN_HAND
        self.expires = expires
        """When the lease ends, by the clock's `monotonic`."""
        self.until = until
        """How far it can be extended at most: the provider's `LeaseLimits.total`, from the receipt."""
        self.released = False
        """True once its place in the consumer's window is free again."""
        self.decoded: Event | None = None
        """What the adapter made of it, if that was done before a handler is to be called."""
        self.trace: Any = None
        """The context of OpenTelemetry that it belongs to, as far as it is known."""
        self._event: Event | None = None
        self._consumer = consumer

    @property
    def event(self) -> Event:
        """The event."""
        assert self._event is not None, "a delivery is given out with its event"
        return self._event

    @property
    def attempt(self) -> int | None:
        """How often the event was received, this time included; None where the provider does not tell."""
        return self.received.attempt

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self._consumer.subscription.topic.name

    @property
    def subscription(self) -> str:
        """The name of the subscription."""
        return self._consumer.subscription.name

    @property
    def message_id(self) -> str:
        """The provider's id of the message."""
        return self.received.message_id

    @property
    def key(self) -> str | None:
        """The ordering key, or None."""
        return self.received.key

    @property
    def published(self) -> datetime | None:
        """When the provider accepted the event, where it tells."""
        seconds = self.received.published
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    async def ack(self) -> LeaseOutcome:
        """Acknowledge: the event is done. Says whether the lease still held; settling again does nothing."""
        return await self._consumer.settle_by_hand(self, None)

    async def retry(self, after: float | timedelta | None = None, *, reason: str = "") -> LeaseOutcome:
        """Give the event back, to come again after some seconds (default: by the subscription's `RetryPolicy`).

        A retry that would be one more than the policy has attempts goes to the dead letter.
        """
        return await self._consumer.fail_by_hand(self, Retry(after, reason=reason))

    async def reject(self, reason: str = "rejected by the consumer") -> LeaseOutcome:
        """Put the event into the dead letter now."""
        return await self._consumer.reject_by_hand(self, reason)

    async def extend(self, seconds: float) -> LeaseOutcome:
        """Make the lease last `seconds` from now. Rarely needed: leases are kept while a delivery is in hand."""
        return await self._consumer.extend_by_hand(self, seconds)

    def count_duplicate(self) -> None:
        """Count this delivery as a duplicate that is not handled again: for middleware that suppresses them."""
        self._consumer.telemetry.count_duplicate()

    def __repr__(self) -> str:
        where = f"{self.topic}/{self.subscription}"
        return f"<Delivery {self.message_id} of {where}, attempt {self.attempt}, {self.state.value}>"


class ForeignMessage(msgspec.Struct, frozen=True):
    """A message that is no CloudEvent, for the subscription's `mapping` to make an Event of."""

    body: bytes
    attributes: Mapping[str, Any]
    id: str
    """The provider's id of the message."""
    topic: str
    subscription: str

    @classmethod
    def of(cls, delivery: Delivery) -> ForeignMessage:
        """Return the message of a delivery."""
        received = delivery.received
        return cls(
            received.body, received.attributes, received.message_id, delivery.topic, delivery.subscription
        )

    def event(self, *, type: str, source: str, **arguments: Any) -> Event:
        """Make the Event. Its id is the provider's, so that a message delivered twice has one id."""
        arguments.setdefault("id", self.id)
        arguments.setdefault("time", None)
        return Event(type=type, source=source, **arguments)
