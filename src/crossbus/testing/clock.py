"""`Clock`: time that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from heapq import heappop, heappush

__all__ = ["Clock"]

_START = datetime(2025, 1, 1, tzinfo=UTC)
_ROUNDS = 25
"""How often others may run before time goes on: more than a chain of callbacks between two waits has links."""


class _Timer:
    __slots__ = ("callback", "loop")

    def __init__(self, callback: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
        self.callback: Callable[[], object] | None = callback
        self.loop = loop

    def cancel(self) -> None:
        """Stop the timer."""
        self.callback = None

    def fire(self) -> None:
        """Call back, unless cancelled meanwhile."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class Clock:
    """A clock for tests: leases, delays, back-off and timeouts wait for `advance`, not for the real time.

    ```python
    clock = Clock()
    async with Bus("local:", clock=clock) as bus, bus.running():
        await bus.publish("orders", event)
        await clock.advance(60)  # the retry comes now
    ```

    Timers belong to the event loop that set them and fire in it; several loops, in several threads, may share a
    clock.

    Args:
        start: The time of day at the beginning: an aware datetime, or seconds since the epoch. Default: 1 January
            2025, UTC.
    """

    def __init__(self, start: datetime | float = _START) -> None:
        if isinstance(start, datetime):
            if start.utcoffset() is None:
                raise ValueError("Clock(start=...) has no time zone; make it aware")
            start = start.timestamp()
        self._start = float(start)
        self._now = 0.0
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._count = 0

    def time(self) -> float:
        """Return the time of day, in seconds since the epoch."""
        return self._start + self._now

    def monotonic(self) -> float:
        """Return the seconds that `advance` has moved it by so far."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], object]) -> _Timer:
        """Call back in the running event loop when `monotonic()` reaches `when`; soon if it is past."""
        loop = asyncio.get_running_loop()
        timer = _Timer(callback, loop)
        if when <= self._now:
            loop.call_soon(timer.fire)
            return timer
        with self._lock:
            self._count += 1
            heappush(self._timers, (when, self._count, timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Move the time on. Timers that become due fire in order, each at its own time.

        Before the first, and after each, all event loops that have timers here run until they have presumably
        nothing left to do but wait. What goes on in threads or on the network is not waited for.
        """
        if not seconds >= 0:
            raise ValueError(f"advance({seconds}): time goes forward only")
        target = self._now + seconds
        await self._settle()
        while (due := self._next(target)) is not None:
            when, timer = due
            self._now = max(self._now, when)
            if timer.loop is asyncio.get_running_loop():
                timer.fire()
            else:
                _call_in(timer.loop, timer.fire)
            await self._settle(timer.loop)
        self._now = target
        await self._settle()

    def next_timer(self) -> float | None:
        """Return when the next timer is due, by `monotonic`; None if there is none."""
        with self._lock:
            while self._timers and self._timers[0][2].callback is None:
                heappop(self._timers)
            return self._timers[0][0] if self._timers else None

    def _next(self, target: float) -> tuple[float, _Timer] | None:
        with self._lock:
            while self._timers and self._timers[0][0] <= target:
                when, _, timer = heappop(self._timers)
                if timer.callback is not None:
                    return when, timer
        return None

    async def _settle(self, also: asyncio.AbstractEventLoop | None = None) -> None:
        here = asyncio.get_running_loop()
        with self._lock:
            loops = {timer.loop for _, _, timer in self._timers if timer.callback is not None}
        for loop in (loops | {also}) - {here, None}:
            assert loop is not None
            if loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_rounds(), loop))
        await _rounds()


async def _rounds() -> None:
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # the loop is closed, and its timers with it
        pass
