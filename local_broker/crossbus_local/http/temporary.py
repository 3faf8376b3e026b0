"""`Temporary`: subscriptions that are gone when nobody has used them for a while."""

from __future__ import annotations

import asyncio
from typing import Final

from crossbus.errors import NotFound
from crossbus_local.engine import Engine

__all__ = ["LEFT_OVER", "Temporary"]

LEFT_OVER: Final = 60.0
"""Seconds for which a temporary subscription that an earlier run of the server left waits for its client."""


class Temporary:
    """When each temporary subscription ends. Needs a running event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._timers: dict[tuple[str, str], tuple[float, asyncio.TimerHandle]] = {}
        for topic, found in engine.topics().items():
            for name, queue in found.queues.items():
                if queue.temporary:
                    self.keep(topic, name, LEFT_OVER)

    def keep(self, topic: str, name: str, seconds: float, use: float = 0.0) -> None:
        """Let a subscription end after so many seconds, and those of a use that begins, unless it is used again."""
        self.forget(topic, name)
        timer = asyncio.get_running_loop().call_later(seconds + use, self._end, topic, name)
        self._timers[topic, name] = seconds, timer

    def used(self, topic: str, name: str, seconds: float = 0.0) -> None:
        """Begin its time anew after a use of so many seconds, if it is a temporary one."""
        found = self._timers.get((topic, name))
        if found is not None:
            self.keep(topic, name, found[0], seconds)

    def forget(self, topic: str, name: str) -> None:
        """It is gone, or is to end otherwise."""
        found = self._timers.pop((topic, name), None)
        if found is not None:
            found[1].cancel()

    def _end(self, topic: str, name: str) -> None:
        del self._timers[topic, name]
        if self.is_durable(topic, name) is False:  # it may have been deleted, and another made in its place
            self._engine.delete_subscription(topic, name)

    def is_durable(self, topic: str, name: str) -> bool | None:
        """Return whether a subscription is there for good; None if it is not there."""
        try:
            return not self._engine.find(topic, name).temporary
        except NotFound:
            return None
