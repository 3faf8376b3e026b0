"""Fetching: receives for one consumer as much as there is room for, and goes on when receiving fails."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from crossbus.adapter import Adapter, Received, Receiver
from crossbus.asking import code_of, portable, was_cancelled
from crossbus.clock import Clock, sleep
from crossbus.topology import Subscription

if TYPE_CHECKING:
    from crossbus.telemetry.consuming import ConsumeTelemetry

__all__ = ["HEAD_START", "Fetcher", "after_turns"]

logger = logging.getLogger("crossbus")

WAIT: Final = 20.0
"""Seconds of one long poll, at most."""
MAX_PREFETCH: Final = 1000
"""The most deliveries held beyond those that handlers work on."""
MAX_HELD: Final = 1000
"""The most deliveries held back for a delay that the provider does not have."""
MAX_BYTES: Final = 64_000_000
"""The most bytes of bodies in hand or held back; nothing more is fetched above it."""
ADAPT_EVERY: Final = 0.05
"""Seconds after which the window is adapted; earlier once a whole window was handled, as at the beginning."""
BACKOFF_FIRST: Final = 0.2
BACKOFF_CAP: Final = 30.0
HEAD_START: Final = 3
"""Turns of the event loop in which the next request for events goes out, before handlers keep the loop busy."""


def after_turns(turns: int, call: Callable[[], None]) -> None:
    """Call after so many turns of the event loop; at once after none."""
    if turns:
        asyncio.get_running_loop().call_soon(after_turns, turns - 1, call)
    else:
        call()


class Fetcher:
    """Fetches for one consumer, and counts what it has.

    Args:
        window: The most in hand at once; None to adapt it to how fast events are handled.
        take: Called with what was received.
        on_failed: Called with the error when it is no use to go on.
    """

    def __init__(
        self,
        subscription: Subscription,
        adapter: Adapter,
        clock: Clock,
        *,
        telemetry: ConsumeTelemetry,
        window: int | None,
        take: Callable[[Sequence[Received]], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self._subscription = subscription
        self._adapter = adapter
        self._clock = clock
        self._telemetry = telemetry
        self._adapts = window is None
        self._take = take
        self._on_failed = on_failed
        self._batch = adapter.capabilities.receive_batch
        self._wait = min(WAIT, adapter.capabilities.receive_wait[1])
        self.window = window or subscription.concurrency
        """The most in hand at once, at the moment."""
        self.most = self.window + (MAX_PREFETCH if self._adapts else 0)
        """The most in hand at once, ever."""
        self.in_hand = 0
        self.held = 0
        """How many are held back for a delay: not in hand, and in memory still."""
        self.bytes = 0
        self._freed = 0
        self._room: asyncio.Future[None] | None = None
        self.allowed = asyncio.Event()
        """Set unless fetching is paused."""
        self.allowed.set()
        self.ok = False
        self.problem: str | None = None
        """What the last receive said, if it failed."""
        self._task: asyncio.Task[None] | None = None

    def start(self, receiver: Receiver) -> None:
        """Begin to fetch."""
        self.ok = True  # until a receive says otherwise: the first may wait long for an event
        self._task = asyncio.create_task(
            self._fetch(receiver),
            name=f"crossbus fetch {self._subscription}",
            context=self._telemetry.background(),
        )
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Fetch no more. What a receive that is cancelled had taken comes again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- room ---------------------------------------------------------------------------------------------------

    def count(self, size: int) -> None:
        """A delivery came in hand, with so many bytes."""
        self.in_hand += 1
        self.bytes += size

    def free(self, size: int) -> None:
        """A delivery is in hand no more."""
        self.in_hand -= 1
        self.bytes -= size
        self._freed += 1
        if self._room is not None:
            self._wake()

    def hold(self, size: int) -> None:
        """A delivery that was freed is held back."""
        self.held += 1
        self.bytes += size

    def unhold(self, size: int) -> None:
        """A delivery is held back no more."""
        self.held -= 1
        self.bytes -= size
        if self._room is not None:
            self._wake()

    def _wake(self) -> None:
        # Not at every place that is freed: fetching more at once costs less.
        if self._room is not None and self.in_hand <= self.window // 2 and not self._room.done():
            self._room.set_result(None)

    async def _wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        try:
            await self._room
        finally:
            self._room = None

    # --- the loop -----------------------------------------------------------------------------------------------

    async def _fetch(self, receiver: Receiver) -> None:
        backoff = BACKOFF_FIRST
        measured_at, measured = time.monotonic(), 0
        while True:
            await self.allowed.wait()
            want = min(self.window - self.in_hand, self._batch)
            if want <= 0 or self.bytes >= MAX_BYTES or self.held >= MAX_HELD:
                await self._wait_for_room()
                continue
            try:
                received = await self._telemetry.receive(receiver, want, self._wait)
            except (Exception, asyncio.CancelledError) as error:
                if was_cancelled(error):
                    raise
                self._note(error)
                known = code_of(self._adapter, error)
                if known is None or not known[1]:
                    self._fail(portable(self._adapter, error))
                    return
                logger.warning("%s: receiving failed, trying again: %s", self._subscription, self.problem)
                await sleep(self._clock, random.uniform(backoff / 2, backoff))
                backoff = min(backoff * 2, BACKOFF_CAP)
                continue
            backoff = BACKOFF_FIRST
            if not self.ok:
                logger.warning("%s: receiving again", self._subscription)
            self.ok, self.problem = True, None
            if received:
                self._take(received)
            now, handled = time.monotonic(), self._freed - measured
            if self._adapts and (now - measured_at >= ADAPT_EVERY or handled >= self.window):
                self._adapt(handled, now - measured_at)
                measured_at, measured = now, self._freed

    def _adapt(self, handled: int, elapsed: float) -> None:
        """Hold about a quarter of a second's work in advance: a slow handler hoards nothing."""
        rate = handled / max(elapsed, 1e-6)
        target = self._subscription.concurrency + min(int(rate / 4), MAX_PREFETCH)
        wanted = (self.window + target + 1) // 2
        # Measured for a moment only, it may be far off: no more is held than twice what was handled in it.
        self.window = wanted if elapsed >= ADAPT_EVERY else min(wanted, 2 * self.window)

    def _note(self, error: BaseException) -> None:
        self.ok = False
        self.problem = f"{type(error).__name__}: {error}"

    def _fail(self, error: BaseException) -> None:
        logger.error("%s: receiving failed for good: %s", self._subscription, self.problem)
        self._on_failed(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note(error)  # unforeseen, such as an adapter that returns what is no delivery
            self._fail(error)
