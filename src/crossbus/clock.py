"""Time, as crossbus sees it: one seam, so that tests can move it (`crossbus.testing.Clock`)."""

from __future__ import annotations

import asyncio
import time as _time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock", "TimerHandle", "sleep"]


class TimerHandle(Protocol):
    """A timer that can be cancelled; cancelling twice, or after it fired, does nothing."""

    def cancel(self) -> None:
        """Stop the timer."""
        ...


class Clock(Protocol):
    """What leases, delays, back-off and timeouts are measured by. All times are in seconds."""

    def time(self) -> float:
        """Return the time of day, since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, for measuring."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        """Call back in the running event loop when `monotonic()` reaches `when`."""
        ...


class SystemClock:
    """The real time. `monotonic` is that of asyncio's event loops."""

    # The functions themselves: they are called for each event.
    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        """Call back in the running event loop when `monotonic()` reaches `when`."""
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, when - _time.monotonic()), callback)


async def sleep(clock: Clock, seconds: float) -> None:
    """Wait by a clock. Zero or less lets others run once."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    timer = clock.call_at(clock.monotonic() + seconds, wake)
    try:
        await woken
    finally:
        timer.cancel()
