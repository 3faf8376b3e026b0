"""Knowing when a bus has nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from crossbus.bus import Bus
from crossbus.consuming import Consumer
from crossbus.testing.broker import PrivateBroker

__all__ = ["Idleness"]

_ROUNDS = 25
"""How often others may run before nothing counts as nothing: as for the clock."""
_PAUSE = 0.002
"""Seconds between two looks, once it takes longer: at a thread, or at the network."""


class Idleness:
    """Watches a bus on a private broker."""

    def __init__(self, bus: Bus, broker: PrivateBroker) -> None:
        self._bus = bus
        self._broker = broker

    async def wait(self, timeout: float) -> None:
        """Wait until the bus is idle. Raises `TimeoutError` that names what is busy after `timeout` seconds.

        Raises also what made a consumer end.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            seen = self._broker.activity
            busy = self._busy()
            if not busy:
                await _rounds()
                if self._broker.activity == seen and not self._busy():
                    return
            if loop.time() >= end:
                what = "; ".join(self._busy() or ["events keep being published and handled"])
                raise TimeoutError(f"the bus is not idle after {timeout:g} s: {what}")
            if busy:
                await _rounds()
                if self._broker.activity == seen:
                    await asyncio.sleep(_PAUSE)

    async def rest(self, limit: float) -> None:
        """Let everything run until it waits for time to pass, or for something outside.

        Handlers that are plain functions are waited for, up to `limit` seconds: no thread waits for a test's clock.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while True:
            seen = self._broker.activity
            await _rounds()
            if loop.time() >= end:
                return
            if self._is_in_thread():
                await asyncio.sleep(_PAUSE)
            elif self._broker.activity == seen:
                return

    def _consumers(self) -> list[Consumer]:
        return list(self._bus._runner._consumers.values())

    def _is_in_thread(self) -> bool:
        return any(
            run.in_thread and not run.overdue
            for consumer in self._consumers()
            for run in consumer._processor.runs.all()
        )

    def _busy(self) -> list[str]:
        """Say what goes on. Raises what made a consumer end."""
        found = [
            f"publishing to {topic!r} is under way"
            for topic, publisher in self._bus._publishers.items()
            if not publisher.is_idle
        ]
        for consumer in self._consumers():
            if consumer.failed is not None and consumer.failed.done():
                consumer.failed.result()
            found.extend(self._busy_with(consumer))
        return found

    def _busy_with(self, consumer: Consumer) -> Iterator[str]:
        where = str(consumer.subscription)
        running = 0
        for run in consumer._processor.runs.all():
            running += len(run.deliveries)
            name = f"handler {run.handler.name}" if run.handler is not None else "middleware"
            first = run.deliveries[0] if run.deliveries else None
            attempt = "" if first is None else f", attempt {first.attempt}"
            many = f", {len(run.deliveries)} events" if len(run.deliveries) > 1 else ""
            yield f"{name} of {where} runs{many}{attempt}"
        waiting = consumer.health().in_hand - running
        if waiting > 0:
            yield f"{waiting} in hand of {where}, not begun or not settled"
        elif not running and not consumer.is_quiet:
            yield f"{where} is being settled"
        receiver = self._broker.receivers.get(consumer.subscription.key)
        if not running and waiting <= 0 and not consumer.is_paused and not (receiver and receiver.waits):
            yield f"{where} is being fetched"


async def _rounds() -> None:
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
