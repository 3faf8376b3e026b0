"""`UrlHarness`: the kit on whatever a URL names."""

from __future__ import annotations

import dataclasses
from typing import Any

from crossbus.adapter import Adapter
from crossbus.capabilities import Capabilities
from crossbus.clock import Clock, SystemClock
from crossbus.config import load
from crossbus.conformance.cases import Skipped
from crossbus.conformance.harness import Harness
from crossbus.registry import adapter_class
from crossbus.testing import Clock as MovableClock
from crossbus.topology import Subscription

__all__ = ["UrlHarness"]


class UrlHarness(Harness):
    """Runs the kit on a URL: ``crossbus conformance URL``.

    A broker in this process gets a clock that moves; anything else lives in real time.

    Args:
        url: Such as ``local:`` or ``pubsub:my-project``.
        scale: See `Harness.scale`.
        what_lies_under: See `Harness.what_lies_under`.

    Raises:
        ConfigurationError: the URL is not understood, or its adapter is not installed.
    """

    def __init__(self, url: str, *, scale: float = 1.0, what_lies_under: str = "") -> None:
        self.name = url
        self._url = url
        self.scale = scale
        self._profile = load(url).default
        self._class = adapter_class(self._profile.scheme, url)
        self.worlds = self._profile.scheme == "local"
        self.what_lies_under = what_lies_under or ("in this process" if self.worlds else "")

    @property
    def capabilities(self) -> Capabilities:
        """Those of the adapter, which may be narrower than its class's: an emulator's."""
        return self._class(self._profile, clock=SystemClock()).capabilities

    def make_clock(self) -> Any | None:
        """A movable clock for a broker in this process."""
        return MovableClock() if self.worlds else None

    def make_adapter(self, world: str, clock: Clock) -> Adapter:
        """Make an adapter of the URL; in this process, on a shared broker of the world's own."""
        target = f"{self._profile.target}-{world}".strip("-") if self.worlds else self._profile.target
        return self._class(dataclasses.replace(self._profile, target=target), clock=clock)

    async def position(self, adapter: Adapter, subscription: Subscription) -> str | None:
        """None; on Pub/Sub, where a position is a snapshot, the case is skipped."""
        if self._profile.scheme == "pubsub":
            raise Skipped(
                "replay_position", "a position of Pub/Sub is a snapshot, and the kit makes none here"
            )
        return await super().position(adapter, subscription)

    def url(self, world: str) -> str:
        """The URL itself, unless it names a broker in this process, which no other can reach."""
        return super().url(world) if self.worlds else self._url
