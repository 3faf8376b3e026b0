"""How a bus, and each of its subscriptions, does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Health", "SubscriptionHealth"]


@dataclass(frozen=True, slots=True)
class SubscriptionHealth:
    """How one subscription's consumer does."""

    state: Literal["running", "paused", "draining", "failed", "stopped"]
    buffered: int
    """Deliveries in hand that no handler has begun."""
    in_hand: int
    """Deliveries in hand, buffered ones included."""
    stuck: tuple[str, ...]
    """Handlers beyond their timeout that could not be cancelled."""
    last_receive_ok: bool
    error: str | None
    """Why it failed, was paused by its breaker, or what the last receive said."""
    breaker: Literal["closed", "open"] | None = None
    """``open`` if its breaker paused it, until it is resumed; None if it has no breaker."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a bus does."""

    alive: bool
    """False if a handler blocks the event loop, or one in a thread is far beyond its timeout."""
    ready: bool
    """True if the bus is open and every subscription that is consumed received well and is not paused."""
    subscriptions: dict[str, SubscriptionHealth]
    """By ``topic/name``, those that are being consumed."""
    blocked_by: str | None = None
    """The handler that blocks the event loop now."""
