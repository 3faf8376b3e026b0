"""`Channels`: the receives of the native protocol, and what becomes of an answer that reaches nobody.

A client asks under a channel of its own and numbers what it asks. The server remembers the last answer of each
channel. So a client that was cancelled, or cut off, can say which answer it never saw, and what was in it is put back
as if it had never been taken. Nothing depends on the order in which that, the end of the connection and the
request itself are noticed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from starlette.types import Receive

from crossbus.adapter import Received
from crossbus_local.engine import Engine
from crossbus_local.queue import Queue
from crossbus_local.receiver import LocalReceiver

__all__ = ["Channels"]

KEPT: Final = 600.0
"""Seconds for which a channel is remembered after it was last used."""


class _Channel:
    __slots__ = ("lost", "number", "queue", "receiver", "tokens", "used")

    def __init__(self) -> None:
        self.number = 0
        self.lost = 0
        """Up to this number nobody waits for an answer any more."""
        self.receiver: LocalReceiver | None = None
        """What waits under the number."""
        self.queue: Queue | None = None
        self.tokens: Sequence[int] = ()
        """What was answered under the number."""
        self.used = 0.0


class Channels:
    """All channels of a server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._channels: OrderedDict[str, _Channel] = OrderedDict()
        self._ended = False

    async def receive(
        self, name: str, number: int, receiver: LocalReceiver, most: int, wait: float, gone: Receive
    ) -> Sequence[Received]:
        """Return up to `most` deliveries within `wait` seconds; none if they would reach nobody.

        `gone` is the ASGI `receive` of a request whose body was read: it returns when the client has gone away.
        """
        channel = self._channel(name)
        if number <= channel.lost:
            return ()
        if channel.number == number:  # asked again: the answer did not arrive
            self._give_back(channel)
        if channel.receiver is not None:  # an older one, whose client has gone and come again
            await channel.receiver.close()
        channel.number, channel.receiver, channel.tokens = number, receiver, ()
        try:
            taken = await receiver.receive(most, 0)
            if not taken and wait > 0 and not self._ended:
                taken = await self._wait(receiver, most, wait, gone)
        finally:
            replaced = channel.receiver is not receiver
            if not replaced:
                channel.receiver = None
        tokens = [one.lease for one in taken]
        if replaced or number <= channel.lost:
            self._engine.untake(receiver.queue, tokens)
            return ()
        channel.queue, channel.tokens = receiver.queue, tokens
        return taken

    async def _wait(
        self, receiver: LocalReceiver, most: int, wait: float, gone: Receive
    ) -> Sequence[Received]:
        left = False

        async def watch() -> None:
            nonlocal left
            while (await gone())["type"] != "http.disconnect":
                pass
            left = True
            await receiver.close()

        watching = asyncio.get_running_loop().create_task(watch())
        try:
            taken = await receiver.receive(most, wait)
            if taken and left:
                self._engine.untake(receiver.queue, [one.lease for one in taken])
                return ()
            return taken
        finally:
            watching.cancel()

    async def abandon(self, name: str, lost: int, arrived: int = 0) -> None:
        """Give up what was asked for under a channel up to a number, also if the request is still on its way.

        What was answered up to `arrived` is in the client's hands, and stays there.
        """
        channel = self._channel(name)
        channel.lost = max(channel.lost, lost)
        if not arrived < channel.number <= channel.lost:
            return
        if channel.receiver is not None:
            await channel.receiver.close()
        self._give_back(channel)

    def _give_back(self, channel: _Channel) -> None:
        if channel.queue is not None:
            self._engine.untake(channel.queue, channel.tokens)
        channel.queue, channel.tokens = None, ()

    async def end(self) -> None:
        """Have all that wait return with nothing, and let none wait any more."""
        self._ended = True
        for channel in list(self._channels.values()):
            if channel.receiver is not None:
                await channel.receiver.close()

    def _channel(self, name: str) -> _Channel:
        now = time.monotonic()
        channel = self._channels.setdefault(name, _Channel())
        self._channels.move_to_end(name)
        channel.used = now
        self._forget(now - KEPT)
        return channel

    def _forget(self, before: float) -> None:
        while self._channels:
            name, channel = next(iter(self._channels.items()))
            if channel.used >= before or channel.receiver is not None:
                return
            del self._channels[name]
