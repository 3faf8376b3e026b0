"""`Settling`: settlements of one receiver, one request after the other, each with all that came meanwhile.

Handlers end one by one; a request for each would cost more than handling it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from crossbus.adapter import LeaseOutcome, Settlement
from crossbus.errors import NotFound, ProviderError
from crossbus_local.protocol import LeaseAnswers, Settle, SettleOne, data_decoder

if TYPE_CHECKING:
    from crossbus_local.remote.adapter import RemoteAdapter

__all__ = ["LONGEST", "Settling"]

LONGEST: Final = 1e12
"""The longest time that is sent, in seconds: some 30,000 years."""
MOST: Final = 1000
"""The most settlements of one request."""
REMEMBERED: Final = 10_000
"""How many settlements without an answer are remembered."""

_answers = data_decoder(LeaseAnswers)


class Settling:
    """See the module's text."""

    def __init__(self, adapter: RemoteAdapter, path: str) -> None:
        self._adapter = adapter
        self._path = path
        self._waiting: list[tuple[Settlement, asyncio.Future[LeaseOutcome]]] = []
        self._task: asyncio.Task[None] | None = None
        self._unsure: dict[Settlement, None] = {}
        """What was asked for, but not answered: asked again, it says so, and is not taken for a lost lease."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[LeaseOutcome]:
        """Settle, and return what became of each. Raises what the request raised."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in settlements]
        self._waiting.extend(zip(settlements, futures, strict=True))
        if self._task is None and self._waiting:
            self._task = loop.create_task(self._run(), name="crossbus settle remote")
        return [await future for future in futures] if futures else []

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                try:
                    outcomes = await self._ask([settlement for settlement, _ in batch])
                    for (_, future), outcome in zip(batch, outcomes, strict=True):
                        if not future.done():
                            future.set_result(outcome)
                except BaseException as error:
                    _fail(batch, error)
                    if not isinstance(error, Exception):
                        raise
        finally:
            self._task = None

    async def _ask(self, batch: list[Settlement]) -> list[LeaseOutcome]:
        forms = [
            SettleOne(one.lease, None if one.delay is None else min(one.delay, LONGEST), one in self._unsure)
            for one in batch
        ]
        try:
            answer = await self._adapter.client.data(self._path, Settle(forms), _answers)
        except NotFound:  # the subscription is gone, and what was in it
            return [LeaseOutcome.LOST] * len(batch)
        except ProviderError:
            self._unsure.update(dict.fromkeys(batch))
            for old in list(self._unsure)[: max(0, len(self._unsure) - REMEMBERED)]:
                del self._unsure[old]
            raise
        for one in batch if self._unsure else ():
            self._unsure.pop(one, None)
        return [LeaseOutcome(outcome) for outcome in answer.outcomes]


def _fail(batch: list[tuple[Settlement, asyncio.Future[LeaseOutcome]]], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
            future.exception()  # who asked may be gone
