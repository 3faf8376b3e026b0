"""`EventGridReceiver`: deliveries from one queue subscription, under locks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from crossbus.adapter import LeaseOutcome, Received, Receiver, Settlement
from crossbus.capabilities import Capabilities
from crossbus_eventgrid.polling import Polling, settle_tokens
from crossbus_eventgrid.rest import Place, Rest

__all__ = ["EventGridReceiver"]

_NO_ATTRIBUTES: dict[str, Any] = {}


class EventGridReceiver(Receiver):
    """Takes deliveries from one queue subscription. A lease is a lock token."""

    def __init__(self, rest: Rest, place: Place, lease: float, capabilities: Capabilities) -> None:
        self._rest = rest
        self._place = place
        self._lease = lease
        self._most = capabilities.receive_batch
        self._waits = capabilities.receive_wait
        self._polling = Polling(rest, place)

    async def receive(self, max: int, wait: float) -> Sequence[Received]:
        """Return up to `max` deliveries, as soon as there is one, or none after `wait` seconds; 10 at least.

        If it is cancelled, what Event Grid hands out within half a second is released; what it hands out at the
        moment the connection ends comes again when its lock ends.
        """
        shortest, longest = self._waits
        seconds = math.ceil(min(longest, wait if wait > shortest else shortest))
        taken = await self._polling.poll(min(max, self._most), seconds)
        return [
            Received(token, body, _NO_ATTRIBUTES, id, attempt=count, lease_seconds=self._lease)
            for token, count, body, id in taken
        ]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """Acknowledge deliveries, or release them: one request for each delay."""
        groups: dict[float | None, list[int]] = {}
        for index, settlement in enumerate(settlements):
            groups.setdefault(settlement.delay, []).append(index)
        outcomes = [LeaseOutcome.FAILED] * len(settlements)
        answers = await asyncio.gather(
            *(self._settle(delay, [settlements[i].lease for i in found]) for delay, found in groups.items()),
            return_exceptions=True,
        )
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if failed and len(failed) == len(answers):
            raise failed[0]
        for found, answer in zip(groups.values(), answers, strict=True):
            if not isinstance(answer, BaseException):
                for index, outcome in zip(found, answer, strict=True):
                    outcomes[index] = outcome
        return outcomes

    async def _settle(self, delay: float | None, tokens: Sequence[str]) -> list[LeaseOutcome]:
        if delay is None:
            return await settle_tokens(self._rest, self._place, "acknowledge", tokens)
        return await settle_tokens(
            self._rest, self._place, "release", tokens, {"releaseDelayInSeconds": int(delay)}
        )

    async def extend(self, leases: Sequence[Any], seconds: float) -> Sequence[LeaseOutcome]:
        """Renew locks. They last as long as the subscription says, whatever `seconds` is."""
        return await settle_tokens(self._rest, self._place, "renewLock", leases)

    async def close(self) -> None:
        """Let those who wait in `receive` return, and release what their polls still bring."""
        await self._polling.close()
