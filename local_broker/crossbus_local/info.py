"""What there is in a broker, to look at."""

from __future__ import annotations

from dataclasses import dataclass, field

from crossbus_local.queue import QueueSettings

__all__ = ["QueueInfo", "TopicInfo"]


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue, as it was when asked for."""

    settings: QueueSettings
    waiting: int
    in_hand: int
    temporary: bool


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic, as it was when asked for."""

    published: int
    dropped: int
    """How many of the published events no subscription took."""
    queues: dict[str, QueueInfo] = field(default_factory=dict)
