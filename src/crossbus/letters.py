"""Looking after the dead letter of a subscription: list, sum up, put back, remove. However many records there are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from crossbus.adapter import Adapter, LeaseOutcome, Looking, PutBack, Received, Wire
from crossbus.asking import guarded
from crossbus.clock import sleep
from crossbus.deadletter import DeadLetter, Head, read_head, read_record, wire_of
from crossbus.errors import ErrorCode, provider_error
from crossbus.letter_choice import Choice, ids_of
from crossbus.letter_summary import Counting, DeadLetterSummary
from crossbus.topology import Subscription

if TYPE_CHECKING:
    from crossbus.telemetry.publishing import PublishTelemetry

__all__ = ["DeadLetters", "Tally"]

logger = logging.getLogger("crossbus")

ATTEMPTS: Final = 5
"""How often putting back is tried, if the provider says that trying again may help."""
FIRST_DELAY: Final = 0.5
"""Seconds before the second attempt; twice as long before each further one."""


@dataclass
class Tally:
    """How far redriving or purging came."""

    done: int = 0
    """Put back, or removed."""
    gone: int = 0
    """Records that somebody else had taken by then: nothing was done."""
    twice: int = 0
    """Put back, but somebody else had the record by then, and may have put it back as well."""
    refused: int = 0
    """Not put back: the provider does not take this event. Their records are kept."""
    refusal: str = ""
    """What it said of the first of these."""
    newer: int = 0
    """Records that came after the redriving had begun: they are left, or it might never end."""
    kept: int = 0
    """Records that were looked at and left where they are."""


class DeadLetters:
    """The dead letter of one subscription. From `Bus.dead_letters`.

    Everything that narrows down takes the same arguments: `type` and `reason`, in which ``*`` stands for any text,
    and `since`, the time since when they were given up.
    """

    def __init__(self, adapter: Adapter, subscription: Subscription, telemetry: PublishTelemetry) -> None:
        self._adapter = adapter
        self._telemetry = telemetry
        self._subscription = subscription
        self._queue = adapter.dead_letters(subscription)

    @property
    def looking(self) -> Looking:
        """What a look costs others where the provider can only be read by receiving; nothing on the local broker."""
        return self._queue.looking

    async def list(
        self,
        *,
        limit: int = 100,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
    ) -> Sequence[DeadLetter]:
        """Return the oldest dead letters, up to `limit`. Removes none."""
        if limit <= 0:
            return []
        choice = Choice(type, reason, since)
        if choice.all:
            found = await guarded(self._adapter, self._queue.browse(limit))
            return [self._read(received) for received in found]
        chosen: list[tuple[Head, DeadLetter]] = []
        async with aclosing(self._chosen(choice, Tally())) as pages:
            async for page in pages:
                chosen += [(head, self._read(received)) for head, received in page]
                if self.looking.hides:  # in no order: the oldest may come last
                    chosen.sort(key=lambda one: (one[0].last_time or "").removesuffix("Z"))
                    del chosen[limit:]
                elif len(chosen) >= limit:
                    break
        return [letter for _, letter in chosen[:limit]]

    async def scan(
        self,
        *,
        ids: Iterable[str] | None = None,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        tally: Tally | None = None,
    ) -> AsyncGenerator[DeadLetter, None]:
        """Give dead letters one after the other, in memory that does not grow; in an order that costs nothing.

        `ids` are of dead letters, or of events. Removes none. With a `tally`, its `kept` says how many were looked at.
        """
        left = limit
        choice = Choice(type, reason, since, ids_of(ids))
        async with aclosing(self._chosen(choice, tally or Tally(), limit=limit)) as pages:
            async for page in pages:
                for _, received in page if left is None else page[:left]:
                    yield self._read(received)
                if left is not None and (left := left - len(page)) <= 0:
                    return

    async def summary(
        self,
        ids: Iterable[str] | None = None,
        *,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
    ) -> DeadLetterSummary:
        """Count dead letters by reason, event type and handler. Removes none."""
        found = Counting()
        tally = Tally()
        async with aclosing(self._chosen(Choice(type, reason, since, ids_of(ids)), tally)) as pages:
            async for page in pages:
                found.add(page)
                await asyncio.sleep(0)
        return found.summary(complete=self.reached_all(tally))

    def reached_all(self, tally: Tally) -> bool:
        """Return whether a look that left so many where they are has reached all that there are."""
        most = self.looking.most
        return most is None or tally.kept < most

    async def redrive(
        self,
        ids: Iterable[str] | None = None,
        *,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        rate: float | None = None,
        tally: Tally | None = None,
        progress: Callable[[Tally], object] | None = None,
        stop: asyncio.Event | None = None,
    ) -> int:
        """Put dead letters back into their subscription, and into no other. Returns how many were put back.

        The event keeps its id. A record is removed only after its event was put back, so that a stop half way
        duplicates rather than loses: on the local broker not even that, for there it is one step. What comes into the
        dead letter meanwhile, perhaps because it failed again, is left.

        Args:
            ids: Only these, by the id of the dead letter or of the event. Default: all.
            type: Only events of this type.
            reason: Only those that were given up for this reason.
            since: Only those that were given up since then.
            limit: At most so many.
            rate: At most so many a second. Default: as fast as it goes.
            tally: Where it is noted how far it came.
            progress: Called with the tally after each step.
            stop: When it is set, the step under way is finished, and no other begun.

        Raises:
            NotFound: there is no dead letter with one of the ids; then nothing was done. Or the subscription is gone.
            InvalidRequest: the provider does not take some of the events; all others were put back.
            ProviderError: what the provider said, after retries. What was put back before it is said.
        """
        tally = Tally() if tally is None else tally
        started = self._adapter.clock.time()
        wanted = ids_of(ids)
        choice = Choice(type, reason, since, wanted, None if wanted else started)
        pace = _Pace(self._adapter, rate, stop)

        async def put_back(letters: Sequence[DeadLetter]) -> None:
            records = [
                (one.received.lease, wire_of(self._adapter, self._subscription, one)) for one in letters
            ]
            for part in _parts(records, self._adapter.capabilities.publish_batch_bytes):
                await self._put_back(part, letters, tally)
                if progress is not None:
                    progress(tally)
                await pace.after(len(part))

        await self._each(choice, limit, pace, tally, put_back)
        if tally.twice:
            logger.warning(
                "%d dead letters of %s were put back while somebody else had them: they may come twice",
                tally.twice,
                self._subscription,
            )
        if tally.refused:
            raise provider_error(
                ErrorCode.INVALID_REQUEST,
                f"{tally.refused} dead letters of {self._subscription} were not put back, and keep their records "
                f"({tally.done} others were); of the first it was said: {tally.refusal}",
            )
        return tally.done

    async def purge(
        self,
        ids: Iterable[str] | None = None,
        *,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        before: Callable[[Sequence[DeadLetter]], Awaitable[object]] | None = None,
        tally: Tally | None = None,
        progress: Callable[[Tally], object] | None = None,
        stop: asyncio.Event | None = None,
    ) -> int:
        """Remove dead letters for good; all of them, or those chosen as by `redrive`. Returns how many.

        `before` is awaited with those that are removed next: for whoever wants to keep them.
        """
        tally = Tally() if tally is None else tally
        wanted = ids_of(ids)
        started = self._adapter.clock.time()
        choice = Choice(type, reason, since, wanted, None if wanted else started)

        async def remove(letters: Sequence[DeadLetter]) -> None:
            if before is not None:
                await before(letters)
            await self._delete(letters, tally)
            if progress is not None:
                progress(tally)

        await self._each(choice, limit, _Pace(self._adapter, None, stop), tally, remove)
        return tally.done

    # --- how it is done -----------------------------------------------------------------------------------------

    def _read(self, received: Received) -> DeadLetter:
        return read_record(self._adapter, self._subscription, received)

    async def _chosen(
        self,
        choice: Choice,
        tally: Tally,
        *,
        size: int = 1000,
        limit: int | None = None,
        stop: asyncio.Event | None = None,
    ) -> AsyncGenerator[Sequence[tuple[Head, Received]], None]:
        """Give what is chosen, a page at a time, and count what is looked at."""
        size = size if limit is None or not choice.all else min(size, max(limit, 1))
        async with aclosing(self._queue.pages(size)) as pages:
            while stop is None or not stop.is_set():
                try:
                    page = await guarded(self._adapter, anext(pages))
                except StopAsyncIteration:
                    return
                tally.kept += len(page)
                heads = [(read_head(self._adapter, received), received) for received in page]
                found = heads if choice.all else [one for one in heads if choice.takes(one[0])]
                if choice.until is not None:
                    tally.newer += sum(choice.is_newer(head) for head, _ in heads)
                if found:
                    yield found

    async def _each(
        self,
        choice: Choice,
        limit: int | None,
        pace: _Pace,
        tally: Tally,
        work: Callable[[Sequence[DeadLetter]], Awaitable[None]],
    ) -> None:
        """Do some work with all that is chosen, in steps."""
        if choice.ids is not None:
            await self._check_there(choice.ids, pace.stop)
        size = pace.step(self._queue.batch)
        left = limit
        async with aclosing(self._chosen(choice, tally, size=size, stop=pace.stop)) as pages:
            async for page in pages:
                if pace.stopped:
                    return
                found = [self._read(received) for _, received in (page if left is None else page[:left])]
                before = tally.done + tally.gone
                await work(found)
                tally.kept -= tally.done + tally.gone - before
                if left is not None and (left := left - len(found)) <= 0:
                    return

    async def _check_there(self, ids: frozenset[str], stop: asyncio.Event | None) -> None:
        missing = set(ids)
        if missing:
            choice = Choice(None, None, None, ids)
            async with aclosing(self._chosen(choice, Tally(), stop=stop)) as pages:
                async for page in pages:
                    for head, _ in page:
                        missing -= {head.id, head.event_id}
                    if not missing:
                        return
        if missing and not (stop is not None and stop.is_set()):
            raise provider_error(
                ErrorCode.NOT_FOUND,
                f"there is no dead letter {min(missing)!r} in {self._subscription}; nothing was done",
            )

    async def _put_back(
        self, records: Sequence[tuple[object, Wire]], letters: Sequence[DeadLetter], tally: Tally
    ) -> None:
        known = {letter.received.lease: letter for letter in letters}
        delay = FIRST_DELAY
        for attempt in range(1, ATTEMPTS + 1):
            answers = await self._ask_to_put_back(records, [known[lease] for lease, _ in records])
            again: list[tuple[object, Wire]] = []
            failed: PutBack | None = None
            for record, answer in zip(records, answers, strict=True):
                sent = answer.outcome
                if sent is None:
                    tally.gone += 1
                elif sent.code is None:
                    self._note(answer.removed, known[record[0]].id, tally)
                elif sent.code is ErrorCode.INVALID_REQUEST:
                    tally.refused += 1
                    tally.refusal = tally.refusal or sent.message
                else:
                    again.append(record)
                    failed = failed or answer
            if failed is None or failed.outcome is None:
                return
            if not failed.outcome.retryable or attempt == ATTEMPTS:
                first = known[again[0][0]].id
                raise provider_error(
                    failed.outcome.code or ErrorCode.UNKNOWN,
                    f"dead letter {first!r} of {self._subscription} was not put back ({tally.done} before "
                    f"it were): {failed.outcome.message}",
                    retryable=failed.outcome.retryable,
                    cause=failed.outcome.cause,
                )
            await sleep(self._adapter.clock, delay)
            delay *= 2
            records = again

    async def _ask_to_put_back(
        self, records: Sequence[tuple[object, Wire]], letters: Sequence[DeadLetter]
    ) -> Sequence[PutBack]:
        redrive = self._telemetry.start_redrive([letter.event for letter in letters])
        try:
            answers = await guarded(self._adapter, self._queue.put_back(records))
        except BaseException as error:
            if redrive is not None:
                redrive.failed(error)
            raise
        if redrive is not None:
            redrive.ended(answers)
        return answers

    def _note(self, removed: LeaseOutcome, id: str, tally: Tally) -> None:
        if removed is LeaseOutcome.FAILED:
            raise provider_error(
                ErrorCode.UNAVAILABLE,
                f"dead letter {id!r} of {self._subscription} was put back, but its record remains: redriving it again "
                f"duplicates it ({tally.done} before it were put back)",
            )
        tally.done += 1
        tally.twice += removed is LeaseOutcome.LOST

    async def _delete(self, letters: Sequence[DeadLetter], tally: Tally) -> None:
        leases = [letter.received.lease for letter in letters]
        outcomes = await guarded(self._adapter, self._queue.delete(leases))
        tally.done += outcomes.count(LeaseOutcome.OK)
        tally.gone += outcomes.count(LeaseOutcome.LOST)
        failed = outcomes.count(LeaseOutcome.FAILED)
        if failed:
            raise provider_error(
                ErrorCode.UNAVAILABLE,
                f"{failed} of {len(letters)} dead letters of {self._subscription} remain",
            )


class _Pace:
    """Waits as long as a rate demands, unless somebody stops it."""

    def __init__(self, adapter: Adapter, rate: float | None, stop: asyncio.Event | None) -> None:
        self._clock = adapter.clock
        self._rate = rate
        self.stop = stop
        self._due = self._clock.monotonic()

    @property
    def stopped(self) -> bool:
        return self.stop is not None and self.stop.is_set()

    def step(self, most: int) -> int:
        """Return how many to take at once, so that it goes on evenly."""
        return most if self._rate is None else max(1, min(most, int(self._rate / 4)))

    async def after(self, count: int) -> None:
        """Wait after so many."""
        if self._rate is None:
            return
        self._due = max(self._due, self._clock.monotonic() - 1) + count / self._rate
        waiting = asyncio.ensure_future(sleep(self._clock, self._due - self._clock.monotonic()))
        stopping = asyncio.ensure_future((self.stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            stopping.cancel()


def _parts(records: Sequence[tuple[object, Wire]], room: int) -> list[list[tuple[object, Wire]]]:
    """Divide records so that the events of each part fit into one request."""
    parts: list[list[tuple[object, Wire]]] = []
    size = 0
    for record in records:
        if not parts or size + record[1].size > room:
            parts.append([])
            size = 0
        parts[-1].append(record)
        size += record[1].size
    return parts
