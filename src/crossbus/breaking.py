"""The breaker: pauses a subscription when too many of its events are rejected."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from crossbus.topology import Breaker

__all__ = ["Rejections", "state_of"]

_PAUSED: Final = "paused by its breaker"


class Rejections:
    """Which of the last events were rejected."""

    def __init__(self, breaker: Breaker) -> None:
        self._limit = breaker.rejected
        self._recent: deque[bool] = deque(maxlen=breaker.of)

    def add(self, rejected: bool) -> str | None:
        """Note an event. Returns why the subscription is to pause, if these are too many."""
        self._recent.append(rejected)
        count = sum(self._recent) if rejected else 0
        if count < self._limit:
            return None
        return f"{_PAUSED}: {count} of the last {len(self._recent)} events were rejected"

    def clear(self) -> None:
        """Forget what was rejected."""
        self._recent.clear()


def state_of(breaker: Breaker | None, why: str | None) -> Literal["closed", "open"] | None:
    """Say how a subscription's breaker stands, by why the subscription is paused; None if it has no breaker."""
    if breaker is None:
        return None
    return "open" if why is not None and why.startswith(_PAUSED) else "closed"
