"""`BacklogWatch`: looks at the backlog of a subscription now and then, for the metrics that tell of it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

from crossbus.adapter import Adapter, Backlog
from crossbus.asking import code_of
from crossbus.telemetry.quiet import quiet
from crossbus.telemetry.sources import Instruments, Watched

if TYPE_CHECKING:
    from crossbus.topology import Subscription

__all__ = ["BacklogWatch"]

logger = logging.getLogger("crossbus")


class BacklogWatch:
    """Observes one consumer from `start` to `stop`.

    Args:
        interval: Real seconds between two looks; 0 for none. It is a request to the provider, so that nobody is to be
            surprised by it: `TelemetryOptions.backlog` says so.
    """

    def __init__(
        self,
        adapter: Adapter,
        subscription: Subscription,
        instruments: Instruments,
        watched: Watched,
        interval: float,
    ) -> None:
        self._adapter = adapter
        self._subscription = subscription
        self._instruments = instruments
        self._watched = watched
        self._interval = interval if adapter.capabilities.has("backlog") else 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self, context: contextvars.Context) -> None:
        """Begin to look, in a context that belongs to no trace."""
        self._instruments.watch(self._watched)
        if self._interval:
            self._task = asyncio.create_task(
                self._look(), name=f"crossbus backlog {self._subscription}", context=context
            )

    async def stop(self) -> None:
        """Look no more."""
        self._instruments.unwatch(self._watched)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            try:
                with quiet():
                    self._watched.backlog = await self._adapter.backlog(self._subscription)
            except Exception as error:
                self._watched.backlog = Backlog()  # not known any more
                known = code_of(self._adapter, error)
                if known is None or not known[1]:
                    logger.warning(
                        "%s: its backlog cannot be seen, and stands in no metric: %s: %s",
                        self._subscription,
                        type(error).__name__,
                        error,
                    )
                    return
            await asyncio.sleep(self._interval)  # real time: metrics are read by it
