"""`Shelf`: dead letters at a provider that can show nothing without handing it out, as queues are.

A listing receives the records, remembers them for a moment, in case some are to be removed, and then gives them back.
For that moment (`KEEP` seconds after the last look) nobody else sees them; a process that dies meanwhile hides them
until their leases end. Within one process all look at the same shelf, so that one does not hide them from another.

A look by pages is for any number of records. It promises no order, holds what it gave without the bodies, so that it
does not come again, and gives all back when it ends: at the latest when it holds as many as it may.

For adapters: a subclass says how records are taken, ordered, removed and given back; when that happens is said here.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from crossbus.adapter import LeaseOutcome, Received

__all__ = ["KEEP", "STALE", "Shelf", "without_body"]

logger = logging.getLogger("crossbus")

H = TypeVar("H")
KEEP: Final = 1.0
"""Seconds after the last look for which records are held."""
STALE: Final = 20
"""Batches in a row without a new record after which a look by pages ends: what it held has begun to come again."""


class Shelf(ABC, Generic[H]):
    """The records of one dead letter that are held, so that they can be removed after they were seen.

    The methods that a subclass gives are called one at a time.

    Args:
        name: The provider's name of the dead letter, for what is logged.
    """

    most: ClassVar[int] = 100_000
    """The most records that a look by pages holds, and so can leave where they are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: dict[str, H] = {}
        """What is held, by the id of its message, which is also what `remove` takes."""
        self._paging = 0
        """How many looks by pages are under way."""
        self._turn = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # --- what a subclass gives ----------------------------------------------------------------------------------

    @abstractmethod
    async def _fill(self, limit: int | None) -> None:
        """Take records into `held` until there are so many, if the provider has an order, or no more come."""

    @abstractmethod
    async def _take(self, most: int) -> list[str] | None:
        """Take a batch of up to so many records into `held`, for a look by pages; None if no more come.

        Returns the ids of those that are held now; none if something else was to be done with all that came.
        """

    @abstractmethod
    async def _keep(self) -> None:
        """See to the leases of what is held, before a look by pages goes on: extend them, or forget what is lost."""

    @abstractmethod
    def _bare(self, held: H) -> H:
        """Return a record as `without_body` has it, but still to be removed or given back."""

    @abstractmethod
    def _received(self, held: H) -> Received:
        """Return a record as the contract has it. Its lease is the id of its message."""

    @abstractmethod
    def _age(self, held: H) -> Any:
        """Return what sorts records, the oldest first."""

    @abstractmethod
    async def _remove(self, ids: Sequence[str]) -> list[LeaseOutcome]:
        """Remove records at the provider and from `held`, taking them first if need be; an answer for each."""

    @abstractmethod
    async def _put_back(self, held: Sequence[H]) -> None:
        """Give records back, to be seen by everybody at once."""

    # --- what users of it call ----------------------------------------------------------------------------------

    async def look(self, limit: int) -> list[Received]:
        """Return up to `limit` records, oldest first."""
        async with self._turn:
            try:
                if any(_is_bare(self._received(held)) for held in self.held.values()):
                    await self._release()
                await self._fill(limit)
                found = sorted(self.held.values(), key=self._age)
            finally:
                self._give_back_soon()
        return [self._received(held) for held in found[:limit]]

    async def pages(self, size: int) -> AsyncGenerator[list[Received], None]:
        """Give records, up to `size` at once, in the order in which the provider hands them out.

        All that was given and not removed is held until the look ends: at the end, when `most` are held, or when
        nothing new comes. One such look at a time sees all.
        """
        seen: set[str] = set()
        stale = 0
        async with self._turn:
            await self._release()
        self._paging += 1
        try:
            while len(self.held) < self.most and stale < STALE:
                async with self._turn:
                    await self._keep()
                    came = await self._take(max(1, min(size, self.most - len(self.held))))
                    if came is None:
                        # Whoever looked or removed meanwhile may have taken some for all.
                        came = [id for id in self.held if id not in seen][:size]
                        if not came:
                            return
                    page = self._let_go(came, seen)
                stale = 0 if page or not came else stale + 1
                if page:
                    yield page
                    if len(seen) > 2 * self.most:  # most were removed: they do not come again
                        seen.intersection_update(self.held)
        finally:
            self._paging -= 1
            self._give_back_soon()

    def _let_go(self, ids: Sequence[str], seen: set[str]) -> list[Received]:
        """Return those records that were not seen, and hold them all without their bodies."""
        page = []
        for id in ids:
            held = self.held[id]
            received = self._received(held)
            if id not in seen:
                seen.add(id)
                if not _is_bare(received):
                    page.append(received)
            self.held[id] = self._bare(held)
        return page

    async def remove(self, ids: Sequence[str]) -> list[LeaseOutcome]:
        """Remove records by the ids of their messages; `LOST` for one that is not there any more."""
        async with self._turn:
            try:
                return await self._remove(ids)
            finally:
                self._give_back_soon()

    async def give_back(self) -> None:
        """Give back all that is held, unless somebody looks again or still. Nothing raises: leases end anyway."""
        async with self._turn:
            if self._timer is None and not self._paging:
                await self._release()

    async def close(self) -> None:
        """Give back all that is held, at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            await asyncio.wait({self._task})
        async with self._turn:
            await self._release()

    async def _release(self) -> None:
        held, self.held = list(self.held.values()), {}
        if held:
            try:
                await self._put_back(held)
            except Exception as error:
                logger.warning(
                    "dead letters of %s could not be given back, and come again when their leases end: %s",
                    self.name,
                    error,
                )

    # --- when ---------------------------------------------------------------------------------------------------

    def _give_back_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(KEEP, self._due)

    def _due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self.give_back(), name=f"crossbus dead letters of {self.name}")


def without_body(received: Received) -> Received:
    """Return what is left of a record that is only to be removed or given back."""
    return Received(received.lease, b"", {}, received.message_id)


def _is_bare(received: Received) -> bool:
    """Return whether a record has let go of its body: no provider takes a message that holds nothing at all."""
    return not received.body and not received.attributes
