"""A thread that watches the event loop, and names the handler that blocks it before leases are lost."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

__all__ = ["Watchdog"]

logger = logging.getLogger("crossbus")

BEAT: Final = 0.5
"""Seconds between two looks."""


class Watchdog:
    """Notices that the event loop does not move.

    `threshold` is the time in seconds after which a loop that has not moved is reported; `name_of` says which
    handler a task of that loop is running, or None.
    """

    def __init__(self, threshold: float, name_of: Callable[[asyncio.Task[object]], str | None]) -> None:
        self._threshold = threshold
        self._name_of = name_of
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._moved = time.monotonic()
        self._stop = threading.Event()
        self._asked = False
        self.blocked_by: str | None = None
        """The handler that blocks the loop now, or None."""
        self._thread = threading.Thread(target=self._watch, name="crossbus watchdog", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        self._moved = time.monotonic()
        self._asked = False
        self.blocked_by = None

    def _watch(self) -> None:
        interval = min(BEAT, self._threshold / 3)
        while not self._stop.wait(interval):
            if not self._asked:
                self._asked = True
                asked_at = time.monotonic()
                try:
                    self._loop.call_soon_threadsafe(self._beat)
                except RuntimeError:  # the loop was closed without us
                    return
            elif self.blocked_by is None and time.monotonic() - max(asked_at, self._moved) >= self._threshold:
                self._report(time.monotonic() - max(asked_at, self._moved))

    def _report(self, seconds: float) -> None:
        task = asyncio.current_task(self._loop)
        name = None if task is None else self._name_of(task)
        self.blocked_by = name or "code outside crossbus"
        frame = sys._current_frames().get(self._loop_thread)
        where = "".join(traceback.format_stack(frame, limit=8)) if frame is not None else ""
        logger.error(
            "%s has blocked the event loop for %.1f s: leases cannot be kept while it does. Make it a plain `def`, "
            "which runs in a thread, or await in it. It stands here:\n%s",
            f"handler {name}" if name else "code outside crossbus's handlers",
            seconds,
            where,
        )

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=2)
