"""`Polls`: the receives that wait. They end when there is something, when their time is over, when the client goes
away, and when the server is told to stop.

A client that is gone takes nothing: before deliveries are taken, and again before they are sent, the event loop gets
the chance to see that the connection was closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request

from crossbus.adapter import Received
from crossbus_local.engine import Engine
from crossbus_local.receiver import LocalReceiver

__all__ = ["Polls"]

_TURNS: Final = 3
"""How many turns the event loop needs from the end of a connection to our learning of it."""


class Polls:
    """All receives of a server that are under way."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: set[LocalReceiver] = set()
        self._ended = False

    async def receive(
        self, request: Request, receiver: LocalReceiver, most: int, wait: float
    ) -> Sequence[Received] | None:
        """Return up to `most` deliveries within `wait` seconds, or None if the client is gone.

        The receiver belongs to this call alone. Raises what it raises.
        """
        client = _Client(request, receiver)
        self._waiting.add(receiver)
        try:
            if await client.is_gone():
                return None
            taken = await receiver.receive(most, 0 if self._ended else wait)
            if taken and await client.is_gone():
                self._engine.untake(receiver.queue, [one.lease for one in taken])
                return None
            return taken
        finally:
            self._waiting.discard(receiver)
            client.forget()

    async def end(self) -> None:
        """Have all that wait return with nothing, and let none wait any more."""
        self._ended = True
        for receiver in list(self._waiting):
            await receiver.close()


class _Client:
    """The other end of a request, which may go away at any time."""

    def __init__(self, request: Request, receiver: LocalReceiver) -> None:
        self._gone = False
        self._task = asyncio.get_running_loop().create_task(self._watch(request, receiver))

    async def _watch(self, request: Request, receiver: LocalReceiver) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        await receiver.close()

    async def is_gone(self) -> bool:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return self._gone

    def forget(self) -> None:
        self._task.cancel()
