"""What the workers of a consumer are doing, and since when: timeouts, and the names of what is stuck."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from crossbus.clock import Clock, TimerHandle
from crossbus.delivery import Delivery
from crossbus.handlers import Handler

__all__ = ["Run", "Runs"]

logger = logging.getLogger("crossbus")


class Run:
    """What one worker is doing."""

    __slots__ = (
        "began",
        "cancelled",
        "deadline",
        "deliveries",
        "handler",
        "handling",
        "in_thread",
        "overdue",
    )

    def __init__(self, deliveries: list[Delivery], began: float, deadline: float) -> None:
        self.deliveries = deliveries
        self.began = began
        self.deadline = deadline
        """By the clock's `monotonic`."""
        self.handler: Handler | None = None
        self.handling = True
        """True while the handler and its middleware run: what is done before and after is not held to the deadline."""
        self.in_thread = False
        self.overdue = False
        """True once the deadline has passed."""
        self.cancelled = False
        """True once the worker was cancelled for that."""


class Runs:
    """The runs of one consumer's workers, held to the timeout of its subscription."""

    def __init__(
        self, clock: Clock, timeout: float, where: str, *, abandon: Callable[[Delivery], None]
    ) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic
        self._timeout = timeout
        self._where = where
        self._abandon = abandon
        self._by_task: dict[asyncio.Task[Any], Run] = {}
        self._timer: TimerHandle | None = None

    def begin(self, task: asyncio.Task[Any], deliveries: list[Delivery]) -> Run:
        """Note that a worker begins."""
        now = self._monotonic()
        run = self._by_task[task] = Run(deliveries, now, now + self._timeout)
        if self._timer is None:
            # One timer for all workers: deadlines of one subscription fall due in the order they were set.
            self._timer = self._clock.call_at(run.deadline, self._check)
        return run

    def begin_handling(self, run: Run) -> None:
        """Note that a run comes to its handler only now: its time begins."""
        run.handling = True
        run.deadline = self._monotonic() + self._timeout
        if self._timer is None:
            self._timer = self._clock.call_at(run.deadline, self._check)

    def end(self, task: asyncio.Task[Any]) -> None:
        """Note that a worker has ended what it was doing."""
        del self._by_task[task]

    def all(self) -> list[Run]:
        """Return what all workers are doing."""
        return list(self._by_task.values())

    def of(self, task: asyncio.Task[Any] | None) -> Run | None:
        """Return what a task is doing, if it is a worker and busy."""
        return None if task is None else self._by_task.get(task)

    def name_of(self, task: asyncio.Task[Any]) -> str:
        """Return the name of the handler that a worker runs."""
        run = self._by_task.get(task)
        return run.handler.name if run is not None and run.handler is not None else "its middleware"

    def stuck(self) -> tuple[str, ...]:
        """Return the names of handlers that are overdue and could not be cancelled. Callable from any thread."""
        return tuple(
            self.name_of(task) for task, run in list(self._by_task.items()) if run.overdue and run.handling
        )

    def _check(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for task, run in self._by_task.items():
            if run.overdue or run.deadline > now or not run.handling:
                continue
            run.overdue = True
            if not run.in_thread:
                run.cancelled = True
                task.cancel()
                continue
            # A thread cannot be cancelled. Its lease is kept no longer, so that another may try.
            logger.error(
                "%s: %s did not end within %g s and runs in a thread, which cannot be cancelled; its event will be "
                "delivered again",
                self._where,
                self.name_of(task),
                self._timeout,
            )
            for delivery in run.deliveries:
                self._abandon(delivery)
        left = [run.deadline for run in self._by_task.values() if run.handling and not run.overdue]
        if left:
            self._timer = self._clock.call_at(min(left), self._check)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
