"""What waits in a publisher: events on their way, and those who wait for room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from crossbus.adapter import SendOutcome, Wire
from crossbus.errors import CrossbusError

if TYPE_CHECKING:
    from crossbus.telemetry.publishing import Sending

__all__ = ["Turn", "Waiting"]

logger = logging.getLogger("crossbus")


class Waiting:
    """An event on its way: its wire, and whom to tell."""

    __slots__ = ("_tell", "event_id", "sending", "wire")

    def __init__(
        self,
        wire: Wire,
        event_id: str,
        tell: Callable[[SendOutcome | CrossbusError], None],
        sending: Sending | None,
    ) -> None:
        self.wire = wire
        self.event_id = event_id
        self.sending = sending
        self._tell = tell

    def done(self, outcome: SendOutcome | CrossbusError) -> None:
        """Tell what became of it. What goes wrong in there must not keep the others of its batch from being told."""
        try:
            self._tell(outcome)
        except Exception:
            logger.exception("the outcome of event %r could not be told", self.event_id)


class Turn:
    """A place in the line of those who wait for room: kept until its event is in the queue, so that none overtakes."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Let it look whether there is room by now."""
        if not self.woken.done():
            self.woken.set_result(None)
