"""`SyncDelivery` and `SyncDeadLetters`: what `SyncBus` hands out, for programs without asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from crossbus.adapter import LeaseOutcome
from crossbus.deadletter import DeadLetter
from crossbus.delivery import Delivery
from crossbus.event import Event
from crossbus.letter_summary import DeadLetterSummary
from crossbus.letters import DeadLetters

if TYPE_CHECKING:
    from crossbus.sync import SyncBus

__all__ = ["SyncDeadLetters", "SyncDelivery"]


class SyncDelivery:
    """An event handed out under a lease, to be settled by hand. From `SyncBus.deliveries`. See `Delivery`."""

    def __init__(self, delivery: Delivery, bus: SyncBus) -> None:
        self._delivery = delivery
        self._bus = bus

    @property
    def event(self) -> Event:
        """The event."""
        return self._delivery.event

    @property
    def attempt(self) -> int | None:
        """How often the event was received, this time included; None where the provider does not tell."""
        return self._delivery.attempt

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self._delivery.topic

    @property
    def subscription(self) -> str:
        """The name of the subscription."""
        return self._delivery.subscription

    @property
    def message_id(self) -> str:
        """The provider's id of the message."""
        return self._delivery.message_id

    @property
    def published(self) -> datetime | None:
        """When the provider accepted the event, where it tells."""
        return self._delivery.published

    def ack(self) -> LeaseOutcome:
        """Acknowledge: the event is done. Says whether the lease still held."""
        return self._bus._call("ack", self._delivery.ack)

    def retry(self, after: float | timedelta | None = None, *, reason: str = "") -> LeaseOutcome:
        """Give the event back, to come again after some seconds (default: by the `RetryPolicy`)."""
        return self._bus._call("retry", self._delivery.retry, after, reason=reason)

    def reject(self, reason: str = "rejected by the consumer") -> LeaseOutcome:
        """Put the event into the dead letter now."""
        return self._bus._call("reject", self._delivery.reject, reason)

    def extend(self, seconds: float) -> LeaseOutcome:
        """Make the lease last `seconds` from now. Rarely needed: leases are kept while a delivery is in hand."""
        return self._bus._call("extend", self._delivery.extend, seconds)

    def __repr__(self) -> str:
        return repr(self._delivery).replace("<Delivery", "<SyncDelivery", 1)


class SyncDeadLetters:
    """The dead letter of one subscription. From `SyncBus.dead_letters`. See `DeadLetters`."""

    def __init__(self, letters: DeadLetters, bus: SyncBus) -> None:
        self._letters = letters
        self._bus = bus

    def list(
        self,
        *,
        limit: int = 100,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
    ) -> Sequence[DeadLetter]:
        """Return the oldest dead letters, up to `limit`. Removes none."""
        return self._bus._call("list", self._letters.list, limit=limit, type=type, reason=reason, since=since)

    def summary(
        self, *, type: str | None = None, reason: str | None = None, since: datetime | None = None
    ) -> DeadLetterSummary:
        """Count dead letters by reason, event type and handler. Removes none."""
        return self._bus._call("summary", self._letters.summary, type=type, reason=reason, since=since)

    def redrive(
        self,
        ids: Iterable[str] | None = None,
        *,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        rate: float | None = None,
    ) -> int:
        """Put dead letters back into their subscription; all of them, or those chosen. Returns how many."""
        return self._bus._call(
            "redrive",
            self._letters.redrive,
            ids,
            type=type,
            reason=reason,
            since=since,
            limit=limit,
            rate=rate,
        )

    def purge(
        self,
        ids: Iterable[str] | None = None,
        *,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> int:
        """Remove dead letters for good; all of them, or those chosen. Returns how many."""
        return self._bus._call(
            "purge", self._letters.purge, ids, type=type, reason=reason, since=since, limit=limit
        )
